//! The way of a policy to a large fleet, on both databases: assigned, decided, delivered.
//! `cargo bench -p mdm-tests --bench policy`; `BENCH_FLEET` is the number of enrollments, 100,000 where it is not set. Prints; asserts
//! only that everything was done.

#[path = "policy/assign.rs"]
mod assign;
#[path = "policy/deliver.rs"]
mod deliver;
#[path = "policy/fleet.rs"]
mod fleet;
#[path = "policy/reconcile.rs"]
mod reconcile;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use mdm_tests::{Database, both};
use policy::{AcmePolicy, Context, Signers};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

#[tokio::main]
async fn main() {
    let size = std::env::var("BENCH_FLEET").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    for backend in both() {
        let db = Database::new(backend).await;
        let ctx = context();
        fleet::fill(&db, size, NOW).await;
        let policy = policy();
        let id = assign::run(&db, &ctx, &policy, size, NOW).await;
        reconcile::run(&db, &ctx, id, size, NOW).await;
        deliver::run(&db, &ctx, NOW).await;
        db.remove().await;
    }
}

fn context() -> Context {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKey::from_pkcs8_der(&key.serialize_der()).unwrap();
    let signer = ProfileSigner::new(key, Certificate::from_der(certificate.der()).unwrap(), vec![]).unwrap();
    Context {
        commands: commands::Context {
            sealer: Sealer::new(&[7; 32]),
            random: Random::System,
            stall: commands::Stall::default(),
        },
        attestation: mdm_tests::attestation(),
        signers: Signers::new(signer),
        identifier: "com.example.mdm".into(),
        organization: Some("Example".into()),
    }
}

fn policy() -> AcmePolicy {
    let json = serde_json::json!({
        "name": "wifi", "directory_url": "https://ca.example.com/acme/directory",
        "client_identifier": "{serial}", "subject": [[["O", "Example"]], [["CN", "{serial}"]]],
    });
    AcmePolicy::from_value(json).unwrap()
}
