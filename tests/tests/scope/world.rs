//! A server's policies and a fleet, as far as scopes and labels see them.

use std::collections::BTreeSet;

use commands::{Lane, New, Rendering};
use mdm_core::certificate::Certificate;
use mdm_core::command::{Command, DeviceInformation};
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, Door, EnrollmentKind, EnrollmentState, Sender, UserKey};
use mdm_core::ids::{CommandUuid, EnrollmentId, Label, PolicyId};
use mdm_core::plist::{Dictionary, Value};
use mdm_core::random::Random;
use mdm_core::report::{Report, Status};
use mdm_core::time::{Clock, Timestamp};
use policy::label_rules::{LabelRule, Put};
use policy::{AcmePolicy, Context, DryRun, Scope, ScopeChange, Signers};
use serde_json::{Value as Json, json};
use store::assignments::Assignment;
use store::enrollments::{Claims, Entered, NewDevice, Tokens};
use store::{Store, Tx};

const START: Timestamp = Timestamp(1_800_000_000_000);

/// A device to enroll.
#[derive(Clone, Copy)]
pub struct Device {
    pub n: u64,
    pub product: &'static str,
    pub os: &'static str,
    pub kind: EnrollmentKind,
    pub door: Door,
}

pub fn device(n: u64, product: &'static str, os: &'static str) -> Device {
    Device { n, product, os, kind: EnrollmentKind::Device, door: Door::Link }
}

pub fn phone(n: u64) -> Device {
    device(n, "iPhone15,2", "17.4")
}

pub fn mac(n: u64, os: &'static str) -> Device {
    device(n, "Mac14,2", os)
}

pub fn label(text: &str) -> Label {
    text.parse().unwrap()
}

pub struct World {
    pub store: Store,
    ctx: Context,
    clock: Clock,
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
            organization: None,
        };
        Self { store, ctx, clock: Clock::fixed(START) }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn tx(&self) -> Tx {
        self.store.begin().await.unwrap()
    }

    pub async fn policy(&self, change: Json) -> PolicyId {
        let mut tx = self.tx().await;
        let id = policy::create(&mut tx, &self.ctx, &acme(&change), "test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn revise(&self, id: PolicyId, change: Json) {
        let mut tx = self.tx().await;
        policy::revise(&mut tx, &self.ctx, id, &acme(&change), "test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn scope(&self, id: PolicyId, scope: &Scope) -> ScopeChange {
        let mut tx = self.tx().await;
        let change = policy::set_scope(&mut tx, id, scope, "test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        change
    }

    pub async fn dry_run(&self, change: Json, scope: &Scope) -> DryRun {
        let mut tx = self.store.read().await.unwrap();
        policy::dry_run(&mut tx, &acme(&change), scope, self.now()).await.unwrap()
    }

    /// The reconcile loop, until nothing is due.
    pub async fn reconcile(&self) {
        for _ in 0..50 {
            if policy::reconcile::run_once(&self.store, &self.ctx, self.now(), 500).await.unwrap() == 0 {
                return;
            }
        }
        panic!("the reconcile loop has no end");
    }

    /// So many turns of the reconcile loop that look at no assignment: only scopes and rules are walked on.
    pub async fn walk(&self, turns: usize) {
        for _ in 0..turns {
            policy::reconcile::run_once(&self.store, &self.ctx, self.now(), 0).await.unwrap();
        }
    }

    async fn insert(&self, tx: &mut Tx, device: Device) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.now()));
        let text = format!("00008110-{:016X}", device.n);
        let key = match device.kind {
            EnrollmentKind::User => DeviceKey::EnrollmentId(text.parse().unwrap()),
            _ => DeviceKey::Udid(text.parse().unwrap()),
        };
        let new = NewDevice { id, kind: device.kind, key: &key };
        store::enrollments::insert_device(tx, &new, self.now()).await.unwrap();
        let entered = Entered { door: device.door, managed_apple_account: None, server_url: None, anchors: None };
        store::enrollments::entered(tx, id, &entered).await.unwrap();
        let serial = format!("SERIAL{}", device.n);
        let claims = Claims {
            product_name: Some(device.product),
            os_version: Some(device.os),
            serial_number: (device.kind != EnrollmentKind::User).then_some(serial.as_str()),
            ..Claims::default()
        };
        store::enrollments::authenticated(tx, id, false, &claims, self.now()).await.unwrap();
        self.token_update(tx, id).await;
        id
    }

    async fn token_update(&self, tx: &mut Tx, id: EnrollmentId) {
        let tokens = Tokens {
            topic: "com.apple.mgmt.External.test",
            push_token: b"fakeToken",
            push_magic: "magic",
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: None,
            raw_sealed: b"",
            user_short_name: None,
            user_long_name: None,
        };
        let state = EnrollmentState::Enrolled { since: self.now() };
        store::enrollments::token_update(tx, id, state, &tokens, self.now()).await.unwrap();
    }

    async fn enrolled(&self, tx: &mut Tx, id: EnrollmentId) {
        let enrollment = store::enrollments::get(tx, id).await.unwrap().unwrap();
        policy::enrolled(tx, &self.ctx, &enrollment, self.now()).await.unwrap();
    }

    /// `Authenticate` and `TokenUpdate`.
    pub async fn enroll(&self, device: Device) -> EnrollmentId {
        let mut tx = self.tx().await;
        let id = self.insert(&mut tx, device).await;
        self.enrolled(&mut tx, id).await;
        tx.commit().await.unwrap();
        id
    }

    pub async fn enroll_user(&self, device: EnrollmentId) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.now()));
        let key = UserKey::UserId(Random::System.uuid_v4().to_string().parse().unwrap());
        let mut tx = self.tx().await;
        store::enrollments::insert_user(&mut tx, id, device, EnrollmentKind::Device, &key, self.now()).await.unwrap();
        self.token_update(&mut tx, id).await;
        self.enrolled(&mut tx, id).await;
        tx.commit().await.unwrap();
        id
    }

    /// Many phones that were there before, in the order of their keys.
    pub async fn fleet(&self, size: u64) -> Vec<EnrollmentId> {
        let mut tx = self.tx().await;
        let mut ids = Vec::new();
        for n in 0..size {
            ids.push(self.insert(&mut tx, phone(n + 10)).await);
        }
        tx.commit().await.unwrap();
        ids.sort();
        ids
    }

    /// Puts a label on or takes it off, as the API does.
    pub async fn label(&self, id: EnrollmentId, text: &str, on: bool) {
        let mut tx = self.tx().await;
        if on {
            store::labels::put(&mut tx, id, &label(text)).await.unwrap();
        } else {
            store::labels::remove(&mut tx, id, &label(text)).await.unwrap();
        }
        policy::labels_changed(&mut tx, &self.ctx, &[id], self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn labels(&self, id: EnrollmentId) -> Vec<String> {
        let mut tx = self.store.read().await.unwrap();
        store::labels::of(&mut tx, id).await.unwrap()
    }

    pub async fn rule(&self, rule: Json) -> Put {
        let rule: LabelRule = serde_json::from_value(rule).unwrap();
        let mut tx = self.tx().await;
        let put = policy::label_rules::put(&mut tx, &rule, "test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        put
    }

    pub async fn delete_rule(&self, text: &str) -> bool {
        let mut tx = self.tx().await;
        let deleted = policy::label_rules::delete(&mut tx, &label(text), "test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        deleted
    }

    /// The device answers a `DeviceInformation`.
    pub async fn tells(&self, id: EnrollmentId, answers: &[(&str, &str)]) {
        let mut tx = self.tx().await;
        self.telling(&mut tx, id, answers).await;
        tx.commit().await.unwrap();
    }

    /// [`Self::tells`] in a session that is not over yet.
    pub async fn telling(&self, tx: &mut Tx, id: EnrollmentId, answers: &[(&str, &str)]) {
        let uuid: CommandUuid = Random::System.uuid_v4().to_string().parse().unwrap();
        let queries = vec!["ProductName", "OSVersion", "SerialNumber"];
        let envelope = Command::from(DeviceInformation { queries, attestation_nonce: None }).envelope(uuid.clone());
        let new = New {
            uuid: uuid.clone(),
            request_type: "DeviceInformation",
            rendering: Rendering::Plain,
            body: &envelope.body,
            lane: Lane::Urgent,
            coalescing_key: None,
            ttl: None,
            created_by: "test",
            push: false,
        };
        let mut responses = Dictionary::new();
        for (key, value) in answers {
            responses.insert((*key).into(), (*value).into());
        }
        let mut body = Dictionary::new();
        body.insert("QueryResponses".into(), Value::Dictionary(responses));
        let device = DeviceKey::Udid("00008110-0000000000000000".parse().unwrap());
        let report = Report {
            sender: Sender { device, user: None },
            status: Status::Acknowledged,
            command_uuid: Some(uuid.clone()),
            request_type: None,
            error_chain: vec![],
            body,
        };
        let queue = &self.ctx.commands;
        store::enrollments::lock(tx, id).await.unwrap();
        commands::enqueue(tx, queue, &new, &[id], self.now()).await.unwrap();
        let picked = commands::next(tx, queue, id, Status::Idle, self.now()).await.unwrap().unwrap();
        assert_eq!(picked.uuid, uuid);
        let done = commands::report(tx, queue, id, &report, b"raw", self.now()).await.unwrap().unwrap();
        let enrollment = store::enrollments::get(tx, id).await.unwrap().unwrap();
        policy::react(tx, &self.ctx, &enrollment, &done, &report, self.now()).await.unwrap();
    }

    /// The device has been asked what it is, and said what it said when it enrolled.
    pub async fn asked(&self, id: EnrollmentId) {
        let mut tx = self.tx().await;
        let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        tx.rollback().await.unwrap();
        let (product, os) = (enrollment.product_name.unwrap(), enrollment.os_version.unwrap());
        self.tells(id, &[("ProductName", &product), ("OSVersion", &os)]).await;
    }

    pub async fn assignment(&self, policy: PolicyId, id: EnrollmentId) -> Option<Assignment> {
        let mut tx = self.store.read().await.unwrap();
        store::assignments::find(&mut tx, policy, id).await.unwrap()
    }

    /// Who has the policy.
    pub async fn assigned(&self, policy: PolicyId) -> BTreeSet<EnrollmentId> {
        let mut tx = self.store.read().await.unwrap();
        let rows = store::assignments::of_policy(&mut tx, policy, None, 10_000).await.unwrap();
        rows.into_iter().map(|a| EnrollmentId(a.enrollment_id)).collect()
    }

    /// How many events of this kind speak of the enrollment.
    pub async fn events(&self, id: EnrollmentId, kind: &str) -> usize {
        let mut tx = self.store.read().await.unwrap();
        let filter = store::events::Filter { enrollment: Some(id), kind: Some(kind.to_owned()) };
        store::events::newest(&mut tx, &filter, None, 100).await.unwrap().len()
    }

    pub async fn count(&self, policy: PolicyId) -> usize {
        self.assigned(policy).await.len()
    }
}

fn acme(change: &Json) -> AcmePolicy {
    let mut json = json!({
        "name": "wifi", "directory_url": "https://ca.example.com/acme/directory",
        "client_identifier": "{serial}", "subject": [[["O", "Example"]], [["CN", "{serial}"]]],
    });
    for (key, value) in change.as_object().unwrap() {
        json[key] = value.clone();
    }
    AcmePolicy::from_value(json).unwrap()
}
