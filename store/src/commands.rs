//! Rows of `command` and `command_target`: a body once, and a row with a state for each target.
//!
//! A target is *outstanding* while its state is `queued`, `sent` or `not_now`; the partial index on those rows is the
//! queue, so finished commands cost the hot path nothing.

use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::{IdSet, over_ids};
use crate::{Dialect, Result, Tx};

/// A row of `command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// `CommandUUID`.
    pub uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// `plain`, or how the body is made at delivery (`acme`).
    pub rendering: String,
    /// The body or the parameters of its rendering, sealed.
    pub body_sealed: Vec<u8>,
    /// SHA-256 of the body before sealing.
    pub body_sha256: Vec<u8>,
    /// 0 urgent, 1 normal.
    pub lane: i64,
    /// Queued commands with the same key on the same enrollment replace one another.
    pub coalescing_key: Option<String>,
    /// When targets that are still outstanding expire (ms).
    pub expires_at: Option<i64>,
    /// Who enqueued it.
    pub created_by: String,
    /// When (ms).
    pub created_at: i64,
}

from_row!(Command {
    uuid,
    request_type,
    rendering,
    body_sealed,
    body_sha256,
    lane,
    coalescing_key,
    expires_at,
    created_by,
    created_at,
});

macro_rules! command_columns {
    () => {
        "uuid, request_type, rendering, body_sealed, body_sha256, lane, coalescing_key, expires_at, created_by, created_at"
    };
}

/// The command with this UUID.
pub async fn get(tx: &mut Tx, uuid: &CommandUuid) -> Result<Option<Command>> {
    const GET: &str = concat!("SELECT ", command_columns!(), " FROM command WHERE uuid = $1");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(uuid.as_str()).fetch_optional(c).await)?)
}

/// Stores a command's body once; `false` when the UUID is taken already.
pub async fn insert(tx: &mut Tx, command: &Command) -> Result<bool> {
    const INSERT: &str = concat!(
        "INSERT INTO command (",
        command_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (uuid) DO NOTHING"
    );
    let rows = run!(tx, c => sqlx::query(INSERT).bind(&command.uuid).bind(&command.request_type).bind(&command.rendering)
        .bind(&command.body_sealed).bind(&command.body_sha256).bind(command.lane).bind(&command.coalescing_key)
        .bind(command.expires_at).bind(&command.created_by).bind(command.created_at)
        .execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// What stands in the way of a target, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The enrollment.
    pub id: Uuid,
    /// Its state, as text.
    pub state: String,
    /// Whether the command has it as a target already.
    pub present: bool,
}

from_row!(Candidate { id, state, present });

/// Locks these enrollments, in one order so that two bulk enqueues cannot deadlock, and tells which may be targets.
pub async fn lock_candidates(tx: &mut Tx, ids: &IdSet, uuid: &CommandUuid) -> Result<Vec<Candidate>> {
    let sql = over_ids!(
        tx,
        "SELECT e.id, e.state, EXISTS (SELECT 1 FROM command_target t WHERE t.enrollment_id = e.id AND t.command_uuid = $2) \
         AS present FROM enrollment e WHERE e.id IN (",
        ") ORDER BY e.id",
        ") ORDER BY e.id FOR NO KEY UPDATE OF e"
    );
    Ok(run!(tx, c => sqlx::query_as(sql).bind(ids.as_json()).bind(uuid.as_str()).fetch_all(c).await)?)
}

/// Cancels what is queued under the same coalescing key and not sent yet.
pub async fn supersede(tx: &mut Tx, ids: &IdSet, key: &str, by: &CommandUuid, now: Timestamp) -> Result<u64> {
    let sql = over_ids!(
        tx,
        "UPDATE command_target SET state = 'cancelled', why = 'superseded', finished_at = $4 \
         WHERE state = 'queued' AND coalescing_key = $2 AND command_uuid <> $3 AND enrollment_id IN (",
        ")"
    );
    Ok(run!(tx, c => sqlx::query(sql).bind(ids.as_json()).bind(key).bind(by.as_str()).bind(now.0)
        .execute(c).await.map(|r| r.rows_affected()))?)
}

/// Adds a target row for each of these enrollments, in the order of commit (`next_seq`), and raises their counters.
pub async fn insert_targets(tx: &mut Tx, ids: &IdSet, command: &Command, now: Timestamp) -> Result<u64> {
    let insert = over_ids!(
        tx,
        "INSERT INTO command_target (enrollment_id, seq, command_uuid, lane, state, queued_at, expires_at, coalescing_key) \
         SELECT e.id, e.next_seq, $2, $3, 'queued', $4, $5, $6 FROM enrollment e WHERE e.id IN (",
        ")",
        ") ORDER BY e.id"
    );
    let raise = over_ids!(tx, "UPDATE enrollment SET next_seq = next_seq + 1 WHERE id IN (", ")");
    let rows = run!(tx, c => {
        let done = sqlx::query(insert).bind(ids.as_json()).bind(&command.uuid).bind(command.lane).bind(now.0)
            .bind(command.expires_at).bind(&command.coalescing_key).execute(&mut *c).await.map(|r| r.rows_affected());
        match done {
            Ok(rows) => sqlx::query(raise).bind(ids.as_json()).execute(c).await.map(|_| rows),
            Err(e) => Err(e),
        }
    })?;
    Ok(rows)
}

/// The outstanding target that could be handed out, with what decides whether it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// Order within the enrollment.
    pub seq: i64,
    /// `CommandUUID`.
    pub command_uuid: String,
    /// 0 urgent, 1 normal.
    pub lane: i64,
    /// `queued`, `sent` or `not_now`.
    pub state: String,
    /// How often it was handed out without any report since.
    pub deliveries: i64,
    /// When it was first handed out (ms).
    pub first_sent_at: Option<i64>,
    /// The session in which it was answered `NotNow`.
    pub not_now_session: Option<i64>,
}

from_row!(Outstanding { seq, command_uuid, lane, state, deliveries, first_sent_at, not_now_session });

/// SQL of [`outstanding`], public so that a test can read its query plan.
pub const OUTSTANDING: &str = "SELECT seq, command_uuid, lane, state, deliveries, first_sent_at, not_now_session FROM command_target \
    WHERE enrollment_id = $1 AND state IN ('queued', 'sent', 'not_now') AND (expires_at IS NULL OR expires_at > $2) \
    ORDER BY lane, seq LIMIT $3";

/// The first `limit` outstanding targets of an enrollment that have not expired, urgent ones first, then in order of commit.
pub async fn outstanding(tx: &mut Tx, id: EnrollmentId, now: Timestamp, limit: i64) -> Result<Vec<Outstanding>> {
    Ok(run!(tx, c => sqlx::query_as(OUTSTANDING).bind(id.0).bind(now.0).bind(limit).fetch_all(c).await)?)
}

/// An outstanding command of one enrollment among many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// `CommandUUID`.
    pub command_uuid: String,
    /// Queued commands with the same key on the same enrollment replace one another.
    pub coalescing_key: Option<String>,
    /// When it was first handed out (ms).
    pub first_sent_at: Option<i64>,
}

from_row!(Waiting { enrollment_id, command_uuid, coalescing_key, first_sent_at });

/// What one part of the server has outstanding on these enrollments, in no order.
pub async fn outstanding_by(tx: &mut Tx, ids: &IdSet, created_by: &str) -> Result<Vec<Waiting>> {
    let sql = over_ids!(
        tx,
        "SELECT t.enrollment_id, t.command_uuid, t.coalescing_key, t.first_sent_at FROM command_target t JOIN command c ON c.uuid = t.command_uuid
          WHERE c.created_by = $2 AND t.state IN ('queued', 'sent', 'not_now') AND t.enrollment_id IN (",
        ")"
    );
    Ok(run!(tx, c => sqlx::query_as(sql).bind(ids.as_json()).bind(created_by).fetch_all(c).await)?)
}

/// The first outstanding target with its content, which in most sessions is the one to hand out.
#[derive(Debug)]
pub struct First {
    /// What decides whether it is handed out.
    pub waiting: Outstanding,
    /// What it is to be sent.
    pub content: Content,
}

macro_rules! first_from_row {
    ($($row:ty),+) => {
        $(impl<'r> sqlx::FromRow<'r, $row> for First {
            fn from_row(row: &'r $row) -> std::result::Result<Self, sqlx::Error> {
                Ok(Self { waiting: Outstanding::from_row(row)?, content: Content::from_row(row)? })
            }
        })+
    };
}
first_from_row!(sqlx::sqlite::SqliteRow, sqlx::postgres::PgRow);

/// SQL of [`first`], public so that a test can read its query plan.
pub const FIRST: &str = "SELECT t.seq, t.command_uuid, t.lane, t.state, t.deliveries, t.first_sent_at, t.not_now_session, \
    c.request_type, c.rendering, c.body_sealed, t.rendered_sealed FROM command_target t JOIN command c ON c.uuid = t.command_uuid \
    WHERE t.enrollment_id = $1 AND t.state IN ('queued', 'sent', 'not_now') AND (t.expires_at IS NULL OR t.expires_at > $2) \
    ORDER BY t.lane, t.seq LIMIT 1";

/// The first outstanding target of an enrollment that has not expired: urgent before normal, then in order of commit.
pub async fn first(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<Option<First>> {
    Ok(run!(tx, c => sqlx::query_as(FIRST).bind(id.0).bind(now.0).fetch_optional(c).await)?)
}

/// The oldest outstanding target of an enrollment whose command is made by this rendering, expired ones aside.
pub async fn first_of(tx: &mut Tx, id: EnrollmentId, rendering: &str, now: Timestamp) -> Result<Option<First>> {
    const FIRST_OF: &str = "SELECT t.seq, t.command_uuid, t.lane, t.state, t.deliveries, t.first_sent_at, t.not_now_session, \
        c.request_type, c.rendering, c.body_sealed, t.rendered_sealed FROM command_target t JOIN command c ON c.uuid = t.command_uuid \
        WHERE t.enrollment_id = $1 AND t.state IN ('queued', 'sent', 'not_now') AND (t.expires_at IS NULL OR t.expires_at > $2) \
        AND c.rendering = $3 ORDER BY t.seq LIMIT 1";
    Ok(run!(tx, c => sqlx::query_as(FIRST_OF).bind(id.0).bind(now.0).bind(rendering).fetch_optional(c).await)?)
}

/// The present session of an enrollment: how many `Idle` reports it has sent.
pub async fn session(tx: &mut Tx, id: EnrollmentId) -> Result<i64> {
    const SESSION: &str = "SELECT session FROM enrollment WHERE id = $1";
    Ok(run!(tx, c => sqlx::query_scalar(SESSION).bind(id.0).fetch_one(c).await)?)
}

/// Begins a session and gives its number. Also takes the lock on the enrollment's row.
pub async fn begin_session(tx: &mut Tx, id: EnrollmentId) -> Result<i64> {
    const BEGIN: &str = "UPDATE enrollment SET session = session + 1 WHERE id = $1 RETURNING session";
    Ok(run!(tx, c => sqlx::query_scalar(BEGIN).bind(id.0).fetch_one(c).await)?)
}

/// A command's content, to be handed out: the sealed bytes and what they are.
#[derive(Debug)]
pub struct Content {
    /// `RequestType`.
    pub request_type: String,
    /// `plain`, or how the body is made at delivery (`acme`).
    pub rendering: String,
    /// The body or its parameters, sealed.
    pub body_sealed: Vec<u8>,
    /// The very bytes of an earlier delivery, sealed, which a repeat must be equal to.
    pub rendered_sealed: Option<Vec<u8>>,
}

from_row!(Content { request_type, rendering, body_sealed, rendered_sealed });

/// What a target is to be sent.
pub async fn content(tx: &mut Tx, id: EnrollmentId, seq: i64) -> Result<Option<Content>> {
    const CONTENT: &str = "SELECT c.request_type, c.rendering, c.body_sealed, t.rendered_sealed FROM command_target t \
                           JOIN command c ON c.uuid = t.command_uuid WHERE t.enrollment_id = $1 AND t.seq = $2";
    Ok(run!(tx, c => sqlx::query_as(CONTENT).bind(id.0).bind(seq).fetch_optional(c).await)?)
}

/// Notes a delivery. Any other target that was sent and not answered goes back to `queued`, so that one is in progress at most (RG-03).
pub async fn sent(
    tx: &mut Tx,
    id: EnrollmentId,
    seq: i64,
    others_sent: bool,
    rendered_sealed: Option<&[u8]>,
    now: Timestamp,
) -> Result<()> {
    const BACK: &str =
        "UPDATE command_target SET state = 'queued' WHERE enrollment_id = $1 AND state = 'sent' AND seq <> $2";
    const SENT: &str = "UPDATE command_target SET state = 'sent', sent_at = $3, first_sent_at = COALESCE(first_sent_at, $3), \
        deliveries = deliveries + 1, rendered_sealed = COALESCE($4, rendered_sealed) WHERE enrollment_id = $1 AND seq = $2";
    if others_sent {
        run!(tx, c => sqlx::query(BACK).bind(id.0).bind(seq).execute(c).await.map(|_| ()))?;
    }
    run!(tx, c => sqlx::query(SENT).bind(id.0).bind(seq).bind(now.0).bind(rendered_sealed).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// A final report, as it is stored.
#[derive(Debug)]
pub struct Final<'a> {
    /// `acknowledged`, `error` or `command_format_error`.
    pub state: &'a str,
    /// `ErrorChain` as JSON.
    pub error_chain: Option<&'a str>,
    /// The report as received, sealed.
    pub result_sealed: &'a [u8],
}

/// SQL of [`finish`], public so that a test can read its query plan.
pub const FINISH: &str = "UPDATE command_target SET state = $3, finished_at = $4, error_chain = $5, result_sealed = $6, \
    rendered_sealed = NULL WHERE enrollment_id = $1 AND command_uuid = $2 AND state IN ('queued', 'sent', 'not_now', 'stalled') \
    RETURNING (SELECT c.request_type FROM command c WHERE c.uuid = command_uuid) AS request_type, \
    (SELECT c.created_by FROM command c WHERE c.uuid = command_uuid) AS created_by";

/// Ends an outstanding (or stalled) target by a report, and tells what the command was; `None` when it is not ours to end:
/// unknown, or ended already (RG-04, RG-05).
pub async fn finish(
    tx: &mut Tx,
    id: EnrollmentId,
    uuid: &CommandUuid,
    by: &Final<'_>,
    now: Timestamp,
) -> Result<Option<Kind>> {
    Ok(run!(tx, c => sqlx::query_as(FINISH).bind(id.0).bind(uuid.as_str()).bind(by.state).bind(now.0)
        .bind(by.error_chain).bind(by.result_sealed).fetch_optional(c).await)?)
}

/// Notes `NotNow` of an outstanding target; `false` when it is none.
pub async fn not_now(tx: &mut Tx, id: EnrollmentId, uuid: &CommandUuid, session: i64, now: Timestamp) -> Result<bool> {
    const NOT_NOW: &str = "UPDATE command_target SET state = 'not_now', not_now_at = $3, not_now_times = not_now_times + 1, \
        not_now_session = $4, deliveries = 0 WHERE enrollment_id = $1 AND command_uuid = $2 \
        AND state IN ('queued', 'sent', 'not_now')";
    let rows = run!(tx, c => sqlx::query(NOT_NOW).bind(id.0).bind(uuid.as_str()).bind(now.0).bind(session)
        .execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Counts a report that changes nothing, where its command is known for this enrollment.
pub async fn extra_report(tx: &mut Tx, id: EnrollmentId, uuid: &CommandUuid) -> Result<bool> {
    const EXTRA: &str =
        "UPDATE command_target SET extra_reports = extra_reports + 1 WHERE enrollment_id = $1 AND command_uuid = $2";
    let rows =
        run!(tx, c => sqlx::query(EXTRA).bind(id.0).bind(uuid.as_str()).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Ends an outstanding target without the device: `cancelled`, `expired`, `stalled` or `refused`, and why.
pub async fn end(tx: &mut Tx, id: EnrollmentId, seq: i64, state: &str, why: &str, now: Timestamp) -> Result<bool> {
    const END: &str = "UPDATE command_target SET state = $3, why = $4, finished_at = $5, rendered_sealed = NULL \
        WHERE enrollment_id = $1 AND seq = $2 AND state IN ('queued', 'sent', 'not_now')";
    let rows = run!(tx, c => sqlx::query(END).bind(id.0).bind(seq).bind(state).bind(why).bind(now.0)
        .execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Cancels one command on those of these enrollments on which it is outstanding; how many there were.
pub async fn cancel_many(tx: &mut Tx, ids: &IdSet, uuid: &CommandUuid, why: &str, now: Timestamp) -> Result<u64> {
    let sql = over_ids!(
        tx,
        "UPDATE command_target SET state = 'cancelled', why = $3, finished_at = $4, rendered_sealed = NULL
          WHERE command_uuid = $2 AND state IN ('queued', 'sent', 'not_now') AND enrollment_id IN (",
        ")"
    );
    Ok(run!(tx, c => sqlx::query(sql).bind(ids.as_json()).bind(uuid.as_str()).bind(why).bind(now.0)
        .execute(c).await.map(|r| r.rows_affected()))?)
}

/// Counts one more unreadable answer on the target that is in progress, and gives it with the count.
pub async fn unreadable(tx: &mut Tx, id: EnrollmentId) -> Result<Option<(i64, i64)>> {
    const COUNT: &str = "UPDATE command_target SET extra_reports = extra_reports + 1 WHERE enrollment_id = $1 AND state = 'sent' \
        RETURNING seq, extra_reports";
    Ok(run!(tx, c => sqlx::query_as(COUNT).bind(id.0).fetch_optional(c).await)?)
}

/// Cancels everything outstanding on an enrollment (RG-09).
pub async fn clear(tx: &mut Tx, id: EnrollmentId, why: &str, now: Timestamp) -> Result<u64> {
    const CLEAR: &str = "UPDATE command_target SET state = 'cancelled', why = $2, finished_at = $3, rendered_sealed = NULL \
        WHERE enrollment_id = $1 AND state IN ('queued', 'sent', 'not_now')";
    Ok(run!(tx, c => sqlx::query(CLEAR).bind(id.0).bind(why).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?)
}

/// Ends up to `limit` outstanding targets whose time is over.
pub async fn expire(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<u64> {
    const EXPIRE_SQLITE: &str = "UPDATE command_target SET state = 'expired', finished_at = $1, rendered_sealed = NULL \
        WHERE (enrollment_id, seq) IN (SELECT enrollment_id, seq FROM command_target WHERE state IN ('queued', 'sent', 'not_now') \
        AND expires_at IS NOT NULL AND expires_at <= $1 LIMIT $2) AND state IN ('queued', 'sent', 'not_now')";
    const EXPIRE_POSTGRES: &str = "UPDATE command_target SET state = 'expired', finished_at = $1, rendered_sealed = NULL \
        WHERE (enrollment_id, seq) IN (SELECT enrollment_id, seq FROM command_target WHERE state IN ('queued', 'sent', 'not_now') \
        AND expires_at IS NOT NULL AND expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED) AND state IN ('queued', 'sent', 'not_now')";
    let sql = match tx.dialect() {
        Dialect::Sqlite => EXPIRE_SQLITE,
        Dialect::Postgres => EXPIRE_POSTGRES,
    };
    Ok(run!(tx, c => sqlx::query(sql).bind(now.0).bind(limit).execute(c).await.map(|r| r.rows_affected()))?)
}

/// A target with everything the API shows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// Order within the enrollment.
    pub seq: i64,
    /// `CommandUUID`.
    pub command_uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// 0 urgent, 1 normal.
    pub lane: i64,
    /// Its state.
    pub state: String,
    /// Why it was cancelled, refused or stalled.
    pub why: Option<String>,
    /// When it was queued (ms).
    pub queued_at: i64,
    /// When it was first handed out (ms).
    pub first_sent_at: Option<i64>,
    /// When it was last handed out (ms).
    pub sent_at: Option<i64>,
    /// Deliveries since the last report.
    pub deliveries: i64,
    /// When it was last answered `NotNow` (ms).
    pub not_now_at: Option<i64>,
    /// How often it was answered `NotNow`.
    pub not_now_times: i64,
    /// When it ended (ms).
    pub finished_at: Option<i64>,
    /// `ErrorChain` as JSON.
    pub error_chain: Option<String>,
    /// The final report as received, sealed.
    pub result_sealed: Option<Vec<u8>>,
    /// Reports that changed nothing.
    pub extra_reports: i64,
    /// When it expires (ms).
    pub expires_at: Option<i64>,
}

from_row!(Target {
    enrollment_id,
    seq,
    command_uuid,
    request_type,
    lane,
    state,
    why,
    queued_at,
    first_sent_at,
    sent_at,
    deliveries,
    not_now_at,
    not_now_times,
    finished_at,
    error_chain,
    result_sealed,
    extra_reports,
    expires_at,
});

macro_rules! target_columns {
    () => {
        "t.enrollment_id, t.seq, t.command_uuid, c.request_type, t.lane, t.state, t.why, t.queued_at, t.first_sent_at, t.sent_at, \
         t.deliveries, t.not_now_at, t.not_now_times, t.finished_at, t.error_chain, t.result_sealed, t.extra_reports, t.expires_at"
    };
}

/// One target.
pub async fn target(tx: &mut Tx, id: EnrollmentId, uuid: &CommandUuid) -> Result<Option<Target>> {
    const GET: &str = concat!(
        "SELECT ",
        target_columns!(),
        " FROM command_target t JOIN command c ON c.uuid = t.command_uuid \
         WHERE t.enrollment_id = $1 AND t.command_uuid = $2"
    );
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id.0).bind(uuid.as_str()).fetch_optional(c).await)?)
}

/// The targets of a command, by enrollment, after the enrollment `after`.
pub async fn targets_of_command(
    tx: &mut Tx,
    uuid: &CommandUuid,
    after: Option<EnrollmentId>,
    limit: i64,
) -> Result<Vec<Target>> {
    const LIST: &str = concat!(
        "SELECT ",
        target_columns!(),
        " FROM command_target t JOIN command c ON c.uuid = t.command_uuid \
         WHERE t.command_uuid = $1 AND t.enrollment_id > $2 ORDER BY t.enrollment_id LIMIT $3"
    );
    let after = after.map_or(Uuid::nil(), |id| id.0);
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(uuid.as_str()).bind(after).bind(limit).fetch_all(c).await)?)
}

/// The targets of an enrollment, newest first, before the sequence number `before`.
pub async fn targets_of_enrollment(
    tx: &mut Tx,
    id: EnrollmentId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Target>> {
    const LIST: &str = concat!(
        "SELECT ",
        target_columns!(),
        " FROM command_target t JOIN command c ON c.uuid = t.command_uuid \
         WHERE t.enrollment_id = $1 AND t.seq < $2 ORDER BY t.seq DESC LIMIT $3"
    );
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(id.0).bind(before.unwrap_or(i64::MAX)).bind(limit).fetch_all(c).await)?)
}

/// What a command is, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// `RequestType`.
    pub request_type: String,
    /// Who enqueued it.
    pub created_by: String,
}

from_row!(Kind { request_type, created_by });

/// What the command with this UUID is.
pub async fn kind(tx: &mut Tx, uuid: &CommandUuid) -> Result<Option<Kind>> {
    const KIND: &str = "SELECT request_type, created_by FROM command WHERE uuid = $1";
    Ok(run!(tx, c => sqlx::query_as(KIND).bind(uuid.as_str()).fetch_optional(c).await)?)
}
