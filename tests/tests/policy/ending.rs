//! Policies that come and go: scopes, labels, enrollments that end.

use mdm_core::ids::Label;
use mdm_tests::on_both;
use policy::Scope;
use serde_json::json;

use super::device::{phone, text};
use super::world::{World, nobody, only, states};

#[tokio::test]
async fn leaving_the_scope_takes_the_profile_off() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let (with, without) = (phone(1), phone(2));
        let (one, two) = (w.enroll(with).await, w.enroll(without).await);
        w.session(one, with).await;
        assert_eq!(w.state(policy, one).await.0, "verified");

        let change = w.scope(policy, nobody()).await;
        assert_eq!((change.targets, change.assigned, change.leaving), (0, 0, 2));
        assert_eq!(w.reconcile().await, 2);
        assert!(w.assignment(policy, two).await.is_none(), "nothing was on it");
        let removal = w.idle(one).await.unwrap();
        assert_eq!(removal.request_type, "RemoveProfile");
        assert_eq!(text(&removal.command, "Identifier"), format!("com.example.mdm.acme.{}", policy.0.simple()));
        assert!(w.acknowledge(one, &removal).await.is_none());
        assert!(w.assignment(policy, one).await.is_none());

        let change = w.scope(policy, only(one)).await;
        assert_eq!((change.targets, change.assigned), (1, 1));
        w.reconcile().await;
        assert_eq!(w.idle(one).await.unwrap().request_type, "InstallProfile", "facts are fresh");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_policy_is_taken_off_and_its_name_is_free() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let sent = w.answer(id, one).await.unwrap();
        // Deleted while the profile is on its way.
        let mut tx = w.store.begin().await.unwrap();
        let taken = policy::create(&mut tx, &w.ctx, &w.acme(json!({})), "token:test", w.now()).await;
        assert!(matches!(taken, Err(policy::Error::NameTaken(_))));
        policy::delete(&mut tx, policy, "token:test", w.now()).await.unwrap();
        let gone = policy::delete(&mut tx, policy, "token:test", w.now()).await;
        assert!(matches!(gone, Err(policy::Error::NoPolicy(_))));
        policy::create(&mut tx, &w.ctx, &w.acme(json!({})), "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let removal = w.acknowledge(id, &sent).await.expect("removed in the same session");
        assert_eq!(removal.request_type, "RemoveProfile");
        assert_eq!(states(&w.attempts(id).await), ["void"], "the permission is gone with it");
    })
    .await;
}

#[tokio::test]
async fn labels_bring_and_take_policies() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy(json!({})).await;
        let label: Label = "pilot".parse().unwrap();
        w.scope(policy, Scope { labels: [label.clone()].into(), ..Scope::default() }).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        assert!(w.assignment(policy, id).await.is_none());

        let mut tx = w.store.begin().await.unwrap();
        store::labels::put(&mut tx, id, &label).await.unwrap();
        policy::labels_changed(&mut tx, &w.ctx, &[id], w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        w.session(id, one).await;

        let mut tx = w.store.begin().await.unwrap();
        store::labels::remove(&mut tx, id, &label).await.unwrap();
        policy::labels_changed(&mut tx, &w.ctx, &[id], w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        assert_eq!(w.idle(id).await.unwrap().request_type, "RemoveProfile");
    })
    .await;
}

#[tokio::test]
async fn a_new_enrollment_begins_anew() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        w.session(id, one).await;
        let mut tx = w.store.begin().await.unwrap();
        policy::unenrolled(&mut tx, id, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(w.assignment(policy, id).await.is_none());
        w.token_update(id, None).await;
        assert!(w.answer(id, one).await.is_some(), "asked and sent again");
    })
    .await;
}

#[tokio::test]
async fn a_policy_may_leave_behind_what_it_has_brought() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"removal": {"when_unassigned": "keep"}})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        w.session(id, one).await;
        w.scope(policy, nobody()).await;
        w.reconcile().await;
        assert!(w.assignment(policy, id).await.is_none());
        assert!(w.idle(id).await.is_none(), "nothing is taken off");
    })
    .await;
}
