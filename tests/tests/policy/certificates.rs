//! Proved, missing, renewed: what happens to a certificate after the device has acknowledged its profile.

use mdm_core::time::Timestamp;
use mdm_tests::on_both;
use policy::decide::{MAX_ATTEMPTS, MAX_PROOFS, back_off};
use policy::reason::ReasonCode;
use serde_json::json;

use super::device::phone;
use super::world::{DAY, HOUR, World, acme, state, states};

#[tokio::test]
async fn acknowledged_without_a_certificate_is_a_failure_in_the_end() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let id = w.enroll(phone(1)).await;
        let sent = w.answer(id, phone(1)).await.unwrap();
        let mut asked = w.acknowledge(id, &sent).await.expect("asked for its certificates");
        for tries in 1..=MAX_PROOFS {
            assert!(w.show_certificates(id, &asked).await.is_none());
            let a = w.assignment(policy, id).await.unwrap();
            assert_eq!((a.state.as_str(), a.reason.as_deref()), ("installed", Some("certificate_not_listed")));
            assert_eq!(a.proof_tries, tries);
            assert_eq!(w.reconcile().await, 0, "not at once");
            w.clock.advance(back_off(tries));
            assert_eq!(w.reconcile().await, 1);
            if tries < MAX_PROOFS {
                asked = w.idle(id).await.expect("asked once more");
            }
        }
        let a = w.assignment(policy, id).await.unwrap();
        assert_eq!((a.state.as_str(), a.reason.as_deref(), a.attempts), ("failed", Some("certificate_not_listed"), 1));
        assert_eq!(states(&w.attempts(id).await), ["failed"]);
        w.clock.advance(back_off(1));
        w.reconcile().await;
        w.session(id, phone(1)).await;
        assert_eq!(w.state(policy, id).await, state("verified", None));
        assert_eq!(w.assignment(policy, id).await.unwrap().attempts, 0);
    })
    .await;
}

#[tokio::test]
async fn a_device_that_shows_no_list_is_asked_again() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let id = w.enroll(phone(1)).await;
        let sent = w.answer(id, phone(1)).await.unwrap();
        let asked = w.install(id, &sent).await.unwrap();
        assert!(w.refuse(id, &asked).await.is_none());
        assert_eq!(w.state(policy, id).await, state("installed", Some(ReasonCode::CertificateListRefused)));
        w.clock.advance(HOUR);
        w.reconcile().await;
        assert_eq!(w.session(id, phone(1)).await, ["CertificateList"]);
        assert_eq!(w.state(policy, id).await, state("verified", None));
    })
    .await;
}

#[tokio::test]
async fn where_nobody_is_known_who_signs_nothing_is_proved_and_nothing_tried_again() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut tx = w.store.begin().await.unwrap();
        let policy = policy::create(&mut tx, &w.ctx, &acme(json!({}), None), "token:test", w.now()).await.unwrap();
        policy::set_scope(&mut tx, policy, &super::world::everybody(), "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let id = w.enroll(phone(1)).await;
        w.session(id, phone(1)).await;
        assert_eq!(w.state(policy, id).await, state("installed", Some(ReasonCode::IssuersUnknown)));
        w.clock.advance(DAY * 90);
        while w.reconcile().await > 0 {}
        assert!(w.idle(id).await.is_none());
        assert_eq!(w.state(policy, id).await, state("installed", Some(ReasonCode::IssuersUnknown)));
    })
    .await;
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_the_old_one_counts_until_the_new_one_is_seen() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"renew_at_percent": 50})).await;
        let id = w.enroll(phone(1)).await;
        w.session(id, phone(1)).await;
        let old = w.assignment(policy, id).await.unwrap();
        let renew_at = Timestamp(old.renew_at.unwrap());
        assert!(renew_at >= w.now().plus(w.life / 2));
        w.clock.advance(renew_at.since(w.now()));
        assert_eq!(w.reconcile().await, 1);
        assert_eq!(w.state(policy, id).await.0, "awaiting_facts", "the gate is asked again, on what the device is now");
        let sent = w.answer(id, phone(1)).await.expect("the profile once more");
        let during = w.assignment(policy, id).await.unwrap();
        assert_eq!((during.state.as_str(), &during.certificate_sha256), ("installing", &old.certificate_sha256));
        assert_eq!((during.not_after, during.renew_at), (old.not_after, old.renew_at));
        let asked = w.install(id, &sent).await.unwrap();
        assert_eq!(w.assignment(policy, id).await.unwrap().certificate_sha256, old.certificate_sha256);
        w.show_certificates(id, &asked).await;
        let new = w.assignment(policy, id).await.unwrap();
        assert_eq!(new.state, "verified");
        assert!(new.certificate_sha256 != old.certificate_sha256 && new.not_after > old.not_after);
        assert!(new.renew_at > old.renew_at && new.due_at == new.renew_at);
        let attempts = w.attempts(id).await;
        let purposes: Vec<_> = attempts.iter().map(|a| (a.purpose.as_str(), a.state.as_str())).collect();
        assert_eq!(purposes, [("install", "proved"), ("renewal", "proved")]);
    })
    .await;
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_on_and_never_given_up() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"renew_at_percent": 50})).await;
        let id = w.enroll(phone(1)).await;
        w.session(id, phone(1)).await;
        let old = w.assignment(policy, id).await.unwrap();
        w.clock.advance(Timestamp(old.renew_at.unwrap()).since(w.now()));
        for failures in 1..=MAX_ATTEMPTS + 3 {
            w.reconcile().await;
            let sent = match w.idle(id).await.unwrap() {
                asked if asked.request_type == "DeviceInformation" => {
                    w.poll(id, mdm_core::report::Status::Acknowledged, Some(&asked), phone(1).answers()).await.unwrap()
                }
                sent => sent,
            };
            assert!(w.refuse(id, &sent).await.is_none());
            let a = w.assignment(policy, id).await.unwrap();
            assert_eq!((a.state.as_str(), a.reason.as_deref()), ("failed", Some("install_failed")), "{failures}");
            assert_eq!(a.certificate_sha256, old.certificate_sha256, "the old one counts");
            let due = Timestamp(a.due_at.expect("tried again"));
            assert!(due >= w.now().plus(HOUR) && due <= w.now().plus(DAY), "{failures}");
            w.clock.advance(due.since(w.now()));
        }
        w.reconcile().await;
        w.session(id, phone(1)).await;
        let new = w.assignment(policy, id).await.unwrap();
        assert_eq!((new.state.as_str(), new.attempts), ("verified", 0));
        assert_ne!(new.certificate_sha256, old.certificate_sha256);
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_gone_is_installed_again() {
    on_both(|store| async move {
        let w = World::new(store);
        let wifi = w.policy_for_all(json!({})).await;
        let id = w.enroll(phone(1)).await;
        w.session(id, phone(1)).await;
        w.lose_identities(id);
        let vpn = w.policy_for_all(json!({"name": "vpn"})).await;
        w.reconcile().await;
        assert_eq!(
            w.session(id, phone(1)).await,
            ["InstallProfile", "CertificateList", "InstallProfile", "CertificateList"],
            "the list that proves the one shows that the other is missing"
        );
        for policy in [wifi, vpn] {
            assert_eq!(w.state(policy, id).await, state("verified", None));
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_there_is_kept_when_a_stricter_gate_is_satisfied_after_all() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let id = w.enroll(phone(1)).await;
        w.session(id, phone(1)).await;
        let old = w.assignment(policy, id).await.unwrap();
        // A revision that is taken back before any device has fetched it.
        w.revise(policy, json!({"usage_flags": 1})).await;
        w.clock.advance(DAY * 2);
        w.reconcile().await;
        assert_eq!(w.state(policy, id).await.0, "awaiting_facts");
        let mut tx = w.store.begin().await.unwrap();
        store::rollouts::point_back(&mut tx, policy, 1, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(w.answer(id, phone(1)).await.is_none(), "it has what it should have");
        let now = w.assignment(policy, id).await.unwrap();
        assert_eq!((now.state.as_str(), now.certificate_sha256), ("verified", old.certificate_sha256));
        assert_eq!(now.due_at, old.renew_at);
        assert_eq!(states(&w.attempts(id).await), ["proved"]);
    })
    .await;
}
