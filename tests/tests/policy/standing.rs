//! What a device has stands: a stopped rollout, an authority that goes, and a revision written at the wrong moment take nothing away
//! that is good, and send nothing that is not to be sent.

use std::time::Duration;

use ca::webhooks::{New, WebhookKind};
use mdm_core::ids::{EnrollmentId, PolicyId};
use mdm_core::plist::Dictionary;
use mdm_core::random::Random;
use mdm_core::report::Status;
use mdm_core::time::Timestamp;
use mdm_tests::on_both;
use policy::reason::ReasonCode;
use serde_json::{Value as Json, json};

use super::device::{device, phone};
use super::world::{DAY, HOUR, World, acme, everybody, state};

/// A policy of a named authority, for everybody.
async fn named(w: &World, authority: &str) -> PolicyId {
    let mut tx = w.store.begin().await.unwrap();
    let policy = acme(of(authority), None);
    let id = policy::create(&mut tx, &w.ctx, &policy, "token:test", w.now()).await.unwrap();
    policy::set_scope(&mut tx, id, &everybody(), "token:test", w.now()).await.unwrap();
    tx.commit().await.unwrap();
    id
}

fn of(authority: &str) -> Json {
    json!({"directory_url": null, "certificate_authority": authority})
}

async fn users(w: &World, authority: &str) -> usize {
    let mut tx = w.store.read().await.unwrap();
    policy::authority_users(&mut tx, authority).await.unwrap().len()
}

async fn pause(w: &World, id: PolicyId) {
    let mut tx = w.store.begin().await.unwrap();
    let policy = store::policies::get(&mut tx, id).await.unwrap().unwrap();
    rollout::pause(&mut tx, &policy, None, "token:test", w.now()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Time goes by until the certificate is to be renewed.
async fn until_renewal(w: &World, policy: PolicyId, id: EnrollmentId) {
    let at = w.assignment(policy, id).await.unwrap().renew_at.unwrap();
    w.clock.advance(Timestamp(at).since(w.now()));
}

#[tokio::test]
async fn a_device_that_has_the_revision_of_a_paused_rollout_keeps_and_renews_it() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"rollout": {"steps": [{"percent": 100, "wait_minutes": 60}]}})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        w.reconcile().await;
        w.session(id, one).await;
        assert_eq!(w.state(policy, id).await, state("verified", None));

        // Its gate closes when it is to be renewed, and then the rollout stops.
        until_renewal(&w, policy, id).await;
        w.reconcile().await;
        assert!(w.answer(id, device(1, "iPhone15,2", "15.0")).await.is_none());
        assert_eq!(w.state(policy, id).await.0, "blocked");
        pause(&w, policy).await;
        w.clock.advance(DAY);
        w.reconcile().await;
        assert_eq!(w.state(policy, id).await.0, "awaiting_facts", "nothing is taken off");

        // The gate is open again, and the renewal was begun long ago.
        assert_eq!(w.session(id, one).await, ["DeviceInformation", "InstallProfile", "CertificateList"]);
        assert_eq!(w.state(policy, id).await, state("verified", None));

        // A certificate that is gone comes again.
        w.lose_identities(id);
        w.policy_for_all(json!({"name": "vpn"})).await;
        w.reconcile().await;
        let done = w.session(id, one).await;
        assert!(!done.contains(&"RemoveProfile".to_owned()), "{done:?}");
        assert_eq!(w.state(policy, id).await, state("verified", None));
    })
    .await;
}

#[tokio::test]
async fn a_revision_with_steps_that_is_written_during_a_delivery_is_not_delivered() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        w.session(id, one).await;
        assert_eq!(w.revise(policy, json!({"usage_flags": 1})).await, 2);
        w.reconcile().await;
        assert_eq!(
            w.state(policy, id).await.0,
            "installing",
            "without steps everybody is admitted, and the command waits"
        );

        let steps = json!({"usage_flags": 5, "rollout": {"steps": [{"label": "pilot"}, {"percent": 100}]}});
        let mut tx = w.store.begin().await.unwrap();
        let third = policy::revise(&mut tx, &w.ctx, policy, &w.acme(steps), "token:test", w.now()).await.unwrap();
        assert_eq!(third, 3);
        let delivery = w.idle(id);
        let writing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tx.commit().await.unwrap();
        };
        let (sent, ()) = tokio::join!(delivery, writing);
        assert!(sent.is_some());
        let a = w.assignment(policy, id).await.unwrap();
        assert_eq!((a.revision, a.state.as_str()), (2, "installing"), "no step has admitted it to the third");
    })
    .await;
}

#[tokio::test]
async fn a_profile_is_taken_off_without_its_authority() {
    on_both(|store| async move {
        let w = World::new(store);
        w.authority_named("step", true).await;
        let policy = named(&w, "step").await;
        let (one, two) = (phone(1), phone(2));
        let (first, second) = (w.enroll(one).await, w.enroll(two).await);
        for (id, device) in [(first, one), (second, two)] {
            w.reconcile().await;
            w.session(id, device).await;
            assert_eq!(w.state(policy, id).await, state("verified", None));
        }

        let mut tx = w.store.begin().await.unwrap();
        policy::delete(&mut tx, policy, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        let removal = w.idle(first).await.unwrap();
        assert_eq!(removal.request_type, "RemoveProfile");
        assert_eq!(users(&w, "step").await, 0);
        let mut tx = w.store.begin().await.unwrap();
        ca::delete(&mut tx, "step", "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();

        assert!(w.acknowledge(first, &removal).await.is_none());
        assert!(w.assignment(policy, first).await.is_none(), "one was on its way");
        w.clock.advance(DAY);
        while w.reconcile().await > 0 {}
        assert_eq!(w.session(second, two).await, ["RemoveProfile"]);
        assert!(w.assignment(policy, second).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn an_authority_is_in_use_while_a_rollout_leaves_devices_with_it_or_can_go_back() {
    on_both(|store| async move {
        let w = World::new(store);
        w.authority_named("old", true).await;
        w.authority_named("new", true).await;
        let policy = named(&w, "old").await;
        let id = w.enroll(phone(1)).await;
        w.reconcile().await;
        w.session(id, phone(1)).await;
        assert_eq!((users(&w, "old").await, users(&w, "new").await), (1, 0));

        let mut second = of("new");
        second["rollout"] = json!({"steps": [{"label": "pilot"}, {"percent": 100}]});
        let mut tx = w.store.begin().await.unwrap();
        let second = acme(second, None);
        policy::revise(&mut tx, &w.ctx, policy, &second, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        while w.reconcile().await > 0 {}
        assert_eq!((users(&w, "old").await, users(&w, "new").await), (1, 1), "held devices renew what they have");

        let mut tx = w.store.begin().await.unwrap();
        let row = store::policies::get(&mut tx, policy).await.unwrap().unwrap();
        rollout::roll_back(&mut tx, &row, None, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((users(&w, "old").await, users(&w, "new").await), (1, 0));

        // Without steps nobody is held with what was before, once it has gone out.
        let mut tx = w.store.begin().await.unwrap();
        policy::revise(&mut tx, &w.ctx, policy, &acme(of("new"), None), "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        while w.reconcile().await > 0 {}
        assert_eq!((users(&w, "old").await, users(&w, "new").await), (0, 1));
    })
    .await;
}

#[tokio::test]
async fn where_an_authority_does_not_say_who_signs_nothing_is_installed_again_and_its_issuers_heal_it() {
    on_both(|store| async move {
        let w = World::new(store);
        w.authority_named("step", false).await;
        let policy = named(&w, "step").await;
        let one = phone(1);
        let id = w.enroll(one).await;
        assert_eq!(w.session(id, one).await, ["DeviceInformation", "InstallProfile", "CertificateList"]);
        let unknown = state("installed", Some(ReasonCode::IssuersUnknown));
        assert_eq!(w.state(policy, id).await, unknown);
        for _ in 0..3 {
            w.clock.advance(DAY);
            while w.reconcile().await > 0 {}
            assert_eq!(w.session(id, one).await, [] as [&str; 0]);
        }

        // It can show what it issues: the device is asked on, and never sent the profile again for it.
        let mut tx = w.store.begin().await.unwrap();
        let new = New { kind: WebhookKind::Generic, webhook_id: None, secret: None };
        let sealing = (&w.ctx.commands.sealer, &Random::System);
        ca::webhooks::add(&mut tx, sealing, "step", &new, "token:test", w.now()).await.unwrap();
        policy::authority_changed(&mut tx, "step", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..6 {
            while w.reconcile().await > 0 {}
            assert_eq!(w.session(id, one).await, ["CertificateList"]);
            assert_eq!(w.state(policy, id).await, unknown);
            w.clock.advance(DAY);
        }

        w.authority_named("step", true).await;
        let mut tx = w.store.begin().await.unwrap();
        policy::authority_changed(&mut tx, "step", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        while w.reconcile().await > 0 {}
        assert_eq!(w.session(id, one).await, ["CertificateList"]);
        assert_eq!(w.state(policy, id).await, state("verified", None));
        assert_eq!(w.attempts(id).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_was_given_up_is_tried_again_when_the_policy_or_its_authority_is_written_again() {
    on_both(|store| async move {
        let w = World::new(store);
        w.authority_named("step", true).await;
        let policy = named(&w, "step").await;
        for (n, way) in ["policy", "authority"].into_iter().enumerate() {
            let one = phone(u64::try_from(n).unwrap());
            let id = w.enroll(one).await;
            w.reconcile().await;
            let sent = w.answer(id, one).await.unwrap();
            for _ in 1..policy::decide::MAX_ATTEMPTS {
                let mut a = w.assignment(policy, id).await.unwrap();
                a.attempts += 1;
                let mut tx = w.store.begin().await.unwrap();
                store::assignments::save(&mut tx, &a, w.now()).await.unwrap();
                tx.commit().await.unwrap();
            }
            assert!(w.poll(id, Status::Error, Some(&sent), Dictionary::new()).await.is_none());
            assert_eq!(w.state(policy, id).await, state("failed", Some(ReasonCode::GivenUp)));
            w.clock.advance(HOUR);
            while w.reconcile().await > 0 {}
            assert!(w.idle(id).await.is_none());

            let mut tx = w.store.begin().await.unwrap();
            if way == "policy" {
                let same = acme(of("step"), None);
                let revision = policy::revise(&mut tx, &w.ctx, policy, &same, "token:test", w.now()).await.unwrap();
                assert_eq!(revision, 1, "nothing has changed");
            } else {
                policy::authority_changed(&mut tx, "step", w.now()).await.unwrap();
            }
            tx.commit().await.unwrap();
            while w.reconcile().await > 0 {}
            assert_eq!(w.session(id, one).await, ["InstallProfile", "CertificateList"], "{way}");
            assert_eq!(w.state(policy, id).await, state("verified", None));
        }
    })
    .await;
}
