//! ACME policies, from a scope to a profile on a device, on both databases. The device edge is played by [`World::poll`]:
//! report, react, next, render, commit, as `checkin` does it.

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::cms_verify::{Rules, Sha1Rule, verify_attached};
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, Sender, UserKey};
use mdm_core::ids::{AssignmentId, CommandUuid, EnrollmentId, Label, PolicyId};
use mdm_core::plist::{Dictionary, Limits, Value, decode_dictionary};
use mdm_core::random::Random;
use mdm_core::report::{ErrorItem, Report, Status};
use mdm_core::time::{Clock, Timestamp};
use mdm_tests::on_both;
use policy::reason::ReasonCode;
use policy::{AcmePolicy, Context, Rendered, ScopeItem};
use serde_json::{Value as Json, json};
use store::Store;
use store::assignments::Assignment;
use store::enrollments::{Claims, NewDevice, Tokens};

const START: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: Duration = Duration::from_hours(1);

/// What a device was sent.
struct Sent {
    uuid: CommandUuid,
    request_type: String,
    command: Dictionary,
    bytes: Vec<u8>,
}

impl Sent {
    /// The ACME payload inside the signed profile, and the profile around it.
    fn acme(&self) -> (Dictionary, Dictionary) {
        assert_eq!(self.request_type, "InstallProfile");
        let signed = self.command.get("Payload").and_then(Value::as_data).unwrap();
        let (_, content) = verify_attached(signed, Rules { sha1: Sha1Rule::Refuse }).unwrap();
        let profile = decode_dictionary(&content, Limits::REPORT).unwrap();
        let payloads = profile.get("PayloadContent").and_then(Value::as_array).unwrap();
        assert_eq!(payloads.len(), 1);
        (profile.clone(), payloads[0].as_dictionary().unwrap().clone())
    }
}

fn text<'a>(dictionary: &'a Dictionary, key: &str) -> &'a str {
    dictionary.get(key).and_then(Value::as_string).unwrap_or_else(|| panic!("no {key}"))
}

fn flag(dictionary: &Dictionary, key: &str) -> Option<bool> {
    dictionary.get(key).map(|v| v.as_boolean().unwrap())
}

/// A device to enroll.
#[derive(Clone, Copy)]
struct Device {
    n: u64,
    product: &'static str,
    os: &'static str,
    kind: EnrollmentKind,
}

fn device(n: u64, product: &'static str, os: &'static str) -> Device {
    Device { n, product, os, kind: EnrollmentKind::Device }
}

impl Device {
    fn key(self) -> DeviceKey {
        let id = format!("00008110-{:016X}", self.n);
        match self.kind {
            EnrollmentKind::User => DeviceKey::EnrollmentId(id.parse().unwrap()),
            _ => DeviceKey::Udid(id.parse().unwrap()),
        }
    }

    /// What it answers to DeviceInformation.
    fn answers(self) -> Dictionary {
        let mut responses = Dictionary::new();
        responses.insert("ProductName".into(), self.product.into());
        responses.insert("OSVersion".into(), self.os.into());
        if self.product.contains("Mac") {
            let apple_silicon = self.product.starts_with("Mac1") || self.product.starts_with("VirtualMac");
            responses.insert("IsAppleSilicon".into(), apple_silicon.into());
        }
        if self.kind != EnrollmentKind::User {
            responses.insert("SerialNumber".into(), format!("SERIAL{}", self.n).into());
        }
        let mut body = Dictionary::new();
        body.insert("QueryResponses".into(), Value::Dictionary(responses));
        body
    }
}

struct World {
    store: Store,
    ctx: Context,
    clock: Clock,
}

impl World {
    fn new(store: Store) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
        let signer = ProfileSigner::new(
            PrivateKey::from_pkcs8_der(&key.serialize_der()).unwrap(),
            Certificate::from_der(certificate.der()).unwrap(),
            vec![],
        );
        let commands = commands::Context {
            sealer: Sealer::new(&[7; 32]),
            random: Random::System,
            stall: commands::Stall::default(),
        };
        let ctx = Context {
            commands,
            attestation: mdm_tests::attestation(),
            signer: signer.unwrap(),
            identifier: "com.example.mdm".into(),
            organization: Some("Example".into()),
        };
        Self { store, ctx, clock: Clock::fixed(START) }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn policy(&self, change: Json) -> PolicyId {
        let mut tx = self.store.begin().await.unwrap();
        let id = policy::create(&mut tx, &self.ctx, &acme(change), "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn scope(&self, id: PolicyId, scope: &[ScopeItem]) -> policy::ScopeChange {
        let mut tx = self.store.begin().await.unwrap();
        let change = policy::set_scope(&mut tx, &self.ctx, id, scope, "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        change
    }

    async fn policy_for_all(&self, change: Json) -> PolicyId {
        let id = self.policy(change).await;
        self.scope(id, &[ScopeItem::All]).await;
        id
    }

    async fn reconcile(&self) -> usize {
        policy::reconcile::run_once(&self.store, &self.ctx, self.now(), 100).await.unwrap()
    }

    /// Authenticate and TokenUpdate.
    async fn enroll(&self, device: Device) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.now()));
        let mut tx = self.store.begin().await.unwrap();
        let new = NewDevice { id, kind: device.kind, key: &device.key() };
        store::enrollments::insert_device(&mut tx, &new, self.now()).await.unwrap();
        let serial = format!("SERIAL{}", device.n);
        let claims = Claims {
            product_name: Some(device.product),
            os_version: Some(device.os),
            serial_number: (device.kind != EnrollmentKind::User).then_some(serial.as_str()),
            ..Claims::default()
        };
        store::enrollments::authenticated(&mut tx, id, false, &claims, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        self.token_update(id, None).await;
        id
    }

    async fn enroll_user(&self, parent: EnrollmentId, kind: EnrollmentKind, n: u64) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.now()));
        let key = UserKey::UserId(format!("00000000-0000-0000-0000-{n:012X}").parse().unwrap());
        let mut tx = self.store.begin().await.unwrap();
        store::enrollments::insert_user(&mut tx, id, parent, kind, &key, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        self.token_update(id, Some("ada")).await;
        id
    }

    async fn token_update(&self, id: EnrollmentId, user: Option<&str>) {
        let mut tx = self.store.begin().await.unwrap();
        let tokens = Tokens {
            topic: "com.apple.mgmt.External.test",
            push_token: b"fakeToken",
            push_magic: "magic",
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: None,
            raw_sealed: b"",
            user_short_name: user,
            user_long_name: None,
        };
        let state = EnrollmentState::Enrolled { since: self.now() };
        store::enrollments::token_update(&mut tx, id, state, &tokens, self.now()).await.unwrap();
        let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        policy::enrolled(&mut tx, &self.ctx, &enrollment, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// One message of a device to the ServerURL, and what it is sent.
    async fn poll(&self, id: EnrollmentId, status: Status, about: Option<&Sent>, body: Dictionary) -> Option<Sent> {
        let error_chain = if status == Status::Error {
            let us_english_description = Some("The ACME server said no.".to_owned());
            vec![ErrorItem {
                code: 4001,
                domain: "MCInstallationErrorDomain".into(),
                localized_description: None,
                us_english_description,
            }]
        } else {
            vec![]
        };
        let report = Report {
            sender: Sender { device: device(0, "", "").key(), user: None },
            status,
            command_uuid: about.map(|s| s.uuid.clone()),
            request_type: None,
            error_chain,
            body,
        };
        let mut tx = self.store.begin().await.unwrap();
        let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        if let Some(done) =
            commands::report(&mut tx, &self.ctx.commands, id, &report, b"raw", self.now()).await.unwrap()
        {
            policy::react(&mut tx, &self.ctx, &enrollment, &done, &report, self.now()).await.unwrap();
        }
        let sent = loop {
            let Some(picked) = commands::next(&mut tx, &self.ctx.commands, id, status, self.now()).await.unwrap()
            else {
                break None;
            };
            let bytes = match &picked.content {
                commands::Content::Ready(bytes) => bytes.clone(),
                commands::Content::Render { parameters: params, .. } => {
                    match policy::render(&mut tx, &self.ctx, &enrollment, &picked.uuid, params, self.now())
                        .await
                        .unwrap()
                    {
                        Rendered::Refused { why } => {
                            commands::refuse(&mut tx, &picked, &why, self.now()).await.unwrap();
                            continue;
                        }
                        Rendered::Body(body) => {
                            commands::rendered(&mut tx, &self.ctx.commands, &picked, &body, self.now()).await.unwrap();
                            body
                        }
                    }
                }
            };
            let envelope = decode_dictionary(&bytes, Limits::REPORT).unwrap();
            assert_eq!(text(&envelope, "CommandUUID"), picked.uuid.as_str());
            let command = envelope.get("Command").and_then(Value::as_dictionary).unwrap().clone();
            break Some(Sent { uuid: picked.uuid, request_type: picked.request_type, command, bytes });
        };
        tx.commit().await.unwrap();
        sent
    }

    async fn idle(&self, id: EnrollmentId) -> Option<Sent> {
        self.poll(id, Status::Idle, None, Dictionary::new()).await
    }

    async fn acknowledge(&self, id: EnrollmentId, sent: &Sent) -> Option<Sent> {
        self.poll(id, Status::Acknowledged, Some(sent), Dictionary::new()).await
    }

    /// Polls, expects to be asked what it is, answers, and tells what comes back in that very response.
    async fn answer(&self, id: EnrollmentId, device: Device) -> Option<Sent> {
        let asked = self.idle(id).await.expect("asked what it is");
        assert_eq!(asked.request_type, "DeviceInformation");
        self.poll(id, Status::Acknowledged, Some(&asked), device.answers()).await
    }

    async fn assignment(&self, policy: PolicyId, id: EnrollmentId) -> Option<Assignment> {
        let mut tx = self.store.read().await.unwrap();
        store::assignments::find(&mut tx, policy, id).await.unwrap()
    }

    async fn state(&self, policy: PolicyId, id: EnrollmentId) -> (String, Option<String>) {
        let a = self.assignment(policy, id).await.expect("assigned");
        (a.state, a.reason)
    }

    async fn explain(&self, change: Json, id: EnrollmentId) -> policy::Decision {
        let mut tx = self.store.read().await.unwrap();
        policy::explain(&mut tx, &acme(change), id, START).await.unwrap().unwrap()
    }
}

fn acme(change: Json) -> AcmePolicy {
    let mut json = json!({
        "name": "wifi", "directory_url": "https://ca.example.com/acme/directory",
        "client_identifier": "{serial}", "subject": [[["O", "Example"]], [["CN", "{serial}"]]],
    });
    for (key, value) in change.as_object().unwrap() {
        json[key] = value.clone();
    }
    AcmePolicy::from_value(json).unwrap()
}

fn state(state: &str, reason: Option<ReasonCode>) -> (String, Option<String>) {
    (state.to_owned(), reason.map(|r| r.as_str().to_owned()))
}

#[tokio::test]
async fn a_new_device_is_asked_and_the_gated_profile_rides_back_in_the_same_response() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        assert_eq!(w.state(policy, id).await, state("awaiting_facts", None));

        let sent = w.answer(id, phone).await.expect("the profile, in the same response");
        let (profile, payload) = sent.acme();
        assert_eq!(text(&profile, "PayloadIdentifier"), format!("com.example.mdm.acme.{}", policy.0.simple()));
        assert_eq!(text(&profile, "PayloadOrganization"), "Example");
        assert_eq!(text(&payload, "PayloadType"), "com.apple.security.acme");
        assert_eq!(text(&payload, "ClientIdentifier"), "SERIAL1");
        assert_eq!((flag(&payload, "HardwareBound"), flag(&payload, "Attest")), (Some(true), Some(true)));
        assert_eq!(flag(&payload, "KeyIsExtractable"), None, "only ever for Macs");
        assert_eq!(w.state(policy, id).await, state("installing", None));

        let again = w.idle(id).await.expect("the reply was lost: the same one again");
        assert_eq!((again.uuid.as_str(), &again.bytes), (sent.uuid.as_str(), &sent.bytes));
        assert!(w.acknowledge(id, &sent).await.is_none());
        assert_eq!(w.state(policy, id).await, state("installed", None));
        assert!(w.acknowledge(id, &sent).await.is_none(), "a repeated report changes nothing");
        assert_eq!(w.reconcile().await, 0, "nothing is left to do");
        assert!(w.idle(id).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn each_device_gets_the_form_that_apples_table_allows_it() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"ca_accepts_unattested": true})).await;
        for (n, product, os, bound, attest, mac) in [
            (1, "Mac14,2", "14.5", true, Some(true), true),
            (2, "Mac14,2", "13.6", false, Some(false), true),
            (3, "MacBookPro16,1", "14.0", true, Some(false), true),
            (4, "MacBookPro14,2", "13.1", false, Some(false), true),
            (5, "VirtualMac2,1", "15.0", false, Some(false), true),
            (6, "AppleTV6,2", "17.0", true, Some(false), false),
            (7, "Watch6,18", "9.6", true, None, false),
            (8, "iPad8,1", "16.1", true, Some(true), false),
        ] {
            let device = device(n, product, os);
            let id = w.enroll(device).await;
            let sent = w.answer(id, device).await.unwrap_or_else(|| panic!("{product} gets nothing"));
            let (_, payload) = sent.acme();
            assert_eq!(
                (flag(&payload, "HardwareBound"), flag(&payload, "Attest")),
                (Some(bound), attest),
                "{product} {os}"
            );
            assert_eq!(flag(&payload, "KeyIsExtractable"), mac.then_some(false), "{product}");
            assert_eq!(flag(&payload, "AllowAllAppsAccess"), mac.then_some(false), "{product}");
            w.acknowledge(id, &sent).await;
            assert_eq!(w.state(policy, id).await.0, "installed");
        }
    })
    .await;
}

#[tokio::test]
async fn th_48_a_device_that_cannot_attest_is_refused_with_the_reason_and_sent_nothing() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let old = device(1, "iPhone9,1", "16.1");
        let id = w.enroll(old).await;
        assert!(w.answer(id, old).await.is_none(), "no profile");
        assert_eq!(w.state(policy, id).await, state("blocked", Some(ReasonCode::AttestIgnoredBySilicon)));
        let decision = w.explain(json!({}), id).await;
        assert_eq!(decision.device.chip.as_deref(), Some("A10 Fusion"));
        assert!(decision.reason.unwrap().source.contains("row Ignored"));

        let unknown = device(2, "HomePod1,1", "18.0");
        let other = w.enroll(unknown).await;
        assert!(w.answer(other, unknown).await.is_none());
        assert_eq!(w.state(policy, other).await.1.as_deref(), Some("hardware_unknown"));

        let mut tx = w.store.read().await.unwrap();
        let run = policy::dry_run(&mut tx, &acme(json!({})), &[ScopeItem::All], START).await.unwrap();
        assert_eq!((run.total, run.open, run.closed, run.need_facts), (2, 0, 2, 0));
        let run =
            policy::dry_run(&mut tx, &acme(json!({"ca_accepts_unattested": true})), &[ScopeItem::All], START).await.unwrap();
        assert_eq!((run.open, run.closed), (2, 0), "a policy that nobody has yet");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_looked_at_again_after_a_day_and_an_update_opens_the_gate() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let old = device(1, "Mac14,2", "13.6");
        let id = w.enroll(old).await;
        assert!(w.answer(id, old).await.is_none());
        assert_eq!(w.state(policy, id).await.1.as_deref(), Some("hardware_bound_needs_macos_14"));
        w.clock.advance(HOUR * 23);
        assert_eq!(w.reconcile().await, 0);
        w.clock.advance(HOUR * 2);
        assert_eq!(w.reconcile().await, 1);
        let sent = w.answer(id, Device { os: "14.0", ..old }).await.expect("the gate has opened");
        assert_eq!(flag(&sent.acme().1, "Attest"), Some(true));
    })
    .await;
}

#[tokio::test]
async fn the_gate_is_asked_again_at_delivery() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"ca_accepts_unattested": true})).await;
        let t2 = device(1, "MacBookPro16,1", "14.0");
        let id = w.enroll(t2).await;
        let asked = w.idle(id).await.unwrap();
        // The answer is taken, but the profile is not fetched: the connection broke before the reply was rendered.
        let mut tx = w.store.begin().await.unwrap();
        let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        let report = Report {
            sender: Sender { device: t2.key(), user: None },
            status: Status::Acknowledged,
            command_uuid: Some(asked.uuid.clone()),
            request_type: None,
            error_chain: vec![],
            body: t2.answers(),
        };
        let done = commands::report(&mut tx, &w.ctx.commands, id, &report, b"raw", w.now()).await.unwrap().unwrap();
        policy::react(&mut tx, &w.ctx, &enrollment, &done, &report, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(w.state(policy, id).await.0, "installing");

        // The policy is written anew before the device comes back; the reconcile loop has not run yet.
        let mut tx = w.store.begin().await.unwrap();
        let strict = acme(json!({"attest": "required"}));
        policy::revise(&mut tx, &w.ctx, policy, &strict, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(w.idle(id).await.is_none(), "refused at delivery");
        assert_eq!(w.state(policy, id).await, state("blocked", Some(ReasonCode::AttestIgnoredBySilicon)));
        w.reconcile().await;
        assert_eq!(w.state(policy, id).await.0, "blocked");
    })
    .await;
}

#[tokio::test]
async fn old_facts_are_asked_for_again_before_delivery() {
    on_both(|store| async move {
        let w = World::new(store);
        w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let sent = w.answer(id, phone).await.unwrap();
        assert!(w.poll(id, Status::NotNow, Some(&sent), Dictionary::new()).await.is_none());
        // NotNow keeps what was rendered; a new revision makes it anew, a day later.
        let mut tx = w.store.begin().await.unwrap();
        let other = acme(json!({"display_name": "Wi-Fi"}));
        let row = store::policies::by_name(&mut tx, "wifi").await.unwrap().unwrap();
        policy::revise(&mut tx, &w.ctx, row.id(), &other, "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        w.clock.advance(HOUR * 25);
        let sent = w.answer(id, phone).await.expect("asked first, then sent");
        let (profile, _) = sent.acme();
        assert_eq!(text(&profile, "PayloadDisplayName"), "Wi-Fi");
    })
    .await;
}

#[tokio::test]
async fn a_new_revision_replaces_the_profile_under_the_same_identifier() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let first = w.answer(id, phone).await.unwrap();
        w.acknowledge(id, &first).await;

        let mut tx = w.store.begin().await.unwrap();
        let same = policy::revise(&mut tx, &w.ctx, policy, &acme(json!({})), "token:test", w.now()).await.unwrap();
        assert_eq!(same, 1, "the same body is no revision");
        let next = acme(json!({"usage_flags": 1}));
        assert_eq!(policy::revise(&mut tx, &w.ctx, policy, &next, "token:test", w.now()).await.unwrap(), 2);
        tx.commit().await.unwrap();
        assert_eq!(w.reconcile().await, 1);
        let second = w.idle(id).await.unwrap();
        let ((a, _), (b, payload)) = (first.acme(), second.acme());
        assert_eq!(text(&a, "PayloadIdentifier"), text(&b, "PayloadIdentifier"));
        assert_ne!(text(&a, "PayloadUUID"), text(&b, "PayloadUUID"));
        assert_eq!(payload.get("UsageFlags").and_then(Value::as_signed_integer), Some(1));
        w.acknowledge(id, &second).await;
        assert_eq!(w.state(policy, id).await.0, "installed");
    })
    .await;
}

#[tokio::test]
async fn th_43_a_random_client_identifier_is_used_for_one_installation_only() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy =
            w.policy_for_all(json!({"client_identifier": "{random}", "subject": [[["CN", "{random}"]]]})).await;
        let phone = Device { kind: EnrollmentKind::User, ..device(1, "iPhone15,2", "17.0") };
        let id = w.enroll(phone).await;
        let first = w.answer(id, phone).await.unwrap();
        let one = text(&first.acme().1, "ClientIdentifier").to_owned();
        assert!(one.len() >= 43, "256 bits: {one}");
        w.poll(id, Status::Error, Some(&first), Dictionary::new()).await;
        w.clock.advance(HOUR);
        assert_eq!(w.reconcile().await, 1);
        let second = w.idle(id).await.unwrap();
        assert_ne!(text(&second.acme().1, "ClientIdentifier"), one);
        let shown = format!("{:?}", w.assignment(policy, id).await);
        assert!(!shown.contains(text(&second.acme().1, "ClientIdentifier")), "{shown}");
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_tried_again_later_and_not_for_ever() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let mut sent = w.answer(id, phone).await.unwrap();
        for attempt in 1..=policy::decide::MAX_ATTEMPTS {
            let next = w.poll(id, Status::Error, Some(&sent), Dictionary::new()).await;
            assert!(next.is_none(), "attempt {attempt}: not at once");
            let a = w.assignment(policy, id).await.unwrap();
            assert_eq!((a.state.as_str(), a.attempts), ("failed", attempt));
            assert!(a.decision.unwrap().contains("The ACME server said no."));
            assert_eq!(w.reconcile().await, 0, "not before its time");
            if attempt == policy::decide::MAX_ATTEMPTS {
                break;
            }
            w.clock.advance(policy::decide::back_off(attempt));
            assert_eq!(w.reconcile().await, 1);
            sent = match w.idle(id).await.unwrap() {
                asked if asked.request_type == "DeviceInformation" => {
                    w.poll(id, Status::Acknowledged, Some(&asked), phone.answers()).await.unwrap()
                }
                sent => sent,
            };
        }
        assert_eq!(w.state(policy, id).await, state("failed", Some(ReasonCode::GivenUp)));
        w.clock.advance(HOUR * 24 * 30);
        assert_eq!(w.reconcile().await, 0, "given up");
        let mut tx = w.store.begin().await.unwrap();
        policy::revise(&mut tx, &w.ctx, policy, &acme(json!({"usage_flags": 5})), "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        assert!(w.answer(id, phone).await.is_some(), "a new revision begins anew");
    })
    .await;
}

#[tokio::test]
async fn leaving_the_scope_takes_the_profile_off() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let (with, without) = (device(1, "iPhone15,2", "17.0"), device(2, "iPhone15,2", "17.0"));
        let (one, two) = (w.enroll(with).await, w.enroll(without).await);
        let sent = w.answer(one, with).await.unwrap();
        w.acknowledge(one, &sent).await;

        let change = w.scope(policy, &[]).await;
        assert_eq!((change.targets, change.assigned, change.leaving), (0, 0, 2));
        assert_eq!(w.reconcile().await, 2);
        assert!(w.assignment(policy, two).await.is_none(), "nothing was on it");
        let removal = w.idle(one).await.unwrap();
        assert_eq!(removal.request_type, "RemoveProfile");
        assert_eq!(text(&removal.command, "Identifier"), format!("com.example.mdm.acme.{}", policy.0.simple()));
        assert!(w.acknowledge(one, &removal).await.is_none());
        assert!(w.assignment(policy, one).await.is_none());

        let change = w.scope(policy, &[ScopeItem::Enrollment(one)]).await;
        assert_eq!((change.targets, change.assigned), (1, 1));
        w.reconcile().await;
        assert_eq!(w.idle(one).await.unwrap().request_type, "InstallProfile", "facts are fresh");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_policy_is_taken_off_and_its_name_is_free() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let sent = w.answer(id, phone).await.unwrap();
        // Deleted while the profile is on its way.
        let mut tx = w.store.begin().await.unwrap();
        let taken = policy::create(&mut tx, &w.ctx, &acme(json!({})), "token:test", w.now()).await;
        assert!(matches!(taken, Err(policy::Error::NameTaken(_))));
        policy::delete(&mut tx, policy, "token:test", w.now()).await.unwrap();
        let gone = policy::delete(&mut tx, policy, "token:test", w.now()).await;
        assert!(matches!(gone, Err(policy::Error::NoPolicy(_))));
        policy::create(&mut tx, &w.ctx, &acme(json!({})), "token:test", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let removal = w.acknowledge(id, &sent).await.expect("removed in the same session");
        assert_eq!(removal.request_type, "RemoveProfile");
    })
    .await;
}

#[tokio::test]
async fn labels_bring_and_take_policies() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy(json!({})).await;
        let label: Label = "pilot".parse().unwrap();
        w.scope(policy, &[ScopeItem::Label(label.clone())]).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        assert!(w.assignment(policy, id).await.is_none());

        let mut tx = w.store.begin().await.unwrap();
        store::labels::put(&mut tx, id, &label).await.unwrap();
        policy::labels_changed(&mut tx, &w.ctx, &[id], w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        let sent = w.answer(id, phone).await.unwrap();
        w.acknowledge(id, &sent).await;

        let mut tx = w.store.begin().await.unwrap();
        store::labels::remove(&mut tx, id, &label).await.unwrap();
        policy::labels_changed(&mut tx, &w.ctx, &[id], w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.reconcile().await;
        assert_eq!(w.idle(id).await.unwrap().request_type, "RemoveProfile");
    })
    .await;
}

#[tokio::test]
async fn channels_and_kinds_get_what_is_theirs() {
    on_both(|store| async move {
        let w = World::new(store);
        let names = json!({"channel": "both", "ca_accepts_unattested": true, "client_identifier": "{user_short_name}-{serial}"});
        let policy = w.policy_for_all(json!({"channel": "both", "ca_accepts_unattested": true})).await;
        let mac = device(1, "Mac14,2", "14.5");
        let id = w.enroll(mac).await;
        let user = w.enroll_user(id, EnrollmentKind::Device, 9).await;
        let on_device = w.answer(id, mac).await.unwrap();
        let on_user = w.answer(user, mac).await.unwrap();
        let ((profile, _), (user_profile, payload)) = (on_device.acme(), on_user.acme());
        assert_eq!((text(&profile, "PayloadScope"), text(&user_profile, "PayloadScope")), ("System", "User"));
        assert_ne!(text(&profile, "PayloadIdentifier"), text(&user_profile, "PayloadIdentifier"));
        assert_eq!(flag(&payload, "HardwareBound"), Some(false), "only by the switch");
        assert_eq!(text(&payload, "ClientIdentifier"), "SERIAL1", "the user's Mac is known");
        let refused = w.explain(names.clone(), id).await;
        assert_eq!(refused.reason.map(|r| r.code), Some(ReasonCode::TemplateValueMissing));
        assert!(w.explain(names, user).await.reason.is_none());

        let shared = Device { kind: EnrollmentKind::SharedIpad, ..device(2, "iPad8,1", "17.0") };
        let ipad = w.enroll(shared).await;
        let someone = w.enroll_user(ipad, EnrollmentKind::SharedIpad, 8).await;
        assert!(w.answer(ipad, shared).await.is_some());
        assert!(w.answer(someone, shared).await.is_none());
        assert_eq!(w.state(policy, someone).await.1.as_deref(), Some("shared_ipad_user_channel"));

        let byod = Device { kind: EnrollmentKind::User, ..device(3, "iPhone15,2", "17.0") };
        let personal = w.enroll(byod).await;
        assert!(w.answer(personal, byod).await.is_none());
        assert_eq!(w.state(policy, personal).await.1.as_deref(), Some("template_not_in_user_enrollment"));
    })
    .await;
}

#[tokio::test]
async fn a_device_that_refuses_to_say_what_it_is_is_decided_by_authenticate() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let asked = w.idle(id).await.unwrap();
        let sent = w.poll(id, Status::Error, Some(&asked), Dictionary::new()).await.expect("Authenticate said enough");
        assert_eq!(flag(&sent.acme().1, "Attest"), Some(true));
        assert_eq!(w.state(policy, id).await.0, "installing");
    })
    .await;
}

#[tokio::test]
async fn a_new_enrollment_begins_anew() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let sent = w.answer(id, phone).await.unwrap();
        w.acknowledge(id, &sent).await;
        let mut tx = w.store.begin().await.unwrap();
        policy::unenrolled(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
        assert!(w.assignment(policy, id).await.is_none());
        w.token_update(id, None).await;
        assert!(w.answer(id, phone).await.is_some(), "asked and sent again");
    })
    .await;
}

#[tokio::test]
async fn a_lost_command_heals() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let sent = w.answer(id, phone).await.unwrap();
        let mut tx = w.store.begin().await.unwrap();
        commands::cancel(&mut tx, id, &sent.uuid, "by hand", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        w.clock.advance(HOUR * 25);
        assert_eq!(w.reconcile().await, 1);
        assert_eq!(w.state(policy, id).await, state("failed", Some(ReasonCode::CommandEnded)));
        w.clock.advance(HOUR);
        assert_eq!(w.reconcile().await, 1);
        assert!(w.answer(id, phone).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn rg_19_one_assignment_that_cannot_be_decided_does_not_stop_the_others() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(w.enroll(device(n, "iPhone15,2", "17.0")).await);
        }
        let mut tx = w.store.begin().await.unwrap();
        store::facts::put(&mut tx, ids[3], "not JSON", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let policy = w.policy_for_all(json!({})).await;
        assert_eq!(w.reconcile().await, 20);
        for (n, id) in ids.iter().enumerate() {
            let expected = if n == 3 { "assigned" } else { "awaiting_facts" };
            assert_eq!(w.state(policy, *id).await.0, expected, "{n}");
        }
        assert_eq!(w.reconcile().await, 0, "put aside, not tried in a loop");
    })
    .await;
}

#[tokio::test]
async fn a_fault_of_ours_blocks_neither_the_report_nor_the_queue() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let asked = w.idle(id).await.unwrap();
        let mut tx = w.store.begin().await.unwrap();
        store::facts::put(&mut tx, id, "not JSON", w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let sent = w.poll(id, Status::Acknowledged, Some(&asked), phone.answers()).await.unwrap();
        assert_eq!(sent.request_type, "InstallProfile", "facts are begun anew");

        // A revision that this version cannot read, as another version may have written it.
        let mut tx = w.store.begin().await.unwrap();
        let odd =
            store::policies::NewRevision { name: "wifi", body: "{}", payload_uuid: uuid::Uuid::nil(), created_by: "x" };
        store::policies::revise(&mut tx, policy, &odd, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(w.acknowledge(id, &sent).await.is_none(), "the report is taken");
        let other = device(2, "iPhone15,2", "17.0");
        let second = w.enroll(other).await;
        assert_eq!(w.state(policy, second).await.0, "assigned", "it can enroll");
        let params = json!({"assignment": w.assignment(policy, second).await.unwrap().id, "revision": 2}).to_string();
        let new = commands::New {
            uuid: "by-hand".parse().unwrap(),
            request_type: "InstallProfile",
            rendering: commands::Rendering::Acme,
            body: params.as_bytes(),
            lane: commands::Lane::Normal,
            coalescing_key: None,
            ttl: None,
            created_by: "policy",
            push: false,
        };
        let mut tx = w.store.begin().await.unwrap();
        commands::enqueue(&mut tx, &w.ctx.commands, &new, &[second], w.now()).await.unwrap();
        let mut a = store::assignments::find(&mut tx, policy, second).await.unwrap().unwrap();
        (a.state, a.command_uuid) = ("installing".into(), Some("by-hand".into()));
        store::assignments::save(&mut tx, &a, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(w.idle(second).await.is_none(), "the queue goes on");
        assert_eq!(w.state(policy, second).await, state("failed", Some(ReasonCode::ServerFault)));
    })
    .await;
}

#[tokio::test]
async fn rg_23_two_reconcile_loops_share_no_assignment() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut ids = Vec::new();
        for n in 0..30 {
            ids.push(w.enroll(device(n, "iPhone15,2", "17.0")).await);
        }
        let policy = w.policy_for_all(json!({})).await;
        let (a, b) = tokio::join!(
            policy::reconcile::run_once(&w.store, &w.ctx, w.now(), 100),
            policy::reconcile::run_once(&w.store, &w.ctx, w.now(), 100),
        );
        assert_eq!(a.unwrap() + b.unwrap(), 30);
        let mut tx = w.store.read().await.unwrap();
        let counts = store::assignments::counts(&mut tx, policy).await.unwrap();
        assert_eq!(counts.len(), 1);
        assert_eq!((counts[0].state.as_str(), counts[0].count), ("awaiting_facts", 30));
        let page = store::assignments::of_policy(&mut tx, policy, None, 10).await.unwrap();
        let rest = store::assignments::of_policy(&mut tx, policy, Some(AssignmentId(page[9].id)), 100).await.unwrap();
        assert_eq!((page.len(), rest.len()), (10, 20));
    })
    .await;
}

#[tokio::test]
async fn two_policies_ask_a_device_once() {
    on_both(|store| async move {
        let w = World::new(store);
        w.policy_for_all(json!({})).await;
        w.policy_for_all(json!({"name": "vpn"})).await;
        let phone = device(1, "iPhone15,2", "17.0");
        let id = w.enroll(phone).await;
        let first = w.answer(id, phone).await.unwrap();
        let second = w.acknowledge(id, &first).await.expect("the other profile");
        assert_ne!(text(&first.acme().0, "PayloadIdentifier"), text(&second.acme().0, "PayloadIdentifier"));
        assert!(w.acknowledge(id, &second).await.is_none());
    })
    .await;
}
