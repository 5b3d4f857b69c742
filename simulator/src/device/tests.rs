//! A device against a hand-written server: what it sends, what it refuses, and what it does when it is refused.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::account::{Account, Mode};
use crate::acme_ca::{AcmeCa, Settings};
use crate::authority::Authority;
use crate::browser::{PROFILE, Person};
use crate::https::{Request, Response, Server};
use crate::identity::Source;
use crate::signature;

mod installed;
mod keeper;

/// What the server has, and what it saw.
#[derive(Default)]
struct Seen {
    /// `MessageType` or `Status`, and the bearer token.
    messages: Vec<(String, Option<String>)>,
    /// Commands to give out, in order.
    commands: Vec<Writer>,
    /// The access token that is taken now.
    token: String,
    /// Requests to the token endpoint.
    refreshed: usize,
    /// The profile of the account-driven enrollment.
    profile: Vec<u8>,
    oauth: bool,
    /// Refuses this message.
    refuse: Option<&'static str>,
}

struct World {
    server: Server,
    ca: AcmeCa,
    trust: Trust,
    seen: Arc<Mutex<Seen>>,
    attesting: attestation::Authority,
    anchor: Vec<u8>,
}

fn response(status: u16, kind: &str, body: Vec<u8>) -> Response {
    http::Response::builder().status(status).header("content-type", kind).body(body).unwrap()
}

fn serve(request: &Request, seen: &mut Seen) -> Response {
    let host = request.headers().get("host").unwrap().to_str().unwrap();
    let bearer = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let challenge = || {
        let text = if seen.oauth {
            format!(
                "Bearer method=\"apple-oauth2\", authorization-url=\"https://{host}/authorize\", \
                 token-url=\"https://{host}/token\", redirect-url=\"apple-remotemanagement-user-login:/oauth2/redirection\", \
                 client-id=\"device\", scope=\"mdm\""
            )
        } else {
            format!("Bearer method=\"apple-as-web\", url=\"https://{host}/web\"")
        };
        http::Response::builder().status(401).header("www-authenticate", text).body(Vec::new()).unwrap()
    };
    let to = |status: u16, location: &str| {
        http::Response::builder().status(status).header("location", location).body(Vec::new()).unwrap()
    };
    let good = bearer.as_deref() == Some(&format!("Bearer {}", seen.token));
    let query = request.uri().query().unwrap_or_default().to_owned();
    match request.uri().path() {
        "/.well-known/com.apple.remotemanagement" if query.contains("gone") => response(404, "text/plain", Vec::new()),
        "/.well-known/com.apple.remotemanagement" | "/fallback" => {
            assert!(query.contains("user-identifier=") && query.contains("model-family=iPhone"));
            let body = format!("{{\"Servers\":[{{\"Version\":\"mdm-byod\",\"BaseURL\":\"https://{host}/byod\"}}]}}");
            response(200, "application/json", body.into_bytes())
        }
        "/byod" if good => response(200, PROFILE, seen.profile.clone()),
        "/byod" => challenge(),
        "/web" => {
            to(308, &format!("apple-remotemanagement-user-login://authentication-results?access-token={}", seen.token))
        }
        "/authorize" => {
            let state = query.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap();
            to(308, &format!("apple-remotemanagement-user-login:/oauth2/redirection?code=c&state={state}"))
        }
        "/token" => {
            seen.refreshed += 1;
            let body = format!(
                "{{\"token_type\":\"Bearer\",\"access_token\":\"{}\",\"refresh_token\":\"r{}\"}}",
                seen.token, seen.refreshed
            );
            response(200, "application/json", body.into_bytes())
        }
        "/mdm" => {
            let body = plist::parse(request.body()).unwrap();
            let name = body.text("MessageType").or_else(|| body.text("Status")).unwrap().to_owned();
            seen.messages.push((name.clone(), bearer));
            if seen.refuse == Some(name.as_str()) {
                return response(400, "text/plain", Vec::new());
            }
            if !seen.token.is_empty() && !good {
                return challenge();
            }
            if body.get("MessageType").is_some() || seen.commands.is_empty() {
                return response(200, "application/xml", Vec::new());
            }
            response(200, "application/xml", seen.commands.remove(0).document())
        }
        other => panic!("{other}"),
    }
}

impl World {
    async fn new() -> Self {
        let authority = Authority::new("Device test").unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let serving = Arc::clone(&seen);
        let server = Server::start(&authority, move |request| {
            let serving = Arc::clone(&serving);
            async move { serve(&request, &mut serving.lock().unwrap()) }
        })
        .await
        .unwrap();
        let attesting = attestation::Authority::new().unwrap();
        let settings = Settings::lenient(attesting.root().unwrap());
        let ca = AcmeCa::start(&authority, settings).await.unwrap();
        let trust = Trust::public().with_pem(authority.pem().unwrap().as_bytes()).unwrap();
        let anchor = openssl::x509::X509::from_pem(authority.pem().unwrap().as_bytes()).unwrap().to_der().unwrap();
        Self { server, ca, trust, seen, attesting, anchor }
    }

    fn device(&self, behaviour: Behaviour) -> Device {
        let record = Record::new(crate::hardware::find("iPhone17,2").unwrap(), "18.4", "22E240", "device").unwrap();
        let device = Device::new(record, self.trust.clone(), behaviour).unwrap();
        device.built_by(DeviceCa::legacy().unwrap()).attested_by(self.attesting.clone())
    }

    /// An enrollment profile with an ACME identity; `more` keys go into the MDM payload.
    fn profile(&self, mode: Option<&str>, more: &Writer) -> Vec<u8> {
        self.profile_with(&self.server.url("/mdm"), mode, more, None)
    }

    fn profile_with(&self, url: &str, mode: Option<&str>, more: &Writer, pin: Option<&[u8]>) -> Vec<u8> {
        let payload = |kind: &str, number: u8| {
            Writer::new()
                .string("PayloadType", kind)
                .integer("PayloadVersion", 1)
                .string("PayloadIdentifier", kind)
                .string("PayloadUUID", &format!("00000000-0000-4000-8000-0000000000{number:02}"))
        };
        let identity = payload("com.apple.security.acme", 2)
            .string("DirectoryURL", &self.ca.directory_url())
            .string("ClientIdentifier", &crate::record::fresh_uuid().unwrap())
            .string("KeyType", "ECSECPrimeRandom")
            .integer("KeySize", 256)
            .boolean("HardwareBound", true)
            .boolean("Attest", true)
            .raw("Subject", "<array><array><array><string>O</string><string>x</string></array></array></array>");
        let mut mdm = payload("com.apple.mdm", 3)
            .string("IdentityCertificateUUID", "00000000-0000-4000-8000-000000000002")
            .string("Topic", "com.apple.mgmt.External.x")
            .string("ServerURL", url)
            .boolean("SignMessage", true);
        mdm = match mode {
            Some(mode) => mdm.string("EnrollmentMode", mode).string("AssignedManagedAppleID", "ada@example.org"),
            None => mdm.integer("AccessRights", 3),
        };
        let mut payloads = vec![identity];
        if let Some(pin) = pin {
            payloads.push(payload("com.apple.security.root", 4).data("PayloadContent", pin));
            mdm = mdm.raw(
                "ServerURLPinningCertificateUUIDs",
                "<array><string>00000000-0000-4000-8000-000000000004</string></array>",
            );
        }
        payloads.push(mdm.with(more));
        Writer::new()
            .string("PayloadType", "Configuration")
            .integer("PayloadVersion", 1)
            .string("PayloadIdentifier", "org.example.enrollment")
            .string("PayloadUUID", "00000000-0000-4000-8000-000000000001")
            .dicts("PayloadContent", &payloads)
            .document()
    }

    fn install(&self, profile: &[u8]) {
        let command = Writer::new().string("RequestType", "InstallProfile").data("Payload", profile);
        let command = Writer::new().string("CommandUUID", "install").dict("Command", &command);
        self.seen.lock().unwrap().commands.push(command);
    }

    fn names(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().messages).into_iter().map(|(name, _)| name).collect()
    }
}

async fn enrolled(world: &World, behaviour: Behaviour) -> Device {
    let mut device = world.device(behaviour);
    device.obtain_identity(&world.profile(None, &Writer::new())).await.unwrap();
    device.authenticate().await.unwrap();
    device.token_update(ChannelId::DEVICE).await.unwrap();
    assert_eq!(device.identity_source(), Some(Source::Acme { hardware_bound: true, attested: true }));
    world.names();
    device
}

#[tokio::test]
async fn an_update_of_the_profile_brings_a_new_identity_in_three_ways() {
    let world = World::new().await;
    for (renewal, first, told) in [
        (Renewal::Authenticate, false, ["Idle", "Authenticate", "TokenUpdate", "Acknowledged"].as_slice()),
        (Renewal::TokenUpdate, false, &["Idle", "TokenUpdate", "Acknowledged"]),
        (Renewal::TokenUpdate, true, &["Idle", "Acknowledged", "TokenUpdate"]),
    ] {
        let behaviour = Behaviour { renewal, acknowledges_first: first, ..Behaviour::default() };
        let mut device = enrolled(&world, behaviour).await;
        let before = device.identity().unwrap().certificate.to_der().unwrap();
        world.install(&world.profile(None, &Writer::new()));
        device.session(ChannelId::DEVICE).await.unwrap();
        assert_eq!(world.names(), told);
        assert_ne!(device.identity().unwrap().certificate.to_der().unwrap(), before);
        assert_eq!(device.profiles(ChannelId::DEVICE).len(), 1);
    }
}

#[tokio::test]
async fn an_update_that_fails_leaves_the_old_identity() {
    let world = World::new().await;
    let mut device = enrolled(&world, Behaviour::default()).await;
    let before = device.identity().unwrap().certificate.to_der().unwrap();
    let elsewhere = world.profile_with(&world.server.url("/other"), None, &Writer::new(), None);
    let none = Writer::new();
    let byod = world.profile(Some("ADDE"), &none);
    for (profile, down, refuse) in [
        (elsewhere, false, None),
        (byod, false, None),
        (world.profile(None, &Writer::new().integer("RequiredAppIDForMDM", 1)), false, None),
        (world.profile(None, &none), true, None),
        (world.profile(None, &none), false, Some("Authenticate")),
        (world.profile(None, &none), false, Some("TokenUpdate")),
    ] {
        world.ca.set_down(down);
        world.seen.lock().unwrap().refuse = refuse;
        world.install(&profile);
        let session = device.session(ChannelId::DEVICE).await.unwrap();
        assert_eq!(session.answered.last().unwrap().status, Status::Error);
        assert_eq!(device.identity().unwrap().certificate.to_der().unwrap(), before);
    }
}

#[tokio::test]
async fn an_account_is_carried_along_and_renewed() {
    let world = World::new().await;
    let account = Account::new("ada@example.org").discovered_at(&world.server.url(""));
    for oauth in [false, true] {
        let mut device = world.device(Behaviour::default());
        {
            let mut seen = world.seen.lock().unwrap();
            *seen = Seen { oauth, token: "one".into(), ..Seen::default() };
            seen.profile = world.profile(Some("BYOD"), &Writer::new());
        }
        let person = Person::nobody();
        assert!(device.enroll_account(&account, Mode::Adde, &person).await.is_err(), "BYOD is offered");
        device.enroll_account(&account, Mode::Byod, &person).await.unwrap();
        let id = device.record.enrollment_id.clone().unwrap();
        let carried = std::mem::take(&mut world.seen.lock().unwrap().messages);
        assert!(carried.iter().all(|(_, bearer)| bearer.as_deref() == Some("Bearer one")), "{carried:?}");
        world.seen.lock().unwrap().token = "two".into();
        device.session(ChannelId::DEVICE).await.unwrap();
        assert_eq!(device.access_token().await.as_deref(), Some("two"));
        // OAuth 2 refreshes without asking anybody.
        assert_eq!(device.sign_ins().await, if oauth { 1 } else { 2 });
        device.unenroll();
        assert_ne!(device.record.enrollment_id, Some(id), "the next enrollment has another EnrollmentID");
    }
    let nowhere = Account::new("gone@example.org").discovered_at(&world.server.url(""));
    let mut device = world.device(Behaviour::default());
    assert!(device.enroll_account(&nowhere, Mode::Byod, &Person::nobody()).await.is_err());
    let found = nowhere.falling_back_to(&world.server.url("/fallback"));
    device.enroll_account(&found, Mode::Byod, &Person::nobody()).await.unwrap();
}

#[tokio::test]
async fn profiles_that_do_not_fit_an_account_are_refused() {
    let world = World::new().await;
    let account = Account::new("ada@example.org").discovered_at(&world.server.url(""));
    for profile in [
        world.profile(Some("ADDE"), &Writer::new()),
        world.profile(None, &Writer::new()),
        world.profile(Some("BYOD"), &Writer::new().integer("AccessRights", 8191)),
    ] {
        *world.seen.lock().unwrap() = Seen { token: "one".into(), profile, ..Seen::default() };
        let mut device = world.device(Behaviour::default());
        let error = device.enroll_account(&account, Mode::Byod, &Person::nobody()).await.unwrap_err();
        assert!(matches!(error, Error::Profile(_)), "{error}");
        assert!(!device.is_enrolled() && world.names().is_empty());
    }
}

#[tokio::test]
async fn a_pinned_server_must_be_the_pinned_one() {
    let world = World::new().await;
    let url = world.server.url("/mdm");
    let mut device = world.device(Behaviour::default());
    device.obtain_identity(&world.profile_with(&url, None, &Writer::new(), Some(&world.anchor))).await.unwrap();
    device.authenticate().await.unwrap();
    device.token_update(ChannelId::DEVICE).await.unwrap();
    device.session(ChannelId::DEVICE).await.unwrap();
    let other = signature::self_signed("other", 2048, 1).unwrap().certificate.to_der().unwrap();
    let mut device = world.device(Behaviour::default());
    device.obtain_identity(&world.profile_with(&url, None, &Writer::new(), Some(&other))).await.unwrap();
    assert!(matches!(device.session(ChannelId::DEVICE).await.unwrap_err(), Error::Unreachable { .. }));
}

#[tokio::test]
async fn a_401_without_challenge_ends_the_enrollment_and_an_erased_device_forgets() {
    let world = World::new().await;
    let mut device = enrolled(&world, Behaviour::default()).await;
    world.seen.lock().unwrap().token = "wanted of nobody".into();
    assert!(device.session(ChannelId::DEVICE).await.is_err());
    assert!(!device.is_enrolled());
    world.seen.lock().unwrap().token.clear();

    let mut device = enrolled(&world, Behaviour::default()).await;
    let unlock = device.unlock_token().to_vec();
    let erase = Writer::new()
        .string("CommandUUID", "e")
        .raw("Command", "<dict><key>RequestType</key><string>EraseDevice</string></dict>");
    world.seen.lock().unwrap().commands.push(erase);
    device.session(ChannelId::DEVICE).await.unwrap();
    assert_eq!(world.names(), ["Idle", "Acknowledged"]);
    assert!(!device.is_enrolled() && device.unlock_token() != unlock);
    assert!(STANDARD.encode(unlock).len() > 44);
}
