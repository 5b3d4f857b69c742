//! A server with both doors of account-driven enrollment, people with invitation codes, and devices that do just what a story
//! says.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use account::Mode;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use checkin::{PeerAddress, PeerCertificate};
use commands::Stall;
use enroll::door::{self, Settings};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use issuer::scep::CurrentAuthority;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_verify::{Rules, Sha1Rule, verify_attached};
use mdm_core::crypto::issue::{CaUse, Issuer, LeafUse, NewCa, NewLeaf, issue_ca, issue_leaf};
use mdm_core::crypto::key::{PrivateKey, PublicKey};
use mdm_core::crypto::machine_info::DeviceAuthorities;
use mdm_core::crypto::seal::Sealer;
use mdm_core::crypto::trust::Trust;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, UnenrolledWhy};
use mdm_core::plist::{Dictionary, Limits, Value, decode_dictionary};
use mdm_core::random::Random;
use mdm_core::rate::Rate;
use mdm_core::time::{Clock, Timestamp};
use sha2::{Digest, Sha256};
use signin::invitation::{self, NewInvitation};
use simulator::authority::Authority;
use simulator::hardware;
use simulator::https::Server;
use simulator::machine_info::{DeviceCa, MachineInfo, Tampering};
use simulator::oidc;
use simulator::record::Record;
use store::Store;
use store::account_tokens::{Filter, Row};
use store::enrollments::Enrollment;
use store::issuance::Flow;
use tower::ServiceExt;
use url::{Url, form_urlencoded};

pub(crate) const TOPIC: &str = "com.apple.mgmt.External.0a1b2c3d-0000-4000-8000-000000000001";
/// Where a device of apple-as-web takes its token.
pub(crate) const RESULTS: &str = "apple-remotemanagement-user-login://authentication-results";
/// Where a device of apple-oauth2 takes its code.
pub(crate) const REDIRECTION: &str = "apple-remotemanagement-user-login:/oauth2/redirection";
const YEAR: Duration = Duration::from_hours(365 * 24);

/// Tells the story twice in a row on one database, on both kinds of database.
pub(crate) async fn story<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move {
            story(World::new(store.clone(), None).await).await;
            story(World::new(store, None).await).await;
        }
    })
    .await;
}

/// The same where people sign in at an OpenID Connect provider that knows this one, in place of invitation codes.
pub(crate) async fn story_with_provider<F: Future<Output = ()>>(person: &oidc::Account, story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move {
            story(World::new(store.clone(), Some(person)).await).await;
            story(World::new(store, Some(person)).await).await;
        }
    })
    .await;
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The parameters of the challenge in a 401.
    pub(crate) fn challenge(&self) -> BTreeMap<String, String> {
        assert_eq!(self.status, StatusCode::UNAUTHORIZED, "{}", self.text());
        let header = self.header("www-authenticate");
        let parameters = header.strip_prefix("Bearer ").unwrap_or_else(|| panic!("{header}"));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        };
        parameters.split(", ").map(pair).collect()
    }

    /// A parameter of the address that it redirects to.
    pub(crate) fn given(&self, to: &str, name: &str) -> Option<String> {
        assert_eq!(self.status, StatusCode::PERMANENT_REDIRECT, "{}", self.text());
        let location = self.header("location");
        let query = location.strip_prefix(to).unwrap_or_else(|| panic!("{location}"));
        let query = query.strip_prefix('?').unwrap();
        let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    }

    /// The profile in it.
    pub(crate) fn profile(&self) -> Profile {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/x-apple-aspen-config");
        let (_, content) = verify_attached(&self.body, Rules { sha1: Sha1Rule::Refuse }).unwrap();
        Profile(decode_dictionary(&content, Limits::API).unwrap())
    }

    /// 401 without a challenge would end a device's management, and every refusal must be plain.
    fn checked(self) -> Self {
        if self.status == StatusCode::UNAUTHORIZED {
            assert!(self.header("www-authenticate").starts_with("Bearer method="), "{:?}", self.headers);
        }
        self
    }
}

/// An enrollment profile.
#[derive(Debug)]
pub(crate) struct Profile(Dictionary);

impl Profile {
    pub(crate) fn payload(&self, kind: &str) -> &Dictionary {
        let payloads = self.0.get("PayloadContent").and_then(Value::as_array).unwrap();
        let is = |p: &&Dictionary| p.get("PayloadType").and_then(Value::as_string) == Some(kind);
        payloads.iter().filter_map(Value::as_dictionary).find(is).unwrap_or_else(|| panic!("no {kind}"))
    }

    pub(crate) fn mdm(&self, key: &str) -> Option<&Value> {
        self.payload("com.apple.mdm").get(key)
    }

    fn challenge(&self) -> String {
        let scep = self.payload("com.apple.security.scep");
        let content = scep.get("PayloadContent").and_then(Value::as_dictionary).unwrap();
        content.get("Challenge").and_then(Value::as_string).unwrap().to_owned()
    }
}

/// A device that is enrolled, or is about to be.
#[derive(Clone)]
pub(crate) struct Device {
    /// `<key>UDID</key>…` or `<key>EnrollmentID</key>…`.
    pub(crate) key: String,
    pub(crate) id: DeviceKey,
    pub(crate) product: &'static str,
    pub(crate) certificate: Certificate,
}

/// Public and private part of PKCE.
pub(crate) struct Pkce {
    pub(crate) verifier: String,
    pub(crate) challenge: String,
}

impl Pkce {
    pub(crate) fn new() -> Self {
        let verifier = Random::System.token();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        Self { verifier, challenge }
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    /// Who certifies devices, as Apple does.
    pub(crate) factory: DeviceCa,
    /// Who certifies our TLS.
    pub(crate) authority: Authority,
    pub(crate) server: Server,
    /// Stops when dropped.
    _provider: Option<oidc::Provider>,
    app: Router,
    enroll: enroll::Shared,
    seed: String,
    ca: Certificate,
    ca_key: PrivateKey,
}

impl World {
    async fn new(store: Store, person: Option<&oidc::Account>) -> Self {
        let (random, clock) = (Random::System, Clock::fixed(Clock::System.now()));
        let authority = Authority::new("Example TLS").unwrap();
        let app: Arc<OnceLock<Router>> = Arc::default();
        let answering = Arc::clone(&app);
        let server = Server::start(&authority, move |request| {
            let app = answering.get().unwrap().clone();
            async move {
                let (parts, body) = app.oneshot(arrived(request.map(Body::from), None)).await.unwrap().into_parts();
                http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes().to_vec())
            }
        });
        let server = server.await.unwrap();

        let ca_key = PrivateKey::generate_p256().unwrap();
        let now = clock.now();
        let new = NewCa { common_name: "Example identities", ca_use: CaUse::Identities, now, valid_for: 2 * YEAR };
        let ca = Certificate::from_der(&issue_ca(&ca_key, &new, &random).unwrap()).unwrap();
        let factory = DeviceCa::modern().unwrap();
        let pinned = Certificate::from_der(&factory.certificates().unwrap()[0]).unwrap();
        let authorities = Arc::new(DeviceAuthorities::new(vec![pinned], false).unwrap());
        let public_url: Url = server.url("/").parse().unwrap();
        let provider = match person {
            Some(person) => Some(provider(&authority, &public_url, person, &clock).await),
            None => None,
        };
        let (provider, signs_in) = provider.unzip();
        let (router, enroll) = router(&store, &clock, &public_url, &ca, authorities, signs_in).await;
        assert!(app.set(router.clone()).is_ok());

        let mut tx = store.begin().await.unwrap();
        let cert = store::push::Cert {
            topic: TOPIC.into(),
            certificate: Vec::new(),
            chain: Vec::new(),
            key_sealed: Vec::new(),
            not_after: now.plus(YEAR).0,
            uploaded_at: now.0,
            stopped_at: None,
            stopped_why: None,
        };
        store::push::put_cert(&mut tx, &cert).await.unwrap();
        tx.commit().await.unwrap();
        let seed = random.token();
        let world = Self {
            store,
            clock,
            random,
            factory,
            authority,
            server,
            _provider: provider,
            app: router,
            enroll,
            seed,
            ca,
            ca_key,
        };
        for mode in Mode::ALL {
            world.set(mode, |settings| settings.enabled = false).await;
        }
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn later(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Sets a door, from its defaults.
    pub(crate) async fn set(&self, mode: Mode, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings { enabled: true, ..Settings::of(mode.door()) };
        change(&mut settings);
        settings.check(mode.door()).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        door::store(&mut tx, mode.door(), &settings, "test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// An account that no other story has.
    pub(crate) fn account(&self, name: &str) -> String {
        format!("{name}-{}@example.org", self.random.uuid_v4().simple())
    }

    /// A code by which this person signs in as often as it takes.
    pub(crate) async fn invite(&self, account: &str, mode: Mode) -> String {
        let new = NewInvitation {
            managed_apple_account: account.to_owned(),
            mode: if mode == Mode::Byod { invitation::Mode::Byod } else { invitation::Mode::Adde },
            note: String::new(),
            label: Some("staff".parse().unwrap()),
            max_uses: 50,
            ttl: invitation::LONGEST,
            created_by: "test".to_owned(),
        };
        let mut tx = self.store.begin().await.unwrap();
        let (_, code) = invitation::create(&mut tx, &new, &self.random, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        code.expose().clone()
    }

    pub(crate) async fn send(&self, request: Request<Body>, certificate: Option<&Certificate>) -> Answer {
        let response = self.app.clone().oneshot(arrived(request, certificate)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }.checked()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap(), None).await
    }

    /// A device's request for its profile.
    pub(crate) async fn ask(&self, mode: Mode, body: &[u8], token: Option<&str>) -> Answer {
        let mut request = Request::post(format!("/account/{}", mode.as_str()));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.send(request.body(Body::from(body.to_vec())).unwrap(), None).await
    }

    /// The device of this kind in this story.
    fn record(&self, mode: Mode, product: &str) -> Record {
        let version = if product.starts_with("Mac") { "15.5" } else { "18.5" };
        let record = Record::new(hardware::find(product).unwrap(), version, "22F76", &self.seed).unwrap();
        match mode {
            Mode::Byod => record.into_user_enrollment(&self.random.token()).unwrap(),
            Mode::Adde => record,
        }
    }

    /// What it says of itself.
    pub(crate) fn machine_info(&self, mode: Mode, product: &str, tampering: &Tampering) -> Vec<u8> {
        MachineInfo::of(&self.record(mode, product)).signed(&self.factory, tampering).unwrap()
    }

    /// The person's part, in a browser of its own: from `url` over the code to the answer that leaves our pages.
    pub(crate) async fn browse(&self, url: &str, code: &str) -> Answer {
        let begun = self.get(&path_of(url)).await;
        if begun.status != StatusCode::FOUND {
            return begun;
        }
        let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
        let page = path_of(begun.header("location"));
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("code", code).finish();
        let request = Request::post(page)
            .header("Cookie", &cookie)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        let entered = self.send(request, None).await;
        if entered.status != StatusCode::SEE_OTHER {
            return entered;
        }
        let back = Request::get(path_of(entered.header("location"))).header("Cookie", cookie);
        self.send(back.body(Body::empty()).unwrap(), None).await
    }

    /// apple-as-web: a token.
    pub(crate) async fn web_token(&self, mode: Mode, code: &str) -> String {
        let url = format!("/account/{}/sign-in", mode.as_str());
        self.browse(&url, code).await.given(RESULTS, "access-token").unwrap()
    }

    /// The address of an authorization request.
    pub(crate) fn authorize_url(mode: Mode, change: &[(&str, Option<&str>)]) -> String {
        let mut query: BTreeMap<&str, &str> = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", "assay"),
            ("redirect_uri", REDIRECTION),
            ("state", "st ate"),
        ]);
        for (name, value) in change {
            match value {
                Some(value) => query.insert(name, value),
                None => query.remove(name),
            };
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        format!("/account/{}/authorize?{query}", mode.as_str())
    }

    /// apple-oauth2: an authorization code.
    pub(crate) async fn code(&self, mode: Mode, code: &str, pkce: Option<&Pkce>) -> String {
        let change = match pkce {
            Some(pkce) => {
                vec![("code_challenge", Some(pkce.challenge.as_str())), ("code_challenge_method", Some("S256"))]
            }
            None => Vec::new(),
        };
        let answer = self.browse(&Self::authorize_url(mode, &change), code).await;
        assert_eq!(answer.given(REDIRECTION, "state").as_deref(), Some("st ate"));
        answer.given(REDIRECTION, "code").unwrap()
    }

    /// A request to the token endpoint.
    pub(crate) async fn token(&self, mode: Mode, form: &[(&str, &str)]) -> Answer {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = Request::post(format!("/account/{}/token", mode.as_str()))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        self.send(request, None).await
    }

    pub(crate) async fn exchange(&self, mode: Mode, code: &str, pkce: Option<&Pkce>) -> Answer {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECTION),
            ("client_id", "assay"),
        ];
        form.extend(pkce.map(|pkce| ("code_verifier", pkce.verifier.as_str())));
        self.token(mode, &form).await
    }

    pub(crate) async fn refresh(&self, mode: Mode, token: &str) -> Answer {
        self.token(mode, &[("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "assay")]).await
    }

    /// A device whose identity SCEP has issued for this profile. Of a person's own, each is another one.
    pub(crate) async fn device(&self, mode: Mode, product: &'static str, profile: &Profile) -> Device {
        let record = self.record(mode, product);
        let certificate = self.issued(profile).await;
        let (key, id) = if let Some(id) = record.enrollment_id {
            (format!("<key>EnrollmentID</key><string>{id}</string>"), DeviceKey::EnrollmentId(id.parse().unwrap()))
        } else {
            let (udid, serial) = (record.udid, record.serial_number);
            let serial = format!("<key>SerialNumber</key><string>{serial}</string>");
            (format!("<key>UDID</key><string>{udid}</string>{serial}"), DeviceKey::Udid(udid.parse().unwrap()))
        };
        Device { key, id, product, certificate }
    }

    /// What SCEP does with the challenge of a profile.
    pub(crate) async fn issued(&self, profile: &Profile) -> Certificate {
        let mut tx = self.store.begin().await.unwrap();
        let hash = Sha256::digest(profile.challenge()).into();
        let record = store::issuance::by_challenge(&mut tx, &hash).await.unwrap().unwrap();
        assert!(store::issuance::consume(&mut tx, record.id, &[1; 32], "t", self.now()).await.unwrap(), "{record:?}");
        let key = PrivateKey::generate_p256().unwrap();
        let public = PublicKey::from_spki_der(&key.public_spki_der().unwrap()).unwrap();
        let new = NewLeaf {
            common_name: &record.common_name,
            leaf_use: LeafUse::ClientIdentity,
            dns_names: &[],
            ip_addresses: &[],
            now: self.now(),
            valid_for: YEAR,
        };
        let issuer = Issuer { key: &self.ca_key, certificate: self.ca.der() };
        let certificate = issue_leaf(issuer, &public, &new, &self.random).unwrap();
        let certificate = Certificate::from_der(&certificate).unwrap();
        store::issuance::set_certificate(&mut tx, record.id, &certificate).await.unwrap();
        tx.commit().await.unwrap();
        certificate
    }

    /// A profile of this mode with which no token is remembered, as after the loss of a table.
    pub(crate) async fn profile_without_token(&self, mode: Mode, account: &str) -> Profile {
        let (flow, kind) = match mode {
            Mode::Byod => (Flow::Byod, EnrollmentKind::User),
            Mode::Adde => (Flow::Adde, EnrollmentKind::Device),
        };
        let visitor = enroll::Visitor { managed_apple_account: Some(account), ..enroll::Visitor::new(flow, kind) };
        let mut tx = self.store.begin().await.unwrap();
        let offer = enroll::offer(&mut tx, &self.enroll, &visitor, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        let (_, content) = verify_attached(&offer.profile, Rules { sha1: Sha1Rule::Refuse }).unwrap();
        Profile(decode_dictionary(&content, Limits::API).unwrap())
    }

    /// Whether the one-time challenge of a profile is still good.
    pub(crate) async fn is_open(&self, profile: &Profile) -> bool {
        let mut tx = self.store.read().await.unwrap();
        let hash = Sha256::digest(profile.challenge()).into();
        let record = store::issuance::by_challenge(&mut tx, &hash).await.unwrap();
        record.is_some_and(|record| record.state == store::issuance::State::Open)
    }

    async fn put(&self, device: &Device, path: &str, inner: &str, token: Option<&str>) -> Answer {
        let body = format!("<plist version=\"1.0\"><dict>{}{inner}</dict></plist>", device.key);
        let mut request = Request::put(path);
        if path == "/checkin" {
            request = request.header("Content-Type", "application/x-apple-aspen-mdm-checkin");
        }
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.send(request.body(Body::from(body)).unwrap(), Some(&device.certificate)).await
    }

    pub(crate) async fn authenticate(&self, device: &Device, token: Option<&str>) -> Answer {
        let text = format!(
            "<key>MessageType</key><string>Authenticate</string><key>Topic</key><string>{TOPIC}</string>\
             <key>ProductName</key><string>{}</string><key>OSVersion</key><string>18.5</string>",
            device.product
        );
        self.put(device, "/checkin", &text, token).await
    }

    /// `TokenUpdate`; `user` has the keys of a user channel.
    pub(crate) async fn token_update(&self, device: &Device, user: &str, token: Option<&str>) -> Answer {
        let text = format!(
            "<key>MessageType</key><string>TokenUpdate</string><key>Topic</key><string>{TOPIC}</string>\
             <key>Token</key><data>ZmFrZVRva2VuZmFrZVRva2Vu</data><key>PushMagic</key><string>magic</string>{user}"
        );
        self.put(device, "/checkin", &text, token).await
    }

    /// A poll.
    pub(crate) async fn idle(&self, device: &Device, user: &str, token: Option<&str>) -> Answer {
        self.put(device, "/mdm", &format!("<key>Status</key><string>Idle</string>{user}"), token).await
    }

    /// A device that came in with this token.
    pub(crate) async fn enroll(&self, mode: Mode, product: &'static str, token: &str) -> Device {
        let body = self.machine_info(mode, product, &Tampering::None);
        let profile = self.ask(mode, &body, Some(token)).await.profile();
        let device = self.device(mode, product, &profile).await;
        assert_eq!(self.authenticate(&device, Some(token)).await.status, StatusCode::OK);
        assert_eq!(self.token_update(&device, "", Some(token)).await.status, StatusCode::OK);
        device
    }

    pub(crate) async fn enrollment(&self, device: &Device) -> Enrollment {
        let mut tx = self.store.read().await.unwrap();
        store::enrollments::live_device(&mut tx, &device.id).await.unwrap().unwrap()
    }

    /// The tokens of an account, newest first.
    pub(crate) async fn tokens(&self, account: &str) -> Vec<Row> {
        let mut tx = self.store.read().await.unwrap();
        let filter = Filter { account: Some(account.to_owned()), enrollment: None };
        store::account_tokens::list(&mut tx, &filter, None, 100).await.unwrap()
    }

    /// What an operator does.
    pub(crate) async fn revoke(&self, account: &str) {
        let mut tx = self.store.begin().await.unwrap();
        store::account_tokens::revoke_account(&mut tx, account, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Ends what an earlier telling of the story has left enrolled.
    pub(crate) async fn end_all(&self) {
        let mut tx = self.store.begin().await.unwrap();
        let over = EnrollmentState::Unenrolled { at: self.now(), why: UnenrolledWhy::Removed };
        let filter = store::listing::Enrollments::default();
        for enrollment in store::listing::enrollments(&mut tx, &filter, None, 500).await.unwrap() {
            store::enrollments::end(&mut tx, enrollment.id, over).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// The reasons of refusals so far, newest first.
    pub(crate) async fn refusals(&self) -> Vec<String> {
        let mut tx = self.store.read().await.unwrap();
        let filter = store::events::Filter { enrollment: None, kind: Some("account.refused".to_owned()) };
        let rows = store::events::newest(&mut tx, &filter, None, 100).await.unwrap();
        let why =
            |data: &str| serde_json::from_str::<serde_json::Value>(data).unwrap()["why"].as_str().unwrap().to_owned();
        rows.iter().map(|row| why(&row.data)).collect()
    }
}

/// As the listener hands it on.
fn arrived(mut request: Request<Body>, certificate: Option<&Certificate>) -> Request<Body> {
    let client = SocketAddr::from(([192, 0, 2, 1], 4711));
    request.extensions_mut().insert(ConnectInfo(client));
    request.extensions_mut().insert(PeerAddress(client));
    request.extensions_mut().insert(PeerCertificate(certificate.cloned().map(Arc::new)));
    request
}

/// Path and query of an address of ours.
fn path_of(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => url[url::Position::BeforePath..].to_owned(),
        Err(_) => url.to_owned(),
    }
}

/// A provider with one person, and our side of it.
async fn provider(
    authority: &Authority,
    public_url: &Url,
    person: &oidc::Account,
    clock: &Clock,
) -> (oidc::Provider, signin::Provider) {
    let settings = oidc::Settings {
        client_id: "assay".to_owned(),
        client_secret: None,
        redirect_uri: public_url.join("sign-in/callback").unwrap().into(),
        people: vec![person.clone()],
        algorithm: oidc::Algorithm::Es256,
        claims_in_id_token: true,
        now: Some(clock.now().unix_seconds()),
    };
    let provider = oidc::Provider::start(authority, settings).await.unwrap();
    let root = Certificate::from_pem(&authority.pem().unwrap()).unwrap().der().to_vec();
    let client = outbound::Client::new(&outbound::Settings {
        roots: outbound::Roots::Only(vec![root]),
        private_addresses: true,
        ..outbound::Settings::new("test")
    });
    let settings = signin::ProviderSettings {
        issuer: provider.issuer(),
        client_id: "assay".to_owned(),
        client_secret: None,
        scopes: vec!["email".to_owned()],
        rules: signin::Rules {
            account: signin::AccountClaim::Email,
            domains: vec!["example.org".to_owned()],
            label_claim: None,
            labels: Vec::new(),
        },
    };
    let ours = signin::Provider::new(settings, client.unwrap()).unwrap();
    (provider, ours)
}

/// All that a device speaks to.
async fn router(
    store: &Store,
    clock: &Clock,
    public_url: &Url,
    ca: &Certificate,
    authorities: Arc<DeviceAuthorities>,
    provider: Option<signin::Provider>,
) -> (Router, enroll::Shared) {
    let (random, sealer, now) = (Random::System, Sealer::new(&[7; 32]), clock.now());
    let mut tx = store.begin().await.unwrap();
    let settings = issuer::authority::Settings::default();
    let authority = issuer::Authority::load_or_create(&mut tx, &sealer, &random, now, &settings).await.unwrap();
    tx.commit().await.unwrap();
    let often = Rate { burst: 10_000, per_second: 1000.0 };
    let url = |path: &str| public_url.join(path).unwrap().to_string();
    let identities = vec![ca.clone(), authority.certificate().clone()];
    let signer = authority.profile_signer().clone();
    let authority = CurrentAuthority::new(authority);
    let mut settings = signin::Settings::new(public_url.clone(), "Example");
    settings.invitations = provider.is_none();
    (settings.per_ip, settings.codes_per_ip) = (often, often);
    (settings.codes_per_account, settings.codes_together) = (often, often);
    let signin = signin::Context {
        store: store.clone(),
        clock: clock.clone(),
        random: random.clone(),
        sealer: sealer.clone(),
        settings: Arc::new(settings),
        provider,
        limits: Arc::default(),
    };
    let enroll = enroll::Shared {
        store: store.clone(),
        clock: clock.clone(),
        random: random.clone(),
        settings: Arc::new(enroll::Settings {
            public_url: public_url.clone(),
            server_url: url("mdm"),
            check_in_url: url("checkin"),
            scep_url: url("scep"),
            organization: "Example".into(),
            profile_identifier: "org.example.mdm".into(),
            anchors: Vec::new(),
            pin_anchors: false,
            pin_revocation_required: false,
            trust: enroll::trust::Terms { public: true, pilot: false },
            sign_profile: true,
            sign_message: true,
            use_development_apns: false,
            challenge_life: Duration::from_mins(30),
            per_ip: often,
            // Pretend devices sign by the real clock, and stories move theirs.
            machine_info_skew: 2 * YEAR,
        }),
        authority: authority.clone(),
        sign_in: signin.clone(),
        device_authorities: authorities,
        asked: Arc::default(),
        turned_away: Arc::default(),
    };
    let commands = commands::Context { sealer: sealer.clone(), random: random.clone(), stall: Stall::default() };
    let checkin = checkin::router(checkin::Shared {
        store: store.clone(),
        clock: clock.clone(),
        random: random.clone(),
        sealer,
        trust: Arc::new(Trust::new(identities).unwrap()),
        commands: commands.clone(),
        policy: Arc::new(policy::Context {
            commands: commands.clone(),
            attestation: mdm_tests::attestation(),
            signers: policy::Signers::new(signer),
            identifier: "org.example.mdm".into(),
            organization: None,
        }),
        renewal: Arc::new(renewal::Context {
            enroll: enroll.clone(),
            commands,
            settings: renewal::Settings { expired_grace: Duration::ZERO },
        }),
        bearer: account::bearer::Settings { public_url: public_url.clone() },
        seen: checkin::LastSeen::default(),
        settings: Arc::new(checkin::Settings::default()),
    });
    let scep = issuer::scep::router(issuer::scep::Shared::new(
        store.clone(),
        authority,
        clock.clone(),
        random,
        issuer::scep::Settings::default(),
    ));
    let account = account::router(enroll.clone());
    (checkin.merge(scep).merge(signin::router(signin)).merge(account), enroll)
}
