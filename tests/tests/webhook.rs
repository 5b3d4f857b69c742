//! What certificate authorities ask before they issue: step-ca's webhooks and the generic one, on both databases.

mod webhook_world;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ca::webhooks::WebhookKind::{Authorizing, Enriching, Generic};
use mdm_core::certificate::Certificate;
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::Fingerprint;
use openssl::pkey::{PKey, Private};
use policy::proof::Expectation;
use serde_json::{Value as Json, json};
use simulator::attestation::{Authority as Attester, Facts, Statement};
use store::Store;

use self::webhook_world::{DAY, Webhook, World, expectation, header_names, spki, story, udid};

/// A well-signed call with a body that was altered.
async fn altered(
    world: &World,
    webhook: &Webhook,
    body: &Json,
    change: impl FnOnce(&mut Json),
) -> webhook_world::Answer {
    let mut body = body.clone();
    change(&mut body);
    world.call(webhook, &body).await
}

#[tokio::test]
async fn step_ca_enriches_and_authorizes_one_certificate_for_an_enrolled_device() {
    story(|world| async move {
        let enriching = world.webhook("step", Enriching).await;
        let authorizing = world.webhook("step", Authorizing).await;
        let device = world.device("C02A", "step").await;
        let key = spki();
        let told = world.call(&enriching, &world.enriching("C02A", &key)).await.yes();
        assert_eq!(told["trace"], device.attempt.to_string());
        assert_eq!((&told["enrollment_id"], &told["revision"]), (&json!(device.enrollment), &json!(1)));
        assert_eq!(told["device"], json!({"serial_number": "C02A", "udid": udid("C02A")}));
        let names = json!([{"type": "2.5.4.10", "value": "Example"}, {"type": "2.5.4.3", "value": "C02A"}]);
        assert_eq!(told["subject"], json!({ "extraNames": names }));
        let sans = json!([
            {"type": "permanentIdentifier", "value": "C02A"},
            {"type": "dns", "value": "phone.example.com"},
            {"type": "1.3.6.1.4.1.311.20.2.3", "value": "utf8:ada@example.com"},
        ]);
        assert_eq!(told["sans"], sans);
        world.call(&authorizing, &world.authorizing("C02A", &key)).await.yes();

        let attempt = world.attempt(&device).await;
        assert_eq!(attempt.authorized_at, Some(world.clock.now().0));
        assert_eq!(attempt.authorized_key_sha256.as_deref(), Some(Fingerprint::of(&key).0.as_slice()));
        let events = world.events("webhook.").await;
        assert_eq!(events.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), ["webhook.allowed"; 2]);
        for (_, data) in &events {
            assert_eq!((&data["trace"], &data["authority"]), (&json!(device.attempt), &json!("step")));
        }
        assert!(events[1].1["not_after"].is_string());
    })
    .await;
}

#[tokio::test]
async fn the_udid_is_a_name_of_the_device_too() {
    story(|world| async move {
        let authorizing = world.webhook("step", Authorizing).await;
        let enrollment = world.enrolled("C02U", EnrollmentKind::Device).await;
        let name = udid("C02U");
        world.sent(enrollment, &name, "step", expectation("C02U", &name)).await;
        world.call(&authorizing, &world.authorizing(&name, &spki())).await.yes();
    })
    .await;
}

#[tokio::test]
async fn th_39_only_an_open_attempt_of_an_enrolled_assigned_device_is_allowed() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        let ask = async |identifier: &str| world.call(&webhook, &world.authorizing(identifier, &spki())).await;
        assert_eq!(ask("C02N").await.no(), "no_open_attempt", "nobody has it");

        world.enrolled("C02X", EnrollmentKind::Device).await;
        assert_eq!(ask("C02X").await.no(), "no_open_attempt", "enrolled, and nothing was sent");

        // The identifier of one device was sent to another: its own it is not.
        let enrollment = world.enrolled("C02V", EnrollmentKind::Device).await;
        world.sent(enrollment, "C02W", "step", expectation("C02V", "C02W")).await;
        assert_eq!(ask("C02W").await.no(), "identifier_not_the_devices");

        let user = world.enrolled("C02B", EnrollmentKind::User).await;
        world.sent(user, "C02B", "step", expectation("C02B", "C02B")).await;
        assert_eq!(ask("C02B").await.no(), "identifier_not_the_devices", "in User Enrollment no name is attested");

        let device = world.device("C02A", "step").await;
        for state in ["assigned", "blocked", "failed", "removing", "held"] {
            world.assignment(&device, state).await;
            assert_eq!(ask("C02A").await.no(), "not_assigned", "{state}");
        }
        world.assignment(&device, "installing").await;
        world.leaves(&device).await;
        assert_eq!(ask("C02A").await.no(), "not_enrolled");

        let late = world.device("C02L", "step").await;
        world.clock.advance(DAY);
        assert_eq!(ask("C02L").await.no(), "no_open_attempt", "a day is over");
        assert!(world.attempt(&late).await.authorized_at.is_none());

        let void = world.device("C02M", "step").await;
        let mut tx = world.store.begin().await.unwrap();
        store::attempts::void_open(&mut tx, &[void.assignment], "superseded", world.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(ask("C02M").await.no(), "no_open_attempt");
        let refused = world.events("webhook.").await;
        assert!(refused.len() >= 11 && refused.iter().all(|(kind, _)| kind == "webhook.refused"));
        assert_eq!(refused.last().unwrap().1["reason"], "no_open_attempt");
    })
    .await;
}

#[tokio::test]
async fn th_39_an_authority_asks_only_for_devices_that_were_sent_to_it() {
    story(|world| async move {
        let other =
            json!({"name": "other", "kind": "step_ca", "directory_url": "https://other.example/acme/mdm/directory"});
        world.authority(other).await;
        let (ours, theirs) = (world.webhook("step", Authorizing).await, world.webhook("other", Authorizing).await);
        world.device("C02A", "step").await;
        let body = world.authorizing("C02A", &spki());
        assert_eq!(world.call(&theirs, &body).await.no(), "other_authority");
        // The webhook of one authority at the address of another.
        let elsewhere = Webhook { authority: "other".into(), ..ours.clone() };
        assert_eq!(world.call(&elsewhere, &body).await.turned_away(), (403, "signature_wrong".into()));
        let form = Webhook { step_ca: false, ..ours.clone() };
        let bytes = body.to_string();
        let signature = webhook::sign(&ours.secret, bytes.as_bytes());
        let sent = world.raw(&form, bytes.as_bytes(), &[("X-Assay-Signature", &signature)]).await;
        assert_eq!(sent.turned_away(), (403, "signature_wrong".into()));
        world.call(&ours, &body).await.yes();
    })
    .await;
}

#[tokio::test]
async fn a_wrong_signature_or_an_old_time_has_its_own_error_and_no_effect() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        let device = world.device("C02A", "step").await;
        let body = world.authorizing("C02A", &spki());
        let bytes = body.to_string().into_bytes();
        let signed = header_names(&webhook).1;
        let good = webhook::sign(&webhook.secret, &bytes);
        let wrong = webhook::sign(b"another secret of the same length", &bytes);
        let no_signature = (403, "signature_wrong".to_owned());
        for headers in [
            vec![],
            vec![(signed, wrong.as_str())],
            vec![(signed, "")],
            vec![(signed, "no hex")],
            vec![(signed, good.as_str()), (signed, good.as_str())],
        ] {
            assert_eq!(world.raw(&webhook, &bytes, &headers).await.turned_away(), no_signature, "{headers:?}");
        }
        // Signed, and then altered.
        let moved = String::from_utf8(bytes.clone()).unwrap().replace("C02A", "C02B").into_bytes();
        assert_eq!(world.raw(&webhook, &moved, &[(signed, &good)]).await.turned_away(), no_signature);
        for id in ["", "nobody", &webhook.id.to_uppercase()] {
            let unknown = Webhook { id: id.to_owned(), ..webhook.clone() };
            assert_eq!(world.raw(&unknown, &bytes, &[(signed, &good)]).await.turned_away(), no_signature);
        }
        let nowhere = Webhook { authority: "nowhere".into(), ..webhook.clone() };
        assert_eq!(world.raw(&nowhere, &bytes, &[(signed, &good)]).await.turned_away(), no_signature);

        for minutes in [-6_i64, 6] {
            let at = mdm_core::time::Timestamp(world.clock.now().0 + minutes * 60_000).to_rfc3339();
            let old = altered(&world, &webhook, &body, |body| body["timestamp"] = at.into()).await;
            assert_eq!(old.turned_away(), (403, "timestamp_outside_window".into()));
        }
        for change in ["x509Certificate", "timestamp"] {
            let cut = altered(&world, &webhook, &body, |body| drop(body.as_object_mut().unwrap().remove(change))).await;
            assert_eq!(cut.turned_away(), (400, "malformed".into()));
        }
        let padded = altered(&world, &webhook, &body, |body| body["more"] = "x".repeat(300_000).into()).await;
        assert_eq!(padded.turned_away(), (413, "too_large".into()));
        assert!(world.attempt(&device).await.authorized_at.is_none());

        let events = world.events("webhook.").await;
        assert_eq!(events.len(), 5, "what one address does wrong is written down five times, then once a minute");
        let all = serde_json::to_string(&events).unwrap();
        assert!(events.iter().all(|(kind, _)| kind == "webhook.turned_away") && !all.contains(&good));
        // After all this the right call is answered.
        world.raw(&webhook, &bytes, &[(signed, &good.to_uppercase())]).await.yes();
    })
    .await;
}

#[tokio::test]
async fn the_same_call_again_gets_the_same_answer_and_does_nothing() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        let device = world.device("C02A", "step").await;
        let (yes, no) = (world.authorizing("C02A", &spki()), world.authorizing("C02Z", &spki()));
        let first = (world.call(&webhook, &yes).await, world.call(&webhook, &no).await);
        let before = world.attempt(&device).await;
        world.clock.advance(Duration::from_secs(60));
        // Meanwhile the answers would be others.
        world.leaves(&device).await;
        world.device("C02Z", "step").await;
        let again = (world.call(&webhook, &yes).await, world.call(&webhook, &no).await);
        assert_eq!(first, again);
        assert_eq!(world.attempt(&device).await, before);
        assert_eq!(world.events("webhook.").await.len(), 2);
        world.clock.advance(Duration::from_secs(300));
        assert_eq!(world.call(&webhook, &yes).await.turned_away(), (403, "timestamp_outside_window".into()));
    })
    .await;
}

#[tokio::test]
async fn th_45_a_permission_is_used_once() {
    story(|world| async move {
        let (enriching, authorizing) =
            (world.webhook("step", Enriching).await, world.webhook("step", Authorizing).await);
        let device = world.device("C02A", "step").await;
        let (key, other) = (spki(), spki());
        world.call(&enriching, &world.enriching("C02A", &key)).await.yes();
        assert_eq!(
            world.call(&authorizing, &world.authorizing("C02A", &other)).await.no(),
            "already_used",
            "another key"
        );
        world.call(&authorizing, &world.authorizing("C02A", &key)).await.yes();
        world.clock.advance(Duration::from_secs(1));
        // A second finalize of the same order: another call with the same key.
        assert_eq!(world.call(&enriching, &world.enriching("C02A", &key)).await.no(), "already_used");
        assert_eq!(world.call(&authorizing, &world.authorizing("C02A", &key)).await.no(), "already_used");
        let attempt = world.attempt(&device).await;
        assert_eq!(attempt.authorized_key_sha256.as_deref(), Some(Fingerprint::of(&key).0.as_slice()));
    })
    .await;
}

#[tokio::test]
async fn th_45_of_two_calls_at_once_one_is_told_yes() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        world.device("C02A", "step").await;
        let bodies = [world.authorizing("C02A", &spki()), world.authorizing("C02A", &spki())];
        let (one, two) = tokio::join!(world.call(&webhook, &bodies[0]), world.call(&webhook, &bodies[1]));
        let mut allowed = [one.body["allow"] == true, two.body["allow"] == true];
        allowed.sort_unstable();
        assert_eq!(allowed, [false, true]);
    })
    .await;
}

#[tokio::test]
async fn th_42_a_key_serves_one_enrollment() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        world.device("C02A", "step").await;
        let device = world.device("C02B", "step").await;
        let key = spki();
        world.call(&webhook, &world.authorizing("C02A", &key)).await.yes();
        assert_eq!(world.call(&webhook, &world.authorizing("C02B", &key)).await.no(), "key_of_another");
        let rsa = mdm_core::crypto::key::PrivateKey::generate_rsa(2048).unwrap().public_spki_der().unwrap();
        assert_eq!(world.call(&webhook, &world.authorizing("C02B", &rsa)).await.no(), "key_differs");
        assert!(world.attempt(&device).await.authorized_at.is_none());
    })
    .await;
}

#[tokio::test]
async fn th_44_there_is_one_identifier_and_it_is_compared_octet_for_octet() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        world.device("C02A", "step").await;
        let body = world.authorizing("C02A", &spki());
        let with = async |identifier: Json| {
            altered(&world, &webhook, &body, |body| body["attestationData"]["permanentIdentifier"] = identifier).await
        };
        for other in ["c02a", "C02A ", "C02A/1.2.3", "Ｃ02A"] {
            assert!(["no_open_attempt", "identifier_malformed"].contains(&with(json!(other)).await.no().as_str()));
        }
        assert_eq!(with(json!("C02A/x")).await.no(), "identifier_malformed");
        assert_eq!(with(json!("")).await.no(), "identifier_missing");
        assert_eq!(with(json!(["C02A", "C02B"])).await.turned_away(), (400, "malformed".into()));
        let unattested =
            altered(&world, &webhook, &body, |body| drop(body.as_object_mut().unwrap().remove("attestationData")));
        assert_eq!(unattested.await.no(), "identifier_missing");
        let twice = body.to_string().replacen('{', "{\"attestationData\":{\"permanentIdentifier\":\"C02B\"},", 1);
        let signature = webhook::sign(&webhook.secret, twice.as_bytes());
        let sent = world.raw(&webhook, twice.as_bytes(), &[("X-Smallstep-Signature", &signature)]).await;
        assert_eq!(sent.turned_away(), (400, "malformed".into()));
        world.call(&webhook, &body).await.yes();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_webhook_and_a_deleted_authority_are_heard_no_more() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        world.device("C02A", "step").await;
        let mut tx = world.store.begin().await.unwrap();
        let row = store::authorities::webhook(&mut tx, &webhook.id).await.unwrap().unwrap();
        let now = world.clock.now();
        assert!(ca::webhooks::revoke(&mut tx, "step", row.id, "token:test", now).await.unwrap());
        tx.commit().await.unwrap();
        let body = world.authorizing("C02A", &spki());
        assert_eq!(world.call(&webhook, &body).await.turned_away(), (403, "signature_wrong".into()));

        let next = world.webhook("step", Authorizing).await;
        let mut tx = world.store.begin().await.unwrap();
        ca::delete(&mut tx, "step", "token:test", now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.call(&next, &body).await.turned_away(), (403, "signature_wrong".into()));
    })
    .await;
}

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
async fn a_call_is_answered_within_200_ms() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        let mut slowest = Duration::ZERO;
        for n in 0..50 {
            let serial = format!("C02{n}");
            world.device(&serial, "step").await;
            let body = world.authorizing(&serial, &spki());
            let began = std::time::Instant::now();
            world.call(&webhook, &body).await.yes();
            slowest = slowest.max(began.elapsed());
        }
        println!("the slowest of 50 webhook calls took {slowest:?}");
    })
    .await;
}
