//! Every query of the hot path uses an index, on both databases: shown by the database's own query plan.

use mdm_tests::{Backend, on_both_databases};
use sqlx::{Connection, PgConnection, Row, SqliteConnection};

/// Rows that make a sequential scan the wrong choice: 2,000 devices with an identity, a user and a Shared iPad user each, and
/// 20,000 finished commands.
const FILL: [&str; 6] = [
    "INSERT INTO enrollment (id, kind, channel, udid, state, state_at, created_at) \
     SELECT {id}, 'device', 'device', 'U' || n, 'enrolled', 0, 0 FROM {series 2000}",
    "INSERT INTO enrollment (id, kind, channel, parent_id, user_id, state, state_at, created_at) \
     SELECT {user}, 'device', 'user', {id}, 'U' || n, 'enrolled', 0, 0 FROM {series 2000}",
    "INSERT INTO enrollment (id, kind, channel, parent_id, shared_ipad_user, state, state_at, created_at) \
     SELECT {shared}, 'shared_ipad', 'user', {id}, 'S' || n, 'enrolled', 0, 0 FROM {series 2000}",
    "INSERT INTO identity (cert_sha256, enrollment_id, certificate, not_before, not_after, pinned_at) \
     SELECT {hash}, {id}, {hash}, 0, 1, 0 FROM {series 2000}",
    "INSERT INTO command (uuid, request_type, rendering, body_sealed, body_sha256, lane, created_by, created_at) \
     SELECT 'c' || n, 'ProfileList', 'plain', {hash}, {hash}, 1, 'test', 0 FROM {series 2000}",
    "INSERT INTO command_target (enrollment_id, seq, command_uuid, lane, state, queued_at, finished_at) \
     SELECT e.id, c.rank, c.uuid, 1, 'acknowledged', 0, 1 FROM enrollment e \
     CROSS JOIN (SELECT uuid, ROW_NUMBER() OVER (ORDER BY uuid) AS rank FROM command LIMIT 10) c",
];

fn dialect(sql: &str, backend: Backend) -> String {
    let series = match backend {
        Backend::Sqlite => {
            "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 2000) SELECT n FROM s)"
        }
        Backend::Postgres => "generate_series(1, 2000) AS s(n)",
    };
    let id = |n: &str| match backend {
        Backend::Sqlite => format!("unhex(printf('%032x', {n}))"),
        Backend::Postgres => format!("lpad(to_hex({n}), 32, '0')::uuid"),
    };
    let hash = match backend {
        Backend::Sqlite => "unhex(printf('%064x', n))",
        Backend::Postgres => "decode(lpad(to_hex(n), 64, '0'), 'hex')",
    };
    let out = sql.replace("{id}", &id("n")).replace("{hash}", hash);
    let out = out.replace("{user}", &id("n + 10000")).replace("{shared}", &id("n + 20000"));
    out.replace("{series 2000}", series)
}

fn hot() -> [(&'static str, &'static str); 6] {
    [
        ("a poll on the device channel", store::enrollments::GLANCE_DEVICE),
        ("a poll on a user channel", store::enrollments::GLANCE_USER),
        ("a poll of a Shared iPad user", store::enrollments::GLANCE_SHARED),
        ("the next command", store::commands::FIRST),
        ("the commands after it", store::commands::OUTSTANDING),
        ("the end of a command", store::commands::FINISH),
    ]
}

/// Puts literals in the place of parameters, so that the planner sees what a real statement has.
fn with_values(sql: &str, backend: Backend) -> String {
    let (id, hash) = match backend {
        Backend::Sqlite => (format!("x'{:032x}'", 7), format!("x'{:064x}'", 7)),
        Backend::Postgres => (format!("'{:032x}'::uuid", 7), format!("decode('{:064x}', 'hex')", 7)),
    };
    let first = if sql.contains("cert_sha256 = $1") { hash } else { id };
    let bytes = if backend == Backend::Sqlite { "x'00'" } else { "'\\x00'::bytea" };
    let mut out = sql.replace("$1", &first).replace("$6", bytes);
    out = if sql.starts_with("UPDATE") {
        out.replace("$2", "'c1'").replace("$3", "'error'").replace("$4", "1").replace("$5", "NULL")
    } else if sql.contains("LIMIT") {
        out.replace("$2", "5").replace("$3", "16")
    } else {
        out.replace("$2", "'someone'")
    };
    assert!(!out.contains('$'), "a parameter is left in {out}");
    out
}

#[tokio::test]
async fn the_hot_path_reads_no_table_from_end_to_end() {
    on_both_databases(async |db| match db.backend {
        Backend::Sqlite => {
            let mut c = SqliteConnection::connect(&db.place.url).await.unwrap();
            for sql in FILL {
                sqlx::raw_sql(sqlx::AssertSqlSafe(dialect(sql, db.backend))).execute(&mut c).await.unwrap();
            }
            sqlx::raw_sql("ANALYZE").execute(&mut c).await.unwrap();
            for (what, sql) in hot() {
                let sql = format!("EXPLAIN QUERY PLAN {}", with_values(sql, db.backend));
                let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut c).await.unwrap();
                let plan: Vec<String> = rows.iter().map(|r| r.get::<String, _>("detail")).collect();
                assert!(plan.iter().any(|step| step.contains("USING")), "{what}: {plan:#?}");
                assert!(!plan.iter().any(|step| step.starts_with("SCAN")), "{what} scans: {plan:#?}");
            }
        }
        Backend::Postgres => {
            let mut c = PgConnection::connect(&db.place.url).await.unwrap();
            for sql in FILL {
                sqlx::raw_sql(sqlx::AssertSqlSafe(dialect(sql, db.backend))).execute(&mut c).await.unwrap();
            }
            sqlx::raw_sql("ANALYZE").execute(&mut c).await.unwrap();
            for (what, sql) in hot() {
                let sql = format!("EXPLAIN {}", with_values(sql, db.backend));
                let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut c).await.unwrap();
                let plan = rows.iter().map(|r| r.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
                assert!(plan.contains("Index"), "{what}:\n{plan}");
                // A table without rows (push_intent here) is read whole by any planner.
                let scans = plan.lines().filter(|l| l.contains("Seq Scan") && !l.contains("push_intent"));
                assert_eq!(scans.count(), 0, "{what} scans:\n{plan}");
            }
        }
    })
    .await;
}

/// 2,000 certificates that live a week, all in use and renewed in time, so that every one ends within 30 days.
const CERTIFICATES: [&str; 5] = [
    "INSERT INTO acme_policy (id, name, revision, created_at, updated_at) VALUES ({one}, 'wifi', 1, 0, 0)",
    "INSERT INTO enrollment (id, kind, channel, udid, state, state_at, created_at) \
     SELECT {id}, 'device', 'device', 'U' || n, 'enrolled', 0, 0 FROM {series 2000}",
    "INSERT INTO assignment (id, policy_id, enrollment_id, revision, state, random, created_at, updated_at) \
     SELECT {id}, {one}, {id}, 1, 'verified', '', 0, 0 FROM {series 2000}",
    "INSERT INTO attempt (id, assignment_id, policy_id, revision, enrollment_id, purpose, state, queued_at) \
     SELECT {id}, {id}, {one}, 1, {id}, 'install', 'proved', 0 FROM {series 2000}",
    "INSERT INTO acme_certificate (sha256, enrollment_id, policy_id, attempt_id, certificate, serial_number, issuer, subject, \
         key_type, key_sha256, hardware_bound, attested, not_before, not_after, state) \
     SELECT {hash}, {id}, {one}, {id}, {hash}, '1', 'CN=CA', 'CN=x', 'RSA 2048', {hash}, {true}, {true}, 604800 * n, 604800 * (n + 1000), \
         'verified' FROM {series 2000}",
];

/// What the loop of the alarms and the readiness ask every minute.
fn alarms() -> [String; 3] {
    let now = |sql: &str| sql.replace("$1", "604800").replace("$2", "2592000000").replace("$3", "100");
    [now(store::certificates::ENDS), now(store::certificates::UNSAID), store::certificates::COUNTS.to_owned()]
}

#[tokio::test]
async fn certificates_that_are_renewed_in_time_are_not_read_for_alarms() {
    on_both_databases(async |db| {
        let fill = CERTIFICATES.map(|sql| {
            let (one, truth) = match db.backend {
                Backend::Sqlite => (format!("x'{:032x}'", 1), "1"),
                Backend::Postgres => (format!("'{:032x}'::uuid", 1), "true"),
            };
            dialect(&sql.replace("{one}", &one).replace("{true}", truth), db.backend)
        });
        let plans: Vec<String> = match db.backend {
            Backend::Sqlite => {
                let mut c = SqliteConnection::connect(&db.place.url).await.unwrap();
                for sql in fill {
                    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut c).await.unwrap();
                }
                sqlx::raw_sql("ANALYZE").execute(&mut c).await.unwrap();
                let mut plans = Vec::new();
                for sql in alarms() {
                    let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
                    let rows = sqlx::query(sql).fetch_all(&mut c).await.unwrap();
                    plans.push(rows.iter().map(|r| r.get::<String, _>("detail")).collect::<Vec<_>>().join("\n"));
                }
                plans
            }
            Backend::Postgres => {
                let mut c = PgConnection::connect(&db.place.url).await.unwrap();
                for sql in fill {
                    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut c).await.unwrap();
                }
                sqlx::raw_sql("VACUUM ANALYZE").execute(&mut c).await.unwrap();
                let mut plans = Vec::new();
                for sql in alarms() {
                    let sql = sqlx::AssertSqlSafe(format!("EXPLAIN {sql}"));
                    let rows = sqlx::query(sql).fetch_all(&mut c).await.unwrap();
                    plans.push(rows.iter().map(|r| r.get::<String, _>(0)).collect::<Vec<_>>().join("\n"));
                }
                plans
            }
        };
        let [ends, unsaid, counts] = &plans[..] else { panic!("three") };
        for plan in [ends, unsaid] {
            assert!(plan.contains("acme_certificate_end"), "{plan}");
        }
        assert!(counts.contains("COVERING INDEX") || counts.contains("Index Only Scan"), "{counts}");
    })
    .await;
}
