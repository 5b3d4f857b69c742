//! A whole server, a certificate authority as strict as step-ca that asks it by webhooks, and devices or an authority with
//! something wrong: nothing is issued, nothing is called verified, the reason is told, and once it is mended the certificate comes.

use std::time::{Duration, Instant};

use mdm_tests::both;
use serde_json::{Value, json};
use simulator::acme_ca::{AcmeCa, Faults, Kind, Settings, Webhook};
use simulator::attestation::{self, Facts, Fault};
use simulator::authority::Authority;
use simulator::device::{Behaviour, ChannelId, Device, Record};

mod rehearsal;

use rehearsal::Rehearsal;

const POLICY: &str = "faults";
const LABEL: &str = "faults";

struct World {
    rehearsal: Rehearsal,
    ca: AcmeCa,
    tls: Authority,
    attesting: attestation::Authority,
    link: String,
    _folder: tempfile::TempDir,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn record(product: &str, os: &str, seed: &str) -> Record {
    Record::new(simulator::hardware::find(product).unwrap(), os, "22F76", seed).unwrap()
}

impl World {
    async fn new(backend: mdm_tests::Backend) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let attesting = attestation::Authority::new().unwrap();
        let root = folder.path().join("root.pem");
        std::fs::write(&root, attesting.root_pem().unwrap()).unwrap();
        let sections = format!("[attestation]\ntest_root_files = [{:?}]\n", root.display().to_string());
        let rehearsal = Rehearsal::start(backend, &sections).await;
        let tls = Authority::new("TLS of the certificate authority").unwrap();
        let ca = AcmeCa::start(&tls, Settings::strict(attesting.root().unwrap())).await.unwrap();
        let link = rehearsal.link(50, LABEL).await;
        let world = Self { rehearsal, ca, tls, attesting, link, _folder: folder };
        world.set_up().await;
        world
    }

    /// The authority with both webhooks of step-ca, and the policy as step-ca needs it.
    async fn set_up(&self) {
        let operator = &self.rehearsal.operator;
        let path = "/api/v1/certificate-authorities/strict";
        let document = json!({
            "kind": "step_ca", "directory_url": self.ca.directory_url(), "issuers": [self.ca.issuer_pem().unwrap()],
        });
        operator.put(path, &document).await.unwrap();
        let shown = operator.get(path).await.unwrap();
        let url = text(&shown, "/certificate_authority/webhook_url");
        let mut webhooks = Vec::new();
        for (kind, word) in [(Kind::Enriching, "enriching"), (Kind::Authorizing, "authorizing")] {
            let made = operator.post(&format!("{path}/webhooks"), &json!({ "kind": word })).await.unwrap();
            let (id, secret) = (text(&made, "/webhook/webhook_id").into(), text(&made, "/secret").into());
            webhooks.push(Webhook { id, url: url.to_owned(), secret, kind });
        }
        self.ca.set_webhooks(webhooks, &self.rehearsal.trust).unwrap();
        let policy = json!({
            "name": POLICY, "certificate_authority": "strict", "client_identifier": "{serial}",
            "subject": [[["CN", "{serial}"]]], "hardware_bound": "required", "attest": "required",
        });
        operator.create_policy(POLICY, &policy).await.unwrap();
        operator.assign_to_label(POLICY, LABEL).await.unwrap();
    }

    async fn enroll(&self, seed: &str, fault: Fault) -> Device {
        let behaviour = Behaviour { runs_acme: true, attestation_fault: fault, ..Behaviour::default() };
        let trust = self.rehearsal.trust.clone().with_pem(self.tls.pem().unwrap().as_bytes()).unwrap();
        let record = record("iPhone17,2", "18.5", seed);
        let mut device = Device::new(record, trust, behaviour).unwrap().attested_by(self.attesting.clone());
        device.enroll(&self.link).await.unwrap();
        device
    }

    /// What the API says of the device's assignment.
    async fn assignment(&self, device: &Device) -> Value {
        let enrollments = self.rehearsal.operator.all("/api/v1/enrollments").await.unwrap();
        let own = enrollments.iter().find(|e| text(e, "/udid") == device.record.udid).unwrap();
        let assignments = self.rehearsal.operator.assignments(POLICY).await.unwrap();
        let found = assignments.into_iter().find(|a| text(a, "/enrollment_id") == text(own, "/id"));
        found.unwrap_or_default()
    }

    /// Lets the device poll until its assignment is in this state.
    async fn until(&self, device: &mut Device, state: &str) -> Value {
        let start = Instant::now();
        loop {
            device.session(ChannelId::DEVICE).await.unwrap();
            let assignment = self.assignment(device).await;
            if text(&assignment, "/state") == state {
                return assignment;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "not {state}: {assignment}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn nothing_came(&self, device: &Device, what: &str) {
        assert!(device.identities(ChannelId::DEVICE).is_empty(), "{what}");
        let serial = Some(&device.record.serial_number);
        assert!(!self.ca.issued().iter().any(|issued| issued.serial_number.as_ref() == serial), "{what}");
        let verified = self.rehearsal.operator.certificates(POLICY).await.unwrap();
        assert!(verified.iter().all(|c| !text(c, "/subject").contains(&device.record.serial_number)), "{what}");
    }
}

/// TH-36, TH-37, TH-39, TH-41: the attestation of the key is wrong in one thing.
#[tokio::test(flavor = "multi_thread")]
async fn th_36_37_39_41_a_wrong_attestation_brings_no_certificate() {
    for backend in both() {
        let world = World::new(backend).await;
        let other = Facts::of(&record("iPhone17,2", "18.5", "another device"));
        let faults = [
            ("nonce", Fault::WrongNonce),
            ("other", Fault::OtherDevice(other)),
            ("root", Fault::ForeignRoot(attestation::Authority::new().unwrap())),
            ("serial", Fault::Without(attestation::SERIAL_NUMBER)),
            ("blank", Fault::Blank(attestation::SERIAL_NUMBER)),
            ("silent", Fault::Silent),
        ];
        for (seed, fault) in faults {
            let mut device = world.enroll(seed, fault).await;
            let failed = world.until(&mut device, "failed").await;
            assert_eq!(text(&failed, "/reason"), "install_failed", "{backend} {seed}");
            world.nothing_came(&device, seed).await;
        }
        let mut good = world.enroll("good", Fault::None).await;
        world.until(&mut good, "verified").await;
        assert_eq!(world.ca.issued().len(), 1);
        world.rehearsal.stop().await;
    }
}

/// The authority is down, slow, or lets orders expire. A later revision brings what failed.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_fails_is_told_from_one_that_is_slow() {
    for backend in both() {
        let world = World::new(backend).await;
        world.ca.set_faults(Faults { delay: Duration::from_millis(100), ..Faults::default() });
        let mut slow = world.enroll("slow", Fault::None).await;
        world.until(&mut slow, "verified").await;

        let mut devices = Vec::new();
        for (seed, faults) in [
            ("down", Faults { down: true, ..Faults::default() }),
            ("expired", Faults { orders_expire: true, ..Faults::default() }),
        ] {
            world.ca.set_faults(faults);
            let mut device = world.enroll(seed, Fault::None).await;
            let failed = world.until(&mut device, "failed").await;
            assert_eq!(text(&failed, "/reason"), "install_failed", "{backend} {seed}");
            world.nothing_came(&device, seed).await;
            devices.push(device);
        }
        world.ca.set_faults(Faults::default());
        let held = slow.identities(ChannelId::DEVICE)[0].identity.certificate.to_der().unwrap();
        let policy = json!({
            "name": POLICY, "certificate_authority": "strict", "client_identifier": "{serial}", "key_size": 384,
            "subject": [[["CN", "{serial}"]]], "hardware_bound": "required", "attest": "required",
        });
        world.rehearsal.operator.create_policy(POLICY, &policy).await.unwrap();
        for device in &mut devices {
            world.until(device, "verified").await;
        }
        // The one that had a certificate has the one of the new revision.
        while slow.identities(ChannelId::DEVICE)[0].acme.key_size != 384 {
            slow.session(ChannelId::DEVICE).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_ne!(slow.identities(ChannelId::DEVICE)[0].identity.certificate.to_der().unwrap(), held);
        world.rehearsal.stop().await;
    }
}

/// Acknowledged is only the device's word.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_only_says_so_is_not_verified() {
    for backend in both() {
        let world = World::new(backend).await;
        let mut liar = world.enroll("liar", Fault::None).await;
        liar.behaviour.runs_acme = false;
        let installed = world.until(&mut liar, "installed").await;
        assert_ne!(text(&installed, "/reason"), "verified");
        world.nothing_came(&liar, "liar").await;
        world.rehearsal.stop().await;
    }
}
