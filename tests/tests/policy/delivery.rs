//! From the first poll to a proved certificate, and what is asked again at the delivery.

use mdm_core::enrollment::Sender;
use mdm_core::plist::{Dictionary, Value};
use mdm_core::report::{Report, Status};
use mdm_tests::on_both;
use policy::reason::ReasonCode;
use serde_json::json;

use super::device::{Device, device, flag, phone, text};
use super::world::{HOUR, World, state};

#[tokio::test]
async fn a_new_device_is_asked_and_the_gated_profile_rides_back_in_the_same_response() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        assert_eq!(w.state(policy, id).await, state("awaiting_facts", None));

        let sent = w.answer(id, one).await.expect("the profile, in the same response");
        let (profile, payload) = sent.acme();
        assert_eq!(text(&profile, "PayloadIdentifier"), format!("com.example.mdm.acme.{}", policy.0.simple()));
        assert_eq!(text(&profile, "PayloadOrganization"), "Example");
        assert_eq!(text(&payload, "PayloadType"), "com.apple.security.acme");
        assert_eq!(text(&payload, "ClientIdentifier"), "SERIAL1");
        assert_eq!((flag(&payload, "HardwareBound"), flag(&payload, "Attest")), (Some(true), Some(true)));
        assert_eq!(flag(&payload, "KeyIsExtractable"), None, "only ever for Macs");
        assert_eq!(w.state(policy, id).await, state("installing", None));

        let again = w.idle(id).await.expect("the reply was lost: the same one again");
        assert_eq!((again.uuid.as_str(), &again.bytes), (sent.uuid.as_str(), &sent.bytes));

        let asked = w.install(id, &sent).await.expect("asked for its certificates, in the same response");
        assert_eq!(asked.request_type, "CertificateList");
        assert_eq!(asked.command.get("ManagedOnly").and_then(Value::as_boolean), Some(true));
        assert_eq!(w.state(policy, id).await, state("installed", None), "only the device's word");
        assert!(w.show_certificates(id, &asked).await.is_none());
        assert_eq!(w.state(policy, id).await, state("verified", None));
        let a = w.assignment(policy, id).await.unwrap();
        assert_eq!(a.not_after, Some(w.now().plus(w.life).0));
        assert_eq!((a.due_at, a.certificate_revision), (a.renew_at, Some(1)));
        assert!(a.renew_at.unwrap() > w.now().plus(w.life / 2).0);
        assert_eq!(a.silicon.as_deref(), Some("supported"));

        assert!(w.acknowledge(id, &sent).await.is_none(), "a repeated report changes nothing");
        assert_eq!(w.reconcile().await, 0, "nothing is left to do");
        assert!(w.idle(id).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_looked_at_again_after_a_day_and_an_update_opens_the_gate() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let old = device(1, "Mac14,2", "13.6");
        let id = w.enroll(old).await;
        assert!(w.answer(id, old).await.is_none());
        assert_eq!(w.state(policy, id).await.1.as_deref(), Some("hardware_bound_needs_macos_14"));
        w.clock.advance(HOUR * 23);
        assert_eq!(w.reconcile().await, 0);
        w.clock.advance(HOUR * 2);
        assert_eq!(w.reconcile().await, 1);
        let sent = w.answer(id, Device { os: "14.0", ..old }).await.expect("the gate has opened");
        assert_eq!(flag(&sent.acme().1, "Attest"), Some(true));
    })
    .await;
}

#[tokio::test]
async fn the_gate_is_asked_again_at_delivery() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"ca_accepts_unattested": true})).await;
        let t2 = device(1, "MacBookPro16,1", "14.0");
        let id = w.enroll(t2).await;
        let asked = w.idle(id).await.unwrap();
        // The answer is taken, but the profile is not fetched: the connection broke before the reply was rendered.
        let mut tx = w.store.begin().await.unwrap();
        let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        let report = Report {
            sender: Sender { device: t2.key(), user: None },
            status: Status::Acknowledged,
            command_uuid: Some(asked.uuid.clone()),
            request_type: None,
            error_chain: vec![],
            body: t2.answers(),
        };
        let done = commands::report(&mut tx, &w.ctx.commands, id, &report, b"raw", w.now()).await.unwrap().unwrap();
        policy::react(&mut tx, &w.ctx, &enrollment, &done, &report, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(w.state(policy, id).await.0, "installing");

        // The policy is written anew before the device comes back; the reconcile loop has not run yet.
        w.revise(policy, json!({"attest": "required"})).await;
        assert!(w.idle(id).await.is_none(), "refused at delivery");
        assert_eq!(w.state(policy, id).await, state("blocked", Some(ReasonCode::AttestIgnoredBySilicon)));
        w.reconcile().await;
        assert_eq!(w.state(policy, id).await.0, "blocked");
    })
    .await;
}

#[tokio::test]
async fn old_facts_are_asked_for_again_before_delivery() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let sent = w.answer(id, one).await.unwrap();
        assert!(w.poll(id, Status::NotNow, Some(&sent), Dictionary::new()).await.is_none());
        // NotNow keeps what was rendered; a new revision makes it anew, a day later.
        w.revise(policy, json!({"display_name": "Wi-Fi"})).await;
        w.reconcile().await;
        w.clock.advance(HOUR * 25);
        let sent = w.answer(id, one).await.expect("asked first, then sent");
        let (profile, _) = sent.acme();
        assert_eq!(text(&profile, "PayloadDisplayName"), "Wi-Fi");
    })
    .await;
}

#[tokio::test]
async fn a_new_revision_replaces_the_profile_under_the_same_identifier() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let first = w.answer(id, one).await.unwrap();
        let asked = w.install(id, &first).await.unwrap();
        w.show_certificates(id, &asked).await;
        let proved = w.assignment(policy, id).await.unwrap();

        assert_eq!(w.revise(policy, json!({})).await, 1, "the same body is no revision");
        assert_eq!(w.revise(policy, json!({"usage_flags": 1})).await, 2);
        assert_eq!(w.reconcile().await, 1);
        let second = w.idle(id).await.unwrap();
        let ((a, _), (b, payload)) = (first.acme(), second.acme());
        assert_eq!(text(&a, "PayloadIdentifier"), text(&b, "PayloadIdentifier"));
        assert_ne!(text(&a, "PayloadUUID"), text(&b, "PayloadUUID"));
        assert_eq!(payload.get("UsageFlags").and_then(Value::as_signed_integer), Some(1));
        let between = w.assignment(policy, id).await.unwrap();
        assert_eq!(
            between.certificate_sha256, proved.certificate_sha256,
            "the old one stands until the new one is seen"
        );
        let asked = w.install(id, &second).await.unwrap();
        w.show_certificates(id, &asked).await;
        let now = w.assignment(policy, id).await.unwrap();
        assert_eq!((now.state.as_str(), now.certificate_revision), ("verified", Some(2)));
        assert_ne!(now.certificate_sha256, proved.certificate_sha256);
    })
    .await;
}

#[tokio::test]
async fn two_policies_ask_a_device_once() {
    on_both(|store| async move {
        let w = World::new(store);
        let wifi = w.policy_for_all(json!({})).await;
        let vpn = w.policy_for_all(json!({"name": "vpn"})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        assert_eq!(
            w.session(id, one).await,
            ["DeviceInformation", "InstallProfile", "InstallProfile", "CertificateList"],
            "what it is, and what it has, is asked once for both"
        );
        for policy in [wifi, vpn] {
            assert_eq!(w.state(policy, id).await, state("verified", None));
        }
    })
    .await;
}
