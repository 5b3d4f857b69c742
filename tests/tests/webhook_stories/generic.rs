//! The generic webhook: one-time identifiers, attestations that are shown, and what was issued.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ca::webhooks::WebhookKind::Generic;
use mdm_core::certificate::Certificate;
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::Fingerprint;
use openssl::pkey::{PKey, Private};
use policy::proof::Expectation;
use serde_json::{Value as Json, json};
use simulator::attestation::{Authority as Attester, Facts, Statement};
use store::Store;

use crate::webhook_world::{self, Webhook, World, expectation, spki, story, udid};

fn generic(change: &Json) -> Json {
    let mut json = json!({"name": "ours", "kind": "generic", "directory_url": "https://acme.example/directory"});
    for (key, value) in change.as_object().unwrap() {
        json[key] = value.clone();
    }
    json
}

#[tokio::test]
async fn another_authority_asks_with_a_one_time_identifier_and_reports_what_it_issued() {
    story(|world| async move {
        world.authority(generic(&json!({"verifies_attestation": true}))).await;
        let webhook = world.webhook("ours", Generic).await;
        let enrollment = world.enrolled("C02A", EnrollmentKind::Device).await;
        let device = world.sent(enrollment, "one-time", "ours", expectation("C02A", "one-time")).await;
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&pair).unwrap();
        let key = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let issued = |der: &[u8]| {
            json!({
                "timestamp": world.clock.now().to_rfc3339(), "event": "issued", "identifier": "one-time",
                "certificate": STANDARD.encode(der),
            })
        };
        assert_eq!(world.call(&webhook, &issued(certificate.der())).await.no(), "not_allowed", "nobody was asked");
        assert_eq!(world.call(&webhook, &world.authorize("one-timE", &key)).await.no(), "no_open_attempt");
        let told = world.call(&webhook, &world.authorize("one-time", &key)).await.yes();
        assert_eq!((&told["trace"], &told["policy"].is_string()), (&json!(device.attempt), &true));

        world.clock.advance(Duration::from_secs(1));
        let told = world.call(&webhook, &issued(certificate.der())).await.yes();
        assert_eq!(told["trace"], json!(device.attempt));
        let attempt = world.attempt(&device).await;
        let sha256 = Fingerprint::of(certificate.der());
        assert_eq!(attempt.certificate_sha256.as_deref(), Some(sha256.0.as_slice()));
        let mut tx = world.store.read().await.unwrap();
        let kept = store::certificates::of_attempt(&mut tx, device.attempt).await.unwrap();
        assert_eq!((kept.len(), kept[0].state.as_str(), kept[0].enrollment_id), (1, "reported", enrollment.0));
        drop(tx);
        // The certificate of another key, and another certificate for the key.
        let foreign = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&rcgen::KeyPair::generate().unwrap());
        assert_eq!(world.call(&webhook, &issued(foreign.unwrap().der())).await.no(), "not_allowed");
        let second = rcgen::CertificateParams::new(vec!["x.example".into()]).unwrap().self_signed(&pair).unwrap();
        assert_eq!(world.call(&webhook, &issued(second.der())).await.no(), "other_certificate");
        let issued_events = world.events("certificate.issued").await;
        assert_eq!(issued_events.len(), 1);
        assert_eq!(issued_events[0].1["trace"], json!(device.attempt));
    })
    .await;
}

/// A world that knows a test root of attestations, a generic authority that verifies none, and one device that was sent to it.
async fn shown(store: Store) -> (World, Attester, Webhook, webhook_world::Device) {
    let attester = Attester::new().unwrap();
    let root = Certificate::from_der(&attester.root().unwrap()).unwrap();
    let context = attestation::Context { test_roots: Arc::new(vec![root]), ..mdm_tests::attestation() };
    let world = World::with(store, context).await;
    world.authority(generic(&json!({}))).await;
    let webhook = world.webhook("ours", Generic).await;
    let enrollment = world.enrolled("C02A", EnrollmentKind::Device).await;
    let device = world.sent(enrollment, "one-time", "ours", expectation("C02A", "one-time")).await;
    (world, attester, webhook, device)
}

/// What Apple would sign of the device with this serial number.
fn facts(serial: Option<&str>) -> Facts {
    Facts {
        serial_number: serial.map(str::to_owned),
        udid: serial.map(udid),
        sep_os_version: None,
        os_version: Some("18.1".into()),
        model: None,
        llb_version: None,
        sip_enabled: None,
        secure_boot: None,
        third_party_kexts: None,
    }
}

/// A call that shows an attestation of these facts and this key, made for this token.
fn showing(
    world: &World,
    attester: &Attester,
    facts: &Facts,
    (attested, asked): (&PKey<Private>, &PKey<Private>),
    token: &str,
) -> Json {
    let freshness = Fingerprint::of(token.as_bytes()).0;
    let chain = attester.attest(facts, attested, &freshness).unwrap();
    let mut body = world.authorize("one-time", &asked.public_key_to_der().unwrap());
    body["attestation"] = json!({"object": URL_SAFE_NO_PAD.encode(Statement::apple(chain).encode()), "token": "token"});
    body
}

fn p256() -> PKey<Private> {
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap()
}

#[tokio::test]
async fn th_36_th_37_th_39_th_42_an_attestation_that_is_shown_must_be_of_this_device_this_key_and_this_challenge() {
    mdm_tests::on_both(|store| async move {
        let (world, attester, webhook, device) = shown(store).await;
        let (key, other) = (p256(), p256());
        let foreign = Attester::new().unwrap();
        let right = facts(Some("C02A"));
        assert_eq!(
            world.call(&webhook, &world.authorize("one-time", &key.public_key_to_der().unwrap())).await.no(),
            "not_attested"
        );
        for (what, body) in [
            ("another device", showing(&world, &attester, &facts(Some("C02B")), (&key, &key), "token")),
            ("another key", showing(&world, &attester, &right, (&other, &key), "token")),
            ("another challenge", showing(&world, &attester, &right, (&key, &key), "token of before")),
            ("another root", showing(&world, &foreign, &right, (&key, &key), "token")),
            ("no names", showing(&world, &attester, &facts(None), (&key, &key), "token")),
        ] {
            assert_eq!(world.call(&webhook, &body).await.no(), "attestation_refused", "{what}");
        }
        let mut none = showing(&world, &attester, &right, (&key, &key), "token");
        none["attestation"]["object"] = URL_SAFE_NO_PAD.encode(Statement::none().encode()).into();
        assert_eq!(world.call(&webhook, &none).await.no(), "attestation_refused");
        none["attestation"]["object"] = URL_SAFE_NO_PAD.encode(b"\xa1").into();
        assert_eq!(world.call(&webhook, &none).await.no(), "attestation_refused");
        none["attestation"]["object"] = "no base64url!".into();
        assert_eq!(world.call(&webhook, &none).await.turned_away(), (400, "malformed".into()));
        assert!(world.attempt(&device).await.authorized_at.is_none());

        world.clock.advance(Duration::from_secs(1));
        world.call(&webhook, &showing(&world, &attester, &right, (&key, &key), "token")).await.yes();
        assert!(world.attempt(&device).await.authorized_at.is_some());
        let mut tx = world.store.read().await.unwrap();
        let verdict = store::attestations::latest(&mut tx, device.enrollment, "acme").await.unwrap().unwrap();
        assert_eq!((verdict.verdict.as_str(), verdict.identity.as_str()), ("accepted", "matches"));
    })
    .await;
}

#[tokio::test]
async fn an_authority_that_accepts_unattested_devices_says_so() {
    story(|world| async move {
        world.authority(generic(&json!({}))).await;
        let webhook = world.webhook("ours", Generic).await;
        let enrollment = world.enrolled("C02A", EnrollmentKind::Device).await;
        let unattested = Expectation { attested: false, ..expectation("C02A", "one-time") };
        world.sent(enrollment, "one-time", "ours", unattested).await;
        assert_eq!(world.call(&webhook, &world.authorize("one-time", &spki())).await.no(), "not_attested");
        world.authority(generic(&json!({"accepts_unattested": true}))).await;
        world.clock.advance(Duration::from_secs(1));
        world.call(&webhook, &world.authorize("one-time", &spki())).await.yes();
    })
    .await;
}

#[tokio::test]
async fn a_call_about_a_busy_device_keeps_the_others_of_its_webhook_from_nothing() {
    mdm_tests::on_both(|store| async move {
        if store.dialect() == store::Dialect::Sqlite {
            return;
        }
        let (world, attester, webhook, device) = shown(store).await;
        let key = p256();
        let body = showing(&world, &attester, &facts(Some("C02A")), (&key, &key), "token");
        let mut session = world.store.begin().await.unwrap();
        store::enrollments::lock(&mut session, device.enrollment).await.unwrap();
        let others = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let other = world.authorize("somebody-else", &spki());
            let told = tokio::time::timeout(Duration::from_secs(2), world.call(&webhook, &other)).await;
            session.commit().await.unwrap();
            told.expect("it does not wait for a device that it is not about").no()
        };
        let (waited, told) = tokio::join!(world.call(&webhook, &body), others);
        assert_eq!(told, "no_open_attempt");
        waited.yes();
    })
    .await;
}
