//! One policy on one device, an authority that issues for it, and the device's CertificateList.

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::command::certificate_list::InstalledCertificate;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::{AssignmentId, AttemptId, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::profile::acme::{AcmeKeys, AcmePayload, Attest, SubjectAltName};
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use policy::proof::{Expectation, Proof};
use policy::renew::renew_at;
use policy::trace::Trace;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use store::Store;
use store::assignments::{self, Assignment};
use store::attempts::{self, Attempt, Delivered, NewAttempt};
use store::certificates::{self, AcmeCertificate};
use store::enrollments::{Enrollment, NewDevice, Tokens};
use store::policies::NewRevision;

pub const START: Timestamp = Timestamp(1_800_000_000_000);
pub const DAY: Duration = Duration::from_hours(24);

/// A certificate to be issued.
pub struct Issue {
    pub common_name: String,
    pub from: Timestamp,
    pub days: u32,
    pub p384: bool,
}

impl Issue {
    pub fn of(common_name: &str, from: Timestamp) -> Self {
        Self { common_name: common_name.to_owned(), from, days: 30, p384: false }
    }

    fn params(&self) -> CertificateParams {
        let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        params.not_before = moment(self.from);
        params.not_after = moment(self.from.plus(DAY * self.days));
        params
    }
}

/// A certificate authority.
pub struct Ca {
    pub certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn params() -> CertificateParams {
        let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("CA {}", Random::System.uuid_v4()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (moment(START.minus(DAY * 365)), moment(START.plus(DAY * 3650)));
        params
    }

    pub fn new() -> Self {
        let (params, key) = (Self::params(), KeyPair::generate().unwrap());
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// An authority below this one.
    pub fn intermediate(&self) -> Self {
        let (params, key) = (Self::params(), KeyPair::generate().unwrap());
        let certificate = Certificate::from_der(params.signed_by(&key, &self.issuer).unwrap().der()).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, issue: Issue) -> Certificate {
        let algorithm = if issue.p384 { &rcgen::PKCS_ECDSA_P384_SHA384 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(algorithm).unwrap();
        Certificate::from_der(issue.params().signed_by(&key, &self.issuer).unwrap().der()).unwrap()
    }

    /// Another certificate for the key of one that there is.
    pub fn issue_for_same_key(&self, of: &Certificate, issue: Issue) -> Certificate {
        let key = SubjectPublicKeyInfo::from_der(of.public_key().unwrap().spki_der()).unwrap();
        assert_eq!(key.algorithm(), &rcgen::PKCS_ECDSA_P256_SHA256);
        Certificate::from_der(issue.params().signed_by(&key, &self.issuer).unwrap().der()).unwrap()
    }

    fn authority(&self) -> ca::Authority {
        ca::Authority::bare("https://ca.example.com/acme/directory", false, vec![self.certificate.der().to_vec()])
    }
}

/// One policy on one device.
pub struct World {
    pub store: Store,
    pub policy: PolicyId,
    pub serial: String,
    enrollment: EnrollmentId,
    assignment: AssignmentId,
    random: String,
    clock: Clock,
}

impl World {
    pub async fn new(store: Store) -> Self {
        let clock = Clock::fixed(START);
        let id = || Random::System.uuid_v7(START);
        let (policy, enrollment, assignment) = (PolicyId(id()), EnrollmentId(id()), AssignmentId(id()));
        let mut tx = store.begin().await.unwrap();
        let key = DeviceKey::Udid(Random::System.uuid_v4().to_string().parse().unwrap());
        let new = NewDevice { id: enrollment, kind: EnrollmentKind::Device, key: &key };
        store::enrollments::insert_device(&mut tx, &new, START).await.unwrap();
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
        let state = EnrollmentState::Enrolled { since: START };
        store::enrollments::token_update(&mut tx, enrollment, state, &tokens, START).await.unwrap();
        let name = format!("wifi-{}", policy.0.simple());
        let revision = NewRevision { name: &name, body: "{}", payload_uuid: id(), created_by: "test" };
        store::policies::insert(&mut tx, policy, &revision, START).await.unwrap();
        let new = assignments::New { id: assignment, policy, enrollment, ring: 0 };
        assignments::insert_many(&mut tx, &[new], START).await.unwrap();
        tx.commit().await.unwrap();
        let serial = format!("C02{}", &policy.0.simple().to_string()[20..]);
        Self { store, policy, serial, enrollment, assignment, random: Random::System.token(), clock }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn random(&self) -> &str {
        &self.random
    }

    pub fn wait(&mut self, time: Duration) {
        self.clock.advance(time);
    }

    /// A push was sent a minute before now.
    pub async fn pushed(&mut self) {
        let id = Random::System.uuid_v4();
        let (enrollment, now) = (self.enrollment, self.now());
        let mut tx = self.store.begin().await.unwrap();
        store::push::due(&mut tx, enrollment, now).await.unwrap();
        let until = now.plus(DAY);
        let taken = store::push::lease(&mut tx, store::push::Lease { id, now, until, limit: 1 }).await.unwrap();
        let settled = store::push::Settled {
            enrollment,
            lease: id,
            version: taken[0].version,
            due_at: until,
            not_before: now,
            attempt: 1,
            failures: 0,
            sent_at: Some(now.minus(Duration::from_mins(1))),
            outcome: "accepted",
        };
        assert!(store::push::settle(&mut tx, &settled).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// The policy decides, and the profile is delivered: a P-256 key in hardware, attested, with the serial number as common name.
    pub async fn deliver(&mut self) -> Attempt {
        self.random = Random::System.token();
        let keys = AcmeKeys {
            directory_url: "https://ca.example.com/acme/directory".into(),
            client_identifier: self.random.clone(),
            key_type: "ECSECPrimeRandom".into(),
            key_size: 256,
            hardware_bound: true,
            subject: vec![vec![vec!["CN".into(), self.serial.clone()]]],
            subject_alt_name: SubjectAltName::default(),
            usage_flags: None,
            extended_key_usage: vec![],
            attest: Attest::True,
            mac: None,
        };
        let expectation = Expectation::of(&AcmePayload::new(keys, None).unwrap(), Some(&self.serial), None, None);
        let now = self.now();
        let id = AttemptId(Random::System.uuid_v7(now));
        let new = NewAttempt {
            id,
            assignment: self.assignment,
            policy: self.policy,
            revision: 1,
            enrollment: self.enrollment,
            authority: None,
            purpose: "install",
            command: Random::System.uuid_v4().to_string().parse().unwrap(),
        };
        let delivered = Delivered {
            revision: 1,
            authority: None,
            mode: "one_time",
            client_identifier_sha256: Fingerprint::of(self.random.as_bytes()),
            client_identifier: None,
            expectation: serde_json::to_string(&expectation).unwrap(),
            expires_at: now.plus(DAY),
        };
        let mut tx = self.store.begin().await.unwrap();
        attempts::insert_many(&mut tx, &[new], now).await.unwrap();
        assert!(attempts::delivered(&mut tx, id, &delivered, now).await.unwrap());
        let attempt = attempts::get(&mut tx, id).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        attempt
    }

    /// The attempt as it is now.
    pub async fn attempt(&self, of: &Attempt) -> Attempt {
        attempts::get(&mut self.store.read().await.unwrap(), of.id()).await.unwrap().unwrap()
    }

    pub async fn authorize(&self, attempt: &Attempt, key: [u8; 32]) {
        let mut tx = self.store.begin().await.unwrap();
        assert!(attempts::authorize(&mut tx, attempt.id(), &key, self.now()).await.unwrap());
        tx.commit().await.unwrap();
    }

    pub async fn issued(&self, attempt: &Attempt, certificate: Fingerprint) {
        let mut tx = self.store.begin().await.unwrap();
        assert!(attempts::issued(&mut tx, attempt.id(), &certificate.0, self.now()).await.unwrap());
        tx.commit().await.unwrap();
    }

    pub async fn acknowledge(&self, attempt: &Attempt) {
        let mut tx = self.store.begin().await.unwrap();
        assert!(attempts::acknowledged(&mut tx, attempt.id(), self.now()).await.unwrap());
        tx.commit().await.unwrap();
    }

    pub async fn fail(&self, attempt: &Attempt) {
        let mut tx = self.store.begin().await.unwrap();
        assert!(attempts::failed(&mut tx, attempt.id(), "install_failed", self.now()).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// What follows from a proof for the attempt and the assignment.
    pub async fn verified(&self, attempt: &Attempt, certificate: &Certificate) {
        let (from, until) = (certificate.not_before(), certificate.not_after());
        let mut tx = self.store.begin().await.unwrap();
        assert!(attempts::proved(&mut tx, attempt.id(), certificate.fingerprint(), self.now()).await.unwrap());
        let row = assignments::get(&mut tx, self.assignment).await.unwrap().unwrap();
        let verified = Assignment {
            state: "verified".into(),
            attempt_id: Some(attempt.id),
            certificate_sha256: Some(certificate.fingerprint().0.to_vec()),
            not_after: Some(until.0),
            renew_at: Some(renew_at(self.enrollment, from, until, 66).0),
            ..row
        };
        assignments::save(&mut tx, &verified, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn enrollment(&self) -> Enrollment {
        store::enrollments::get(&mut self.store.read().await.unwrap(), self.enrollment).await.unwrap().unwrap()
    }

    async fn prove_list(
        &self,
        attempt: &Attempt,
        authority: &ca::Authority,
        list: &[InstalledCertificate],
    ) -> policy::Result<Proof> {
        let enrollment = self.enrollment().await;
        let mut tx = self.store.begin().await.unwrap();
        let proof = policy::proof::prove(&mut tx, &enrollment, attempt, authority, list, self.now()).await;
        tx.commit().await.unwrap();
        proof
    }

    /// The device lists these as identities.
    pub async fn try_prove(&self, attempt: &Attempt, ca: &Ca, identities: &[&Certificate]) -> policy::Result<Proof> {
        self.prove_list(attempt, &ca.authority(), &list(identities, true)).await
    }

    pub async fn prove(&self, attempt: &Attempt, ca: &Ca, identities: &[&Certificate]) -> Proof {
        self.try_prove(attempt, ca, identities).await.unwrap()
    }

    pub async fn prove_as(&self, attempt: &Attempt, ca: &Ca, listed: &[&Certificate], identity: bool) -> Proof {
        self.prove_list(attempt, &ca.authority(), &list(listed, identity)).await.unwrap()
    }

    pub async fn prove_without_issuers(&self, attempt: &Attempt, identities: &[&Certificate]) -> Proof {
        let nobody = ca::Authority::bare("https://ca.example.com/acme/directory", false, vec![]);
        self.prove_list(attempt, &nobody, &list(identities, true)).await.unwrap()
    }

    pub async fn prove_bytes(&self, attempt: &Attempt, ca: &Ca, der: &[u8]) -> Proof {
        let odd = InstalledCertificate { common_name: String::new(), is_identity: true, der: der.to_vec() };
        self.prove_list(attempt, &ca.authority(), &[odd]).await.unwrap()
    }

    /// The device lists an authority's certificate beside the identities.
    pub async fn prove_with(
        &self,
        attempt: &Attempt,
        ca: &Ca,
        identities: &[&Certificate],
        beside: &Certificate,
    ) -> Proof {
        let all = [list(identities, true), list(&[beside], false)].concat();
        self.prove_list(attempt, &ca.authority(), &all).await.unwrap()
    }

    pub async fn seen(&self, identities: &[&Certificate]) -> Vec<PolicyId> {
        let enrollment = self.enrollment().await;
        let mut tx = self.store.begin().await.unwrap();
        let gone = policy::proof::seen(&mut tx, &enrollment, &list(identities, true), self.now()).await.unwrap();
        tx.commit().await.unwrap();
        gone
    }

    pub async fn certificate(&self, sha256: Fingerprint) -> Option<AcmeCertificate> {
        certificates::get(&mut self.store.read().await.unwrap(), sha256).await.unwrap()
    }

    pub async fn trace(&self, attempt: &Attempt) -> Option<Trace> {
        policy::trace::of(&mut self.store.read().await.unwrap(), attempt.id(), self.now()).await.unwrap()
    }

    pub async fn sound(&self) -> usize {
        policy::alarm::sound(&self.store, self.now(), 100).await.unwrap()
    }

    pub async fn warnings(&self) -> Vec<String> {
        policy::alarm::warnings(&mut self.store.read().await.unwrap(), self.now()).await.unwrap()
    }
}

fn list(certificates: &[&Certificate], is_identity: bool) -> Vec<InstalledCertificate> {
    let entry = |certificate: &&Certificate| InstalledCertificate {
        common_name: certificate.common_name().unwrap_or_default(),
        is_identity,
        der: certificate.der().to_vec(),
    };
    certificates.iter().map(entry).collect()
}
