//! Rows of `assignment`: one policy on one enrollment, with its state.

use mdm_core::ids::{AssignmentId, CommandUuid, EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

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
    /// `assigned`, `awaiting_facts`, `blocked`, `installing`, `installed`, `failed` or `removing`.
    pub state: String,
    /// Reason code of the decision.
    pub reason: Option<String>,
    /// JSON: the decision as explained.
    pub decision: Option<String>,
    /// The command that the state waits for.
    pub command_uuid: Option<String>,
    /// Failures since the last success.
    pub attempts: i64,
    /// Value of `{random}`: secret until it is used.
    pub random: String,
    /// The profile may be on the device.
    pub profile_sent: bool,
    /// When the reconcile loop should look (ms); none: nothing to do.
    pub due_at: Option<i64>,
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
    random,
    profile_sent,
    due_at,
    created_at,
    updated_at,
});

// `random` can be a one-time ClientIdentifier.
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
            "SELECT id, policy_id, enrollment_id, revision, state, reason, decision, command_uuid, attempts, random,
                    profile_sent, due_at, created_at, updated_at FROM assignment ",
            $rest
        )
    };
}

/// An assignment to be made.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// Our key.
    pub id: AssignmentId,
    /// The policy.
    pub policy: PolicyId,
    /// The enrollment.
    pub enrollment: EnrollmentId,
    /// Value of `{random}`.
    pub random: &'a str,
}

/// Makes an assignment that is due now; false where the policy is on the enrollment already.
pub async fn insert(tx: &mut Tx, new: &New<'_>, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO assignment (id, policy_id, enrollment_id, revision, state, random, due_at, created_at, updated_at)
         VALUES ($1, $2, $3, 0, 'assigned', $4, $5, $5, $5) ON CONFLICT (policy_id, enrollment_id) DO NOTHING")
        .bind(new.id.0).bind(new.policy.0).bind(new.enrollment.0).bind(new.random).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
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

/// The enrollments that a policy is on.
pub async fn enrollments_of(tx: &mut Tx, policy: PolicyId) -> Result<Vec<EnrollmentId>> {
    let ids: Vec<Uuid> = run!(tx, c => sqlx::query_scalar("SELECT enrollment_id FROM assignment WHERE policy_id = $1")
        .bind(policy.0).fetch_all(c).await)?;
    Ok(ids.into_iter().map(EnrollmentId).collect())
}

/// The assignment on this enrollment that waits for this command.
pub async fn by_command(tx: &mut Tx, enrollment: EnrollmentId, command: &CommandUuid) -> Result<Option<Assignment>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE command_uuid = $1 AND enrollment_id = $2"))
        .bind(command.as_str()).bind(enrollment.0).fetch_optional(c).await)?)
}

/// Writes everything of an assignment that can change; a lease on it ends.
pub async fn save(tx: &mut Tx, a: &Assignment, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE assignment SET revision = $2, state = $3, reason = $4, decision = $5, command_uuid = $6, attempts = $7,
                random = $8, profile_sent = $9, due_at = $10, updated_at = $11, leased_until = 0, lease = NULL
          WHERE id = $1")
        .bind(a.id).bind(a.revision).bind(&a.state).bind(&a.reason).bind(&a.decision).bind(&a.command_uuid)
        .bind(a.attempts).bind(&a.random).bind(a.profile_sent).bind(a.due_at).bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Deletes an assignment.
pub async fn delete(tx: &mut Tx, id: AssignmentId) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM assignment WHERE id = $1").bind(id.0).execute(c).await.map(drop))?;
    Ok(())
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

/// Makes those assignments of a policy due whose profile is being removed.
pub async fn due_removing(tx: &mut Tx, policy: PolicyId, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query("UPDATE assignment SET due_at = $2 WHERE policy_id = $1 AND state = 'removing'")
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

/// The state of the command that an assignment waits for, as `command_target` has it; none where there is no such row.
pub async fn command_state(tx: &mut Tx, enrollment: EnrollmentId, command: &str) -> Result<Option<String>> {
    Ok(
        run!(tx, c => sqlx::query_scalar("SELECT state FROM command_target WHERE enrollment_id = $1 AND command_uuid = $2")
        .bind(enrollment.0).bind(command).fetch_optional(c).await)?,
    )
}
