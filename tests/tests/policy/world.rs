//! A server's policies, a certificate authority, and devices. The device edge is played by [`World::poll`]: report, react, next,
//! render, commit, as `checkin` does it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use commands::{Content, Rendering};
use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{EnrollmentKind, EnrollmentState, Sender, UserKey};
use mdm_core::ids::{AttemptId, EnrollmentId, PolicyId};
use mdm_core::plist::{Dictionary, Limits, Value, decode_dictionary};
use mdm_core::random::Random;
use mdm_core::report::{ErrorItem, Report, Status};
use mdm_core::time::{Clock, Timestamp};
use policy::reason::ReasonCode;
use policy::{AcmePolicy, Context, Rendered, Scope, Signers};
use serde_json::{Value as Json, json};
use store::Store;
use store::assignments::Assignment;
use store::attempts::Attempt;
use store::enrollments::{Claims, NewDevice, Tokens};

use super::authority::Issuing;
use super::device::{Device, Sent, device, text};

pub const START: Timestamp = Timestamp(1_800_000_000_000);
pub const HOUR: Duration = Duration::from_hours(1);
pub const DAY: Duration = Duration::from_hours(24);

pub struct World {
    pub store: Store,
    pub ctx: Context,
    pub clock: Clock,
    authority: Issuing,
    /// How long a certificate lasts.
    pub life: Duration,
    /// The identities on each enrollment, by `PayloadIdentifier`.
    identities: Mutex<BTreeMap<(EnrollmentId, String), Vec<u8>>>,
}

impl World {
    pub fn new(store: Store) -> Self {
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
            signers: Signers::new(signer.unwrap()),
            identifier: "com.example.mdm".into(),
            organization: Some("Example".into()),
        };
        Self {
            store,
            ctx,
            clock: Clock::fixed(START),
            authority: Issuing::new(),
            life: DAY * 30,
            identities: Mutex::default(),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn acme(&self, change: Json) -> AcmePolicy {
        acme(change, Some(&self.authority.pem))
    }

    pub async fn policy(&self, change: Json) -> PolicyId {
        let mut tx = self.store.begin().await.unwrap();
        let id = policy::create(&mut tx, &self.ctx, &self.acme(change), "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn revise(&self, id: PolicyId, change: Json) -> i64 {
        let mut tx = self.store.begin().await.unwrap();
        let policy = self.acme(change);
        let revision = policy::revise(&mut tx, &self.ctx, id, &policy, "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        revision
    }

    pub async fn scope(&self, id: PolicyId, scope: Scope) -> policy::ScopeChange {
        let mut tx = self.store.begin().await.unwrap();
        let change = policy::set_scope(&mut tx, id, &scope, "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        change
    }

    pub async fn policy_for_all(&self, change: Json) -> PolicyId {
        let id = self.policy(change).await;
        self.scope(id, everybody()).await;
        id
    }

    /// An authority, with the certificate that it signs with or without.
    pub async fn authority_named(&self, name: &str, with_issuers: bool) {
        let issuers: Vec<_> = with_issuers.then_some(&self.authority.pem).into_iter().collect();
        let document = json!({
            "name": name, "kind": "generic", "directory_url": format!("https://{name}.example.com/acme/mdm/directory"),
            "issuers": issuers,
        });
        let document = serde_json::from_value(document).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        ca::put(&mut tx, &Random::System, &document, "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn reconcile(&self) -> usize {
        policy::reconcile::run_once(&self.store, &self.ctx, self.now(), 100).await.unwrap()
    }

    /// Authenticate and TokenUpdate.
    pub async fn enroll(&self, device: Device) -> EnrollmentId {
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

    pub async fn enroll_user(&self, parent: EnrollmentId, kind: EnrollmentKind, n: u64) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.now()));
        let key = UserKey::UserId(format!("00000000-0000-0000-0000-{n:012X}").parse().unwrap());
        let mut tx = self.store.begin().await.unwrap();
        store::enrollments::insert_user(&mut tx, id, parent, kind, &key, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        self.token_update(id, Some("ada")).await;
        id
    }

    pub async fn token_update(&self, id: EnrollmentId, user: Option<&str>) {
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
    pub async fn poll(&self, id: EnrollmentId, status: Status, about: Option<&Sent>, body: Dictionary) -> Option<Sent> {
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
        let queue = &self.ctx.commands;
        if let Some(done) = commands::report(&mut tx, queue, id, &report, b"raw", self.now()).await.unwrap() {
            policy::react(&mut tx, &self.ctx, &enrollment, &done, &report, self.now()).await.unwrap();
        }
        let sent = loop {
            let Some(picked) = commands::next(&mut tx, queue, id, status, self.now()).await.unwrap() else {
                break None;
            };
            let rendered = match &picked.content {
                Content::Ready(bytes) => Ok(bytes.clone()),
                Content::Render { rendering: Rendering::Facts, .. } => {
                    Ok(policy::render_facts(&mut tx, &self.ctx, &enrollment, &picked.uuid, self.now()).await.unwrap())
                }
                Content::Render { before, .. } => {
                    let before = before.as_deref();
                    match policy::render(&mut tx, &self.ctx, &enrollment, &picked.uuid, before, self.now())
                        .await
                        .unwrap()
                    {
                        Rendered::Refused { why } => Err(why),
                        Rendered::Body(body) => Ok(body),
                    }
                }
            };
            let bytes = match rendered {
                Ok(bytes) => bytes,
                Err(why) => {
                    commands::refuse(&mut tx, &picked, &why, self.now()).await.unwrap();
                    continue;
                }
            };
            if matches!(picked.content, Content::Render { .. }) {
                commands::rendered(&mut tx, queue, &picked, &bytes, self.now()).await.unwrap();
            }
            let envelope = decode_dictionary(&bytes, Limits::REPORT).unwrap();
            assert_eq!(text(&envelope, "CommandUUID"), picked.uuid.as_str());
            let command = envelope.get("Command").and_then(Value::as_dictionary).unwrap().clone();
            break Some(Sent { uuid: picked.uuid, request_type: picked.request_type, command, bytes });
        };
        tx.commit().await.unwrap();
        sent
    }

    pub async fn idle(&self, id: EnrollmentId) -> Option<Sent> {
        self.poll(id, Status::Idle, None, Dictionary::new()).await
    }

    pub async fn acknowledge(&self, id: EnrollmentId, sent: &Sent) -> Option<Sent> {
        self.poll(id, Status::Acknowledged, Some(sent), Dictionary::new()).await
    }

    pub async fn refuse(&self, id: EnrollmentId, sent: &Sent) -> Option<Sent> {
        self.poll(id, Status::Error, Some(sent), Dictionary::new()).await
    }

    /// Polls, expects to be asked what it is, answers, and tells what comes back in that very response.
    pub async fn answer(&self, id: EnrollmentId, device: Device) -> Option<Sent> {
        let asked = self.idle(id).await.expect("asked what it is");
        assert_eq!(asked.request_type, "DeviceInformation");
        self.poll(id, Status::Acknowledged, Some(&asked), device.answers()).await
    }

    /// Gets the identity that a profile asks for, and acknowledges.
    pub async fn install(&self, id: EnrollmentId, sent: &Sent) -> Option<Sent> {
        let (profile, payload) = sent.acme();
        let certificate = self.authority.issue(&payload, self.now(), self.life);
        let identifier = text(&profile, "PayloadIdentifier").to_owned();
        self.identities.lock().unwrap().insert((id, identifier), certificate);
        self.acknowledge(id, sent).await
    }

    /// The identities are gone, and nobody knows how.
    pub fn lose_identities(&self, id: EnrollmentId) {
        self.identities.lock().unwrap().retain(|(of, _), _| *of != id);
    }

    /// Answers a CertificateList with what is there.
    pub async fn show_certificates(&self, id: EnrollmentId, asked: &Sent) -> Option<Sent> {
        assert_eq!(asked.request_type, "CertificateList");
        let entry = |der: &Vec<u8>| {
            let mut entry = Dictionary::new();
            entry.insert("CommonName".into(), "identity".into());
            entry.insert("IsIdentity".into(), true.into());
            entry.insert("Data".into(), Value::Data(der.clone()));
            Value::Dictionary(entry)
        };
        let list = {
            let identities = self.identities.lock().unwrap();
            identities.iter().filter(|((of, _), _)| *of == id).map(|(_, der)| entry(der)).collect()
        };
        let mut body = Dictionary::new();
        body.insert("CertificateList".into(), Value::Array(list));
        self.poll(id, Status::Acknowledged, Some(asked), body).await
    }

    /// Does what it is told until there is nothing left, and tells what that was.
    pub async fn session(&self, id: EnrollmentId, device: Device) -> Vec<String> {
        let mut done = Vec::new();
        let mut next = self.idle(id).await;
        while let Some(sent) = next {
            done.push(sent.request_type.clone());
            assert!(done.len() < 20, "no end: {done:?}");
            next = match sent.request_type.as_str() {
                "DeviceInformation" => self.poll(id, Status::Acknowledged, Some(&sent), device.answers()).await,
                "InstallProfile" => self.install(id, &sent).await,
                "CertificateList" => self.show_certificates(id, &sent).await,
                "RemoveProfile" => {
                    let identifier = text(&sent.command, "Identifier").to_owned();
                    self.identities.lock().unwrap().remove(&(id, identifier));
                    self.acknowledge(id, &sent).await
                }
                other => panic!("{other}"),
            };
        }
        done
    }

    pub async fn assignment(&self, policy: PolicyId, id: EnrollmentId) -> Option<Assignment> {
        let mut tx = self.store.read().await.unwrap();
        store::assignments::find(&mut tx, policy, id).await.unwrap()
    }

    pub async fn state(&self, policy: PolicyId, id: EnrollmentId) -> (String, Option<String>) {
        let a = self.assignment(policy, id).await.expect("assigned");
        (a.state, a.reason)
    }

    /// The ledger of one enrollment, oldest first.
    pub async fn attempts(&self, id: EnrollmentId) -> Vec<Attempt> {
        let mut tx = self.store.read().await.unwrap();
        let mut all = store::attempts::of_enrollment(&mut tx, id, None::<AttemptId>, 100).await.unwrap();
        all.reverse();
        all
    }

    pub async fn explain(&self, change: Json, id: EnrollmentId) -> policy::Decision {
        let mut tx = self.store.read().await.unwrap();
        policy::explain(&mut tx, &acme(change, None), id, START).await.unwrap().unwrap()
    }
}

pub fn everybody() -> Scope {
    Scope { all: true, ..Scope::default() }
}

pub fn nobody() -> Scope {
    Scope::default()
}

pub fn only(id: EnrollmentId) -> Scope {
    Scope { enrollment_ids: BTreeSet::from([id.0]), ..Scope::default() }
}

pub fn acme(change: Json, issuer: Option<&str>) -> AcmePolicy {
    let mut json = json!({
        "name": "wifi", "directory_url": "https://ca.example.com/acme/directory",
        "client_identifier": "{serial}", "subject": [[["O", "Example"]], [["CN", "{serial}"]]],
    });
    if let Some(pem) = issuer {
        json["issuers"] = json!([pem]);
    }
    for (key, value) in change.as_object().unwrap() {
        json[key] = value.clone();
    }
    AcmePolicy::from_value(json).unwrap()
}

pub fn state(state: &str, reason: Option<ReasonCode>) -> (String, Option<String>) {
    (state.to_owned(), reason.map(|r| r.as_str().to_owned()))
}

/// The states of the attempts, in their order.
pub fn states(attempts: &[Attempt]) -> Vec<&str> {
    attempts.iter().map(|a| a.state.as_str()).collect()
}
