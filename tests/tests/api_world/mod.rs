//! The operator edge on a database and a clock, with devices and calls in a few words.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::{About, AskTrust, Devices, Scope, Scopes, Shared, TrustReport};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use commands::Stall;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, UserKey};
use mdm_core::ids::{CommandUuid, EnrollmentId, Fingerprint};
use mdm_core::random::Random;
use mdm_core::report::Report;
use mdm_core::time::{Clock, Timestamp};
use serde_json::Value as Json;
use store::Store;
use store::enrollments::{Claims, NewDevice, Tokens};
use tower::ServiceExt;

pub const START: Timestamp = Timestamp(1_795_320_000_000);
pub const TOPIC: &str = "com.apple.mgmt.External.0a1b2c3d-0000-4000-8000-000000000001";

/// Tells the story on both databases.
pub async fn story<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move { story(World::new(store).await).await }
    })
    .await;
}

pub struct World {
    pub shared: Shared,
    pub app: Router,
    pub clock: Clock,
    /// A token with all scopes.
    pub admin: String,
}

/// An HTTP answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The slug of a problem, once its form is checked.
    pub fn slug(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text());
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16(), "{json}");
        assert!(json["title"].is_string());
        json["type"].as_str().unwrap().strip_prefix("urn:assay:error:").unwrap().to_owned()
    }

    /// The fields that a problem names.
    pub fn fields(&self) -> Vec<String> {
        assert_eq!(self.slug(), "invalid-field", "{}", self.text());
        let json = self.json();
        let errors = json["errors"].as_array().unwrap();
        assert!(errors.iter().all(|e| !e["detail"].as_str().unwrap().is_empty()));
        errors.iter().map(|e| e["field"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
}

impl World {
    pub async fn new(store: Store) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
        let signer = ProfileSigner::new(
            PrivateKey::from_pkcs8_der(&key.serialize_der()).unwrap(),
            Certificate::from_der(certificate.der()).unwrap(),
            vec![],
        );
        let commands =
            commands::Context { sealer: Sealer::new(&[7; 32]), random: Random::System, stall: Stall::default() };
        let policy = policy::Context {
            commands: commands.clone(),
            attestation: mdm_tests::attestation(),
            signers: policy::Signers::new(signer.unwrap()),
            identifier: "com.example.mdm".into(),
            organization: None,
        };
        let clock = Clock::fixed(START);
        let about = About {
            public_url: "https://mdm.example.com".parse().unwrap(),
            identity_ca: Fingerprint([7; 32]),
            identity_ca_not_after: START.plus(Duration::from_secs(86_400)),
            invitations: true,
        };
        let automated = ade::Context {
            store: store.clone(),
            clock: clock.clone(),
            random: Random::System,
            sealer: commands.sealer.clone(),
            client: outbound::Client::new(&outbound::Settings::new("assay/test")).unwrap(),
            settings: Arc::new(ade::Settings {
                base_url: "https://apple.invalid".parse().unwrap(),
                protocol_version: ade::PROTOCOL_VERSION,
                every: Duration::from_secs(600),
                url: "https://mdm.example.com/ade/enroll".parse().unwrap(),
                web_url: "https://mdm.example.com/ade/web".parse().unwrap(),
                anchors: Vec::new(),
            }),
        };
        let trust = AskTrust::new(async || {
            Ok(TrustReport {
                server_certificate: "public",
                verification: "always",
                pinned: false,
                pilot: false,
                chain: Vec::new(),
                anchors: Vec::new(),
                next_anchors: Vec::new(),
                devices: Devices { live: 0, hold_next_anchors: 0, unknown: 0 },
                findings: Vec::new(),
            })
        });
        let shared = Shared {
            store,
            clock: clock.clone(),
            random: Random::System,
            guard: Arc::default(),
            commands,
            policy,
            ade: automated,
            trust,
            about: Arc::new(about),
        };
        let app = api::router(shared.clone());
        let mut world = Self { shared, app, clock, admin: String::new() };
        world.admin = world.token(&[Scope::Admin]).await;
        world
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// A token with these scopes that lives a day.
    pub async fn token(&self, scopes: &[Scope]) -> String {
        let mut tx = self.store().begin().await.unwrap();
        let day = Duration::from_secs(86_400);
        let now = self.clock.now();
        let minted = api::mint(&mut tx, &Random::System, now, "test", &Scopes::new(scopes), day, "test").await;
        tx.commit().await.unwrap();
        minted.unwrap().text.expose().clone()
    }

    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(ConnectInfo(std::net::SocketAddr::from(([192, 0, 2, 1], 4711))));
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, headers, body }
    }

    pub async fn call(&self, token: &str, method: Method, path: &str, body: Option<Json>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = match body {
            Some(json) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(json.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(&self.admin, Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Json) -> Answer {
        self.call(&self.admin, Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Json) -> Answer {
        self.call(&self.admin, Method::PUT, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(&self.admin, Method::DELETE, path, None).await
    }

    /// As a tool written for NanoMDM does: Basic, a raw body, no content type.
    pub async fn nano(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("nanomdm:{}", self.admin));
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Basic {basic}"));
        self.send(request.body(body.into()).unwrap()).await
    }

    /// An enrolled iPhone with the UDID [`udid`]`(n)`.
    pub async fn enroll(&self, n: u32) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.clock.now()));
        let key = DeviceKey::Udid(udid(n).parse().unwrap());
        let mut tx = self.store().begin().await.unwrap();
        let new = NewDevice { id, kind: EnrollmentKind::Device, key: &key };
        store::enrollments::insert_device(&mut tx, &new, self.clock.now()).await.unwrap();
        let serial = format!("SERIAL{n}");
        let claims = Claims {
            topic: TOPIC,
            serial_number: Some(&serial),
            product_name: Some("iPhone17,1"),
            os_version: Some("18.1"),
            ..Claims::default()
        };
        store::enrollments::authenticated(&mut tx, id, false, &claims, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        self.token_update(id, None).await;
        id
    }

    /// A user channel on it.
    pub async fn enroll_user(&self, parent: EnrollmentId, user: &str) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.clock.now()));
        let key = UserKey::UserId(user.parse().unwrap());
        let mut tx = self.store().begin().await.unwrap();
        store::enrollments::insert_user(&mut tx, id, parent, EnrollmentKind::Device, &key, self.clock.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        self.token_update(id, Some("ada")).await;
        id
    }

    async fn token_update(&self, id: EnrollmentId, user: Option<&str>) {
        // Ids sort by time, to the millisecond.
        self.clock.advance(Duration::from_millis(1));
        let tokens = Tokens {
            topic: TOPIC,
            push_token: b"0123456789",
            push_magic: "magic",
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: None,
            raw_sealed: b"",
            user_short_name: user,
            user_long_name: None,
        };
        let now = self.clock.now();
        let mut tx = self.store().begin().await.unwrap();
        store::enrollments::token_update(&mut tx, id, EnrollmentState::Enrolled { since: now }, &tokens, now)
            .await
            .unwrap();
        let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        policy::enrolled(&mut tx, &self.shared.policy, &enrollment, now).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The device has left.
    pub async fn check_out(&self, id: EnrollmentId) {
        let mut tx = self.store().begin().await.unwrap();
        let why = mdm_core::enrollment::UnenrolledWhy::CheckOut;
        let state = EnrollmentState::Unenrolled { at: self.clock.now(), why };
        store::enrollments::set_state(&mut tx, id, state).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The device connects, gets its next command and answers with this report; gives the command's UUID.
    pub async fn answer(&self, id: EnrollmentId, n: u32, status: &str, extra: &str) -> CommandUuid {
        let (ctx, now) = (&self.shared.commands, self.clock.now());
        let mut tx = self.store().begin().await.unwrap();
        let picked = commands::next(&mut tx, ctx, id, mdm_core::report::Status::Idle, now).await.unwrap().unwrap();
        let raw = format!(
            "<plist version=\"1.0\"><dict><key>CommandUUID</key><string>{}</string><key>Status</key>\
             <string>{status}</string><key>UDID</key><string>{}</string>{extra}</dict></plist>",
            picked.uuid,
            udid(n)
        );
        let report = Report::decode(raw.as_bytes()).unwrap();
        commands::report(&mut tx, ctx, id, &report, raw.as_bytes(), now).await.unwrap();
        tx.commit().await.unwrap();
        picked.uuid
    }

    /// A push certificate for this topic, as PEM with its key.
    pub fn push_pem(topic: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        let uid = rcgen::DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]);
        params.distinguished_name.push(uid, topic);
        let certificate = params.self_signed(&key).unwrap();
        certificate.pem() + &key.serialize_pem()
    }
}

pub fn udid(n: u32) -> String {
    format!("00008110-{n:016X}")
}

/// A command as an operator writes it.
pub fn plist(uuid: &str, request_type: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\"><dict><key>Command</key><dict>\
         <key>RequestType</key><string>{request_type}</string></dict><key>CommandUUID</key><string>{uuid}</string>\
         </dict></plist>"
    )
}
