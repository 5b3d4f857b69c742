//! What travels with the identity, who signs the profile, and how it goes.

use std::collections::BTreeMap;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::cms_verify::{Rules, Sha1Rule, verify_attached};
use mdm_core::crypto::key::PrivateKey;
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::plist::{Dictionary, Limits, Value, decode_dictionary};
use mdm_tests::on_both;
use policy::Signers;
use policy::reason::ReasonCode;
use serde_json::{Value as Json, json};

use super::device::{Device, Sent, device, flag, phone, text};
use super::world::{World, nobody, state};

fn companions(optional: bool) -> Json {
    json!([
        {"type": "wifi", "name": "office", "ssid": "Example", "user_name": "host/{serial}"},
        {"type": "vpn_ikev2", "name": "vpn", "optional": optional, "remote_address": "vpn.example.com", "remote_identifier": "vpn.example.com",
         "local_identifier": "{serial}", "server_certificate_issuer_common_name": "Example CA"},
        {"type": "raw", "name": "dns", "platforms": ["macOS"], "payload_type": "com.apple.dnsSettings.managed",
         "keys": {"DNSSettings": {"DNSProtocol": "TLS", "PayloadCertificateUUID": "{identity_uuid}"}}},
    ])
}

/// The signed profile and its payloads.
fn opened(sent: &Sent) -> (Vec<u8>, Dictionary, Vec<Dictionary>) {
    assert_eq!(sent.request_type, "InstallProfile");
    let signed = sent.command.get("Payload").and_then(Value::as_data).unwrap().to_vec();
    let (_, content) = verify_attached(&signed, Rules { sha1: Sha1Rule::Refuse }).unwrap();
    let profile = decode_dictionary(&content, Limits::REPORT).unwrap();
    let payloads = profile.get("PayloadContent").and_then(Value::as_array).unwrap();
    let payloads = payloads.iter().map(|p| p.as_dictionary().unwrap().clone()).collect();
    (signed, profile, payloads)
}

fn types(payloads: &[Dictionary]) -> Vec<&str> {
    payloads.iter().map(|p| text(p, "PayloadType")).collect()
}

#[tokio::test]
async fn what_uses_the_identity_comes_in_the_same_profile_and_names_it() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"ca_accepts_unattested": true, "companions": companions(true)})).await;
        let mac = device(1, "Mac14,2", "14.5");
        let id = w.enroll(mac).await;
        let (_, profile, payloads) = opened(&w.answer(id, mac).await.unwrap());
        assert_eq!(
            types(&payloads),
            [
                "com.apple.security.acme",
                "com.apple.wifi.managed",
                "com.apple.vpn.managed",
                "com.apple.dnsSettings.managed"
            ]
        );
        let [identity, wifi, vpn, dns] = payloads.as_slice() else { panic!() };
        let uuid = text(identity, "PayloadUUID");
        assert_eq!(text(wifi, "PayloadCertificateUUID"), uuid);
        assert_eq!(text(vpn.get("IKEv2").and_then(Value::as_dictionary).unwrap(), "PayloadCertificateUUID"), uuid);
        assert_eq!(
            text(dns.get("DNSSettings").and_then(Value::as_dictionary).unwrap(), "PayloadCertificateUUID"),
            uuid
        );
        let eap = wifi.get("EAPClientConfiguration").and_then(Value::as_dictionary).unwrap();
        assert_eq!(text(eap, "UserName"), "host/SERIAL1");
        let (mut uuids, prefix) = (Vec::new(), text(&profile, "PayloadIdentifier"));
        for payload in &payloads {
            assert!(text(payload, "PayloadIdentifier").starts_with(&format!("{prefix}.")));
            uuids.push(text(payload, "PayloadUUID"));
        }
        uuids.sort_unstable();
        uuids.dedup();
        assert_eq!(uuids.len(), 4, "each has a UUID of its own");

        let watch = device(2, "Watch7,1", "11.0");
        let id = w.enroll(watch).await;
        let (_, _, payloads) = opened(&w.answer(id, watch).await.unwrap());
        assert_eq!(
            types(&payloads),
            ["com.apple.security.acme", "com.apple.wifi.managed"],
            "watchOS has no VPN payload"
        );
        let kept = w.assignment(policy, id).await.unwrap().decision.unwrap();
        assert!(kept.contains("companion_left_out"), "{kept}");
    })
    .await;
}

#[tokio::test]
async fn a_device_that_may_not_have_a_companion_is_refused_before_anything_is_sent() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"ca_accepts_unattested": true, "companions": companions(false)})).await;
        let watch = device(1, "Watch7,1", "11.0");
        let id = w.enroll(watch).await;
        assert!(w.answer(id, watch).await.is_none(), "no profile");
        assert_eq!(w.state(policy, id).await, state("blocked", Some(ReasonCode::CompanionNotSupported)));
        assert_eq!(w.attempts(id).await.len(), 0, "no permission was given");
    })
    .await;
}

#[tokio::test]
async fn a_policy_is_for_its_operating_systems_alone() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"ca_accepts_unattested": true, "platforms": ["iOS"]})).await;
        let (one, mac) = (phone(1), device(2, "Mac14,2", "14.5"));
        let (phone, other) = (w.enroll(one).await, w.enroll(mac).await);
        assert!(w.answer(phone, one).await.is_some());
        assert!(w.answer(other, mac).await.is_none());
        assert_eq!(w.state(policy, other).await, state("blocked", Some(ReasonCode::PlatformNotWanted)));
    })
    .await;
}

#[tokio::test]
async fn the_profile_cannot_be_removed_where_apple_knows_that_key() {
    on_both(|store| async move {
        let w = World::new(store);
        w.policy_for_all(json!({"ca_accepts_unattested": true, "removal": {"disallowed": true}})).await;
        let automated = Device { kind: EnrollmentKind::Automated, ..phone(1) };
        for (device, written) in [(automated, true), (phone(2), false), (device(3, "Mac14,2", "14.5"), true)] {
            let id = w.enroll(device).await;
            let (_, profile, _) = opened(&w.answer(id, device).await.unwrap());
            assert_eq!(flag(&profile, "PayloadRemovalDisallowed"), written.then_some(true), "{}", device.product);
        }
    })
    .await;
}

#[tokio::test]
async fn a_profile_that_is_to_be_kept_stays_when_its_device_leaves_the_scope() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"removal": {"when_unassigned": "keep"}})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        w.session(id, one).await;
        assert_eq!(w.state(policy, id).await.0, "verified");
        assert_eq!(w.scope(policy, nobody()).await.leaving, 1);
        w.reconcile().await;
        assert!(w.assignment(policy, id).await.is_none());
        assert!(w.idle(id).await.is_none(), "nothing is taken off");
    })
    .await;
}

#[tokio::test]
async fn the_profile_is_signed_by_whom_the_policy_names() {
    on_both(|store| async move {
        let mut w = World::new(store);
        let signer = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
            let certificate = Certificate::from_der(certificate.der()).unwrap();
            let key = PrivateKey::from_pkcs8_der(&key.serialize_der()).unwrap();
            (ProfileSigner::new(key, certificate.clone(), vec![]).unwrap(), certificate)
        };
        let ((own, own_certificate), (corporate, certificate)) = (signer(), signer());
        w.ctx.signers = Signers::with_named(own, BTreeMap::from([("corporate".to_owned(), corporate)]));
        let unknown = policy::create(
            &mut w.store.begin().await.unwrap(),
            &w.ctx,
            &w.acme(json!({"signing_identity": "other"})),
            "token:test",
            w.now(),
        )
        .await
        .unwrap_err();
        assert!(
            unknown.to_string().contains("signing_identity") && unknown.to_string().contains("corporate"),
            "{unknown}"
        );
        w.policy_for_all(json!({"signing_identity": "corporate"})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let (signed, _, _) = opened(&w.answer(id, one).await.unwrap());
        let holds = |c: &Certificate| signed.windows(c.der().len()).any(|part| part == c.der());
        assert!(holds(&certificate) && !holds(&own_certificate));
    })
    .await;
}
