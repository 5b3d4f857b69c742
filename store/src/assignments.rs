//! Rows of `assignment`: one policy on one enrollment, with its state.

use mdm_core::ids::{AssignmentId, CommandUuid, EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::{IdSet, over_ids};
use crate::{Dialect, Error, Result, Tx};

/// One policy on one enrollment.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Our key.
    pub id: Uuid,
    /// The policy.
    pub policy_id: Uuid,
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The revision that the state speaks of; 0 before anything was decided.
    pub revision: i64,
    /// `assigned`, `held`, `awaiting_facts`, `blocked`, `installing`, `installed`, `verified`, `failed` or `removing`.
    pub state: String,
    /// Reason code of the decision.
    pub reason: Option<String>,
    /// JSON: the decision as explained.
    pub decision: Option<String>,
    /// The command that the state waits for.
    pub command_uuid: Option<String>,
    /// Failures since the last success.
    pub attempts: i64,
    /// The profile may be on the device.
    pub profile_sent: bool,
    /// When the reconcile loop should look (ms); none: nothing to do.
    pub due_at: Option<i64>,
    /// The step of a rollout that admits it, from 0.
    pub ring: i64,
    /// Apple's row for its chip, as decided last: `supported`, `ignored`, `must_be_false` or `unknown`.
    pub silicon: Option<String>,
    /// The attempt that is under way or was the last: the trace id.
    pub attempt_id: Option<Uuid>,
    /// SHA-256 of the certificate that was proved last. It stands until its successor is seen.
    pub certificate_sha256: Option<Vec<u8>>,
    /// When that certificate ends (ms).
    pub not_after: Option<i64>,
    /// When that certificate is renewed (ms); none once another profile was handed out: it may be gone.
    pub renew_at: Option<i64>,
    /// The revision that it is of.
    pub certificate_revision: Option<i64>,
    /// JSON: the form that it was asked for in.
    pub certificate_form: Option<String>,
    /// How often the certificate was looked for in vain since the device acknowledged the profile.
    pub proof_tries: i64,
    /// When it was made (ms).
    pub created_at: i64,
    /// When it last changed (ms).
    pub updated_at: i64,
}

from_row!(Assignment {
    id,
    policy_id,
    enrollment_id,
    revision,
    state,
    reason,
    decision,
    command_uuid,
    attempts,
    profile_sent,
    due_at,
    ring,
    silicon,
    attempt_id,
    certificate_sha256,
    not_after,
    renew_at,
    certificate_revision,
    certificate_form,
    proof_tries,
    created_at,
    updated_at,
});

// The decision names the device.
impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assignment")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("revision", &self.revision)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, policy_id, enrollment_id, revision, state, reason, decision, command_uuid, attempts,
                    profile_sent, due_at, ring, silicon, attempt_id, certificate_sha256, not_after, renew_at,
                    certificate_revision, certificate_form, proof_tries, created_at, updated_at FROM assignment ",
            $rest
        )
    };
}

/// An assignment to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct New {
    /// Our key.
    pub id: AssignmentId,
    /// The policy.
    pub policy: PolicyId,
    /// The enrollment.
    pub enrollment: EnrollmentId,
    /// The step of a rollout that admits it, from 0.
    pub ring: i64,
}

/// Makes assignments that are due at `now`, in one statement; how many are new. Where the policy is on the enrollment already, it
/// stays as it is.
pub async fn insert_many(tx: &mut Tx, new: &[New], now: Timestamp) -> Result<u64> {
    // What stands before `ON CONFLICT` must be more than a table, or SQLite takes it for a join.
    const INTO: &str = "INSERT INTO assignment (id, policy_id, enrollment_id, revision, state, random, ring, due_at, created_at, updated_at)
         SELECT id, policy, enrollment, 0, 'assigned', '', ring, $2, $2, $2 FROM ";
    const SQLITE: &str = "(SELECT unhex(value ->> 'id') AS id, unhex(value ->> 'policy') AS policy,
             unhex(value ->> 'enrollment') AS enrollment, value ->> 'ring' AS ring FROM json_each($1)) AS x WHERE TRUE";
    const POSTGRES: &str =
        "jsonb_to_recordset($1::text::jsonb) AS x (id uuid, policy uuid, enrollment uuid, ring bigint) WHERE TRUE";
    let hex = |id: Uuid| id.simple().to_string();
    let rows: Vec<_> = new
        .iter()
        .map(|n| serde_json::json!({"id": hex(n.id.0), "policy": hex(n.policy.0), "enrollment": hex(n.enrollment.0), "ring": n.ring}))
        .collect();
    let rows = serde_json::to_string(&rows).map_err(|_| Error::Corrupt("assignment"))?;
    let from = match tx.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let sql = sqlx::AssertSqlSafe(format!("{INTO}{from} ON CONFLICT (policy_id, enrollment_id) DO NOTHING"));
    Ok(run!(tx, c => sqlx::query(sql).bind(&rows).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// The assignment with this key.
pub async fn get(tx: &mut Tx, id: AssignmentId) -> Result<Option<Assignment>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE id = $1")).bind(id.0).fetch_optional(c).await)?)
}

/// This policy's assignment on this enrollment.
pub async fn find(tx: &mut Tx, policy: PolicyId, enrollment: EnrollmentId) -> Result<Option<Assignment>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE policy_id = $1 AND enrollment_id = $2"))
        .bind(policy.0).bind(enrollment.0).fetch_optional(c).await)?)
}

/// The assignments of one enrollment, oldest first.
pub async fn of_enrollment(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Vec<Assignment>> {
    Ok(
        run!(tx, c => sqlx::query_as(select!("WHERE enrollment_id = $1 ORDER BY id")).bind(enrollment.0).fetch_all(c).await)?,
    )
}

/// The assignments of one policy, oldest first, from the one after `after`.
pub async fn of_policy(
    tx: &mut Tx,
    policy: PolicyId,
    after: Option<AssignmentId>,
    limit: i64,
) -> Result<Vec<Assignment>> {
    let after = after.map_or(Uuid::nil(), |id| id.0);
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE policy_id = $1 AND id > $2 ORDER BY id LIMIT $3"))
        .bind(policy.0).bind(after).bind(limit).fetch_all(c).await)?)
}

/// The assignments of one policy in one state, or for one reason, oldest first, from the one after `after`.
pub async fn some_of_policy(
    tx: &mut Tx,
    policy: PolicyId,
    state: Option<&str>,
    reason: Option<&str>,
    after: Option<AssignmentId>,
    limit: i64,
) -> Result<Vec<Assignment>> {
    let after = after.map_or(Uuid::nil(), |id| id.0);
    // '' stands for any, so that one text serves every mix.
    Ok(run!(tx, c => sqlx::query_as(select!(
        "WHERE policy_id = $1 AND id > $2 AND ($3 = '' OR state = $3) AND ($4 = '' OR reason = $4) ORDER BY id LIMIT $5"))
        .bind(policy.0).bind(after).bind(state.unwrap_or_default()).bind(reason.unwrap_or_default()).bind(limit)
        .fetch_all(c).await)?)
}

/// The assignment on this enrollment that waits for this command.
pub async fn by_command(tx: &mut Tx, enrollment: EnrollmentId, command: &CommandUuid) -> Result<Option<Assignment>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE command_uuid = $1 AND enrollment_id = $2"))
        .bind(command.as_str()).bind(enrollment.0).fetch_optional(c).await)?)
}

/// Writes everything of an assignment that can change, but its ring; a lease on it ends.
pub async fn save(tx: &mut Tx, a: &Assignment, now: Timestamp) -> Result<()> {
    save_many(tx, std::slice::from_ref(a), now).await
}

/// [`save`] for many, in one statement.
pub async fn save_many(tx: &mut Tx, all: &[Assignment], now: Timestamp) -> Result<()> {
    const SET: &str = "UPDATE assignment SET revision = x.revision, state = x.state, reason = x.reason, decision = x.decision,
                command_uuid = x.command, attempts = x.attempts, random = '', profile_sent = x.sent, due_at = x.due_at,
                silicon = x.silicon, attempt_id = x.attempt, certificate_sha256 = x.certificate, not_after = x.not_after,
                renew_at = x.renew_at, certificate_revision = x.certificate_revision, certificate_form = x.certificate_form,
                proof_tries = x.proof_tries, updated_at = $2, leased_until = 0, lease = NULL FROM ";
    const SQLITE: &str = "(SELECT unhex(value ->> 'id') AS id, value ->> 'revision' AS revision, value ->> 'state' AS state,
             value ->> 'reason' AS reason, value ->> 'decision' AS decision, value ->> 'command' AS command,
             value ->> 'attempts' AS attempts, value ->> 'sent' AS sent, value ->> 'due_at' AS due_at,
             value ->> 'silicon' AS silicon, unhex(value ->> 'attempt') AS attempt,
             unhex(value ->> 'certificate') AS certificate, value ->> 'not_after' AS not_after,
             value ->> 'renew_at' AS renew_at, value ->> 'certificate_revision' AS certificate_revision,
             value ->> 'certificate_form' AS certificate_form, value ->> 'proof_tries' AS proof_tries FROM json_each($1)) AS x";
    const POSTGRES: &str = "(SELECT id, revision, state, reason, decision, command, attempts, sent, due_at, silicon, attempt,
             decode(certificate, 'hex') AS certificate, not_after, renew_at, certificate_revision, certificate_form, proof_tries
             FROM jsonb_to_recordset($1::text::jsonb) AS r (id uuid, revision bigint, state text, reason text, decision text,
                  command text, attempts bigint, sent boolean, due_at bigint, silicon text, attempt uuid, certificate text,
                  not_after bigint, renew_at bigint, certificate_revision bigint, certificate_form text,
                  proof_tries bigint)) AS x";
    let rows: Vec<_> = all
        .iter()
        .map(|a| {
            serde_json::json!({
                "id": a.id.simple().to_string(),
                "revision": a.revision,
                "state": a.state,
                "reason": a.reason,
                "decision": a.decision,
                "command": a.command_uuid,
                "attempts": a.attempts,
                "sent": a.profile_sent,
                "due_at": a.due_at,
                "silicon": a.silicon,
                "attempt": a.attempt_id.map(|id| id.simple().to_string()),
                "certificate": a.certificate_sha256.as_deref().map(hex),
                "not_after": a.not_after,
                "renew_at": a.renew_at,
                "certificate_revision": a.certificate_revision,
                "certificate_form": a.certificate_form,
                "proof_tries": a.proof_tries,
            })
        })
        .collect();
    let rows = serde_json::to_string(&rows).map_err(|_| Error::Corrupt("assignment"))?;
    let from = match tx.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let sql = sqlx::AssertSqlSafe(format!("{SET}{from} WHERE assignment.id = x.id"));
    run!(tx, c => sqlx::query(sql).bind(&rows).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Deletes assignments, in one statement.
pub async fn delete_many(tx: &mut Tx, ids: &[AssignmentId]) -> Result<()> {
    let sql = over_ids!(tx, "DELETE FROM assignment WHERE id IN (", ")");
    let ids = IdSet::of(ids.iter().map(|id| id.0));
    run!(tx, c => sqlx::query(sql).bind(ids.as_json()).execute(c).await.map(drop))?;
    Ok(())
}

/// Takes the locks on the enrollments of these assignments, in one order so that two batches cannot deadlock, and reads
/// the assignments that are still there, oldest first.
pub async fn lock_many(tx: &mut Tx, enrollments: &IdSet, ids: &[AssignmentId]) -> Result<Vec<Assignment>> {
    const LOCK: &str = "SELECT 1 FROM enrollment WHERE id IN (
        SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)) ORDER BY id FOR NO KEY UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(enrollments.as_json()).execute(c).await.map(drop))?;
    }
    let sql = over_ids!(tx, select!("WHERE id IN ("), ") ORDER BY id");
    let ids = IdSet::of(ids.iter().map(|id| id.0));
    Ok(run!(tx, c => sqlx::query_as(sql).bind(ids.as_json()).fetch_all(c).await)?)
}

/// Holds the rows of these assignments until the transaction ends, and gives them as they are then, oldest first: whoever makes them
/// due or sorts them meanwhile, because their policy has changed, comes before the decision that is made now or after it, never in
/// between. On SQLite the write transaction does that. What was read before is not to be decided about.
pub async fn hold(tx: &mut Tx, all: Vec<Assignment>) -> Result<Vec<Assignment>> {
    const HOLD: &str = select!(
        "WHERE id IN (SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)) ORDER BY id FOR NO KEY UPDATE"
    );
    match tx.dialect() {
        Dialect::Sqlite => Ok(all),
        Dialect::Postgres => {
            let ids = IdSet::of(all.iter().map(|a| a.id));
            Ok(run!(tx, c => sqlx::query_as(HOLD).bind(ids.as_json()).fetch_all(c).await)?)
        }
    }
}

/// The revisions of a policy whose profile is on its way to a device, or on it with its certificate not seen yet.
pub async fn revisions_under_way(tx: &mut Tx, policy: PolicyId) -> Result<Vec<i64>> {
    Ok(run!(tx, c => sqlx::query_scalar(
        "SELECT DISTINCT revision FROM assignment WHERE policy_id = $1 AND state IN ('installing', 'installed') ORDER BY revision")
        .bind(policy.0).fetch_all(c).await)?)
}

/// Deletes the assignments of an enrollment that is over; how many there were.
pub async fn delete_of_enrollment(tx: &mut Tx, enrollment: EnrollmentId) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query("DELETE FROM assignment WHERE enrollment_id = $1")
        .bind(enrollment.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes every assignment of a policy due.
pub async fn due_policy(tx: &mut Tx, policy: PolicyId, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query("UPDATE assignment SET due_at = $2 WHERE policy_id = $1")
        .bind(policy.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes those assignments of a policy due that were given up, with a back-off that begins anew; how many there were.
pub async fn retry_given_up(tx: &mut Tx, policy: PolicyId, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE assignment SET due_at = $2, attempts = 1 WHERE policy_id = $1 AND state = 'failed' AND reason = 'given_up'")
        .bind(policy.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes one assignment due at `at`; a lease on it ends.
pub async fn due(tx: &mut Tx, id: AssignmentId, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE assignment SET due_at = $2, leased_until = 0, lease = NULL WHERE id = $1")
        .bind(id.0).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// An assignment that a loop has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// The assignment.
    pub id: Uuid,
    /// Its enrollment.
    pub enrollment_id: Uuid,
}

from_row!(Leased { id, enrollment_id });

/// Takes up to `limit` assignments that are due, until `until`: nobody else is given them before.
pub async fn lease(tx: &mut Tx, now: Timestamp, until: Timestamp, lease: Uuid, limit: i64) -> Result<Vec<Leased>> {
    let sql = format!(
        "UPDATE assignment SET leased_until = $1, lease = $2 WHERE id IN (
             SELECT id FROM assignment WHERE due_at IS NOT NULL AND due_at <= $3 AND leased_until <= $3
              ORDER BY due_at LIMIT $4{})
         RETURNING id, enrollment_id",
        tx.dialect().skip_locked()
    );
    let sql = sqlx::AssertSqlSafe(sql);
    Ok(run!(tx, c => sqlx::query_as(sql).bind(until.0).bind(lease).bind(now.0).bind(limit).fetch_all(c).await)?)
}

/// How many assignments of a policy are in one state for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub state: String,
    /// The reason code.
    pub reason: Option<String>,
    /// How many.
    pub count: i64,
}

from_row!(Count { state, reason, count });

/// The assignments of a policy, counted by state and reason.
pub async fn counts(tx: &mut Tx, policy: PolicyId) -> Result<Vec<Count>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT state, reason, COUNT(*) AS count FROM assignment WHERE policy_id = $1
          GROUP BY state, reason ORDER BY state, reason")
        .bind(policy.0).fetch_all(c).await)?)
}
