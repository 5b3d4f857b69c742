//! An authority with its webhooks, devices with profiles under way, and calls in a few words.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ca::webhooks::{New, WebhookKind};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, UnenrolledWhy};
use mdm_core::ids::{AssignmentId, AttemptId, AuthorityId, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::{Clock, Timestamp};
use policy::proof::{Expectation, Expected, Name};
use serde_json::{Value as Json, json};
use store::Store;
use store::attempts::{Attempt, Delivered, NewAttempt};
use store::enrollments::{Claims, NewDevice, Tokens};
use store::policies::NewRevision;
use tower::ServiceExt;

pub const START: Timestamp = Timestamp(1_800_000_000_000);
pub const DAY: Duration = Duration::from_hours(24);

/// Tells the story on both databases.
pub async fn story<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move { story(World::new(store).await).await }
    })
    .await;
}

pub struct World {
    pub store: Store,
    pub clock: Clock,
    pub sealer: Sealer,
    pub app: Router,
}

/// A webhook as its authority has it.
#[derive(Clone)]
pub struct Webhook {
    pub authority: String,
    pub id: String,
    pub secret: Vec<u8>,
    pub step_ca: bool,
}

/// A device with a profile under way.
#[derive(Clone)]
pub struct Device {
    pub enrollment: EnrollmentId,
    pub assignment: AssignmentId,
    pub attempt: AttemptId,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Json,
}

impl Answer {
    #[track_caller]
    pub fn yes(self) -> Json {
        assert_eq!((self.status, &self.body["allow"]), (StatusCode::OK, &json!(true)), "{}", self.body);
        self.body["data"].clone()
    }

    /// The code of a no.
    #[track_caller]
    pub fn no(self) -> String {
        assert_eq!((self.status, &self.body["allow"]), (StatusCode::OK, &json!(false)), "{}", self.body);
        assert!(self.body.get("data").is_none());
        self.body["error"]["code"].as_str().unwrap().to_owned()
    }

    /// The status and the code of a call that was not looked at.
    pub fn turned_away(self) -> (u16, String) {
        assert_eq!(self.body["allow"], false);
        (self.status.as_u16(), self.body["error"]["code"].as_str().unwrap().to_owned())
    }
}

/// A key of a device: DER of its SubjectPublicKeyInfo.
pub fn spki() -> Vec<u8> {
    mdm_core::crypto::key::PrivateKey::generate_p256().unwrap().public_spki_der().unwrap()
}

impl World {
    pub async fn new(store: Store) -> Self {
        Self::with(store, mdm_tests::attestation()).await
    }

    pub async fn with(store: Store, attestation: attestation::Context) -> Self {
        let (clock, sealer) = (Clock::fixed(START), Sealer::new(&[7; 32]));
        let app = webhook::router(webhook::Shared {
            store: store.clone(),
            clock: clock.clone(),
            sealer: sealer.clone(),
            attestation,
            turned_away: Arc::default(),
        });
        let world = Self { store, clock, sealer, app };
        let step = json!({"name": "step", "kind": "step_ca", "directory_url": "https://ca.example/acme/mdm/directory"});
        world.authority(step).await;
        world
    }

    pub async fn authority(&self, document: Json) -> String {
        let document: ca::Document = serde_json::from_value(document).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        ca::put(&mut tx, &Random::System, &document, "token:test", self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        document.name
    }

    pub async fn authority_id(&self, name: &str) -> AuthorityId {
        let mut tx = self.store.read().await.unwrap();
        store::authorities::by_name(&mut tx, name).await.unwrap().unwrap().id()
    }

    /// A webhook of this authority, as step-ca prints it or as Assay makes it.
    pub async fn webhook(&self, authority: &str, kind: WebhookKind) -> Webhook {
        let step_ca = kind != WebhookKind::Generic;
        let printed = (Random::System.uuid_v4().to_string(), STANDARD.encode(Random::System.bytes::<64>()));
        let secret = Secret::new(printed.1);
        let new = New { kind, webhook_id: step_ca.then_some(printed.0.as_str()), secret: step_ca.then_some(&secret) };
        let mut tx = self.store.begin().await.unwrap();
        let sealing = (&self.sealer, &Random::System);
        let added = ca::webhooks::add(&mut tx, sealing, authority, &new, "token:test", self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let text = added.secret.as_ref().unwrap_or(&secret);
        let secret = STANDARD.decode(text.expose()).unwrap();
        Webhook { authority: authority.to_owned(), id: added.row.webhook_id, secret, step_ca }
    }

    /// An enrolled iPhone that was sent a profile of a policy of its own; its identifier is its serial number.
    pub async fn device(&self, serial: &str, authority: &str) -> Device {
        let device = self.enrolled(serial, EnrollmentKind::Device).await;
        self.sent(device, serial, authority, expectation(serial, serial)).await
    }

    pub async fn enrolled(&self, serial: &str, kind: EnrollmentKind) -> EnrollmentId {
        let now = self.clock.now();
        let id = EnrollmentId(Random::System.uuid_v7(now));
        let device_key = match kind {
            EnrollmentKind::User => DeviceKey::EnrollmentId(udid(serial).parse().unwrap()),
            _ => DeviceKey::Udid(udid(serial).parse().unwrap()),
        };
        let mut tx = self.store.begin().await.unwrap();
        let new = NewDevice { id, kind, key: &device_key };
        store::enrollments::insert_device(&mut tx, &new, now).await.unwrap();
        let claims = Claims {
            topic: "com.apple.mgmt.External.test",
            serial_number: (kind != EnrollmentKind::User).then_some(serial),
            product_name: Some("iPhone17,1"),
            os_version: Some("18.1"),
            ..Claims::default()
        };
        store::enrollments::authenticated(&mut tx, id, false, &claims, now).await.unwrap();
        let tokens = Tokens {
            topic: "com.apple.mgmt.External.test",
            push_token: b"0123456789",
            push_magic: "magic",
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: None,
            raw_sealed: b"",
            user_short_name: None,
            user_long_name: None,
        };
        store::enrollments::token_update(&mut tx, id, EnrollmentState::Enrolled { since: now }, &tokens, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// A profile of a new policy is on its way to this enrollment, with this identifier.
    pub async fn sent(
        &self,
        enrollment: EnrollmentId,
        identifier: &str,
        authority: &str,
        expectation: Expectation,
    ) -> Device {
        let now = self.clock.now();
        let policy = PolicyId(Random::System.uuid_v7(now));
        let assignment = AssignmentId(Random::System.uuid_v7(now));
        let authority_id = self.authority_id(authority).await;
        let name = format!("policy-{}", policy.0.simple());
        let template = if expectation.names_device { "{serial}" } else { "{random}" };
        let body = json!({"name": name, "certificate_authority": authority, "client_identifier": template,
            "subject": [[["O", "Example"]], [["CN", template]]]});
        let body = body.to_string();
        let mut tx = self.store.begin().await.unwrap();
        let revision = NewRevision { name: &name, body: &body, payload_uuid: policy.0, created_by: "test" };
        store::policies::insert(&mut tx, policy, &revision, now).await.unwrap();
        let new = store::assignments::New { id: assignment, policy, enrollment, ring: 0 };
        store::assignments::insert_many(&mut tx, &[new], now).await.unwrap();
        let attempt = AttemptId(Random::System.uuid_v7(now));
        let queued = NewAttempt {
            id: attempt,
            assignment,
            policy,
            revision: 1,
            enrollment,
            authority: Some(authority_id),
            purpose: "install",
            command: Random::System.uuid_v4().to_string().parse().unwrap(),
        };
        store::attempts::insert_many(&mut tx, &[queued], now).await.unwrap();
        let what = Delivered {
            revision: 1,
            authority: Some(authority_id),
            mode: if expectation.names_device { "device" } else { "one_time" },
            client_identifier_sha256: Fingerprint::of(identifier.as_bytes()),
            client_identifier: expectation.names_device.then(|| identifier.to_owned()),
            expectation: serde_json::to_string(&expectation).unwrap(),
            expires_at: now.plus(DAY),
        };
        store::attempts::delivered(&mut tx, attempt, &what, now).await.unwrap();
        let mut row = store::assignments::get(&mut tx, assignment).await.unwrap().unwrap();
        row.state = "installing".into();
        row.attempt_id = Some(attempt.0);
        store::assignments::save(&mut tx, &row, now).await.unwrap();
        tx.commit().await.unwrap();
        Device { enrollment, assignment, attempt }
    }

    pub async fn attempt(&self, device: &Device) -> Attempt {
        let mut tx = self.store.read().await.unwrap();
        store::attempts::get(&mut tx, device.attempt).await.unwrap().unwrap()
    }

    /// The assignment gets another state.
    pub async fn assignment(&self, device: &Device, state: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let mut row = store::assignments::get(&mut tx, device.assignment).await.unwrap().unwrap();
        row.state = state.into();
        store::assignments::save(&mut tx, &row, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn leaves(&self, device: &Device) {
        let mut tx = self.store.begin().await.unwrap();
        let state = EnrollmentState::Unenrolled { at: self.clock.now(), why: UnenrolledWhy::CheckOut };
        store::enrollments::set_state(&mut tx, device.enrollment, state).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Kinds and data of the events so far, oldest first.
    pub async fn events(&self, family: &str) -> Vec<(String, Json)> {
        let mut tx = self.store.read().await.unwrap();
        let filter = store::events::Filter { enrollment: None, kind: Some(family.to_owned()) };
        let rows = store::events::since(&mut tx, &filter, 0, 1000).await.unwrap();
        rows.into_iter().map(|row| (row.kind, serde_json::from_str(&row.data).unwrap())).collect()
    }

    /// Sends a body, signed as its webhook signs.
    pub async fn call(&self, webhook: &Webhook, body: &Json) -> Answer {
        let body = body.to_string().into_bytes();
        let signature = webhook::sign(&webhook.secret, &body);
        self.raw(webhook, &body, &[(header_names(webhook).1, &signature)]).await
    }

    /// Sends bytes with these headers besides the webhook's id.
    pub async fn raw(&self, webhook: &Webhook, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        let form = if webhook.step_ca { "step-ca" } else { "acme" };
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("/webhook/{form}/{}", webhook.authority))
            .header(header::CONTENT_TYPE, "application/json");
        if !webhook.id.is_empty() {
            request = request.header(header_names(webhook).0, &webhook.id);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_vec())).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 4711))));
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, body: serde_json::from_slice(&bytes).unwrap() }
    }

    /// step-ca's body with the request for a certificate.
    pub fn enriching(&self, identifier: &str, spki: &[u8]) -> Json {
        json!({
            "timestamp": self.clock.now().to_rfc3339(),
            "attestationData": {"permanentIdentifier": identifier},
            "x509CertificateRequest": described(identifier, spki),
        })
    }

    /// step-ca's body with the certificate as it would be signed.
    pub fn authorizing(&self, identifier: &str, spki: &[u8]) -> Json {
        let mut certificate = described(identifier, spki);
        certificate["raw"] = Json::Null;
        certificate["rawSubject"] = Json::Null;
        certificate["sans"] = json!([{"type": "permanentIdentifier", "value": identifier}]);
        certificate["notBefore"] = self.clock.now().to_rfc3339().into();
        certificate["notAfter"] = self.clock.now().plus(DAY).to_rfc3339().into();
        json!({
            "timestamp": self.clock.now().to_rfc3339(),
            "attestationData": {"permanentIdentifier": identifier},
            "x509Certificate": certificate,
        })
    }

    /// The generic body that asks.
    pub fn authorize(&self, identifier: &str, spki: &[u8]) -> Json {
        json!({
            "timestamp": self.clock.now().to_rfc3339(), "event": "authorize", "identifier": identifier,
            "publicKey": STANDARD.encode(spki),
        })
    }
}

pub fn header_names(webhook: &Webhook) -> (&'static str, &'static str) {
    if webhook.step_ca {
        ("X-Smallstep-Webhook-ID", "X-Smallstep-Signature")
    } else {
        ("X-Assay-Webhook-ID", "X-Assay-Signature")
    }
}

fn described(identifier: &str, spki: &[u8]) -> Json {
    json!({
        "version": 0, "subject": {"commonName": identifier}, "rawSubject": "MAA=", "dnsNames": null, "emailAddresses": null,
        "ipAddresses": null, "uris": null, "sans": null, "extensions": [], "publicKey": STANDARD.encode(spki),
        "publicKeyAlgorithm": "ECDSA", "raw": "MAA=",
    })
}

pub fn udid(serial: &str) -> String {
    format!("00008110-{}", hex::encode_upper(&Fingerprint::of(serial.as_bytes()).0[..8]))
}

/// What was delivered to the device with this serial number, under this identifier.
pub fn expectation(serial: &str, identifier: &str) -> Expectation {
    let name = |kind: &str, value: &str| Name { kind: kind.into(), value: Expected::Text(value.into()) };
    Expectation {
        serial_number: Some(serial.to_owned()),
        udid: Some(udid(serial)),
        provisioning_udid: None,
        client_identifier_sha256: Fingerprint::of(identifier.as_bytes()).to_string(),
        names_device: identifier == serial || identifier == udid(serial),
        key_type: "ECSECPrimeRandom".into(),
        key_size: 256,
        hardware_bound: true,
        attested: true,
        subject: vec![name("2.5.4.10", "Example"), name("2.5.4.3", identifier)],
        names: vec![name("dNSName", "phone.example.com"), name("ntPrincipalName", "ada@example.com")],
    }
}
