//! A database that an earlier version filled opens with this one, and nothing in it is lost (RG-27).

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::ids::{EnrollmentId, PolicyId};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use mdm_tests::db::Place;
use mdm_tests::{Backend, both};
use policy::{Context, Signers};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};
use store::{Settings, Store};

/// The schema of version 1, as it was released.
fn version_1(backend: Backend) -> Migrator {
    let sql = match backend {
        Backend::Sqlite => include_str!("../../migrations/sqlite/0001_initial.sql"),
        Backend::Postgres => include_str!("../../migrations/postgres/0001_initial.sql"),
    };
    let sql = sqlx::SqlSafeStr::into_sql_str(sql);
    Migrator::with_migrations(vec![Migration::new(1, "0001_initial".into(), MigrationType::Simple, sql, false)])
}

/// A key, as the database writes it.
fn id(backend: Backend, n: u8) -> String {
    match backend {
        Backend::Sqlite => format!("x'{}'", format!("{n:02x}").repeat(16)),
        Backend::Postgres => format!("'{}'", format!("{n:02x}").repeat(16)),
    }
}

/// Rows that refer to one another, in the tables that a later migration rebuilds.
fn rows(backend: Backend) -> Vec<String> {
    let id = |n| id(backend, n);
    let bytes = |hex: &str| match backend {
        Backend::Sqlite => format!("x'{hex}'"),
        Backend::Postgres => format!("decode('{hex}', 'hex')"),
    };
    let (device, record) = (id(1), id(2));
    vec![
        format!(
            "INSERT INTO enrollment (id, kind, channel, udid, state, state_at, created_at)
             VALUES ({device}, 'device', 'device', 'U', 'enrolled', 1, 1)"
        ),
        format!(
            "INSERT INTO issuance (id, flow, purpose, kind, enrollment_id, common_name, state, created_at)
             VALUES ({record}, 'import', 'enrollment', 'device', {device}, 'name', 'used', 1)"
        ),
        format!(
            "INSERT INTO identity (cert_sha256, enrollment_id, issuance_id, certificate, not_before, not_after, pinned_at)
             VALUES ({}, {device}, {record}, {}, 1, 2, 3)",
            bytes("0a"),
            bytes("0b")
        ),
        format!(
            "INSERT INTO command (uuid, request_type, rendering, body_sealed, body_sha256, lane, created_by, created_at)
             VALUES ('C', 'DeviceLock', 'plain', {}, {}, 1, 'me', 1)",
            bytes("0c"),
            bytes("0d")
        ),
        format!(
            "INSERT INTO command_target (enrollment_id, seq, command_uuid, lane, state, queued_at)
             VALUES ({device}, 1, 'C', 1, 'queued', 1)"
        ),
    ]
}

/// A database of version 1 with these rows.
macro_rules! filled {
    ($connection:ty, $backend:expr, $url:expr, $rows:expr) => {{
        let mut connection = <$connection>::connect($url).await.unwrap();
        version_1($backend).run_direct(None, &mut connection, false).await.unwrap();
        for row in $rows {
            sqlx::query(AssertSqlSafe(row)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    }};
}

/// The same steps through either driver.
macro_rules! upgraded {
    ($connection:ty, $backend:expr, $place:expr, $url:expr) => {{
        filled!($connection, $backend, $url, rows($backend));

        Store::open(&Settings::new($place.url.as_str())).await.unwrap().close().await;

        let mut connection = <$connection>::connect($url).await.unwrap();
        let found = sqlx::query(JOINED).fetch_all(&mut connection).await.unwrap();
        for word in ["ade", "byod", "adde"] {
            let wider = format!("UPDATE issuance SET flow = '{word}'");
            sqlx::query(AssertSqlSafe(wider)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
        found.iter().map(|row| (0..6).map(|n| row.get::<String, _>(n)).collect()).collect::<Vec<Vec<String>>>()
    }};
}

/// One row, where every reference leads to what it led to before.
const JOINED: &str = "SELECT e.udid, e.door, s.flow, s.source, c.uuid, t.state
      FROM enrollment e JOIN identity i ON i.enrollment_id = e.id JOIN issuance s ON s.id = i.issuance_id
      JOIN command_target t ON t.enrollment_id = e.id JOIN command c ON c.uuid = t.command_uuid";

#[tokio::test]
async fn rg_27_a_database_of_version_1_opens_with_everything_in_it() {
    for backend in both() {
        let place = Place::empty(backend).await;
        let words = match backend {
            Backend::Sqlite => upgraded!(SqliteConnection, backend, place, &format!("{}?mode=rwc", place.url)),
            Backend::Postgres => upgraded!(PgConnection, backend, place, &place.url),
        };
        assert_eq!(words, [["U", "link", "import", "import", "C", "queued"]], "{backend}");
        place.remove().await;
    }
}

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// An iPhone with an ACME profile that it acknowledged long ago, as version 1 wrote it.
fn installed(backend: Backend) -> Vec<String> {
    let (device, policy) = (id(backend, 1), id(backend, 2));
    let yes = if backend == Backend::Sqlite { "1" } else { "true" };
    let body = r#"{"name":"wifi","notes":"","channel":"device","directory_url":"https://ca.example.com/acme/directory",
        "client_identifier":"{serial}","key_type":"ECSECPrimeRandom","key_size":256,"hardware_bound":"when_supported",
        "attest":"when_supported","subject":[[["CN","{serial}"]]],"subject_alt_name":{},"extended_key_usage":[],
        "key_is_extractable":false,"allow_all_apps_access":false,"ca_accepts_unattested":false,
        "user_channel_hardware_bound":false}"#;
    let decision = r#"{"outcome":"open","form":{"hardware_bound":true,"attest":"true"},"device":{"product_name":"iPhone15,2",
        "marketing_name":"iPhone 14 Pro","chip":"A16","attest_support":"supported","basis":"listed","platform":"iOS",
        "os_version":"17.0","kind":"device","channel":"device"}}"#;
    let facts = r#"{"known":{"product_name":{"value":"iPhone15,2","source":"device_information","at":"2026-01-01T00:00:00Z"},
        "os_version":{"value":"17.0","source":"device_information","at":"2026-01-01T00:00:00Z"},
        "serial_number":{"value":"SERIAL","source":"device_information","at":"2026-01-01T00:00:00Z"}},"asked_at":"2026-01-01T00:00:00Z"}"#;
    vec![
        format!(
            "INSERT INTO enrollment (id, kind, channel, udid, state, state_at, created_at)
             VALUES ({device}, 'device', 'device', '00008110-0000000000000001', 'enrolled', 1, 1)"
        ),
        format!("INSERT INTO facts (enrollment_id, body, updated_at) VALUES ({device}, '{facts}', 1)"),
        format!(
            "INSERT INTO acme_policy (id, name, revision, created_at, updated_at) VALUES ({policy}, 'wifi', 1, 1, 1)"
        ),
        format!(
            "INSERT INTO acme_policy_revision (policy_id, revision, body, payload_uuid, created_by, created_at)
             VALUES ({policy}, 1, '{body}', {}, 'me', 1)",
            id(backend, 4)
        ),
        format!("INSERT INTO policy_scope (policy_id, kind, value) VALUES ({policy}, 'all', '')"),
        format!(
            "INSERT INTO assignment (id, policy_id, enrollment_id, revision, state, decision, random, profile_sent,
                                     created_at, updated_at)
             VALUES ({}, {policy}, {device}, 1, 'installed', '{decision}', 'random', {yes}, 1, 1)",
            id(backend, 3)
        ),
    ]
}

fn context() -> Context {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let signer = ProfileSigner::new(
        PrivateKey::from_pkcs8_der(&key.serialize_der()).unwrap(),
        Certificate::from_der(certificate.der()).unwrap(),
        vec![],
    );
    let commands =
        commands::Context { sealer: Sealer::new(&[7; 32]), random: Random::System, stall: commands::Stall::default() };
    Context {
        commands,
        attestation: mdm_tests::attestation(),
        signers: Signers::new(signer.unwrap()),
        identifier: "com.example.mdm".into(),
        organization: None,
    }
}

/// The loop runs until nothing is due; what was put on the queue of the device, and how its assignment stands.
async fn settled(store: &Store, ctx: &Context, now: Timestamp) -> (Vec<String>, String) {
    while policy::reconcile::run_once(store, ctx, now, 100).await.unwrap() > 0 {}
    let device = EnrollmentId(uuid::Uuid::from_bytes([1; 16]));
    let mut tx = store.read().await.unwrap();
    let queued = store::commands::outstanding_by(&mut tx, &store::IdSet::new(&[device]), "policy").await.unwrap();
    let mut types = Vec::new();
    for waiting in queued {
        let command = store::commands::get(&mut tx, &waiting.command_uuid.parse().unwrap()).await.unwrap().unwrap();
        types.push(command.request_type);
    }
    let policy = PolicyId(uuid::Uuid::from_bytes([2; 16]));
    let a = store::assignments::find(&mut tx, policy, device).await.unwrap().unwrap();
    assert!(a.profile_sent && a.attempt_id.is_none() && a.revision == 1, "{a:?}");
    (types, a.state)
}

#[tokio::test]
async fn rg_27_what_version_1_installed_stays_installed_and_no_device_is_sent_it_again() {
    for backend in both() {
        let place = Place::empty(backend).await;
        let rows = installed(backend);
        match backend {
            Backend::Sqlite => filled!(SqliteConnection, backend, &format!("{}?mode=rwc", place.url), rows),
            Backend::Postgres => filled!(PgConnection, backend, &place.url, rows),
        }
        let store = Store::open(&Settings::new(place.url.as_str())).await.unwrap();
        let ctx = context();
        let nothing = (vec![], "installed".to_owned());
        assert_eq!(settled(&store, &ctx, NOW).await, nothing, "{backend}: the upgrade alone sets nothing in motion");

        // Looked at for another reason, it is asked for its certificates once; and nothing follows from what it shows.
        let policy = PolicyId(uuid::Uuid::from_bytes([2; 16]));
        for days in 0..9 {
            let now = NOW.plus(Duration::from_hours(24 * days));
            let mut tx = store.begin().await.unwrap();
            store::assignments::due_policy(&mut tx, policy, now).await.unwrap();
            tx.commit().await.unwrap();
            let asked = (vec!["CertificateList".to_owned()], "installed".to_owned());
            assert_eq!(settled(&store, &ctx, now).await, asked, "{backend}, day {days}");
        }
        store.close().await;
        place.remove().await;
    }
}
