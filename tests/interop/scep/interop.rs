//! Our SCEP server and strongSwan's `pki --scep`: a certificate for a challenge, and one for the holder of the first.
//!
//! `tests/interop/scep/run` runs this.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use issuer::issuance::{OpenIssuance, Purpose};
use issuer::scep::{CurrentAuthority, Settings, Shared, router};
use mdm_core::certificate::Certificate;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use mdm_tests::{Backend, Database};
use store::Store;
use store::enrollments::{NewDevice, Tokens};
use store::issuance::Flow;
use tempfile::TempDir;

/// Runs `pki` in a folder; what it wrote to standard output, and to standard error where it failed.
async fn pki(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let mut command = Command::new("pki");
    command.current_dir(folder).args(arguments);
    let shown = arguments.join(" ");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("pki {shown}: {}\n{said}", output.status);
    if output.status.success() && !output.stdout.is_empty() { Ok(output.stdout) } else { Err(said) }
}

struct Server {
    store: Store,
    clock: Clock,
    url: String,
    folder: TempDir,
}

impl Server {
    async fn start(store: Store, settings: Settings) -> Self {
        let clock = Clock::fixed(Clock::System.now().minus(Duration::from_hours(300 * 24)));
        let mut tx = store.begin().await.unwrap();
        let sealer = Sealer::new(&[7; 32]);
        let made = issuer::authority::Settings::default();
        let authority =
            issuer::Authority::load_or_create(&mut tx, &sealer, &Random::System, clock.now(), &made).await.unwrap();
        tx.commit().await.unwrap();
        let authority = CurrentAuthority::new(authority);
        let app = router(Shared::new(store.clone(), authority, clock.clone(), Random::System, settings));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/scep", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let folder = TempDir::new().unwrap();
        for key in ["first.key", "second.key"] {
            let bytes = pki(folder.path(), &["--gen", "--type", "rsa", "--size", "2048"]).await.unwrap();
            std::fs::write(folder.path().join(key), bytes).unwrap();
        }
        // Writes no standard output: the files are what it is for.
        let arguments = ["--scepca", "--url", &url, "--caout", "ca.der", "--raout", "ra.der"];
        let _ = pki(folder.path(), &arguments).await;
        Self { store, clock, url, folder }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The file of the CA or of the registration authority; `pki` numbers them.
    fn file(&self, start: &str) -> String {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names
            .map(|name| name.into_string().unwrap())
            .find(|name| name.starts_with(start))
            .expect("pki --scepca writes it")
    }

    async fn challenge(&self) -> String {
        let wanted = OpenIssuance {
            flow: Flow::Link,
            purpose: Purpose::Enrollment,
            kind: EnrollmentKind::Device,
            enrollment_id: None,
            link_id: None,
            expected_serial: None,
            expected_udid: None,
            label: None,
            ttl: Duration::from_mins(30),
            details: issuer::issuance::Details::default(),
        };
        let mut tx = self.store.begin().await.unwrap();
        let (_, challenge) = issuer::issuance::open(&mut tx, &Random::System, self.now(), &wanted).await.unwrap();
        tx.commit().await.unwrap();
        challenge.expose().clone()
    }

    async fn scep(&self, key: &str, more: &[&str]) -> Result<Certificate, String> {
        let (ca, ra) = (self.file("ca"), self.file("ra"));
        let (ca, ra) = (ca.as_str(), ra.as_str());
        let same = ["--scep", "--url", &self.url, "--in", key, "--dn", "C=CH, O=Example, CN=my wish"];
        let trust = ["--cacert-enc", ra, "--cacert-sig", ra, "--cacert", ca, "--maxpolltime", "1"];
        let algorithms = ["--cipher", "des3", "--digest", "sha256"];
        let out = pki(self.folder.path(), &[&same[..], &trust[..], &algorithms[..], more].concat()).await?;
        Ok(Certificate::from_der(&out).unwrap())
    }

    /// Pins a certificate to a device that is enrolled.
    async fn pin(&self, certificate: &Certificate) -> EnrollmentId {
        let id = EnrollmentId(Random::System.uuid_v7(self.now()));
        let key = DeviceKey::Udid(id.0.to_string().parse().unwrap());
        let mut tx = self.store.begin().await.unwrap();
        let new = NewDevice { id, kind: EnrollmentKind::Device, key: &key };
        store::enrollments::insert_device(&mut tx, &new, self.now()).await.unwrap();
        let tokens = Tokens {
            topic: "com.apple.mgmt.External.test",
            push_token: b"token",
            push_magic: "magic",
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: None,
            raw_sealed: b"raw",
            user_short_name: None,
            user_long_name: None,
        };
        let state = EnrollmentState::Enrolled { since: self.now() };
        store::enrollments::token_update(&mut tx, id, state, &tokens, self.now()).await.unwrap();
        let record = store::issuance::by_certificate(&mut tx, certificate.fingerprint()).await.unwrap().unwrap();
        assert!(store::identities::bind(&mut tx, id, Some(record.id), certificate, self.now()).await.unwrap());
        assert!(store::issuance::mark_used(&mut tx, record.id, id, self.now()).await.unwrap());
        tx.commit().await.unwrap();
        id
    }
}

#[tokio::test]
async fn a_foreign_client_enrolls_and_renews() {
    let database = Database::new(Backend::Sqlite).await;
    // strongSwan 5.9.8 misreads GetCACaps and refuses AES whatever a server offers: it goes on with triple DES, which is for
    // scep.legacy alone.
    let settings = Settings { legacy: true, ..Settings::default() };
    let server = Server::start(database.store.clone(), settings).await;

    let refused = server.scep("first.key", &["--password", "a guess"]).await;
    assert!(refused.is_err(), "{refused:?}");
    let challenge = server.challenge().await;
    let first = server.scep("first.key", &["--password", &challenge]).await.expect("a certificate for the challenge");
    assert_ne!(first.common_name().as_deref(), Some("my wish"), "the name is the record's");
    std::fs::write(server.folder.path().join("first.der"), first.der()).unwrap();

    let old = ["--cert", "first.der", "--key", "first.key"];
    let not_pinned = server.scep("second.key", &old).await;
    assert!(not_pinned.is_err(), "{not_pinned:?}");
    let id = server.pin(&first).await;
    let too_early = server.scep("second.key", &old).await;
    assert!(too_early.is_err(), "{too_early:?}");

    server.clock.advance(Duration::from_hours(300 * 24));
    let second = server.scep("second.key", &old).await.expect("the holder of the current identity gets the next one");
    assert!(second.not_after() > first.not_after());
    let mut tx = server.store.begin().await.unwrap();
    let record = store::issuance::by_certificate(&mut tx, second.fingerprint()).await.unwrap().unwrap();
    assert_eq!((record.purpose, record.enrollment), (Purpose::Renewal, Some(id)));
    assert!(store::identities::revoke(&mut tx, first.fingerprint(), server.now()).await.unwrap());
    tx.commit().await.unwrap();
    let revoked = server.scep("second.key", &old).await;
    assert!(revoked.is_err(), "{revoked:?}");
    drop(server);
    database.remove().await;
}
