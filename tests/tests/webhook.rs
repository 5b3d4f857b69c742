//! What certificate authorities ask before they issue: step-ca's webhooks and the generic one, on both databases.

#[path = "webhook_stories/generic.rs"]
mod generic;
mod webhook_world;

use std::time::Duration;

use ca::webhooks::WebhookKind::{Authorizing, Enriching};
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::Fingerprint;
use serde_json::{Value as Json, json};

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
async fn th_39_a_certificate_with_a_name_that_was_not_delivered_is_not_allowed() {
    story(|world| async move {
        let webhook = world.webhook("step", Authorizing).await;
        let device = world.device("C02A", "step").await;
        let body = world.authorizing("C02A", &spki());
        let with = async |key: &str, value: Json| {
            altered(&world, &webhook, &body, |body| body["x509Certificate"][key] = value).await
        };
        // A template that copies the request: what the device, or its user, wrote into it.
        assert_eq!(with("subject", json!({"commonName": "ceo@example.com"})).await.no(), "names_differ");
        let extra = json!({"extraNames": [{"type": "2.5.4.3", "value": "ceo@example.com"}]});
        assert_eq!(with("subject", extra).await.no(), "names_differ");
        let sans =
            json!([{"type": "permanentIdentifier", "value": "C02A"}, {"type": "email", "value": "ceo@example.com"}]);
        assert_eq!(with("sans", sans).await.no(), "names_differ");
        assert_eq!(with("emailAddresses", json!(["ceo@example.com"])).await.no(), "names_differ");
        assert!(world.attempt(&device).await.authorized_at.is_none());
        // The template of the documentation: what Assay gave it.
        let sans = json!([
            {"type": "permanentIdentifier", "value": "C02A"}, {"type": "dns", "value": "phone.example.com"},
            {"type": "1.3.6.1.4.1.311.20.2.3", "value": "utf8:ada@example.com"},
        ]);
        let names = json!([{"type": "2.5.4.10", "value": "Example"}, {"type": "2.5.4.3", "value": "C02A"}]);
        let filled = altered(&world, &webhook, &body, |body| {
            body["x509Certificate"]["sans"] = sans;
            body["x509Certificate"]["subject"] = json!({"extraNames": names});
        });
        filled.await.yes();
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
