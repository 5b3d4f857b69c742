//! A server without its edges: the store, the decision, and the two loops, with devices in a few words.

use std::future::Future;
use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::{AssignmentId, EnrollmentId, Label, PolicyId};
use mdm_core::random::Random;
use mdm_core::report::Status;
use mdm_core::time::{Clock, Timestamp};
use policy::{AcmePolicy, Context, Rendered, Scope, Signers};
use rollout::RolloutReport;
use rollout::standing::Stages;
use serde_json::{Value as Json, json};
use store::Store;
use store::assignments::Assignment;
use store::enrollments::{Claims, NewDevice, Tokens};
use store::policies::Policy;
use store::rollouts::Rollout;

const START: Timestamp = Timestamp(1_800_000_000_000);

/// Tells the story on both databases.
pub async fn story<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move { story(World::new(store)).await }
    })
    .await;
}

pub struct World {
    pub store: Store,
    pub ctx: Context,
    pub clock: Clock,
}

/// A policy with these steps; none: without a rollout. It can be proved, by an authority of its own.
pub fn plan(notes: &str, steps: &Json) -> AcmePolicy {
    let mut json = json!({
        "name": "wifi", "notes": notes, "directory_url": "https://ca.example.com/acme/mdm/directory",
        "issuers": [issuer()], "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]],
    });
    if !steps.is_null() {
        json["rollout"] = json!({"steps": steps});
    }
    AcmePolicy::from_value(json).unwrap()
}

/// A CA certificate, always the same.
fn issuer() -> String {
    use std::sync::OnceLock;
    static PEM: OnceLock<String> = OnceLock::new();
    let make = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).unwrap().pem()
    };
    PEM.get_or_init(make).clone()
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
            signers: Signers::new(signer.unwrap()),
            identifier: "com.example.mdm".into(),
            organization: None,
        };
        Self { store, ctx, clock: Clock::fixed(START) }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time goes by, and the loop of rollouts looks.
    pub async fn later(&self, time: Duration) {
        self.clock.advance(time);
        self.look().await;
    }

    /// The loop of rollouts looks, once each is due again.
    pub async fn look(&self) {
        // What it saw last may have been a moment ago; the story's clock stands still in between.
        let mut tx = self.store.begin().await.unwrap();
        if let Some(mut r) = self.any(&mut tx).await {
            r.due_at = Some(self.now());
            let running = store::rollouts::State::Running;
            store::rollouts::save(&mut tx, &r, running, None, self.now()).await.unwrap();
        }
        tx.commit().await.unwrap();
        rollout::run_once(&self.store, &Random::System, self.now()).await.unwrap();
    }

    async fn any(&self, tx: &mut store::Tx) -> Option<Rollout> {
        let policy = store::policies::list(tx, "", 1).await.unwrap().into_iter().next()?;
        store::rollouts::current(tx, policy.id()).await.unwrap()
    }

    /// The loop of assignments runs until nothing is due.
    pub async fn reconcile(&self) {
        while policy::reconcile::run_once(&self.store, &self.ctx, self.now(), 100).await.unwrap() > 0 {}
    }

    pub async fn policy(&self, steps: Json) -> PolicyId {
        let mut tx = self.store.begin().await.unwrap();
        let id = policy::create(&mut tx, &self.ctx, &plan("first", &steps), "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn revise(&self, id: PolicyId, notes: &str, steps: Json) -> i64 {
        let mut tx = self.store.begin().await.unwrap();
        let new = plan(notes, &steps);
        let revision = policy::revise(&mut tx, &self.ctx, id, &new, "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
        revision
    }

    /// The policy is for everybody.
    pub async fn assign(&self, id: PolicyId) {
        let mut tx = self.store.begin().await.unwrap();
        policy::set_scope(&mut tx, id, &Scope::everybody(), "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn delete(&self, id: PolicyId) {
        let mut tx = self.store.begin().await.unwrap();
        policy::delete(&mut tx, id, "token:test", self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Enrolled iPhones.
    pub async fn devices(&self, count: usize) -> Vec<EnrollmentId> {
        let mut all = Vec::new();
        for _ in 0..count {
            self.clock.advance(Duration::from_millis(1));
            let (id, now) = (EnrollmentId(Random::System.uuid_v7(self.now())), self.now());
            let mut tx = self.store.begin().await.unwrap();
            let key = DeviceKey::Udid(Random::System.uuid_v4().to_string().parse().unwrap());
            let new = NewDevice { id, kind: EnrollmentKind::Device, key: &key };
            store::enrollments::insert_device(&mut tx, &new, now).await.unwrap();
            let serial = id.0.simple().to_string();
            let claims = Claims {
                topic: "com.apple.mgmt.External.test",
                serial_number: serial.get(20..),
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
            let state = EnrollmentState::Enrolled { since: now };
            store::enrollments::token_update(&mut tx, id, state, &tokens, now).await.unwrap();
            let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
            policy::enrolled(&mut tx, &self.ctx, &enrollment, now).await.unwrap();
            tx.commit().await.unwrap();
            all.push(id);
        }
        all
    }

    pub async fn label(&self, devices: &[EnrollmentId], label: &str) {
        let label: Label = label.parse().unwrap();
        let mut tx = self.store.begin().await.unwrap();
        for device in devices {
            store::labels::put(&mut tx, *device, &label).await.unwrap();
        }
        policy::labels_changed(&mut tx, &self.ctx, devices, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn assignment(&self, id: PolicyId, device: EnrollmentId) -> Assignment {
        let mut tx = self.store.read().await.unwrap();
        store::assignments::find(&mut tx, id, device).await.unwrap().unwrap()
    }

    pub async fn state(&self, id: PolicyId, device: EnrollmentId) -> String {
        self.assignment(id, device).await.state
    }

    /// The device has come to this state with this revision.
    pub async fn is(&self, id: PolicyId, device: EnrollmentId, state: &str, revision: i64) {
        let mut a = self.assignment(id, device).await;
        a.attempts = i64::from(state == "failed");
        a.reason = (state == "failed").then(|| "install_failed".to_owned());
        a.due_at = (state == "failed").then(|| self.now().plus(Duration::from_secs(900)).0);
        a.profile_sent = true;
        a.revision = revision;
        state.clone_into(&mut a.state);
        let mut tx = self.store.begin().await.unwrap();
        // It has answered, and has the form that was decided then.
        let mut facts: Json =
            serde_json::from_str(&store::facts::get(&mut tx, device).await.unwrap().unwrap()).unwrap();
        facts["asked_at"] = json!(self.now());
        store::facts::put(&mut tx, device, &facts.to_string(), self.now()).await.unwrap();
        let policy = store::policies::get(&mut tx, id).await.unwrap().unwrap();
        let policy = AcmePolicy::from_json(&policy.body).unwrap();
        let decision = policy::explain(&mut tx, &policy, device, self.now()).await.unwrap().unwrap();
        assert!(decision.form.is_some(), "{decision:?}");
        a.decision = Some(serde_json::to_string(&decision).unwrap());
        if state == "verified" {
            let day = Duration::from_secs(86_400);
            a.certificate_revision = Some(revision);
            a.certificate_form = Some(serde_json::to_string(&decision.form).unwrap());
            a.not_after = Some(self.now().plus(day * 365).0);
            a.renew_at = Some(self.now().plus(day * 240).0);
        }
        store::assignments::save(&mut tx, &a, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The device fetches its next command: whether it was the profile that its assignment waits for.
    pub async fn delivered(&self, id: PolicyId, device: EnrollmentId) -> bool {
        let mut tx = self.store.begin().await.unwrap();
        let enrollment = store::enrollments::get(&mut tx, device).await.unwrap().unwrap();
        let waits = self.assignment(id, device).await.command_uuid.unwrap();
        let queue = &self.ctx.commands;
        let picked = loop {
            let picked = commands::next(&mut tx, queue, device, Status::Idle, self.now()).await.unwrap().unwrap();
            if picked.uuid.as_str() == waits {
                break picked;
            }
            // What was asked before is of no matter here.
            commands::refuse(&mut tx, &picked, "passed over", self.now()).await.unwrap();
        };
        let rendered = policy::render(&mut tx, &self.ctx, &enrollment, &picked.uuid, None, self.now()).await.unwrap();
        match &rendered {
            Rendered::Body(body) => commands::rendered(&mut tx, queue, &picked, body, self.now()).await.unwrap(),
            Rendered::Refused { why } => commands::refuse(&mut tx, &picked, why, self.now()).await.unwrap(),
        }
        tx.commit().await.unwrap();
        matches!(rendered, Rendered::Body(_))
    }

    /// The device's assignment is looked at again.
    pub async fn touch(&self, id: PolicyId, device: EnrollmentId) {
        let a = self.assignment(id, device).await;
        let mut tx = self.store.begin().await.unwrap();
        store::assignments::due(&mut tx, AssignmentId(a.id), self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn stored(&self, id: PolicyId) -> Policy {
        store::policies::get(&mut self.store.read().await.unwrap(), id).await.unwrap().unwrap()
    }

    pub async fn rollout(&self, id: PolicyId) -> Rollout {
        store::rollouts::latest(&mut self.store.read().await.unwrap(), id).await.unwrap().unwrap()
    }

    pub async fn report(&self, id: PolicyId) -> RolloutReport {
        let policy = self.stored(id).await;
        rollout::rollout_report(&mut self.store.read().await.unwrap(), &policy, self.now()).await.unwrap()
    }

    pub async fn stages(&self, id: PolicyId) -> Stages {
        self.report(id).await.stages
    }
}
