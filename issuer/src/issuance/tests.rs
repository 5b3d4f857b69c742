use cms::cert::x509::attr::Attribute;
use cms::cert::x509::request::{CertReq, CertReqInfo, Version};
use der::asn1::{Any, BitString, ObjectIdentifier, PrintableStringRef, SetOfVec};
use der::{Decode, Encode};
use mdm_core::crypto::key::{Hash, PrivateKey};
use mdm_core::crypto::seal::Sealer;
use store::{Settings, Store};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::*;

pub(crate) const NOW: Timestamp = Timestamp(1_795_320_000_000);

static KEYS: tokio::sync::OnceCell<Vec<store::keys::Row>> = tokio::sync::OnceCell::const_new();

async fn load(tx: &mut Tx, sealer: &Sealer) -> Authority {
    let settings = crate::authority::Settings::default();
    Authority::load_or_create(tx, sealer, &Random::System, NOW, &settings).await.unwrap()
}

async fn first_keys(sealer: &Sealer) -> Vec<store::keys::Row> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&Settings::new(format!("sqlite:{}/a.db", folder.path().display()))).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    load(&mut tx, sealer).await;
    let mut rows = Vec::new();
    for name in ["identity-ca", "scep-ra", "profile-signer"] {
        rows.push(store::keys::get(&mut tx, name).await.unwrap().unwrap());
    }
    rows
}

/// A database with an authority in it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) sealer: Sealer,
    pub(crate) authority: Authority,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Settings::new(format!("sqlite:{}/a.db", folder.path().display()))).await.unwrap();
        let sealer = Sealer::new(&[7; 32]);
        let mut tx = store.begin().await.unwrap();
        // RSA keys are slow to make: all worlds have those of the first one.
        let keys = KEYS.get_or_init(|| first_keys(&sealer)).await;
        for row in keys {
            assert!(store::keys::insert(&mut tx, row).await.unwrap());
        }
        let authority = load(&mut tx, &sealer).await;
        tx.commit().await.unwrap();
        Self { store, sealer, authority, _folder: folder }
    }

    pub(crate) async fn open(&self) -> (IssuanceId, Secret<String>) {
        let mut tx = self.store.begin().await.unwrap();
        let opened = open(&mut tx, &Random::System, NOW, &wanted()).await.unwrap();
        tx.commit().await.unwrap();
        opened
    }

    /// A record with the certificate that was issued on it.
    pub(crate) async fn issued(&self) -> (IssuanceId, Certificate) {
        let (id, challenge) = self.open().await;
        let key = PrivateKey::generate_p256().unwrap();
        (id, self.ask(None, &csr(&key, &challenge), NOW).await.unwrap())
    }

    async fn ask(&self, route: Option<IssuanceId>, csr: &Csr, now: Timestamp) -> Result<Certificate, Refusal> {
        let mut tx = self.store.begin().await.unwrap();
        let certificate = match authorize(&mut tx, route, csr, "t", now).await.unwrap()? {
            Grant::Issue(authorized) => {
                issue(&mut tx, authorized, &self.authority, &Random::System, now).await.unwrap()
            }
            Grant::Again(certificate) => *certificate,
        };
        tx.commit().await.unwrap();
        Ok(certificate)
    }
}

pub(crate) fn wanted() -> OpenIssuance<'static> {
    OpenIssuance {
        flow: Flow::Link,
        purpose: Purpose::Enrollment,
        kind: EnrollmentKind::Device,
        enrollment_id: None,
        link_id: None,
        expected_serial: None,
        expected_udid: None,
        label: None,
        ttl: Duration::from_mins(30),
        details: Details::default(),
    }
}

/// A request as a client makes it, with a subject of its own choice.
pub(crate) fn request(key: &PrivateKey, challenge: Option<&str>) -> Vec<u8> {
    let mut attributes = SetOfVec::new();
    if let Some(challenge) = challenge {
        let value = Any::encode_from(&PrintableStringRef::new(challenge).unwrap()).unwrap();
        let oid = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
        attributes.insert(Attribute { oid, values: SetOfVec::try_from(vec![value]).unwrap() }).unwrap();
    }
    let info = CertReqInfo {
        version: Version::V1,
        subject: "CN=root,O=Administrators".parse().unwrap(),
        public_key: SubjectPublicKeyInfoOwned::from_der(&key.public_spki_der().unwrap()).unwrap(),
        attributes,
    };
    let signature = key.sign(Hash::Sha256, &info.to_der().unwrap()).unwrap();
    let oid = if key.kind().is_rsa() {
        const_oid::db::rfc5912::SHA_256_WITH_RSA_ENCRYPTION
    } else {
        const_oid::db::rfc5912::ECDSA_WITH_SHA_256
    };
    let algorithm = AlgorithmIdentifierOwned { oid, parameters: None };
    CertReq { info, algorithm, signature: BitString::from_bytes(&signature).unwrap() }.to_der().unwrap()
}

fn csr(key: &PrivateKey, challenge: &Secret<String>) -> Csr {
    Csr::from_der(&request(key, Some(challenge.expose()))).unwrap()
}

#[tokio::test]
async fn th_28_a_challenge_is_good_once_and_for_one_key() {
    let world = World::new().await;
    let (_, challenge) = world.open().await;
    let (key, other) = (PrivateKey::generate_p256().unwrap(), PrivateKey::generate_p256().unwrap());
    world.ask(None, &csr(&key, &challenge), NOW).await.unwrap();
    assert_eq!(world.ask(None, &csr(&other, &challenge), NOW).await.unwrap_err(), Refusal::Consumed);
}

#[tokio::test]
async fn th_28_a_challenge_ends_after_an_hour_at_most_and_is_kept_as_a_hash() {
    let world = World::new().await;
    let mut tx = world.store.begin().await.unwrap();
    let long = OpenIssuance { ttl: Duration::from_hours(24), ..wanted() };
    let (id, challenge) = open(&mut tx, &Random::System, NOW, &long).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(challenge.expose().len(), 48, "192 bits in hexadecimal");

    let key = PrivateKey::generate_p256().unwrap();
    let late = NOW.plus(MAX_CHALLENGE_LIFE);
    assert_eq!(world.ask(None, &csr(&key, &challenge), late).await.unwrap_err(), Refusal::Expired);
    let mut tx = world.store.read().await.unwrap();
    let record = store::issuance::get(&mut tx, id).await.unwrap().unwrap();
    assert_eq!(record.state, State::Open);
    assert!(!format!("{record:?}").contains(challenge.expose()));
    assert_eq!(format!("{challenge:?}"), "[secret]");
}

#[tokio::test]
async fn th_28_of_many_who_try_at_once_one_gets_a_certificate() {
    let world = std::sync::Arc::new(World::new().await);
    let (_, challenge) = world.open().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (world, challenge) = (world.clone(), challenge.clone());
            tokio::spawn(async move {
                let key = PrivateKey::generate_p256().unwrap();
                world.ask(None, &csr(&key, &challenge), NOW).await.is_ok()
            })
        })
        .collect();
    let mut issued = 0;
    for task in tasks {
        issued += usize::from(task.await.unwrap());
    }
    assert_eq!(issued, 1);
}

#[tokio::test]
async fn th_29_the_certificate_says_what_the_record_says() {
    let world = World::new().await;
    let (id, challenge) = world.open().await;
    let key = PrivateKey::generate_p256().unwrap();
    let certificate = world.ask(None, &csr(&key, &challenge), NOW).await.unwrap();
    assert_eq!(certificate.subject(), format!("CN={id}"));
    assert!(certificate.allows_client_auth() && !certificate.allows_server_auth() && !certificate.is_ca());
    assert!(certificate.alt_names().is_empty());
    assert_eq!(certificate.public_key().unwrap().spki_der(), key.public_spki_der().unwrap());
    assert!(certificate.not_after() <= NOW.plus(Duration::from_hours(365 * 24)));
}

#[tokio::test]
async fn th_27_nothing_is_issued_without_a_challenge_of_ours() {
    let world = World::new().await;
    let key = PrivateKey::generate_p256().unwrap();
    let without = Csr::from_der(&request(&key, None)).unwrap();
    assert_eq!(world.ask(None, &without, NOW).await.unwrap_err(), Refusal::NoChallenge);
    let guessed = Csr::from_der(&request(&key, Some("secret"))).unwrap();
    assert_eq!(world.ask(None, &guessed, NOW).await.unwrap_err(), Refusal::UnknownChallenge);
}

#[tokio::test]
async fn th_33_a_challenge_of_another_record_or_flow_is_refused() {
    let world = World::new().await;
    let (_, challenge) = world.open().await;
    let (other, _) = world.open().await;
    let key = PrivateKey::generate_p256().unwrap();
    assert_eq!(world.ask(Some(other), &csr(&key, &challenge), NOW).await.unwrap_err(), Refusal::OtherRoute);

    let mut tx = world.store.begin().await.unwrap();
    for (flow, purpose) in
        [(Flow::Link, Purpose::Renewal), (Flow::Renewal, Purpose::Enrollment), (Flow::Import, Purpose::Enrollment)]
    {
        let wrong = OpenIssuance { flow, purpose, ..wanted() };
        assert!(matches!(open(&mut tx, &Random::System, NOW, &wrong).await, Err(Error::Record(_))));
    }
    let nobody = OpenIssuance { flow: Flow::Renewal, purpose: Purpose::Renewal, ..wanted() };
    assert!(matches!(open(&mut tx, &Random::System, NOW, &nobody).await, Err(Error::Record(_))));
}

#[tokio::test]
async fn rg_25_the_same_request_again_gets_the_same_certificate() {
    let world = World::new().await;
    let (id, challenge) = world.open().await;
    let key = PrivateKey::generate_p256().unwrap();

    // The server stops before the commit: nothing was given out, and the challenge is still good.
    let mut tx = world.store.begin().await.unwrap();
    let csr = csr(&key, &challenge);
    let Ok(Grant::Issue(authorized)) = authorize(&mut tx, None, &csr, "t", NOW).await.unwrap() else { panic!() };
    let lost = issue(&mut tx, authorized, &world.authority, &Random::System, NOW).await.unwrap();
    tx.rollback().await.unwrap();

    let first = world.ask(Some(id), &csr, NOW).await.unwrap();
    assert_ne!(first.serial_hex(), lost.serial_hex());
    // The answer is lost after the commit: the client asks again.
    let again = world.ask(None, &csr, NOW.plus(Duration::from_mins(1))).await.unwrap();
    assert_eq!(again, first);
    let mut tx = world.store.read().await.unwrap();
    let record = store::issuance::by_certificate(&mut tx, first.fingerprint()).await.unwrap().unwrap();
    assert_eq!((record.id, record.state), (id, State::Issued));
}

#[tokio::test]
async fn th_05_an_imported_identity_names_its_device() {
    let world = World::new().await;
    let mut tx = world.store.begin().await.unwrap();
    let import = ImportExternal {
        fingerprint: Fingerprint::of(b"certificate"),
        kind: EnrollmentKind::Device,
        enrollment_id: None,
        purpose: Purpose::Enrollment,
        expected_serial: None,
        expected_udid: None,
        managed_apple_account: None,
        label: None,
    };
    assert!(matches!(import_external(&mut tx, &Random::System, NOW, &import).await, Err(Error::Record(_))));
    let bound = ImportExternal { expected_serial: Some("C02ABC"), ..import };
    let id = import_external(&mut tx, &Random::System, NOW, &bound).await.unwrap();
    let record = store::issuance::by_certificate(&mut tx, bound.fingerprint).await.unwrap().unwrap();
    assert_eq!((record.id, record.flow, record.state), (id, Flow::Import, State::Issued));
    let twice = import_external(&mut tx, &Random::System, NOW, &bound).await;
    assert!(matches!(twice, Err(Error::Store(store::Error::Duplicate(_)))), "{twice:?}");
}
