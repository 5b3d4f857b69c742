//! The whole way with an authority that asks back: delivered, allowed for one key, acknowledged, proved by that key, renewed.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ca::webhooks::{New, WebhookKind};
use http::Request;
use http_body_util::BodyExt;
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::plist::{Dictionary, Value};
use mdm_core::random::Random;
use mdm_core::report::Status;
use mdm_core::secret::Secret;
use mdm_tests::on_both;
use rcgen::PublicKeyData;
use serde_json::{Value as Json, json};
use tower::ServiceExt;

use super::device::{Sent, phone, text};
use super::world::{DAY, HOUR, World, everybody, state, states};

const ID: &str = "7d3c64dc-ec0e-4a0f-a489-241650554bd7";
const SECRET: [u8; 64] = [9; 64];

/// A step-ca with one webhook, as an operator enters it, and the certificate that it signs with.
struct StepCa {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl StepCa {
    async fn new(w: &World) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Step");
        let pem = params.self_signed(&key).unwrap().pem();
        let document = json!({
            "name": "step", "kind": "step_ca", "directory_url": "https://ca.example.com/acme/mdm/directory", "issuers": [pem],
        });
        let mut tx = w.store.begin().await.unwrap();
        let document = serde_json::from_value(document).unwrap();
        ca::put(&mut tx, &Random::System, &document, "token:test", w.now()).await.unwrap();
        let secret = Secret::new(STANDARD.encode(SECRET));
        let new = New { kind: WebhookKind::Authorizing, webhook_id: Some(ID), secret: Some(&secret) };
        let sealing = (&w.ctx.commands.sealer, &Random::System);
        ca::webhooks::add(&mut tx, sealing, "step", &new, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        Self { issuer: rcgen::Issuer::new(params, key) }
    }

    /// What the server says to the certificate that would be signed for this key.
    async fn may(&self, w: &World, identifier: &str, key: &rcgen::KeyPair) -> Json {
        let body = json!({
            "timestamp": w.now().to_rfc3339(),
            "attestationData": {"permanentIdentifier": identifier},
            "x509Certificate": {
                "subject": {"commonName": identifier}, "publicKey": STANDARD.encode(key.subject_public_key_info()),
                "publicKeyAlgorithm": "ECDSA", "notBefore": w.now().to_rfc3339(), "notAfter": w.now().plus(DAY).to_rfc3339(), "raw": null,
            },
        });
        let body = body.to_string();
        let app = webhook::router(webhook::Shared {
            store: w.store.clone(),
            clock: w.clock.clone(),
            sealer: w.ctx.commands.sealer.clone(),
            attestation: w.ctx.attestation.clone(),
            turned_away: std::sync::Arc::default(),
        });
        let request = Request::post("/webhook/step-ca/step")
            .header("X-Smallstep-Webhook-ID", ID)
            .header("X-Smallstep-Signature", webhook::sign(&SECRET, body.as_bytes()))
            .body(Body::from(body));
        let answer = app.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    fn issue(&self, w: &World, identifier: &str, key: &rcgen::KeyPair) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, identifier);
        let at = |ms: i64| time::OffsetDateTime::from_unix_timestamp(ms / 1000).unwrap();
        (params.not_before, params.not_after) = (at(w.now().0), at(w.now().plus(DAY).0));
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }
}

/// The device says that it has the profile, is asked for its identities and shows these.
async fn shows(w: &World, id: EnrollmentId, profile: &Sent, certificates: &[Vec<u8>]) {
    let asked = w.acknowledge(id, profile).await.unwrap();
    assert_eq!(asked.request_type, "CertificateList");
    let entry = |der: &Vec<u8>| {
        let mut entry = Dictionary::new();
        entry.insert("CommonName".into(), "identity".into());
        entry.insert("IsIdentity".into(), true.into());
        entry.insert("Data".into(), Value::Data(der.clone()));
        Value::Dictionary(entry)
    };
    let mut body = Dictionary::new();
    body.insert("CertificateList".into(), Value::Array(certificates.iter().map(entry).collect()));
    w.poll(id, Status::Acknowledged, Some(&asked), body).await;
}

fn wifi() -> Json {
    json!({"directory_url": null, "issuers": [], "certificate_authority": "step"})
}

#[tokio::test]
async fn an_authority_is_told_yes_for_one_key_and_that_key_proves_the_certificate() {
    on_both(|store| async move {
        let w = World::new(store);
        let step = StepCa::new(&w).await;
        let policy = super::world::acme(wifi(), None);
        let mut tx = w.store.begin().await.unwrap();
        let policy = policy::create(&mut tx, &w.ctx, &policy, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.scope(policy, everybody()).await;
        let id = w.enroll(phone(1)).await;
        let key = rcgen::KeyPair::generate().unwrap();
        assert_eq!(step.may(&w, "SERIAL1", &key).await["error"]["code"], "no_open_attempt", "nothing was sent yet");

        let sent = w.answer(id, phone(1)).await.unwrap();
        let (_, payload) = sent.acme();
        assert_eq!(text(&payload, "DirectoryURL"), "https://ca.example.com/acme/mdm/directory");
        assert_eq!(text(&payload, "ClientIdentifier"), "SERIAL1");
        w.clock.advance(std::time::Duration::from_secs(2));
        let yes = step.may(&w, "SERIAL1", &key).await;
        assert_eq!(yes["allow"], true, "{yes}");
        let attempt = &w.attempts(id).await[0];
        assert_eq!(yes["data"]["trace"], json!(attempt.id));
        let spki = Fingerprint::of(&key.subject_public_key_info());
        assert_eq!(attempt.authorized_key_sha256.as_deref(), Some(spki.0.as_slice()));
        let second = rcgen::KeyPair::generate().unwrap();
        assert_eq!(step.may(&w, "SERIAL1", &second).await["error"]["code"], "already_used");

        shows(&w, id, &sent, &[step.issue(&w, "SERIAL1", &key)]).await;
        assert_eq!(w.state(policy, id).await, state("verified", None));
        w.clock.advance(HOUR);
        assert_eq!(
            step.may(&w, "SERIAL1", &second).await["error"]["code"],
            "no_open_attempt",
            "it is proved, and over"
        );

        // Its renewal is an attempt, and a permission, of its own.
        w.clock.advance(HOUR * 17);
        w.reconcile().await;
        let again = w.idle(id).await.unwrap();
        assert_eq!(again.request_type, "InstallProfile");
        w.clock.advance(std::time::Duration::from_secs(2));
        assert_eq!(step.may(&w, "SERIAL1", &second).await["allow"], true);
        shows(&w, id, &again, &[step.issue(&w, "SERIAL1", &second)]).await;
        assert_eq!(w.state(policy, id).await, state("verified", None));
        assert_eq!(states(&w.attempts(id).await), ["proved", "proved"]);
    })
    .await;
}

#[tokio::test]
async fn th_39_a_certificate_for_another_key_than_was_allowed_is_no_proof() {
    on_both(|store| async move {
        let w = World::new(store);
        let step = StepCa::new(&w).await;
        let mut tx = w.store.begin().await.unwrap();
        let new = super::world::acme(wifi(), None);
        let policy = policy::create(&mut tx, &w.ctx, &new, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.scope(policy, everybody()).await;
        let id = w.enroll(phone(1)).await;
        let sent = w.answer(id, phone(1)).await.unwrap();
        let (allowed, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        assert_eq!(step.may(&w, "SERIAL1", &allowed).await["allow"], true);
        shows(&w, id, &sent, &[step.issue(&w, "SERIAL1", &other)]).await;
        assert_eq!(w.state(policy, id).await.0, "installed");
        assert_ne!(w.attempts(id).await[0].state, "proved");
    })
    .await;
}
