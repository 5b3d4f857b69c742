//! The device's door on a database with a clock that stands still, and devices that sign what they send.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use checkin::{LastSeen, PeerAddress, PeerCertificate, Settings, Shared};
use commands::{Lane, New, Rendering, Stall};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use issuer::Authority;
use issuer::issuance::{OpenIssuance, Purpose};
use issuer::scep::CurrentAuthority;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::issue::{CaUse, Issuer, LeafUse, NewCa, NewLeaf, issue_ca, issue_leaf};
use mdm_core::crypto::key::{Hash, PrivateKey, PublicKey};
use mdm_core::crypto::machine_info::DeviceAuthorities;
use mdm_core::crypto::seal::Sealer;
use mdm_core::crypto::trust::Trust;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, UserKey};
use mdm_core::ids::{EnrollmentId, IssuanceId};
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::{Clock, Timestamp};
use store::Store;
use store::enrollments::Enrollment;
use store::issuance::Flow;
use tokio::sync::OnceCell;
use tower::ServiceExt;

pub(crate) const TOPIC: &str = "com.apple.mgmt.External.0a1b2c3d-0000-4000-8000-000000000001";
pub(crate) const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";
pub(crate) const USER: &str = "11111111-2222-3333-4444-555555555555";
const START: Timestamp = Timestamp(1_795_320_000_000);
const YEAR: Duration = Duration::from_hours(365 * 24);

/// Tells the story on both databases.
pub(crate) async fn story<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move { story(World::new(store).await).await }
    })
    .await;
}

/// A device: who it says it is, and the identity in its keychain.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) udid: String,
    pub(crate) serial: String,
    pub(crate) key: PrivateKey,
    pub(crate) certificate: Certificate,
}

/// How a request proves who sent it.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    Nothing,
    /// `Mdm-Signature`, signed now.
    Signed(&'a Device),
    /// `Mdm-Signature`, signed then.
    SignedAt(&'a Device, Timestamp),
    /// `Mdm-Signature` with SHA-1 and without NULL parameters, as foreign clients sign.
    SignedSha1(&'a Device),
    /// A client certificate of the TLS connection.
    Tls(&'a Device),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Accepted, with nothing to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.status == StatusCode::OK && self.body.is_empty()
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) seen: LastSeen,
    pub(crate) ca: Certificate,
    ca_key: PrivateKey,
    random: Random,
    sealer: Sealer,
    pub(crate) policy: Arc<policy::Context>,
    pub(crate) enroll: enroll::Shared,
    expired_grace: Duration,
    door: Router,
}

impl World {
    pub(crate) async fn new(store: Store) -> Self {
        let random = Random::System;
        let ca_key = PrivateKey::generate_p256().unwrap();
        let new = NewCa { common_name: "Example CA", ca_use: CaUse::Identities, now: START, valid_for: 1000 * YEAR };
        let ca = Certificate::from_der(&issue_ca(&ca_key, &new, &random).unwrap()).unwrap();
        let signer_key = PrivateKey::generate_p256().unwrap();
        let signer = leaf(&ca_key, &ca, &signer_key, "signer", LeafUse::ProfileSigner, START);
        let sealer = Sealer::new(&[7; 32]);
        let commands = commands::Context { sealer: sealer.clone(), random: random.clone(), stall: Stall::default() };
        let policy = Arc::new(policy::Context {
            commands,
            attestation: mdm_tests::attestation(),
            signers: policy::Signers::new(ProfileSigner::new(signer_key, signer, vec![ca.clone()]).unwrap()),
            identifier: "org.example.mdm".into(),
            organization: None,
        });
        let clock = Clock::fixed(START);
        let authority = authority(&store, &sealer, &random).await;
        let base = "https://mdm.example.org";
        let enroll = enroll::Shared {
            store: store.clone(),
            clock: clock.clone(),
            random: random.clone(),
            settings: Arc::new(enroll::Settings {
                public_url: base.parse().unwrap(),
                server_url: format!("{base}/mdm"),
                check_in_url: format!("{base}/checkin"),
                scep_url: format!("{base}/scep"),
                organization: "Example".into(),
                profile_identifier: "org.example.mdm.enrollment".into(),
                anchors: Vec::new(),
                pin_anchors: false,
                pin_revocation_required: false,
                trust: enroll::trust::Terms { public: true, pilot: false },
                sign_profile: true,
                sign_message: true,
                use_development_apns: false,
                challenge_life: Duration::from_mins(60),
                per_ip: enroll::Settings::DEFAULT_PER_IP,
                machine_info_skew: enroll::Settings::DEFAULT_MACHINE_INFO_SKEW,
            }),
            authority: CurrentAuthority::new(authority),
            sign_in: signin::Context {
                store: store.clone(),
                clock: clock.clone(),
                random: random.clone(),
                sealer: sealer.clone(),
                settings: Arc::new(signin::Settings::new(base.parse().unwrap(), "Example")),
                provider: None,
                limits: Arc::default(),
            },
            device_authorities: Arc::new(DeviceAuthorities::new(Vec::new(), false).unwrap()),
            asked: Arc::default(),
            turned_away: Arc::default(),
        };
        let mut world = Self {
            store,
            clock,
            seen: LastSeen::default(),
            ca,
            ca_key,
            random,
            sealer,
            policy,
            enroll,
            expired_grace: Duration::ZERO,
            door: Router::new(),
        };
        world.door = world.door_with(Settings::default());
        world
    }

    /// What renews identities.
    pub(crate) fn renewal(&self) -> renewal::Context {
        renewal::Context {
            enroll: self.enroll.clone(),
            commands: self.policy.commands.clone(),
            settings: renewal::Settings { expired_grace: self.expired_grace },
        }
    }

    /// From now on an identity that has ended may fetch a new one for so long.
    pub(crate) fn grace(&mut self, grace: Duration) {
        self.expired_grace = grace;
        self.door = self.door_with(Settings::default());
    }

    /// The door with these settings.
    pub(crate) fn door_with(&self, settings: Settings) -> Router {
        checkin::router(Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            sealer: self.sealer.clone(),
            trust: Arc::new(Trust::new(vec![self.ca.clone()]).unwrap()),
            commands: self.policy.commands.clone(),
            policy: self.policy.clone(),
            renewal: Arc::new(self.renewal()),
            bearer: account::bearer::Settings { public_url: "https://mdm.example.org".parse().unwrap() },
            seen: self.seen.clone(),
            settings: Arc::new(settings),
        })
    }

    /// From now on the door has these settings.
    pub(crate) fn settings(&mut self, settings: Settings) {
        self.door = self.door_with(settings);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn later(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// A device with an identity that a link would have given it.
    pub(crate) async fn device(&self, n: u32) -> Device {
        self.device_with_key(n, PrivateKey::generate_p256().unwrap()).await
    }

    pub(crate) async fn device_with_key(&self, n: u32, key: PrivateKey) -> Device {
        let certificate = self.issue(&key, Flow::Link, Purpose::Enrollment, None).await;
        Device { udid: format!("00008110-{n:016X}"), serial: format!("SERIAL{n:04}"), key, certificate }
    }

    /// The same device with a new identity that renews its enrollment.
    pub(crate) async fn renewed(&self, device: &Device, enrollment: EnrollmentId) -> Device {
        let key = PrivateKey::generate_p256().unwrap();
        let certificate = self.issue(&key, Flow::Renewal, Purpose::Renewal, Some(enrollment)).await;
        Device { key, certificate, ..device.clone() }
    }

    /// The same device with an identity from another link.
    pub(crate) async fn again(&self, device: &Device) -> Device {
        let key = PrivateKey::generate_p256().unwrap();
        let certificate = self.issue(&key, Flow::Link, Purpose::Enrollment, None).await;
        Device { key, certificate, ..device.clone() }
    }

    async fn issue(
        &self,
        key: &PrivateKey,
        flow: Flow,
        purpose: Purpose,
        enrollment_id: Option<EnrollmentId>,
    ) -> Certificate {
        let wanted = OpenIssuance {
            flow,
            purpose,
            kind: EnrollmentKind::Device,
            enrollment_id,
            link_id: None,
            expected_serial: None,
            expected_udid: None,
            label: None,
            ttl: Duration::from_mins(10),
            details: issuer::issuance::Details::default(),
        };
        let mut tx = self.store.begin().await.unwrap();
        let (id, _): (IssuanceId, _) =
            issuer::issuance::open(&mut tx, &self.random, self.now(), &wanted).await.unwrap();
        let certificate = self.certificate(key);
        assert!(store::issuance::consume(&mut tx, id, &[1; 32], "t", self.now()).await.unwrap());
        store::issuance::set_certificate(&mut tx, id, &certificate).await.unwrap();
        tx.commit().await.unwrap();
        certificate
    }

    /// A certificate of our CA that no record knows.
    pub(crate) fn certificate(&self, key: &PrivateKey) -> Certificate {
        self.named_certificate(key, "device")
    }

    /// The same with a name of its own, as an ACME server gives it.
    pub(crate) fn named_certificate(&self, key: &PrivateKey, name: &str) -> Certificate {
        leaf(&self.ca_key, &self.ca, key, name, LeafUse::ClientIdentity, self.now())
    }

    /// A certificate of our CA that is no identity.
    pub(crate) fn other_certificate(&self, key: &PrivateKey) -> Certificate {
        leaf(&self.ca_key, &self.ca, key, "device", LeafUse::TlsServer, self.now())
    }

    /// Sends a request and gives the answer. Whatever it is, it is none that unenrolls a device (TH-12).
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.door.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert_ne!(parts.status, StatusCode::UNAUTHORIZED, "a device would unenroll");
        if parts.status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(parts.headers.contains_key("retry-after"));
        }
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn request(
        &self,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
        proof: Proof<'_>,
    ) -> Request<Body> {
        let mut request = Request::builder().method("PUT").uri(path);
        if let Some(content_type) = content_type {
            request = request.header("Content-Type", content_type);
        }
        let sign = |device: &Device, at, sha1| STANDARD.encode(detached(device, body, at, sha1));
        request = match proof {
            Proof::Signed(device) => request.header("Mdm-Signature", sign(device, self.now(), false)),
            Proof::SignedAt(device, at) => request.header("Mdm-Signature", sign(device, at, false)),
            Proof::SignedSha1(device) => request.header("Mdm-Signature", sign(device, self.now(), true)),
            Proof::Nothing | Proof::Tls(_) => request,
        };
        let mut request = request.body(Body::from(body.to_vec())).unwrap();
        let certificate = match proof {
            Proof::Tls(device) => Some(Arc::new(device.certificate.clone())),
            _ => None,
        };
        request.extensions_mut().insert(PeerCertificate(certificate));
        request.extensions_mut().insert(PeerAddress(SocketAddr::from(([192, 0, 2, 1], 1))));
        request
    }

    /// Sends a check-in message.
    pub(crate) async fn check_in(&self, proof: Proof<'_>, inner: &str) -> Answer {
        self.send(self.request("/checkin", Some(CHECK_IN), &plist(inner), proof)).await
    }

    /// Sends a report, without a Content-Type, as many clients do.
    pub(crate) async fn report(&self, proof: Proof<'_>, inner: &str) -> Answer {
        self.send(self.request("/mdm", None, &plist(inner), proof)).await
    }

    pub(crate) async fn idle(&self, device: &Device) -> Answer {
        self.report(Proof::Signed(device), &device.idle()).await
    }

    pub(crate) async fn acknowledge(&self, device: &Device, uuid: &str) -> Answer {
        self.report(Proof::Signed(device), &device.status("Acknowledged", uuid)).await
    }

    /// A device that went the whole way.
    pub(crate) async fn enrolled(&self, n: u32) -> (Device, EnrollmentId) {
        let device = self.device(n).await;
        assert!(self.check_in(Proof::Signed(&device), &device.authenticate()).await.is_empty());
        assert!(self.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
        let id = self.live(&device).await.unwrap().id;
        (device, id)
    }

    /// The enrollment of a device that has not ended.
    pub(crate) async fn live(&self, device: &Device) -> Option<Enrollment> {
        let key = DeviceKey::Udid(device.udid.parse().unwrap());
        let mut tx = self.store.read().await.unwrap();
        store::enrollments::live_device(&mut tx, &key).await.unwrap()
    }

    pub(crate) async fn enrollment(&self, id: EnrollmentId) -> Enrollment {
        let mut tx = self.store.read().await.unwrap();
        store::enrollments::get(&mut tx, id).await.unwrap().unwrap()
    }

    pub(crate) async fn user(&self, device: EnrollmentId) -> Option<Enrollment> {
        let mut tx = self.store.read().await.unwrap();
        let key = UserKey::UserId(USER.parse().unwrap());
        store::enrollments::live_user(&mut tx, device, &key).await.unwrap()
    }

    pub(crate) async fn enqueue(&self, id: EnrollmentId, uuid: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let body = plist(&format!(
            "<key>CommandUUID</key><string>{uuid}</string><key>Command</key><dict><key>RequestType</key><string>ProfileList</string></dict>"
        ));
        let new = New {
            uuid: uuid.parse().unwrap(),
            request_type: "ProfileList",
            rendering: Rendering::Plain,
            body: &body,
            lane: Lane::Normal,
            coalescing_key: None,
            ttl: None,
            created_by: "test",
            push: true,
        };
        commands::enqueue(&mut tx, &self.policy.commands, &new, &[id], self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn waiting(&self, id: EnrollmentId) -> usize {
        let mut tx = self.store.read().await.unwrap();
        store::commands::outstanding(&mut tx, id, self.now(), 100).await.unwrap().len()
    }

    pub(crate) async fn events(&self, kind: &str) -> usize {
        let mut tx = self.store.read().await.unwrap();
        let filter = store::events::Filter { enrollment: None, kind: Some(kind.into()) };
        store::events::newest(&mut tx, &filter, None, 1000).await.unwrap().len()
    }

    /// A person whom a Mac may ask for this password.
    pub(crate) async fn network_user(&self, short_name: &str, realm: &str, password: &str) {
        let digest = mdm_core::crypto::digest_access::ha1(short_name, realm, &Secret::new(password.to_owned()));
        let context = format!("network_user.digest_sealed:{short_name}");
        let row = store::network_users::Row {
            short_name: short_name.to_owned(),
            digest_sealed: self.sealer.seal(&context, digest.expose().as_bytes(), &self.random),
            created_by: "test".to_owned(),
            created_at: self.now().0,
        };
        let mut tx = self.store.begin().await.unwrap();
        store::network_users::put(&mut tx, &row).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// An operator revokes the device's identity.
    pub(crate) async fn revoke(&self, device: &Device) {
        let mut tx = self.store.begin().await.unwrap();
        let fingerprint = device.certificate.fingerprint();
        assert!(store::identities::revoke(&mut tx, fingerprint, self.now()).await.unwrap());
        let pin = store::identities::find_by_fingerprint(&mut tx, fingerprint).await.unwrap().unwrap();
        store::renewals::revoked(&mut tx, &pin, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// The built-in authority, with the keys of the first world: RSA keys are slow to make.
async fn authority(store: &Store, sealer: &Sealer, random: &Random) -> Authority {
    static KEYS: OnceCell<Vec<store::keys::Row>> = OnceCell::const_new();
    const NAMES: [&str; 3] = ["identity-ca", "scep-ra", "profile-signer"];
    let settings = issuer::authority::Settings::default();
    let mut tx = store.begin().await.unwrap();
    for row in KEYS.get().into_iter().flatten() {
        store::keys::insert(&mut tx, row).await.unwrap();
    }
    let authority = Authority::load_or_create(&mut tx, sealer, random, START, &settings).await.unwrap();
    let mut rows = Vec::new();
    for name in NAMES {
        rows.push(store::keys::get(&mut tx, name).await.unwrap().unwrap());
    }
    KEYS.get_or_init(|| async { rows }).await;
    tx.commit().await.unwrap();
    authority
}

/// A property list with this content in its dictionary.
pub(crate) fn plist(inner: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\"><dict>{inner}</dict></plist>")
        .into_bytes()
}

pub(crate) fn rsa() -> PrivateKey {
    PrivateKey::generate_rsa(2048).unwrap()
}

pub(crate) fn p256() -> PrivateKey {
    PrivateKey::generate_p256().unwrap()
}

impl Device {
    pub(crate) fn id(&self) -> String {
        format!("<key>UDID</key><string>{}</string>", self.udid)
    }

    pub(crate) fn message(&self, kind: &str, rest: &str) -> String {
        format!("<key>MessageType</key><string>{kind}</string>{}{rest}", self.id())
    }

    pub(crate) fn authenticate(&self) -> String {
        let rest = format!(
            "<key>Topic</key><string>{TOPIC}</string><key>SerialNumber</key><string>{}</string>\
             <key>ProductName</key><string>iPhone17,2</string><key>OSVersion</key><string>26.1</string>",
            self.serial
        );
        self.message("Authenticate", &rest)
    }

    pub(crate) fn token_update(&self) -> String {
        self.token_update_with("ZmFrZVRva2Vu", "")
    }

    pub(crate) fn token_update_with(&self, token: &str, rest: &str) -> String {
        let keys = format!(
            "<key>Topic</key><string>{TOPIC}</string><key>Token</key><data>{token}</data>\
             <key>PushMagic</key><string>magic</string>{rest}"
        );
        self.message("TokenUpdate", &keys)
    }

    pub(crate) fn check_out(&self) -> String {
        self.message("CheckOut", &format!("<key>Topic</key><string>{TOPIC}</string>"))
    }

    pub(crate) fn idle(&self) -> String {
        format!("{}<key>Status</key><string>Idle</string>", self.id())
    }

    pub(crate) fn status(&self, status: &str, uuid: &str) -> String {
        format!("{}<key>Status</key><string>{status}</string><key>CommandUUID</key><string>{uuid}</string>", self.id())
    }
}

fn leaf(
    ca_key: &PrivateKey,
    ca: &Certificate,
    key: &PrivateKey,
    name: &str,
    leaf_use: LeafUse,
    now: Timestamp,
) -> Certificate {
    let public = PublicKey::from_spki_der(&key.public_spki_der().unwrap()).unwrap();
    let new = NewLeaf { common_name: name, leaf_use, dns_names: &[], ip_addresses: &[], now, valid_for: YEAR };
    let issuer = Issuer { key: ca_key, certificate: ca.der() };
    Certificate::from_der(&issue_leaf(issuer, &public, &new, &Random::System).unwrap()).unwrap()
}

/// A detached CMS signature (RFC 5652), written out by hand.
fn detached(device: &Device, content: &[u8], at: Timestamp, sha1: bool) -> Vec<u8> {
    const ID_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    const ID_SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
    const CONTENT_TYPE: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
    const MESSAGE_DIGEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
    const SIGNING_TIME: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05";
    const SHA_1: &[u8] = b"\x06\x05\x2b\x0e\x03\x02\x1a";
    const SHA_256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01";
    const SHA_1_RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05";
    const ECDSA_SHA_256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    let (hash, digest_oid) = if sha1 { (Hash::Sha1, SHA_1) } else { (Hash::Sha256, SHA_256) };
    let signature_oid = match (sha1, device.key.kind().is_rsa()) {
        (true, _) => SHA_1_RSA,
        (false, true) => RSA,
        (false, false) => ECDSA_SHA_256,
    };
    let moment = time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
    let utc = format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        moment.year() % 100,
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second()
    );
    let attribute = |kind: &[u8], value: &[u8]| der(0x30, &[kind, &der(0x31, &[value])]);
    let mut attributes = [
        attribute(CONTENT_TYPE, ID_DATA),
        attribute(SIGNING_TIME, &der(0x17, &[utc.as_bytes()])),
        attribute(MESSAGE_DIGEST, &der(0x04, &[&hash.digest(content)])),
    ];
    attributes.sort();
    let attributes = attributes.concat();
    let signature = device.key.sign(hash, &der(0x31, &[&attributes])).unwrap();
    let serial = hex::decode(device.certificate.serial_hex()).unwrap();
    let padded = if serial[0] > 0x7f { [&[0], serial.as_slice()].concat() } else { serial };
    let digest_algorithm = der(0x30, &[digest_oid]);
    let signer = der(
        0x30,
        &[
            &[2, 1, 1],
            &der(0x30, &[&device.certificate.issuer_der(), &der(2, &[&padded])]),
            &digest_algorithm,
            &der(0xa0, &[&attributes]),
            &der(0x30, &[signature_oid]),
            &der(4, &[&signature]),
        ],
    );
    let signed_data = der(
        0x30,
        &[
            &[2, 1, 1],
            &der(0x31, &[&digest_algorithm]),
            &der(0x30, &[ID_DATA]),
            &der(0xa0, &[device.certificate.der()]),
            &der(0x31, &[&signer]),
        ],
    );
    der(0x30, &[ID_SIGNED_DATA, &der(0xa0, &[&signed_data])])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let significant = &length[length.iter().take_while(|b| **b == 0).count().min(3)..];
    let header = match significant {
        [one] if *one < 0x80 => vec![tag, *one],
        more => [&[tag, 0x80 | u8::try_from(more.len()).unwrap()], more].concat(),
    };
    [header, content].concat()
}
