//! Labels that follow from rules.

use std::collections::BTreeSet;

use mdm_core::enrollment::{Door, EnrollmentKind};
use mdm_tests::on_both;
use policy::Scope;
use policy::label_rules::Put;
use serde_json::json;

use crate::world::{Device, World, device, label, mac, phone};

#[tokio::test]
async fn a_rule_labels_who_is_there_who_comes_and_who_changes() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy(json!({})).await;
        w.scope(policy, &Scope::label(label("new-macs"))).await;
        let (old, new, other) =
            (w.enroll(mac(1, "13.6")).await, w.enroll(mac(2, "14.5")).await, w.enroll(phone(3)).await);
        let rule = json!({"label": "new-macs", "families": ["Mac"], "silicon": ["supported"],
            "os": [{"platform": "macOS", "at_least": "14.0"}]});
        assert_eq!(w.rule(rule.clone()).await, Put::Created);
        assert!(w.labels(new).await.is_empty(), "devices follow in the background");
        w.reconcile().await;
        for (id, labels) in [(old, vec![]), (new, vec!["new-macs"]), (other, vec![])] {
            assert_eq!(w.labels(id).await, labels);
        }
        assert_eq!(w.assigned(policy).await, BTreeSet::from([new]), "the policy comes with the label");

        let later = w.enroll(mac(4, "15.1")).await;
        assert_eq!(w.assigned(policy).await, BTreeSet::from([new, later]), "in the very message that enrolls it");
        w.tells(old, &[("ProductName", "Mac14,2"), ("OSVersion", "14.6")]).await;
        assert_eq!(w.labels(old).await, ["new-macs"], "an update of the OS");
        assert_eq!(w.assigned(policy).await, BTreeSet::from([old, new, later]));

        assert_eq!(w.rule(rule).await, Put::Same);
        let narrower = json!({"label": "new-macs", "serial_numbers": ["SERIAL4", "SERIAL3"]});
        assert_eq!(w.rule(narrower).await, Put::Revised);
        w.reconcile().await;
        let kept = [old, new, later, other].map(|id| (id, [later, other].contains(&id)));
        for (id, has) in kept {
            assert_eq!(w.labels(id).await.len(), usize::from(has));
        }
        assert_eq!(w.assigned(policy).await, BTreeSet::from([later, other]), "and goes with it");
    })
    .await;
}

#[tokio::test]
async fn a_label_with_a_rule_is_where_the_rule_says_and_nowhere_else() {
    on_both(|store| async move {
        let w = World::new(store);
        let (one, two) = (w.enroll(phone(1)).await, w.enroll(mac(2, "14.5")).await);
        w.label(one, "macs", true).await;
        w.label(one, "hand", true).await;
        w.rule(json!({"label": "macs", "families": ["Mac"]})).await;
        w.reconcile().await;
        assert_eq!(w.labels(one).await, ["hand"], "what was put on by hand before goes");
        assert_eq!(w.labels(two).await, ["macs"]);
        let mut tx = w.store.begin().await.unwrap();
        let refused = policy::label_rules::refuse_by_hand(&mut tx, &label("macs")).await.unwrap_err();
        assert!(matches!(refused, policy::Error::RuledLabel(_)), "{refused}");
        policy::label_rules::refuse_by_hand(&mut tx, &label("hand")).await.unwrap();
        tx.rollback().await.unwrap();

        assert!(w.delete_rule("macs").await);
        assert!(!w.delete_rule("macs").await);
        w.reconcile().await;
        assert_eq!(w.labels(two).await, ["macs"], "without its rule the label stays where it is");
        w.label(one, "macs", true).await;
        assert_eq!(w.labels(one).await, ["hand", "macs"]);
    })
    .await;
}

#[tokio::test]
async fn kinds_and_doors_and_products_are_told_apart() {
    on_both(|store| async move {
        let w = World::new(store);
        let ade = w.enroll(Device { kind: EnrollmentKind::Automated, door: Door::Ade, ..phone(1) }).await;
        let byod = w.enroll(Device { kind: EnrollmentKind::User, door: Door::Byod, ..phone(2) }).await;
        let tv = w.enroll(device(3, "AppleTV6,2", "17.0")).await;
        let odd = w.enroll(device(4, "Toaster1,1", "1.0")).await;
        for rule in [
            json!({"label": "by-ade", "doors": ["ade"]}),
            json!({"label": "people", "kinds": ["user"]}),
            json!({"label": "no-attestation", "silicon": ["ignored", "must_be_false", "unknown"]}),
            json!({"label": "televisions", "product_names": ["AppleTV*"]}),
            json!({"label": "by-serial", "serial_numbers": ["serial1", "SERIAL2"]}),
        ] {
            w.rule(rule).await;
        }
        w.reconcile().await;
        assert_eq!(w.labels(ade).await, ["by-ade", "by-serial"]);
        assert_eq!(w.labels(byod).await, ["people"], "no serial number is known in User Enrollment");
        assert_eq!(w.labels(tv).await, ["no-attestation", "televisions"]);
        assert_eq!(w.labels(odd).await, ["no-attestation"]);
    })
    .await;
}

#[tokio::test]
async fn a_rule_is_held_against_a_fleet_in_chunks_and_each_change_is_an_event() {
    on_both(|store| async move {
        let w = World::new(store);
        let all = w.fleet(2_300).await;
        let policy = w.policy(json!({})).await;
        w.scope(policy, &Scope::label(label("phones"))).await;
        w.walk(3).await;
        w.rule(json!({"label": "phones", "families": ["iPhone"]})).await;
        w.walk(1).await;
        let mut tx = w.store.read().await.unwrap();
        let some = store::labels::count(&mut tx, &label("phones")).await.unwrap();
        assert!((1..2_300).contains(&some), "{some}");
        drop(tx);
        w.walk(3).await;
        let mut tx = w.store.read().await.unwrap();
        assert_eq!(store::labels::count(&mut tx, &label("phones")).await.unwrap(), 2_300);
        drop(tx);
        assert_eq!(w.count(policy).await, 2_300, "with the labels came the policy");
        assert_eq!(w.events(all[3], "enrollment.labelled").await, 1);
        w.rule(json!({"label": "phones", "families": ["Mac"]})).await;
        w.walk(4).await;
        assert!(w.labels(all[3]).await.is_empty());
        assert_eq!(w.events(all[3], "enrollment.unlabelled").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_rule_that_cannot_be_right_is_refused() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut tx = w.store.begin().await.unwrap();
        let rule = serde_json::from_value(json!({"label": "all"})).unwrap();
        let refused = policy::label_rules::put(&mut tx, &rule, "test", w.now()).await.unwrap_err();
        assert!(matches!(refused, policy::Error::Invalid(_)), "{refused}");
        assert!(policy::label_rules::all(&mut tx).await.unwrap().is_empty());
        tx.rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_rule_waits_for_what_a_device_is_telling_at_this_moment() {
    on_both(|store| async move {
        let w = World::new(store);
        let id = w.enroll(mac(1, "14.6")).await;
        w.label(id, "new-macs", true).await;
        w.rule(json!({"label": "new-macs", "os": [{"platform": "macOS", "at_least": "15.0"}]})).await;

        let mut tx = w.store.begin().await.unwrap();
        w.telling(&mut tx, id, &[("ProductName", "Mac14,2"), ("OSVersion", "15.1")]).await;
        let (walked, ()) = tokio::join!(
            async {
                w.walk(1).await;
                w.labels(id).await
            },
            async {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                tx.commit().await.unwrap();
            }
        );
        assert_eq!(walked, ["new-macs"], "by what it says now, and not by what it said before");
        assert_eq!(w.events(id, "enrollment.unlabelled").await, 0);
    })
    .await;
}
