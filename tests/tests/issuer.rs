//! Identities from the outside: real SCEP clients over TCP, on both databases, and two servers on one PostgreSQL.

use std::time::Duration;

use issuer::issuance::{Flow, OpenIssuance, Purpose, State, open};
use issuer::scep::{CurrentAuthority, Settings, Shared, router};
use issuer::{Authority, authority};
use mdm_core::certificate::Certificate;
use mdm_core::crypto::seal::Sealer;
use mdm_core::crypto::trust::{self, Trust};
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::IssuanceId;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Clock;
use mdm_tests::Backend;
use simulator::http::{Client, Trust as Roots};
use simulator::scep::{Request, Strength, enroll};
use store::Store;

/// One server process: its own connections, its own copy of the keys.
struct Server {
    store: Store,
    authority: Authority,
    url: String,
}

impl Server {
    async fn start(store: Store, settings: Settings) -> Self {
        let now = Clock::System.now();
        let mut tx = store.begin().await.unwrap();
        let sealer = Sealer::new(&[7; 32]);
        let authority =
            Authority::load_or_create(&mut tx, &sealer, &Random::System, now, &authority::Settings::default())
                .await
                .unwrap();
        tx.commit().await.unwrap();
        let current = CurrentAuthority::new(authority.clone());
        let routes = router(Shared::new(store.clone(), current, Clock::System, Random::System, settings));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/scep", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { store, authority, url }
    }

    async fn open(&self) -> (IssuanceId, Secret<String>) {
        let mut tx = self.store.begin().await.unwrap();
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
        let opened = open(&mut tx, &Random::System, Clock::System.now(), &wanted).await.unwrap();
        tx.commit().await.unwrap();
        opened
    }

    /// What a device does with the SCEP payload of its enrollment profile.
    async fn ask(&self, path: &str, challenge: &Secret<String>, strength: Strength) -> Result<Certificate, String> {
        let client = Client::new(&Roots::public(), None).unwrap();
        let request = Request {
            url: format!("{}{path}", self.url),
            name: None,
            challenge: Some(challenge.expose().clone()),
            subject: vec![vec![("CN".to_owned(), "whatever the profile says".to_owned())]],
            key_size: 2048,
            fingerprint: None,
            key: None,
        };
        let identity = enroll(&client, &request, strength).await.map_err(|e| e.to_string())?;
        Ok(Certificate::from_der(&identity.certificate.to_der().unwrap()).unwrap())
    }
}

#[tokio::test]
async fn th_28_a_device_gets_one_identity_by_its_challenge() {
    mdm_tests::on_both(async |store| {
        let server = Server::start(store, Settings::default()).await;
        let (id, challenge) = server.open().await;
        let certificate = server.ask(&format!("/{id}"), &challenge, Strength::Today).await.unwrap();
        assert_eq!(certificate.subject(), format!("CN={id}"), "TH-29");
        let trust = Trust::new(vec![server.authority.certificate().clone()]).unwrap();
        trust.verify(&certificate, &[], Clock::System.now(), trust::Purpose::DeviceIdentity).unwrap();

        let mut tx = server.store.read().await.unwrap();
        let record = store::issuance::by_certificate(&mut tx, certificate.fingerprint()).await.unwrap().unwrap();
        assert_eq!((record.id, record.state), (id, State::Issued));

        // Another device with the same challenge, and one that guesses, hear the same.
        let again = server.ask("", &challenge, Strength::Today).await.unwrap_err();
        let guess = server.ask("", &Secret::new("guess".to_owned()), Strength::Today).await.unwrap_err();
        assert_eq!(again, guess, "TH-32");
    })
    .await;
}

#[tokio::test]
async fn an_old_client_is_served_where_the_operator_says_so() {
    simulator::scep::load_legacy().unwrap();
    mdm_tests::on_both(async |store| {
        let strict = Server::start(store.clone(), Settings::default()).await;
        let (_, challenge) = strict.open().await;
        let refused = strict.ask("", &challenge, Strength::Foreign).await.unwrap_err();
        assert!(refused.contains("failInfo 0"), "badAlg: {refused}");

        let lenient = Server::start(store, Settings { legacy: true, ..Settings::default() }).await;
        // The refusal used nothing up.
        lenient.ask("", &challenge, Strength::Foreign).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_28_th_35_two_servers_on_one_database_have_one_ca_and_issue_once() {
    mdm_tests::on_both_databases(async |db| {
        if db.backend != Backend::Postgres {
            // A second server on one SQLite file is refused (RG-29).
            return;
        }
        let other = Store::open(&store::Settings::new(db.place.url.clone())).await.unwrap();
        let (one, two) = tokio::join!(
            Server::start(db.store.clone(), Settings::default()),
            Server::start(other.clone(), Settings::default())
        );
        assert_eq!(one.authority.certificate(), two.authority.certificate());
        assert_eq!(one.authority.ra_certificate(), two.authority.ra_certificate());

        for _ in 0..5 {
            let (_, challenge) = one.open().await;
            let (a, b, c, d) = tokio::join!(
                one.ask("", &challenge, Strength::Today),
                two.ask("", &challenge, Strength::Today),
                one.ask("", &challenge, Strength::Today),
                two.ask("", &challenge, Strength::Today)
            );
            let issued = [a, b, c, d].iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(issued, 1);
        }
        other.close().await;
    })
    .await;
}
