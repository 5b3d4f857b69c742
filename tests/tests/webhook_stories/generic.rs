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
        world.authority(generic(&json!({"accepts_unattested": true}))).await;
        let webhook = world.webhook("ours", Generic).await;
        let enrollment = world.enrolled("C02A", EnrollmentKind::Device).await;
        let device = world.sent(enrollment, "one-time", "ours", unattested("C02A", "one-time")).await;
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

/// What was delivered to a device that gives no attestation.
fn unattested(serial: &str, identifier: &str) -> Expectation {
    Expectation { attested: false, ..expectation(serial, identifier) }
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
        world.sent(enrollment, "one-time", "ours", unattested("C02A", "one-time")).await;
        assert_eq!(world.call(&webhook, &world.authorize("one-time", &spki())).await.no(), "not_attested");
        world.authority(generic(&json!({"accepts_unattested": true}))).await;
        world.clock.advance(Duration::from_secs(1));
        world.call(&webhook, &world.authorize("one-time", &spki())).await.yes();
    })
    .await;
}

#[tokio::test]
async fn th_43_who_knows_the_serial_number_of_an_unattested_device_gets_nothing() {
    story(|world| async move {
        world.authority(generic(&json!({"accepts_unattested": true}))).await;
        let webhook = world.webhook("ours", Generic).await;
        let enrollment = world.enrolled("C02A", EnrollmentKind::Device).await;
        for name in ["C02A".to_owned(), udid("C02A")] {
            let device = world.sent(enrollment, &name, "ours", unattested("C02A", &name)).await;
            assert_eq!(world.call(&webhook, &world.authorize(&name, &spki())).await.no(), "identifier_no_secret");
            assert!(world.attempt(&device).await.authorized_at.is_none());
        }
        let refused = world.events("webhook.refused").await;
        assert_eq!(refused.last().unwrap().1["reason"], "identifier_no_secret");
    })
    .await;
}

#[tokio::test]
async fn th_39_an_authority_that_compares_no_identifier_shows_the_attestation() {
    story(|world| async move {
        world.authority(generic(&json!({"identifier": "attested", "verifies_attestation": true}))).await;
        let webhook = world.webhook("ours", Generic).await;
        let enrollment = world.enrolled("C02A", EnrollmentKind::Device).await;
        world.sent(enrollment, "C02A", "ours", expectation("C02A", "C02A")).await;
        world.call(&webhook, &world.authorize("C02A", &spki())).await.yes();
        world.sent(enrollment, "one-time", "ours", expectation("C02A", "one-time")).await;
        assert_eq!(
            world.call(&webhook, &world.authorize("one-time", &spki())).await.no(),
            "identifier_not_the_devices"
        );
        // One that was entered before this was asked of it: it compares nothing, whatever it verifies.
        let mut tx = world.store.begin().await.unwrap();
        let row = store::authorities::by_name(&mut tx, "ours").await.unwrap().unwrap();
        let body = row.body.replace("\"attested\"", "\"any\"");
        assert!(store::authorities::revise(&mut tx, row.id(), &body, world.clock.now()).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(world.call(&webhook, &world.authorize("one-time", &spki())).await.no(), "not_attested");
    })
    .await;
}

#[tokio::test]
async fn th_39_an_identifier_of_several_devices_is_nobodys_permission() {
    story(|world| async move {
        world.authority(generic(&json!({"accepts_unattested": true}))).await;
        let webhook = world.webhook("ours", Generic).await;
        let mut devices = Vec::new();
        for serial in ["C02A", "C02B"] {
            let enrollment = world.enrolled(serial, EnrollmentKind::Device).await;
            devices.push(world.sent(enrollment, "corp", "ours", unattested(serial, "corp")).await);
        }
        assert_eq!(world.call(&webhook, &world.authorize("corp", &spki())).await.no(), "identifier_of_several");
        for device in &devices {
            assert!(world.attempt(device).await.authorized_at.is_none());
        }
        // One leaves: then it is known who asks.
        world.leaves(&devices[1]).await;
        world.clock.advance(Duration::from_secs(1));
        let told = world.call(&webhook, &world.authorize("corp", &spki())).await.yes();
        assert_eq!(told["trace"], json!(devices[0].attempt));
        // More than any one device has.
        for _ in 0..=store::attempts::MOST_OPEN {
            world.sent(devices[0].enrollment, "many", "ours", unattested("C02A", "many")).await;
        }
        assert_eq!(world.call(&webhook, &world.authorize("many", &spki())).await.no(), "identifier_of_several");
    })
    .await;
}

#[tokio::test]
async fn th_39_a_name_that_was_not_delivered_is_refused_where_the_authority_tells_it() {
    story(|world| async move {
        world.authority(generic(&json!({"accepts_unattested": true}))).await;
        let webhook = world.webhook("ours", Generic).await;
        let enrollment = world.enrolled("C02A", EnrollmentKind::Device).await;
        world.sent(enrollment, "one-time", "ours", unattested("C02A", "one-time")).await;
        let mut body = world.authorize("one-time", &spki());
        body["commonName"] = "ceo@example.com".into();
        assert_eq!(world.call(&webhook, &body).await.no(), "names_differ");
        body["commonName"] = "one-time".into();
        body["sans"] = json!([{"type": "email", "value": "ceo@example.com"}]);
        assert_eq!(world.call(&webhook, &body).await.no(), "names_differ");
        body["sans"] = json!([{"type": "dns", "value": "PHONE.example.com"}]);
        world.call(&webhook, &body).await.yes();
    })
    .await;
}

#[tokio::test]
async fn th_42_of_two_authorities_that_ask_for_one_key_at_once_one_is_told_yes() {
    story(|world| async move {
        let mut webhooks = Vec::new();
        for name in ["ours", "theirs"] {
            let mut document = generic(&json!({"accepts_unattested": true}));
            document["name"] = name.into();
            world.authority(document).await;
            webhooks.push(world.webhook(name, Generic).await);
        }
        let a = world.enrolled("C02A", EnrollmentKind::Device).await;
        let b = world.enrolled("C02B", EnrollmentKind::Device).await;
        for n in 0..12 {
            let (one, two) = (format!("one-{n}"), format!("two-{n}"));
            world.sent(a, &one, "ours", unattested("C02A", &one)).await;
            world.sent(b, &two, "theirs", unattested("C02B", &two)).await;
            let key = spki();
            let bodies = (world.authorize(&one, &key), world.authorize(&two, &key));
            let (first, second) =
                tokio::join!(world.call(&webhooks[0], &bodies.0), world.call(&webhooks[1], &bodies.1));
            let (yes, no): (Vec<_>, Vec<_>) = [first, second].into_iter().partition(|a| a.body["allow"] == true);
            assert_eq!((yes.len(), no.len()), (1, 1), "{yes:?} {no:?}");
            assert_eq!(no[0].body["error"]["code"], "key_of_another");
        }
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
