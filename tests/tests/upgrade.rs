//! A database that an earlier version filled opens with this one, and nothing in it is lost (RG-27).

use mdm_tests::db::Place;
use mdm_tests::{Backend, both};
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

/// Rows that refer to one another, in the tables that a later migration rebuilds.
fn rows(backend: Backend) -> Vec<String> {
    let id = |n: u8| match backend {
        Backend::Sqlite => format!("x'{}'", format!("{n:02x}").repeat(16)),
        Backend::Postgres => format!("'{}'", format!("{n:02x}").repeat(16)),
    };
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

/// The same steps through either driver.
macro_rules! upgraded {
    ($connection:ty, $backend:expr, $place:expr, $url:expr) => {{
        let mut connection = <$connection>::connect($url).await.unwrap();
        version_1($backend).run_direct(None, &mut connection, false).await.unwrap();
        for row in rows($backend) {
            sqlx::query(AssertSqlSafe(row)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();

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
