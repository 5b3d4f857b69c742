//! Rows of `push_intent` and `push_cert`, and the push columns of `enrollment`.
//!
//! A row of `push_intent` is the wish to wake one enrollment. It stands until the device has connected and nothing is
//! outstanding ([`connected`]); sending a push does not settle it (RG-16).

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::{IdSet, over_ids};
use crate::{Dialect, Result, Tx};

/// When the push of an enrollment without a live token is due: the end of the year 9999.
pub const PARKED: Timestamp = Timestamp(253_402_300_799_000);

// A new wish: at `at`, but not before the back-off is over; what was counted of the former wish starts anew.
macro_rules! wish {
    () => {
        " ON CONFLICT (enrollment_id) DO UPDATE SET
            due_at = CASE WHEN push_intent.not_before > excluded.due_at THEN push_intent.not_before
                          WHEN push_intent.due_at < excluded.due_at AND push_intent.not_now_at IS NULL THEN push_intent.due_at
                          ELSE excluded.due_at END,
            attempt = 0, not_now_at = NULL, version = push_intent.version + 1"
    };
}

const DUE: &str = concat!("INSERT INTO push_intent (enrollment_id, due_at, created_at) VALUES ($1, $2, $2)", wish!());
/// Wishes that `enrollment` be pushed at `at`, together with what it is to fetch, in the same transaction.
/// Wishes coalesce: one row per enrollment. The caller wakes the loop with [`crate::Wake::Push`].
pub async fn due(tx: &mut Tx, enrollment: EnrollmentId, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(DUE).bind(enrollment.0).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// [`due`] for many enrollments.
pub async fn due_many(tx: &mut Tx, enrollments: &IdSet, at: Timestamp) -> Result<()> {
    // What stands before `ON CONFLICT` must be more than a table, or SQLite takes it for a join. The order is the push
    // loop's, so that the two do not wait for each other.
    let sql = over_ids!(
        tx,
        "INSERT INTO push_intent (enrollment_id, due_at, created_at) SELECT e.id, $2, $2 FROM enrollment e WHERE e.id IN (",
        concat!(") ORDER BY e.id", wish!())
    );
    run!(tx, c => sqlx::query(sql).bind(enrollments.as_json()).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// The device ended its session at `at` with `NotNow` and commands wait: the push loop plans when to wake it again.
pub async fn not_now(tx: &mut Tx, enrollment: EnrollmentId, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO push_intent (enrollment_id, due_at, created_at, not_now_at, not_now_times) VALUES ($1, $2, $2, $2, 1)
         ON CONFLICT (enrollment_id) DO UPDATE SET
            due_at = CASE WHEN push_intent.not_before > excluded.due_at THEN push_intent.not_before ELSE excluded.due_at END,
            not_now_at = excluded.not_now_at, not_now_times = push_intent.not_now_times + 1,
            attempt = 0, version = push_intent.version + 1")
        .bind(enrollment.0).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Whether a push of `enrollment` is wished for; [`connected`] has nothing to do where it is not.
pub async fn pending(tx: &mut Tx, enrollment: EnrollmentId) -> Result<bool> {
    let row: Option<(i64,)> = run!(tx, c => sqlx::query_as("SELECT version FROM push_intent WHERE enrollment_id = $1")
        .bind(enrollment.0).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// The device has connected and nothing is outstanding, or the enrollment is over: the wish is fulfilled.
pub async fn connected(tx: &mut Tx, enrollment: EnrollmentId) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM push_intent WHERE enrollment_id = $1")
        .bind(enrollment.0).execute(c).await.map(drop))?;
    Ok(())
}

/// A `TokenUpdate` was stored: the token is alive, and a wish that waited for one is due at `at`.
pub async fn revived(tx: &mut Tx, enrollment: EnrollmentId, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE enrollment SET push_dead_at = NULL WHERE id = $1 AND push_dead_at IS NOT NULL")
        .bind(enrollment.0).execute(c).await.map(drop))?;
    run!(tx, c => sqlx::query(
        "UPDATE push_intent SET due_at = $2, not_before = 0, attempt = 0, failures = 0, version = version + 1
         WHERE enrollment_id = $1 AND (not_before > $2 OR failures > 0)")
        .bind(enrollment.0).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// A wish that the push loop has taken, with what is needed to send.
#[derive(Debug, Clone)]
pub struct Leased {
    /// Whose.
    pub enrollment_id: Uuid,
    /// The state of the enrollment.
    pub state: String,
    /// `Topic`.
    pub topic: Option<String>,
    /// `Token`.
    pub push_token: Option<Vec<u8>>,
    /// `PushMagic`.
    pub push_magic: Option<String>,
    /// When APNs said that the token is dead (ms).
    pub push_dead_at: Option<i64>,
    /// The wish that this is; see [`Settled::version`].
    pub version: i64,
    /// Accepted pushes since the wish that the device did not answer.
    pub attempt: i64,
    /// Failures in a row.
    pub failures: i64,
    /// When the last session ended with `NotNow`, where that is not planned for yet (ms).
    pub not_now_at: Option<i64>,
    /// How many sessions in a row ended so.
    pub not_now_times: i64,
}

from_row!(Leased {
    enrollment_id,
    state,
    topic,
    push_token,
    push_magic,
    push_dead_at,
    version,
    attempt,
    failures,
    not_now_at,
    not_now_times,
});

/// Which rows to take.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Who takes them: only the holder of this number can settle them (RG-23).
    pub id: Uuid,
    /// Those due at this time.
    pub now: Timestamp,
    /// Another may take them from then on.
    pub until: Timestamp,
    /// At most so many.
    pub limit: i64,
}

const TAKE_SQLITE: &str = "UPDATE push_intent SET lease = $1, leased_until = $2 WHERE enrollment_id IN
    (SELECT enrollment_id FROM push_intent WHERE due_at <= $3 AND leased_until <= $3 ORDER BY due_at LIMIT $4)";
const TAKE_POSTGRES: &str = "UPDATE push_intent SET lease = $1, leased_until = $2 WHERE enrollment_id IN
    (SELECT enrollment_id FROM push_intent WHERE due_at <= $3 AND leased_until <= $3 ORDER BY due_at LIMIT $4
     FOR UPDATE SKIP LOCKED)";

/// Takes due wishes, longest due first.
pub async fn lease(tx: &mut Tx, lease: Lease) -> Result<Vec<Leased>> {
    let take = match tx.dialect() {
        Dialect::Sqlite => TAKE_SQLITE,
        Dialect::Postgres => TAKE_POSTGRES,
    };
    let taken = run!(tx, c => sqlx::query(take)
        .bind(lease.id).bind(lease.until.0).bind(lease.now.0).bind(lease.limit)
        .execute(c).await.map(|done| done.rows_affected()))?;
    if taken == 0 {
        return Ok(Vec::new());
    }
    let rows = run!(tx, c => sqlx::query_as(
        "SELECT p.enrollment_id, e.state, e.topic, e.push_token, e.push_magic, e.push_dead_at, p.version, p.attempt,
                p.failures, p.not_now_at, p.not_now_times
         FROM push_intent p JOIN enrollment e ON e.id = p.enrollment_id WHERE p.lease = $1 ORDER BY p.due_at")
        .bind(lease.id).fetch_all(c).await)?;
    Ok(rows)
}

/// Whether anything is due at `now` that nobody holds: the cheap question before [`lease`].
pub async fn any_due(tx: &mut Tx, now: Timestamp) -> Result<bool> {
    let row: Option<(i64,)> = run!(tx, c => sqlx::query_as(
        "SELECT due_at FROM push_intent WHERE due_at <= $1 AND leased_until <= $1 ORDER BY due_at LIMIT 1")
        .bind(now.0).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// Takes a leased wish off the list, because its enrollment is over; nothing happens if it is no longer held.
pub async fn discard(tx: &mut Tx, enrollment: EnrollmentId, lease: Uuid) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM push_intent WHERE enrollment_id = $1 AND lease = $2")
        .bind(enrollment.0).bind(lease).execute(c).await.map(drop))?;
    Ok(())
}

/// What becomes of a leased wish.
#[derive(Debug, Clone, Copy)]
pub struct Settled<'a> {
    /// Whose.
    pub enrollment: EnrollmentId,
    /// The lease under which it was taken.
    pub lease: Uuid,
    /// The wish that was taken: a newer one keeps its own time and counts.
    pub version: i64,
    /// When it is due again.
    pub due_at: Timestamp,
    /// A newer wish, too, waits until then.
    pub not_before: Timestamp,
    /// Accepted pushes of this wish.
    pub attempt: i64,
    /// Failures in a row.
    pub failures: i64,
    /// When a push was sent, if one was.
    pub sent_at: Option<Timestamp>,
    /// The word for what happened.
    pub outcome: &'a str,
}

/// Writes what became of a leased wish and gives it back. False, and nothing is written, if it is no longer held.
pub async fn settle(tx: &mut Tx, settled: &Settled<'_>) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE push_intent SET
            due_at = CASE WHEN version = $3 THEN $4 WHEN due_at < $5 THEN $5 ELSE due_at END,
            attempt = CASE WHEN version = $3 THEN $6 ELSE attempt END,
            not_now_at = CASE WHEN version = $3 THEN NULL ELSE not_now_at END,
            not_before = $5, failures = $7, last_sent_at = COALESCE($8, last_sent_at), last_outcome = $9,
            lease = NULL, leased_until = 0
         WHERE enrollment_id = $1 AND lease = $2")
        .bind(settled.enrollment.0)
        .bind(settled.lease)
        .bind(settled.version)
        .bind(settled.due_at.0)
        .bind(settled.not_before.0)
        .bind(settled.attempt)
        .bind(settled.failures)
        .bind(settled.sent_at.map(|t| t.0))
        .bind(settled.outcome)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Notes that `token` is dead as of `as_of`. False, and nothing is written, if a `TokenUpdate` came later or brought
/// another token (RG-17).
pub async fn dead(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    token: &[u8],
    as_of: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE enrollment SET push_dead_at = $4
         WHERE id = $1 AND push_token = $2 AND (token_at IS NULL OR token_at <= $3)")
        .bind(enrollment.0).bind(token).bind(as_of.0).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// How much is waiting (RG-31).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Pushes that are due and not sent.
    pub due: i64,
    /// Since when the longest has been due (ms).
    pub oldest_due_at: Option<i64>,
    /// Enrollments that wait for a `TokenUpdate`, because theirs never came or their token is dead.
    pub parked: i64,
}

from_row!(Backlog { due, oldest_due_at, parked });

/// Counts what is waiting at `now`.
pub async fn backlog(tx: &mut Tx, now: Timestamp) -> Result<Backlog> {
    let backlog = run!(tx, c => sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM push_intent WHERE due_at <= $1) AS due,
                (SELECT MIN(due_at) FROM push_intent WHERE due_at <= $1) AS oldest_due_at,
                (SELECT COUNT(*) FROM push_intent WHERE due_at >= $2) AS parked")
        .bind(now.0).bind(PARKED.0).fetch_one(c).await)?;
    Ok(backlog)
}

/// The state of the wish to wake one enrollment, for people and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// When the next push is due (ms).
    pub due_at: i64,
    /// Accepted pushes since the wish that the device did not answer.
    pub attempt: i64,
    /// Failures in a row.
    pub failures: i64,
    /// When a push was last sent (ms).
    pub last_sent_at: Option<i64>,
    /// What became of it.
    pub last_outcome: Option<String>,
    /// Since when it is wished for (ms).
    pub created_at: i64,
}

from_row!(Intent { due_at, attempt, failures, last_sent_at, last_outcome, created_at });

/// The wish to wake `enrollment`, if there is one.
pub async fn intent(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Option<Intent>> {
    let intent = run!(tx, c => sqlx::query_as(
        "SELECT due_at, attempt, failures, last_sent_at, last_outcome, created_at FROM push_intent WHERE enrollment_id = $1")
        .bind(enrollment.0).fetch_optional(c).await)?;
    Ok(intent)
}

/// A push certificate.
#[derive(Clone)]
pub struct Cert {
    /// Its topic.
    pub topic: String,
    /// DER.
    pub certificate: Vec<u8>,
    /// PEM of its issuers, possibly empty.
    pub chain: Vec<u8>,
    /// PKCS#8, sealed.
    pub key_sealed: Vec<u8>,
    /// When it ends (ms).
    pub not_after: i64,
    /// When it was uploaded (ms); tells one certificate of a topic from the next.
    pub uploaded_at: i64,
    /// When APNs refused it (ms).
    pub stopped_at: Option<i64>,
    /// Why.
    pub stopped_why: Option<String>,
}

from_row!(Cert { topic, certificate, chain, key_sealed, not_after, uploaded_at, stopped_at, stopped_why });

impl std::fmt::Debug for Cert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cert").field("topic", &self.topic).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// All push certificates, by topic.
pub async fn certs(tx: &mut Tx) -> Result<Vec<Cert>> {
    let certs = run!(tx, c => sqlx::query_as(
        "SELECT topic, certificate, chain, key_sealed, not_after, uploaded_at, stopped_at, stopped_why
         FROM push_cert ORDER BY topic")
        .fetch_all(c).await)?;
    Ok(certs)
}

/// Stores a push certificate, in place of the one with the same topic; a stopped topic goes on, and pushes that
/// waited for the certificate are due at its `uploaded_at`.
pub async fn put_cert(tx: &mut Tx, cert: &Cert) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO push_cert (topic, certificate, chain, key_sealed, not_after, uploaded_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (topic) DO UPDATE SET certificate = excluded.certificate, chain = excluded.chain,
            key_sealed = excluded.key_sealed, not_after = excluded.not_after, uploaded_at = excluded.uploaded_at,
            stopped_at = NULL, stopped_why = NULL")
        .bind(&cert.topic)
        .bind(&cert.certificate)
        .bind(&cert.chain)
        .bind(&cert.key_sealed)
        .bind(cert.not_after)
        .bind(cert.uploaded_at)
        .execute(c).await.map(drop))?;
    run!(tx, c => sqlx::query(
        "UPDATE push_intent SET due_at = $2, not_before = 0, version = version + 1
         WHERE last_outcome IN ('held', 'rejected') AND due_at > $2
           AND enrollment_id IN (SELECT id FROM enrollment WHERE topic = $1)")
        .bind(&cert.topic).bind(cert.uploaded_at).execute(c).await.map(drop))?;
    Ok(())
}

/// APNs refused the certificate of `topic` that was uploaded at `uploaded_at`. False, and nothing is written, if
/// another has taken its place.
pub async fn stop_topic(tx: &mut Tx, topic: &str, uploaded_at: i64, why: &str, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE push_cert SET stopped_at = $3, stopped_why = $4 WHERE topic = $1 AND uploaded_at = $2")
        .bind(topic).bind(uploaded_at).bind(now.0).bind(why)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// APNs took a push with the certificate of `topic` that was uploaded at `uploaded_at`: the topic goes on.
pub async fn resume_topic(tx: &mut Tx, topic: &str, uploaded_at: i64) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE push_cert SET stopped_at = NULL, stopped_why = NULL
         WHERE topic = $1 AND uploaded_at = $2 AND stopped_at IS NOT NULL")
        .bind(topic).bind(uploaded_at).execute(c).await.map(drop))?;
    Ok(())
}
