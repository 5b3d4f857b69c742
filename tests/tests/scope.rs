//! Who a policy is for: scopes that take in and leave out, labels by hand and by rule, the walk that turns them into assignments, and
//! the dry run. On both databases.

#[path = "scope/oracle.rs"]
mod oracle;
#[path = "scope/rules.rs"]
mod rules;
#[path = "scope/world.rs"]
mod world;

use std::collections::BTreeSet;

use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::EnrollmentId;
use mdm_tests::on_both;
use policy::{Excluded, Scope};
use serde_json::json;
use uuid::Uuid;
use world::{World, label, phone};

fn left_out(scope: Scope, labels: &[&str], ids: &[EnrollmentId]) -> Scope {
    let labels = labels.iter().map(|l| label(l)).collect();
    Scope { exclude: Excluded { labels, enrollment_ids: ids.iter().map(|id| id.0).collect() }, ..scope }
}

#[tokio::test]
async fn an_assignment_writes_lines_and_the_reconcile_loop_the_rest() {
    on_both(|store| async move {
        let w = World::new(store);
        let (one, two, three) = (w.enroll(phone(1)).await, w.enroll(phone(2)).await, w.enroll(phone(3)).await);
        let user = w.enroll_user(one).await;
        let policy = w.policy(json!({})).await;
        let change = w.scope(policy, &left_out(Scope::everybody(), &[], &[two])).await;
        assert_eq!((change.targets, change.assigned, change.leaving), (2, 2, 0));
        assert!(w.assigned(policy).await.is_empty(), "nothing in the request");
        w.reconcile().await;
        assert_eq!(w.assigned(policy).await, BTreeSet::from([one, three]), "the policy is not for user channels");
        assert!(w.assignment(policy, user).await.is_none());

        // The same again: nobody is new, nobody leaves, nobody is looked at again.
        let before = w.assignment(policy, one).await.unwrap();
        let change = w.scope(policy, &left_out(Scope::everybody(), &[], &[two])).await;
        assert_eq!((change.targets, change.assigned, change.leaving), (2, 0, 0));
        w.reconcile().await;
        assert_eq!(w.assignment(policy, one).await.unwrap().due_at, before.due_at);

        let change = w.scope(policy, &Scope::enrollments([two])).await;
        assert_eq!((change.targets, change.assigned, change.leaving), (1, 1, 2));
        w.reconcile().await;
        assert_eq!(
            w.assigned(policy).await,
            BTreeSet::from([two]),
            "nothing was sent to the others: they are forgotten"
        );
    })
    .await;
}

#[tokio::test]
async fn who_enrolls_later_is_picked_up_by_itself() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy(json!({"channel": "both"})).await;
        w.scope(policy, &left_out(Scope::everybody(), &["lab"], &[])).await;
        w.reconcile().await;
        let mac = w.enroll(world::mac(1, "14.5")).await;
        let user = w.enroll_user(mac).await;
        assert_eq!(w.assigned(policy).await, BTreeSet::from([mac, user]));
        w.label(mac, "lab", true).await;
        w.reconcile().await;
        assert!(w.assigned(policy).await.is_empty(), "a device that is left out takes its users with it");
        w.label(mac, "lab", false).await;
        w.reconcile().await;
        assert_eq!(w.assigned(policy).await, BTreeSet::from([mac, user]));
    })
    .await;
}

#[tokio::test]
async fn a_scope_that_cannot_be_meant_is_refused_and_nothing_is_written() {
    on_both(|store| async move {
        let w = World::new(store);
        let one = w.enroll(phone(1)).await;
        let policy = w.policy(json!({})).await;
        w.scope(policy, &Scope::enrollments([one])).await;
        let nobody = EnrollmentId(Uuid::from_u128(5));
        let cases = [
            (left_out(Scope::label(label("a")), &["a"], &[]), "exclude.labels"),
            (left_out(Scope::enrollments([one]), &[], &[one]), "exclude.enrollment_ids"),
            (left_out(Scope::default(), &["a"], &[]), "exclude"),
            (Scope::enrollments([nobody]), "enrollment_ids"),
            (left_out(Scope::everybody(), &[], &[nobody]), "exclude.enrollment_ids"),
        ];
        for (scope, field) in cases {
            let mut tx = w.store.begin().await.unwrap();
            let refused = policy::set_scope(&mut tx, policy, &scope, "test", w.now()).await.unwrap_err();
            let policy::Error::Invalid(invalid) = refused else { panic!("{refused}") };
            assert_eq!(invalid.0.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), [field]);
            tx.rollback().await.unwrap();
        }
        let mut tx = w.store.read().await.unwrap();
        assert_eq!(policy::scope(&mut tx, policy).await.unwrap(), Scope::enrollments([one]));
    })
    .await;
}

#[tokio::test]
async fn a_walk_goes_on_where_it_was_and_every_enrollment_is_met_once() {
    on_both(|store| async move {
        let w = World::new(store);
        let all = w.fleet(4_300).await;
        let policy = w.policy(json!({})).await;
        let change = w.scope(policy, &left_out(Scope::everybody(), &[], &all[..2])).await;
        assert_eq!((change.targets, change.assigned), (4_298, 4_298));
        // Each turn of the loop is a chunk; between two of them the server may end.
        w.walk(1).await;
        let some = w.count(policy).await;
        assert!((1..4_298).contains(&some), "{some}");
        let late = w.enroll(phone(9_999)).await;
        w.walk(4).await;
        assert_eq!(w.count(policy).await, 4_299);
        assert!(w.assignment(policy, late).await.is_some());
        // Taken from all but one: those leave whom nothing was sent to.
        let change = w.scope(policy, &Scope::enrollments([all[7]])).await;
        assert_eq!((change.targets, change.assigned, change.leaving), (1, 0, 4_298));
    })
    .await;
}

#[tokio::test]
async fn a_change_of_the_scope_begins_the_walk_anew() {
    on_both(|store| async move {
        let w = World::new(store);
        let all = w.fleet(2_500).await;
        let policy = w.policy(json!({})).await;
        w.scope(policy, &Scope::everybody()).await;
        w.walk(1).await;
        assert!(w.count(policy).await < 2_500);
        w.scope(policy, &Scope::enrollments([all[0], all[2_499]])).await;
        w.walk(3).await;
        let first = w.assignment(policy, all[1]).await.unwrap();
        assert_eq!(first.due_at, Some(w.now().0), "it is to go, and the loop is told");
        assert!(w.assignment(policy, all[2_499]).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_counts_by_reason_and_writes_nothing() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut phones = Vec::new();
        for n in 1..=7 {
            phones.push(w.enroll(phone(n)).await);
        }
        let old = w.enroll(world::device(20, "iPhone9,1", "15.8")).await;
        let byod = w.enroll(world::Device { kind: EnrollmentKind::User, ..phone(21) }).await;
        w.label(old, "old", true).await;
        for id in phones.iter().chain([&old, &byod]) {
            w.asked(*id).await;
        }
        let run = w.dry_run(json!({}), &Scope::everybody()).await;
        assert_eq!((run.total, run.open, run.closed, run.need_facts), (9, 7, 2, 0));
        assert_eq!((run.counts[0].count, run.counts[0].examples.len()), (7, 5), "the largest first, five by name");
        assert!(run.counts[0].form.as_ref().is_some_and(|form| form.hardware_bound));
        let reasons: BTreeSet<_> = run.counts[1..].iter().map(|c| c.reason.as_deref().unwrap()).collect();
        assert_eq!(reasons, BTreeSet::from(["payload_needs_newer_os", "template_not_in_user_enrollment"]));
        for refused in &run.counts[1..] {
            let rule = refused.rule.as_ref().unwrap();
            assert!(!rule.sentence.is_empty() && !rule.source.is_empty() && !rule.remedy.is_empty());
            assert_eq!(refused.count, 1);
        }
        let run = w.dry_run(json!({}), &left_out(Scope::everybody(), &["old"], &[byod, phones[0]])).await;
        assert_eq!((run.total, run.open, run.closed), (6, 6, 0));
        let run = w.dry_run(json!({}), &Scope::label(label("old"))).await;
        assert_eq!((run.total, run.closed), (1, 1));
        assert_eq!(run.counts[0].examples, [old]);
        let run = w.dry_run(json!({}), &Scope::label(label("nobody"))).await;
        assert_eq!((run.total, run.counts.len()), (0, 0));
        // A value that one of them has not: its name is told, and nothing is sent.
        let named = json!({"subject": [[["CN", "{device_name}"]]]});
        let run = w.dry_run(named, &Scope::enrollments([phones[1]])).await;
        assert_eq!(run.counts[0].reason.as_deref(), Some("template_value_missing"));
        assert!(run.counts[0].detail.as_deref().unwrap().contains("{device_name}"));
        let mut tx = w.store.read().await.unwrap();
        assert!(store::policies::list(&mut tx, "", 5).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_of_thousands_holds_a_page_at_a_time() {
    on_both(|store| async move {
        let w = World::new(store);
        let all = w.fleet(1_203).await;
        let run = w.dry_run(json!({}), &left_out(Scope::everybody(), &[], &all[500..503])).await;
        assert_eq!((run.total, run.need_facts + run.open + run.closed), (1_200, 1_200));
    })
    .await;
}

#[tokio::test]
async fn the_step_of_a_rollout_follows_the_labels() {
    on_both(|store| async move {
        let w = World::new(store);
        let (one, two) = (w.enroll(phone(1)).await, w.enroll(phone(2)).await);
        w.label(one, "canary", true).await;
        let plan = json!({"rollout": {"steps": [
            {"label": "canary", "wait_minutes": 60}, {"label": "early", "wait_minutes": 60}, {"percent": 100, "wait_minutes": 0}
        ]}});
        let policy = w.policy(plan.clone()).await;
        w.scope(policy, &Scope::everybody()).await;
        w.reconcile().await;
        let ring = async |id| w.assignment(policy, id).await.unwrap().ring;
        assert_eq!((ring(one).await, ring(two).await), (0, 2));
        w.label(two, "early", true).await;
        w.label(one, "canary", false).await;
        assert_eq!((ring(one).await, ring(two).await), (2, 1));
        let three = w.enroll(phone(3)).await;
        assert_eq!(ring(three).await, 2, "who comes later is sorted as it comes");

        // Another plan: nobody is admitted by what the old one said, and the walk says it anew.
        let other = json!({"notes": "second", "rollout": {"steps": [
            {"label": "early", "wait_minutes": 60}, {"percent": 100, "wait_minutes": 0}
        ]}});
        w.revise(policy, other).await;
        assert_eq!(ring(two).await, i64::MAX);
        w.walk(1).await;
        assert_eq!((ring(one).await, ring(two).await, ring(three).await), (1, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn a_new_revision_and_a_deleted_policy_reach_everybody() {
    on_both(|store| async move {
        let w = World::new(store);
        let one = w.enroll(phone(1)).await;
        let policy = w.policy(json!({})).await;
        w.scope(policy, &Scope::everybody()).await;
        w.reconcile().await;
        let first = w.assignment(policy, one).await.unwrap();
        w.revise(policy, json!({"notes": "second"})).await;
        w.walk(1).await;
        let second = w.assignment(policy, one).await.unwrap();
        assert_eq!((second.id, second.due_at), (first.id, Some(w.now().0)), "the same assignment, looked at again");
        let mut tx = w.store.begin().await.unwrap();
        policy::delete(&mut tx, policy, "test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        assert!(w.assigned(policy).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_stored_policy_that_cannot_be_read_holds_nobody_up() {
    on_both(|store| async move {
        let w = World::new(store);
        let bad = w.policy(json!({"name": "bad"})).await;
        w.scope(bad, &Scope::everybody()).await;
        let good = w.policy(json!({})).await;
        w.scope(good, &Scope::everybody()).await;
        let mut tx = w.store.begin().await.unwrap();
        let new = store::policies::NewRevision {
            name: "bad",
            body: "{}",
            payload_uuid: Uuid::from_u128(1),
            created_by: "somebody's hand",
        };
        store::policies::revise(&mut tx, bad, &new, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let one = w.enroll(phone(1)).await;
        w.reconcile().await;
        assert_eq!(w.assigned(good).await, BTreeSet::from([one]));
        assert!(w.assigned(bad).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_scope_or_a_rule_that_cannot_be_read_is_put_aside_and_the_others_go_on() {
    on_both(|store| async move {
        let w = World::new(store);
        let bad = w.policy(json!({"name": "bad"})).await;
        w.scope(bad, &Scope::everybody()).await;
        let good = w.policy(json!({})).await;
        w.scope(good, &Scope::label(label("phones"))).await;
        w.rule(json!({"label": "broken", "families": ["Mac"]})).await;
        w.rule(json!({"label": "phones", "families": ["iPhone"]})).await;
        let mut tx = w.store.begin().await.unwrap();
        let line = |kind: &str, value: &str| store::scopes::Line {
            effect: "include".to_owned(),
            kind: kind.to_owned(),
            value: value.to_owned(),
        };
        store::scopes::set(&mut tx, bad, &[line("label", "a b")]).await.unwrap();
        store::label_rules::put(&mut tx, &label("broken"), "{", "somebody's hand", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let fleet = w.fleet(3).await;
        let mut tx = w.store.begin().await.unwrap();
        store::facts::put(&mut tx, fleet[0], "{", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        assert_eq!(w.assigned(good).await, fleet.iter().copied().collect());
        assert!(w.assigned(bad).await.is_empty());
        assert_eq!(w.dry_run(json!({}), &Scope::everybody()).await.total, 3);
    })
    .await;
}
