//! A server's enrollment part without its edges: the router, the database and a clock, and devices in a few words.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use commands::{Lane, New, Rendering, Stall};
use enroll::link::{LONGEST, LinkKind, NewLink};
use enroll::{Admitted, Arrival, Error, Settings, Shared};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use issuer::issuance::{OpenIssuance, Purpose};
use issuer::scep::CurrentAuthority;
use mdm_core::certificate::Certificate;
use mdm_core::checkin::{Authenticate, Message};
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::cms_verify::{Rules, Sha1Rule, verify_attached};
use mdm_core::crypto::issue::{CaUse, Issuer, LeafUse, NewCa, NewLeaf, issue_ca, issue_leaf};
use mdm_core::crypto::key::{PrivateKey, PublicKey};
use mdm_core::crypto::machine_info::DeviceAuthorities;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{Door, EnrollmentKind, EnrollmentState, UnenrolledWhy, UserKey};
use mdm_core::ids::{EnrollmentId, LinkId};
use mdm_core::plist::{Dictionary, Limits, Value, decode_dictionary};
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use sha2::{Digest, Sha256};
use simulator::machine_info::DeviceCa;
use store::Store;
use store::enrollments::{Enrollment, Tokens};
use store::issuance::{Flow, Issuance, State};
use tower::ServiceExt;
use uuid::Uuid;

pub(crate) const TOPIC: &str = "com.apple.mgmt.External.0a1b2c3d-0000-4000-8000-000000000001";

const START: Timestamp = Timestamp(1_795_320_000_000);

/// Tells the story on both databases.
pub(crate) async fn story<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move { story(World::new(store).await).await }
    })
    .await;
}

/// Tells the story twice in a row on both databases: what holds for new devices must hold for those that come back.
pub(crate) async fn twice<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move {
            story(World::new(store.clone()).await).await;
            story(World::new(store).await).await;
        }
    })
    .await;
}

pub(crate) fn link() -> NewLink {
    NewLink {
        kind: LinkKind::Device { expected_serial: None, expected_udid: None },
        note: String::new(),
        label: None,
        sign_in: false,
        max_uses: 1,
        ttl: LONGEST,
        created_by: "test".into(),
    }
}

pub(crate) fn bound_to(serial: &str) -> NewLink {
    NewLink { kind: LinkKind::Device { expected_serial: Some(serial.into()), expected_udid: None }, ..link() }
}

pub(crate) fn user(account: &str) -> NewLink {
    NewLink { kind: LinkKind::User { managed_apple_account: account.into() }, ..link() }
}

/// What device number `n` says.
pub(crate) fn device(n: u32) -> Authenticate {
    authenticate(&format!(
        "<key>UDID</key><string>00008110-{n:016X}</string><key>SerialNumber</key><string>SERIAL{n:04}</string>"
    ))
}

/// What user-enrolled device number `n` says.
pub(crate) fn user_device(n: u32) -> Authenticate {
    authenticate(&format!("<key>EnrollmentID</key><string>00008110-{n:016X}</string>"))
}

fn authenticate(ids: &str) -> Authenticate {
    let text = format!(
        "<plist version=\"1.0\"><dict><key>MessageType</key><string>Authenticate</string>{ids}\
         <key>Topic</key><string>{TOPIC}</string><key>ProductName</key><string>iPhone17,2</string></dict></plist>"
    );
    match Message::decode(text.as_bytes()) {
        Ok(Message::Authenticate(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// The authority of the devices in these stories: like Apple's, RSA-1024 with SHA-1, expired since 2014.
pub(crate) fn factory() -> &'static DeviceCa {
    static FACTORY: OnceLock<DeviceCa> = OnceLock::new();
    FACTORY.get_or_init(|| DeviceCa::legacy().unwrap())
}

fn pinned() -> DeviceAuthorities {
    let issuing = factory().certificates().unwrap().into_iter().next().unwrap();
    DeviceAuthorities::new(vec![Certificate::from_der(&issuing).unwrap()], false).unwrap()
}

/// A provider that is never asked: the stories say who signed in.
fn provider() -> signin::Provider {
    let settings = signin::ProviderSettings {
        issuer: "https://login.example.org".into(),
        client_id: "assay".into(),
        client_secret: None,
        scopes: Vec::new(),
        rules: signin::Rules {
            account: signin::AccountClaim::Email,
            domains: vec!["example.org".into()],
            label_claim: None,
            labels: Vec::new(),
        },
    };
    signin::Provider::new(settings, outbound::Client::new(&outbound::Settings::new("test")).unwrap()).unwrap()
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default()
    }

    /// The profile in it, its signature checked.
    pub(crate) fn profile(&self) -> Fetched {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        let (signer, content) = verify_attached(&self.body, Rules { sha1: Sha1Rule::Refuse }).unwrap();
        assert_eq!(signer.certificate.common_name().as_deref(), Some("signer"));
        Fetched(decode_dictionary(&content, Limits::API).unwrap())
    }
}

/// A fetched profile.
pub(crate) struct Fetched(Dictionary);

impl Fetched {
    pub(crate) fn payload(&self, kind: &str) -> &Dictionary {
        let payloads = self.0.get("PayloadContent").and_then(Value::as_array).unwrap();
        let is = |p: &&Dictionary| p.get("PayloadType").and_then(Value::as_string) == Some(kind);
        payloads.iter().filter_map(Value::as_dictionary).find(is).unwrap_or_else(|| panic!("no {kind}"))
    }

    pub(crate) fn challenge(&self) -> String {
        let scep = self.payload("com.apple.security.scep");
        let content = scep.get("PayloadContent").and_then(Value::as_dictionary).unwrap();
        content.get("Challenge").and_then(Value::as_string).unwrap().to_owned()
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) anchor: Certificate,
    random: Random,
    app: Router,
    ca_key: PrivateKey,
    authority: CurrentAuthority,
    sign_in: signin::Context,
}

impl World {
    async fn new(store: Store) -> Self {
        let random = Random::System;
        let ca_key = PrivateKey::generate_p256().unwrap();
        let year = Duration::from_hours(365 * 24);
        let ca = NewCa { common_name: "Example CA", ca_use: CaUse::Servers, now: START, valid_for: year };
        let anchor = Certificate::from_der(&issue_ca(&ca_key, &ca, &random).unwrap()).unwrap();
        let signer_key = PrivateKey::generate_p256().unwrap();
        let signer_certificate = leaf(&ca_key, &anchor, &signer_key, "signer", LeafUse::ProfileSigner);
        let signer = ProfileSigner::new(signer_key, signer_certificate, vec![anchor.clone()]).unwrap();
        let authority = issuer::authority::Settings { profile_signer: Some(signer), ..Default::default() };
        let sealer = Sealer::new(&[7; 32]);
        let mut tx = store.begin().await.unwrap();
        let authority = issuer::Authority::load_or_create(&mut tx, &sealer, &random, START, &authority).await.unwrap();
        tx.commit().await.unwrap();
        let authority = CurrentAuthority::new(authority);
        let clock = Clock::fixed(START);
        let sign_in = signin::Context {
            store: store.clone(),
            clock: clock.clone(),
            random: random.clone(),
            sealer,
            settings: Arc::new(signin::Settings::new("https://mdm.example.org".parse().unwrap(), "Example")),
            provider: Some(provider()),
            limits: Arc::default(),
        };
        let mut world = Self { store, clock, anchor, random, app: Router::new(), ca_key, authority, sign_in };
        world.app = world.router(world.settings());
        let mut tx = world.store.begin().await.unwrap();
        let cert = store::push::Cert {
            topic: TOPIC.into(),
            certificate: Vec::new(),
            chain: Vec::new(),
            key_sealed: Vec::new(),
            not_after: START.plus(year).0,
            uploaded_at: START.0,
            stopped_at: None,
            stopped_why: None,
        };
        store::push::put_cert(&mut tx, &cert).await.unwrap();
        tx.commit().await.unwrap();
        world
    }

    pub(crate) fn settings(&self) -> Settings {
        let base = "https://mdm.example.org";
        Settings {
            public_url: base.parse().unwrap(),
            server_url: format!("{base}/mdm/connect"),
            check_in_url: format!("{base}/mdm/checkin"),
            scep_url: format!("{base}/scep"),
            organization: "Example".into(),
            profile_identifier: "org.example.mdm".into(),
            anchors: vec![self.anchor.clone()],
            pin_anchors: false,
            pin_revocation_required: false,
            trust: enroll::trust::Terms::default(),
            sign_profile: true,
            sign_message: true,
            use_development_apns: false,
            challenge_life: Duration::from_mins(30),
            machine_info_skew: Settings::DEFAULT_MACHINE_INFO_SKEW,
            per_ip: Settings::DEFAULT_PER_IP,
        }
    }

    pub(crate) fn router(&self, settings: Settings) -> Router {
        enroll::router(Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            settings: Arc::new(settings),
            authority: self.authority.clone(),
            sign_in: self.sign_in.clone(),
            device_authorities: Arc::new(pinned()),
            asked: Arc::default(),
            turned_away: Arc::default(),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.ask("POST", path, &[]).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask_of(self.app.clone(), method, path, headers, "192.0.2.1").await
    }

    pub(crate) async fn ask_of(
        &self,
        app: Router,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        ip: &str,
    ) -> Answer {
        Self::send(app, method, path, headers, ip, Body::empty()).await
    }

    /// A device's call of Automated Device Enrollment.
    pub(crate) async fn call(&self, message: &[u8]) -> Answer {
        let body = Body::from(message.to_vec());
        Self::send(self.app.clone(), "POST", "/ade/enroll", &[], "192.0.2.2", body).await
    }

    async fn send(app: Router, method: &str, path: &str, headers: &[(&str, &str)], ip: &str, body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(ip.parse().unwrap(), 1)));
        let response = app.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn link(&self, new: &NewLink) -> String {
        self.link_with_id(new).await.1
    }

    pub(crate) async fn link_with_id(&self, new: &NewLink) -> (LinkId, String) {
        let mut tx = self.store.begin().await.unwrap();
        let (id, code) = enroll::link::create(&mut tx, new, &self.random, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        (id, code.expose().clone())
    }

    pub(crate) async fn uses(&self, code: &str) -> i64 {
        let mut tx = self.store.read().await.unwrap();
        store::links::find(&mut tx, Sha256::digest(code).into()).await.unwrap().unwrap().uses
    }

    pub(crate) async fn issuance_of(&self, profile: &Fetched) -> Issuance {
        let mut tx = self.store.read().await.unwrap();
        let hash = Sha256::digest(profile.challenge()).into();
        store::issuance::by_challenge(&mut tx, &hash).await.unwrap().unwrap()
    }

    pub(crate) async fn state_of(&self, profile: &Fetched) -> State {
        self.issuance_of(profile).await.state
    }

    pub(crate) async fn remove_push_certificate(&self) {
        let mut tx = self.store.begin().await.unwrap();
        assert!(store::push::stop_topic(&mut tx, TOPIC, START.0, "revoked", self.now()).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// The certificate that an ACME server, whose CA is `anchor`, issues; and how it arrives.
    pub(crate) async fn arrive_from_acme(
        &self,
        certificate: &Certificate,
        message: &Authenticate,
    ) -> Result<Admitted, Error> {
        let external_issuer = Some(self.anchor.fingerprint());
        self.arrive(&Arrival { external_issuer, ..Self::arrival(certificate, message) }).await
    }

    /// A server of Apple Business Manager.
    pub(crate) async fn ade_server(&self) -> Uuid {
        let server = store::ade::Server {
            id: self.random.uuid_v7(self.now()),
            name: self.random.uuid_v4().to_string(),
            certificate: vec![1],
            key_sealed: vec![2],
            consumer_key: None,
            token_sealed: None,
            token_expires_at: None,
            token_at: None,
            account: None,
            default_profile_id: None,
            cursor: None,
            phase: "fetch".into(),
            list_began_at: None,
            synced_at: None,
            health: "no_token".into(),
            health_text: None,
            health_at: None,
            failures: 0,
            due_at: 0,
            created_at: self.now().0,
        };
        let mut tx = self.store.begin().await.unwrap();
        store::ade::servers::insert(&mut tx, &server).await.unwrap();
        tx.commit().await.unwrap();
        server.id
    }

    /// Device number `n` is in its list.
    pub(crate) async fn ade_device(&self, server: Uuid, n: u32, approved: Option<Timestamp>) {
        let mut tx = self.store.begin().await.unwrap();
        let seen = store::ade::devices::Seen { serial_number: format!("SERIAL{n:04}"), ..Default::default() };
        store::ade::devices::upsert(&mut tx, server, &seen, self.now()).await.unwrap();
        store::ade::devices::approve(&mut tx, server, &seen.serial_number, approved, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// An operator wishes device number `n` a profile with a web sign-in.
    pub(crate) async fn wish_web_sign_in(&self, server: Uuid, n: u32) {
        let profile = store::ade::Profile {
            id: self.random.uuid_v7(self.now()),
            name: self.random.uuid_v4().to_string(),
            revision: 1,
            body: r#"{"profile_name":"Staff","web_sign_in":true}"#.into(),
            created_by: "test".into(),
            created_at: self.now().0,
            updated_at: self.now().0,
        };
        let mut tx = self.store.begin().await.unwrap();
        store::ade::profiles::insert(&mut tx, &profile).await.unwrap();
        let serial = format!("SERIAL{n:04}");
        store::ade::devices::wish(&mut tx, server, &serial, Some(profile.id), self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn approve(&self, server: Uuid, n: u32) {
        self.ade_device(server, n, Some(self.now())).await;
    }

    /// Sets a door, from JSON as the API takes it.
    pub(crate) async fn set_door(&self, door: Door, settings: serde_json::Value) {
        let settings: enroll::door::Settings = serde_json::from_value(settings).unwrap();
        settings.check(door).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        enroll::door::store(&mut tx, door, &settings, "test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Somebody signs in, in the browser that this answer went to; its cookie.
    pub(crate) async fn sign_in(&self, begun: &Answer, person: &str) -> String {
        assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text());
        let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
        let id = cookie.split(['=', '.']).nth(1).unwrap().parse().unwrap();
        let mut tx = self.store.begin().await.unwrap();
        let who = store::sign_ins::SignedIn { person, label: None, invitation: None };
        assert!(store::sign_ins::signed_in(&mut tx, id, &who, self.now()).await.unwrap());
        tx.commit().await.unwrap();
        cookie
    }

    /// The reasons for which somebody was turned away, the newest first.
    pub(crate) async fn turned_away(&self) -> Vec<String> {
        self.events("enrollment.turned_away").await.iter().map(|data| data["reason"].as_str().unwrap().into()).collect()
    }

    /// What the events of one kind say, the newest first.
    pub(crate) async fn events(&self, kind: &str) -> Vec<serde_json::Value> {
        let mut tx = self.store.read().await.unwrap();
        let filter = store::events::Filter { kind: Some(kind.into()), ..Default::default() };
        let rows = store::events::newest(&mut tx, &filter, None, 100).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(&row.data).unwrap()).collect()
    }

    /// How many issuance records there are.
    pub(crate) async fn records(&self) -> usize {
        let mut tx = self.store.read().await.unwrap();
        store::listing::issuance(&mut tx, &store::listing::Issuances::default(), None, 1000).await.unwrap().len()
    }

    /// A certificate that no record knows.
    pub(crate) fn certificate(&self, common_name: &str) -> Certificate {
        let key = PrivateKey::generate_p256().unwrap();
        leaf_at(&self.ca_key, &self.anchor, &key, common_name, LeafUse::ClientIdentity, self.now())
    }

    /// What SCEP does with the challenge of a fetched profile.
    pub(crate) async fn issued(&self, profile: &Fetched) -> Certificate {
        let record = self.issuance_of(profile).await;
        self.issue(&record).await
    }

    async fn issue(&self, record: &Issuance) -> Certificate {
        let certificate = self.certificate(&record.common_name);
        let mut tx = self.store.begin().await.unwrap();
        assert!(store::issuance::consume(&mut tx, record.id, &[1; 32], "t", self.now()).await.unwrap());
        store::issuance::set_certificate(&mut tx, record.id, &certificate).await.unwrap();
        tx.commit().await.unwrap();
        certificate
    }

    /// An identity that came by a link.
    pub(crate) async fn identity(&self, new: &NewLink) -> Certificate {
        let code = self.link(new).await;
        self.issued(&self.post(&format!("/enroll/{code}/profile")).await.profile()).await
    }

    pub(crate) async fn renewal(&self, id: EnrollmentId) -> Certificate {
        let mut tx = self.store.begin().await.unwrap();
        let wanted = OpenIssuance {
            flow: Flow::Renewal,
            purpose: Purpose::Renewal,
            kind: EnrollmentKind::Device,
            enrollment_id: Some(id),
            link_id: None,
            expected_serial: None,
            expected_udid: None,
            label: None,
            ttl: Duration::from_mins(10),
            details: issuer::issuance::Details::default(),
        };
        let (record, _) = issuer::issuance::open(&mut tx, &self.random, self.now(), &wanted).await.unwrap();
        let record = store::issuance::get(&mut tx, record).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        self.issue(&record).await
    }

    pub(crate) async fn authenticate(
        &self,
        certificate: &Certificate,
        message: &Authenticate,
    ) -> Result<Admitted, Error> {
        self.arrive(&Self::arrival(certificate, message)).await
    }

    pub(crate) async fn by_subject(
        &self,
        certificate: &Certificate,
        message: &Authenticate,
    ) -> Result<Admitted, Error> {
        self.arrive(&Arrival { by_subject: true, ..Self::arrival(certificate, message) }).await
    }

    fn arrival<'a>(certificate: &'a Certificate, message: &'a Authenticate) -> Arrival<'a> {
        let server_url = Some("https://mdm.example.org/mdm/connect");
        Arrival { certificate, by_subject: false, external_issuer: None, server_url, message, raw: b"raw" }
    }

    async fn arrive(&self, arrival: &Arrival<'_>) -> Result<Admitted, Error> {
        store::retry(|| async {
            let mut tx = self.store.begin().await?;
            let admitted = enroll::authenticate(&mut tx, &self.random, arrival, self.now()).await?;
            tx.commit().await?;
            Ok(admitted)
        })
        .await
    }

    /// A device that went the whole way, with its secrets in escrow.
    pub(crate) async fn enroll(&self, new: &NewLink, message: &Authenticate) -> EnrollmentId {
        let certificate = self.identity(new).await;
        let id = self.authenticate(&certificate, message).await.unwrap().enrollment;
        self.tokens(id).await;
        let mut tx = self.store.begin().await.unwrap();
        store::enrollments::set_bootstrap_token(&mut tx, id, Some(b"sealed"), None).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub(crate) async fn tokens(&self, id: EnrollmentId) {
        let mut tx = self.store.begin().await.unwrap();
        let tokens = Tokens {
            topic: TOPIC,
            push_token: b"fakeToken",
            push_magic: "magic",
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: Some(b"sealed"),
            raw_sealed: b"sealed",
            user_short_name: None,
            user_long_name: None,
        };
        let state = EnrollmentState::Enrolled { since: self.now() };
        store::enrollments::token_update(&mut tx, id, state, &tokens, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn user_channel(&self, device: EnrollmentId) -> EnrollmentId {
        let id = EnrollmentId(self.random.uuid_v7(self.now()));
        let key = UserKey::UserId("11111111-2222-3333-4444-555555555555".parse().unwrap());
        let mut tx = self.store.begin().await.unwrap();
        store::enrollments::insert_user(&mut tx, id, device, EnrollmentKind::Device, &key, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        self.tokens(id).await;
        id
    }

    pub(crate) async fn check_out(&self, id: EnrollmentId) {
        let mut tx = self.store.begin().await.unwrap();
        let over = EnrollmentState::Unenrolled { at: self.now(), why: UnenrolledWhy::CheckOut };
        store::enrollments::end(&mut tx, id, over).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn enrollment(&self, id: EnrollmentId) -> Enrollment {
        let mut tx = self.store.read().await.unwrap();
        store::enrollments::get(&mut tx, id).await.unwrap().unwrap()
    }

    /// The live certificate of an enrollment.
    pub(crate) async fn pinned(&self, id: EnrollmentId) -> Certificate {
        let mut tx = self.store.read().await.unwrap();
        let identities = store::identities::of(&mut tx, id).await.unwrap();
        Certificate::from_der(&identities.iter().find(|i| i.is_live()).unwrap().certificate).unwrap()
    }

    pub(crate) async fn enqueue(&self, id: EnrollmentId, uuid: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let context =
            commands::Context { sealer: Sealer::new(&[7; 32]), random: self.random.clone(), stall: Stall::default() };
        let new = New {
            uuid: uuid.parse().unwrap(),
            request_type: "DeviceInformation",
            rendering: Rendering::Plain,
            body: b"body",
            lane: Lane::Normal,
            coalescing_key: None,
            ttl: None,
            created_by: "test",
            push: true,
        };
        commands::enqueue(&mut tx, &context, &new, &[id], self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// How many commands wait.
    pub(crate) async fn waiting(&self, id: EnrollmentId) -> usize {
        let mut tx = self.store.read().await.unwrap();
        store::commands::outstanding(&mut tx, id, self.now(), 100).await.unwrap().len()
    }

    /// How many secrets of former enrollments are kept.
    pub(crate) async fn archived(&self, id: EnrollmentId) -> usize {
        let mut tx = self.store.read().await.unwrap();
        store::enrollments::archived_escrow(&mut tx, id).await.unwrap().len()
    }
}

fn leaf(ca_key: &PrivateKey, ca: &Certificate, key: &PrivateKey, name: &str, leaf_use: LeafUse) -> Certificate {
    leaf_at(ca_key, ca, key, name, leaf_use, START)
}

fn leaf_at(
    ca_key: &PrivateKey,
    ca: &Certificate,
    key: &PrivateKey,
    name: &str,
    leaf_use: LeafUse,
    now: Timestamp,
) -> Certificate {
    let public = PublicKey::from_spki_der(&key.public_spki_der().unwrap()).unwrap();
    let new = NewLeaf {
        common_name: name,
        leaf_use,
        dns_names: &[],
        ip_addresses: &[],
        now,
        valid_for: Duration::from_hours(90 * 24),
    };
    let issuer = Issuer { key: ca_key, certificate: ca.der() };
    Certificate::from_der(&issue_leaf(issuer, &public, &new, &Random::System).unwrap()).unwrap()
}
