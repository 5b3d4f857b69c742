use std::time::Duration;
use issuer::{Authority, authority, issuance, scep};
use mdm_core::{crypto::seal::Sealer, enrollment::EnrollmentKind, random::Random, time::Clock};
#[tokio::main]
async fn main() {
    let legacy = std::env::args().nth(1).as_deref() == Some("legacy");
    let dir = tempfile::tempdir().unwrap();
    let store = store::Store::open(&store::Settings::new(format!("sqlite:{}/a.db", dir.path().display()))).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let now = Clock::System.now();
    let a = Authority::load_or_create(&mut tx, &Sealer::new(&[1; 32]), &Random::System, now, &authority::Settings::default()).await.unwrap();
    for i in 0..6 {
        let (id, c) = issuance::open(&mut tx, &Random::System, now, &issuance::OpenIssuance { flow: issuance::Flow::Link, purpose: issuance::Purpose::Enrollment, kind: EnrollmentKind::Device, enrollment_id: None, link_id: None, expected_serial: None, expected_udid: None, label: None, ttl: Duration::from_mins(60) }).await.unwrap();
        std::fs::write(format!("/tmp/scephand/c{i}"), format!("{id} {}", c.expose())).unwrap();
    }
    tx.commit().await.unwrap();
    std::fs::write("/tmp/scephand/ca.pem", a.certificate().to_pem()).unwrap();
    std::fs::write("/tmp/scephand/ra.pem", a.ra_certificate().to_pem()).unwrap();
    let shared = scep::Shared::new(store, scep::CurrentAuthority::new(a), Clock::System, Random::System, scep::Settings { legacy, ..Default::default() });
    let l = tokio::net::TcpListener::bind("127.0.0.1:18080").await.unwrap();
    axum::serve(l, scep::router(shared)).await.unwrap();
}
