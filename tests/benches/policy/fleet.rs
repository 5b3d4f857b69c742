//! A fleet of phones that were asked what they are, written by SQL.

use mdm_core::time::Timestamp;
use mdm_tests::{Backend, Database};
use policy::facts::{FactName, FactValue, Facts, Source};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

/// Makes so many enrollments on an empty database.
pub async fn fill(db: &Database, size: u64, now: Timestamp) {
    let mut facts = Facts { asked_at: Some(now), ..Facts::default() };
    for (name, text) in
        [(FactName::ProductName, "iPhone15,2"), (FactName::OsVersion, "17.4"), (FactName::SerialNumber, "SERIAL")]
    {
        facts.learn(name, FactValue::Text(text.to_owned()), Source::DeviceInformation, now);
    }
    let facts = serde_json::to_string(&facts).unwrap();
    let (series, id, udid, token) = match db.backend {
        Backend::Sqlite => (
            format!(
                "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {size}) SELECT n FROM s)"
            ),
            "unhex(printf('0197%028x', n))",
            "printf('00008110-%016X', n)",
            "unhex(printf('%064x', n))",
        ),
        Backend::Postgres => (
            format!("generate_series(1, {size}) AS s(n)"),
            "('0197' || lpad(to_hex(n), 28, '0'))::uuid",
            "'00008110-' || upper(lpad(to_hex(n), 16, '0'))",
            "decode(lpad(to_hex(n), 64, '0'), 'hex')",
        ),
    };
    let at = now.0;
    let enrollments = format!(
        "INSERT INTO enrollment (id, kind, channel, udid, state, state_at, topic, push_token, push_magic, token_at, serial_number,
                product_name, os_version, created_at, enrolled_at)
         SELECT {id}, 'device', 'device', {udid}, 'enrolled', {at}, 'com.apple.mgmt.External.bench', {token}, 'magic', {at}, 'S' || n,
                'iPhone15,2', '17.4', {at}, {at} FROM {series}"
    );
    let facts = format!(
        "INSERT INTO facts (enrollment_id, body, updated_at) SELECT {id}, replace('{facts}', 'SERIAL', 'S' || n), {at} FROM {series}"
    );
    for sql in [enrollments, facts] {
        match db.backend {
            Backend::Sqlite => {
                let mut c = SqliteConnection::connect(&db.place.url).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut c).await.unwrap();
            }
            Backend::Postgres => {
                let mut c = PgConnection::connect(&db.place.url).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut c).await.unwrap();
                sqlx::raw_sql("ANALYZE").execute(&mut c).await.unwrap();
            }
        }
    }
}
