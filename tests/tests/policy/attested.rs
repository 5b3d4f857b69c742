//! Policies that require attested facts: what a device says of itself opens no gate, and nothing is sent before Apple has signed it.

use std::sync::Arc;

use mdm_core::certificate::Certificate;
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::EnrollmentId;
use mdm_core::plist::{Dictionary, Value};
use mdm_core::report::Status;
use mdm_core::time::Timestamp;
use mdm_tests::on_both;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use policy::reason::ReasonCode;
use serde_json::json;
use simulator::attestation::{Authority, FRESHNESS, Facts, Fault, OS_VERSION, SIP};
use store::Store;

use super::device::{Device, Sent, device, phone, text};
use super::world::{DAY, World, state};

/// A server that believes a pretend Apple.
fn world(store: Store) -> (World, Authority) {
    let apple = Authority::new().unwrap();
    let mut world = World::new(store);
    world.ctx.attestation.test_roots = Arc::new(vec![Certificate::from_der(&apple.root().unwrap()).unwrap()]);
    (world, apple)
}

fn facts(device: Device) -> Facts {
    let is_mac = device.product.starts_with("Mac");
    Facts {
        serial_number: Some(format!("SERIAL{}", device.n)),
        udid: (!is_mac).then(|| format!("00008110-{:016X}", device.n)),
        sep_os_version: Some(device.os.to_owned()),
        os_version: Some(device.os.to_owned()),
        model: Some(device.product.to_owned()),
        llb_version: None,
        sip_enabled: is_mac.then_some(true),
        secure_boot: is_mac.then(|| "Full Security".to_owned()),
        third_party_kexts: is_mac.then_some(false),
    }
}

fn nonce(asked: &Sent) -> Option<&[u8]> {
    assert_eq!(asked.request_type, "DeviceInformation");
    let queries = asked.command.get("Queries").and_then(Value::as_array).unwrap();
    let wanted = queries.iter().any(|q| q.as_string() == Some("DevicePropertiesAttestation"));
    let nonce = asked.command.get("DeviceAttestationNonce").and_then(Value::as_data);
    assert_eq!(wanted, nonce.is_some(), "the query and the nonce go together");
    nonce
}

/// The answer of a device whose attestation has this fault.
fn answers(apple: &Authority, device: Device, asked: &Sent, fault: &Fault) -> Dictionary {
    let key = PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(Nid::SECP384R1).unwrap()).unwrap()).unwrap();
    let chain = apple.attest_with(&facts(device), &key, nonce(asked).expect("a nonce"), fault).unwrap();
    let mut body = device.answers();
    if let (Some(chain), Some(Value::Dictionary(responses))) = (chain, body.get_mut("QueryResponses")) {
        let chain = chain.into_iter().map(Value::Data).collect();
        responses.insert("DevicePropertiesAttestation".into(), Value::Array(chain));
    }
    body
}

async fn asked(w: &World, id: EnrollmentId) -> Sent {
    w.idle(id).await.expect("asked what it is")
}

async fn answered(w: &World, apple: &Authority, id: EnrollmentId, device: Device, fault: &Fault) -> Option<Sent> {
    let asked = asked(w, id).await;
    let body = answers(apple, device, &asked, fault);
    w.poll(id, Status::Acknowledged, Some(&asked), body).await
}

#[tokio::test]
async fn a_mac_gets_its_profile_when_apple_attests_what_is_required() {
    on_both(|store| async move {
        let (w, apple) = world(store);
        let require = json!({
            "identity": true, "sip_enabled": true, "secure_boot": "full", "no_third_party_kexts": true,
            "os_at_least": {"macOS": "14.2"}, "models": ["Mac14,2"],
        });
        let policy = w.policy_for_all(json!({ "require": require })).await;
        let mac = device(1, "Mac14,2", "14.6");
        let id = w.enroll(mac).await;
        let sent = answered(&w, &apple, id, mac, &Fault::None).await.expect("the profile rides back at once");
        assert_eq!(text(&sent.acme().1, "ClientIdentifier"), "SERIAL1");
        assert_eq!(w.state(policy, id).await.0, "installing");
    })
    .await;
}

#[tokio::test]
async fn th_38_th_41_nothing_is_sent_on_the_devices_word_alone() {
    on_both(|store| async move {
        let (w, apple) = world(store);
        let foreign = Authority::new().unwrap();
        let require = json!({"identity": true, "sip_enabled": true, "os_at_least": {"macOS": "14.2"}});
        let policy = w.policy_for_all(json!({ "require": require })).await;
        let stranger = facts(device(99, "Mac14,2", "14.6"));
        let nameless = Facts { serial_number: Some(String::new()), udid: None, ..stranger.clone() };
        for (n, (fault, expected)) in [
            (Fault::Silent, ReasonCode::AttestationMissing),
            (Fault::ForeignRoot(foreign), ReasonCode::AttestationRefused),
            (Fault::Without(FRESHNESS), ReasonCode::AttestationRefused),
            (Fault::WrongNonce, ReasonCode::AttestationStale),
            (Fault::OtherDevice(stranger), ReasonCode::AttestationMismatch),
            (Fault::OtherDevice(nameless), ReasonCode::AttestationRefused),
            (Fault::Without(SIP), ReasonCode::ValueNotAttested),
            (Fault::Blank(SIP), ReasonCode::ValueNotAttested),
            (Fault::Value(SIP, b"1".to_vec()), ReasonCode::SipDisabled),
            (Fault::Blank(OS_VERSION), ReasonCode::ValueNotAttested),
            (Fault::Value(OS_VERSION, b"14.1".to_vec()), ReasonCode::AttestedOsTooOld),
        ]
        .into_iter()
        .enumerate()
        {
            let mac = device(n as u64 + 1, "Mac14,2", "14.6");
            let id = w.enroll(mac).await;
            let sent = answered(&w, &apple, id, mac, &fault).await;
            assert!(sent.is_none(), "{fault:?}");
            assert_eq!(w.state(policy, id).await, state("blocked", Some(expected)), "{fault:?}");
        }
        // Who never can, is told so; it is not even asked.
        let intel = device(50, "MacBookPro16,1", "14.6");
        let id = w.enroll(intel).await;
        let question = asked(&w, id).await;
        assert_eq!(nonce(&question), None);
    })
    .await;
}

#[tokio::test]
async fn th_38_a_blocked_device_is_asked_again_by_itself_and_opened_by_a_fresh_answer() {
    on_both(|store| async move {
        let (w, apple) = world(store);
        let policy = w.policy_for_all(json!({ "require": {"identity": true} })).await;
        let phone = phone(1);
        let id = w.enroll(phone).await;
        let first = asked(&w, id).await;
        let sent_at: Timestamp = w.now();
        let body = answers(&apple, phone, &first, &Fault::WrongNonce);
        assert!(w.poll(id, Status::Acknowledged, Some(&first), body).await.is_none());
        assert_eq!(w.state(policy, id).await, state("blocked", Some(ReasonCode::AttestationStale)));

        w.clock.advance(DAY + DAY / 24);
        w.reconcile().await;
        let second = asked(&w, id).await;
        assert_eq!(nonce(&second), nonce(&first), "Apple is asked for nothing new");
        let body = answers(&apple, phone, &second, &Fault::None);
        let sent = w.poll(id, Status::Acknowledged, Some(&second), body).await;
        assert_eq!(sent.expect("the profile").request_type, "InstallProfile");
        let mut tx = w.store.read().await.unwrap();
        let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        let facts = policy::facts_of(&mut tx, &enrollment).await.unwrap();
        assert_eq!(facts.attested.unwrap().fresh_as_of, Some(sent_at));
    })
    .await;
}

#[tokio::test]
async fn a_device_that_was_not_known_is_asked_for_its_attestation_as_soon_as_it_is() {
    on_both(|store| async move {
        let (w, apple) = world(store);
        let policy = w.policy_for_all(json!({ "require": {"identity": true} })).await;
        // `Authenticate` says nothing of product and OS.
        let phone = phone(1);
        let id = w.enroll(Device { product: "", os: "", ..phone }).await;
        let first = asked(&w, id).await;
        assert_eq!(nonce(&first), None, "nobody knows yet that it can");
        let second = w.poll(id, Status::Acknowledged, Some(&first), phone.answers()).await.expect("asked at once");
        let body = answers(&apple, phone, &second, &Fault::None);
        let sent = w.poll(id, Status::Acknowledged, Some(&second), body).await;
        assert_eq!(sent.expect("the profile").request_type, "InstallProfile");

        // One that gives none is asked no third time.
        let silent = super::device::phone(2);
        let id = w.enroll(Device { product: "", os: "", ..silent }).await;
        let first = asked(&w, id).await;
        let second = w.poll(id, Status::Acknowledged, Some(&first), silent.answers()).await.expect("asked at once");
        assert!(nonce(&second).is_some());
        assert!(w.refuse(id, &second).await.is_none());
        assert_eq!(w.state(policy, id).await, state("blocked", Some(ReasonCode::AttestationMissing)));
    })
    .await;
}

#[tokio::test]
async fn a_user_channel_is_asked_once_and_the_attestation_is_asked_of_its_device() {
    on_both(|store| async move {
        let (w, apple) = world(store);
        let policy = w
            .policy_for_all(json!({
                "channel": "user", "client_identifier": "{random}", "subject": [[["CN", "{random}"]]],
                "ca_accepts_unattested": true, "require": {"sip_enabled": true},
            }))
            .await;
        let mac = device(1, "Mac14,2", "14.6");
        let id = w.enroll(mac).await;
        let user = w.enroll_user(id, EnrollmentKind::Device, 1).await;
        let question = asked(&w, user).await;
        assert_eq!(nonce(&question), None, "a user channel has no attestation to give");
        assert!(w.refuse(user, &question).await.is_none(), "not again in the same session");
        assert_eq!(w.state(policy, user).await, state("blocked", Some(ReasonCode::AttestationMissing)));

        assert!(answered(&w, &apple, id, mac, &Fault::None).await.is_none(), "the policy is for the user channel");
        w.reconcile().await;
        let sent = w.idle(user).await.expect("the profile");
        assert_eq!(sent.request_type, "InstallProfile");

        // An answer that opens nothing is no reason to ask again before the next day.
        let other = w.enroll(device(2, "Mac14,2", "14.6")).await;
        let user = w.enroll_user(other, EnrollmentKind::Device, 2).await;
        let question = asked(&w, user).await;
        assert!(w.poll(user, Status::Acknowledged, Some(&question), mac.answers()).await.is_none());
        let question = asked(&w, other).await;
        assert!(w.refuse(other, &question).await.is_none());
        w.reconcile().await;
        assert!(w.idle(user).await.is_none() && w.idle(other).await.is_none());
        assert_eq!(w.state(policy, user).await, state("blocked", Some(ReasonCode::AttestationMissing)));
    })
    .await;
}
