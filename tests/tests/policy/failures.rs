//! Devices that fail, commands that are lost, and faults of ours.

use mdm_core::ids::AssignmentId;
use mdm_core::plist::Dictionary;
use mdm_core::report::Status;
use mdm_tests::on_both;
use policy::reason::ReasonCode;
use serde_json::json;

use super::device::phone;
use super::world::{HOUR, World, state};

#[tokio::test]
async fn a_failure_is_tried_again_later_and_not_for_ever() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let mut sent = w.answer(id, one).await.unwrap();
        for attempt in 1..=policy::decide::MAX_ATTEMPTS {
            let next = w.refuse(id, &sent).await;
            assert!(next.is_none(), "attempt {attempt}: not at once");
            let a = w.assignment(policy, id).await.unwrap();
            assert_eq!((a.state.as_str(), a.attempts), ("failed", attempt));
            assert!(a.decision.unwrap().contains("The ACME server said no."));
            assert_eq!(w.reconcile().await, 0, "not before its time");
            if attempt == policy::decide::MAX_ATTEMPTS {
                break;
            }
            w.clock.advance(policy::decide::back_off(attempt));
            assert_eq!(w.reconcile().await, 1);
            sent = match w.idle(id).await.unwrap() {
                asked if asked.request_type == "DeviceInformation" => {
                    w.poll(id, Status::Acknowledged, Some(&asked), one.answers()).await.unwrap()
                }
                sent => sent,
            };
        }
        assert_eq!(w.state(policy, id).await, state("failed", Some(ReasonCode::GivenUp)));
        w.clock.advance(HOUR * 24 * 30);
        assert_eq!(w.reconcile().await, 0, "given up");
        w.revise(policy, json!({"usage_flags": 5})).await;
        w.reconcile().await;
        assert!(w.answer(id, one).await.is_some(), "a new revision begins anew");
    })
    .await;
}

#[tokio::test]
async fn a_lost_command_heals() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let sent = w.answer(id, one).await.unwrap();
        let mut tx = w.store.begin().await.unwrap();
        commands::cancel(&mut tx, id, &sent.uuid, "by hand", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.clock.advance(HOUR * 25);
        assert_eq!(w.reconcile().await, 1);
        assert_eq!(w.state(policy, id).await, state("failed", Some(ReasonCode::CommandEnded)));
        w.clock.advance(HOUR);
        assert_eq!(w.reconcile().await, 1);
        assert!(w.answer(id, one).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn rg_19_one_assignment_that_cannot_be_decided_does_not_stop_the_others() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(w.enroll(phone(n)).await);
        }
        let mut tx = w.store.begin().await.unwrap();
        store::facts::put(&mut tx, ids[3], "not JSON", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let policy = w.policy_for_all(json!({})).await;
        assert_eq!(w.reconcile().await, 20);
        for (n, id) in ids.iter().enumerate() {
            let expected = if n == 3 { "assigned" } else { "awaiting_facts" };
            assert_eq!(w.state(policy, *id).await.0, expected, "{n}");
        }
        assert_eq!(w.reconcile().await, 0, "put aside, not tried in a loop");
    })
    .await;
}

#[tokio::test]
async fn a_fault_of_ours_blocks_neither_the_report_nor_the_queue() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let asked = w.idle(id).await.unwrap();
        let mut tx = w.store.begin().await.unwrap();
        store::facts::put(&mut tx, id, "not JSON", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let sent = w.poll(id, Status::Acknowledged, Some(&asked), one.answers()).await.unwrap();
        assert_eq!(sent.request_type, "InstallProfile", "facts are begun anew");

        // A revision that this version cannot read, as another version may have written it.
        let other = phone(2);
        let second = w.enroll(other).await;
        let waiting = w.answer(second, other).await.unwrap();
        assert!(w.poll(second, Status::NotNow, Some(&waiting), Dictionary::new()).await.is_none());
        let mut tx = w.store.begin().await.unwrap();
        let odd =
            store::policies::NewRevision { name: "wifi", body: "{}", payload_uuid: uuid::Uuid::nil(), created_by: "x" };
        store::policies::revise(&mut tx, policy, &odd, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(w.acknowledge(id, &sent).await.is_none(), "the report is taken");
        assert!(w.idle(second).await.is_none(), "what cannot be read is not sent, and the queue goes on");
        assert_eq!(w.state(policy, second).await, state("failed", Some(ReasonCode::ServerFault)));
        let third = w.enroll(phone(3)).await;
        assert!(w.idle(third).await.is_none(), "it can enroll");
    })
    .await;
}

#[tokio::test]
async fn rg_23_two_reconcile_loops_share_no_assignment() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut ids = Vec::new();
        for n in 0..30 {
            ids.push(w.enroll(phone(n)).await);
        }
        let policy = w.policy_for_all(json!({})).await;
        let (a, b) = tokio::join!(
            policy::reconcile::run_once(&w.store, &w.ctx, w.now(), 100),
            policy::reconcile::run_once(&w.store, &w.ctx, w.now(), 100),
        );
        assert_eq!(a.unwrap() + b.unwrap(), 30);
        let mut tx = w.store.read().await.unwrap();
        let counts = store::assignments::counts(&mut tx, policy).await.unwrap();
        assert_eq!(counts.len(), 1);
        assert_eq!((counts[0].state.as_str(), counts[0].count), ("awaiting_facts", 30));
        let page = store::assignments::of_policy(&mut tx, policy, None, 10).await.unwrap();
        let rest = store::assignments::of_policy(&mut tx, policy, Some(AssignmentId(page[9].id)), 100).await.unwrap();
        assert_eq!((page.len(), rest.len()), (10, 20));
    })
    .await;
}
