//! Rows of `rollout`: the staged delivery of one revision of a policy, and what its assignments say of it.
//!
//! `running` ⇄ `paused`, by itself or by an operator; then `done`, `rolled_back`, or `superseded` by that of a newer revision.
//! `due_at` is when the loop looks; only a running rollout has one.

use mdm_core::ids::PolicyId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::over_ids;
use crate::{Error, IdSet, Result, Tx};

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It goes on by itself.
    Running,
    /// Nothing begins before an operator resumes it.
    Paused,
    /// Every device is admitted, those to come too.
    Done,
    /// The revision was taken back.
    RolledBack,
    /// A newer revision has taken its place.
    Superseded,
}

impl State {
    /// The word in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
        }
    }

    /// Reads the word that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Running, Self::Paused, Self::Done, Self::RolledBack, Self::Superseded]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// The staged delivery of one revision of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// The policy.
    pub policy: PolicyId,
    /// The revision that is delivered.
    pub revision: i64,
    /// What those have who are not admitted yet, and what a rollback goes back to; none: nothing.
    pub from_revision: Option<i64>,
    /// JSON: the steps, their waits, the failure budget.
    pub plan: String,
    /// The step that is under way, from 0: it and those before it are admitted.
    pub step: i64,
    /// Where it stands.
    pub state: State,
    /// Why it is paused or rolled back.
    pub why: Option<String>,
    /// How many failures an operator has looked at and resumed after.
    pub forgiven: i64,
    /// When the step began.
    pub step_at: Timestamp,
    /// When the loop looks.
    pub due_at: Option<Timestamp>,
    /// Who began it.
    pub created_by: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

struct Row {
    policy_id: Uuid,
    revision: i64,
    from_revision: Option<i64>,
    plan: String,
    step: i64,
    state: String,
    why: Option<String>,
    forgiven: i64,
    step_at: i64,
    due_at: Option<i64>,
    created_by: String,
    created_at: i64,
    updated_at: i64,
}

from_row!(Row {
    policy_id,
    revision,
    from_revision,
    plan,
    step,
    state,
    why,
    forgiven,
    step_at,
    due_at,
    created_by,
    created_at,
    updated_at,
});

impl TryFrom<Row> for Rollout {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            policy: PolicyId(row.policy_id),
            revision: row.revision,
            from_revision: row.from_revision,
            plan: row.plan,
            step: row.step,
            state: State::from_text(&row.state).ok_or(Error::Corrupt("rollout.state"))?,
            why: row.why,
            forgiven: row.forgiven,
            step_at: Timestamp(row.step_at),
            due_at: row.due_at.map(Timestamp),
            created_by: row.created_by,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

macro_rules! columns {
    () => {
        "r.policy_id, r.revision, r.from_revision, r.plan, r.step, r.state, r.why, r.forgiven, r.step_at, r.due_at, \
         r.created_by, r.created_at, r.updated_at"
    };
}

/// Writes a rollout that begins; false, and nothing is written, where the revision has one already.
pub async fn insert(tx: &mut Tx, r: &Rollout) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO rollout (policy_id, revision, from_revision, plan, step, state, why, forgiven, step_at, due_at,
                created_by, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (policy_id, revision) DO NOTHING")
        .bind(r.policy.0).bind(r.revision).bind(r.from_revision).bind(&r.plan).bind(r.step).bind(r.state.as_str())
        .bind(&r.why).bind(r.forgiven).bind(r.step_at.0).bind(r.due_at.map(|at| at.0)).bind(&r.created_by)
        .bind(r.created_at.0).bind(r.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The rollout of the policy's current revision.
pub async fn current(tx: &mut Tx, policy: PolicyId) -> Result<Option<Rollout>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(concat!(
        "SELECT ", columns!(), " FROM rollout r JOIN acme_policy p ON p.id = r.policy_id AND p.revision = r.revision
          WHERE r.policy_id = $1"))
        .bind(policy.0).fetch_optional(c).await)?;
    row.map(Rollout::try_from).transpose()
}

/// The rollouts of the current revisions of these policies, as far as they have one.
pub async fn currents(tx: &mut Tx, policies: &[PolicyId]) -> Result<Vec<Rollout>> {
    let set = IdSet::of(policies.iter().map(|policy| policy.0));
    let sql = over_ids!(
        tx,
        concat!(
            "SELECT ",
            columns!(),
            " FROM rollout r JOIN acme_policy p ON p.id = r.policy_id AND p.revision = r.revision WHERE r.policy_id IN ("
        ),
        ")"
    );
    let rows: Vec<Row> = run!(tx, c => sqlx::query_as(sql).bind(set.as_json()).fetch_all(c).await)?;
    rows.into_iter().map(Rollout::try_from).collect()
}

/// The rollout of a revision.
pub async fn get(tx: &mut Tx, policy: PolicyId, revision: i64) -> Result<Option<Rollout>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(concat!(
        "SELECT ", columns!(), " FROM rollout r WHERE r.policy_id = $1 AND r.revision = $2"))
        .bind(policy.0).bind(revision).fetch_optional(c).await)?;
    row.map(Rollout::try_from).transpose()
}

/// The rollout of the newest revision that has one: what an operator looks at, rolled back or not.
pub async fn latest(tx: &mut Tx, policy: PolicyId) -> Result<Option<Rollout>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(concat!(
        "SELECT ", columns!(), " FROM rollout r WHERE r.policy_id = $1 ORDER BY r.revision DESC LIMIT 1"))
        .bind(policy.0).fetch_optional(c).await)?;
    row.map(Rollout::try_from).transpose()
}

/// Takes up to `limit` running rollouts that are due, until `until`: nobody else is given them before.
pub async fn lease(tx: &mut Tx, now: Timestamp, until: Timestamp, lease: Uuid, limit: i64) -> Result<Vec<Rollout>> {
    let sql = format!(
        "UPDATE rollout AS r SET leased_until = $1, lease = $2 WHERE (policy_id, revision) IN (
             SELECT policy_id, revision FROM rollout WHERE due_at IS NOT NULL AND due_at <= $3 AND leased_until <= $3
              ORDER BY due_at LIMIT $4{})
         RETURNING {}",
        tx.dialect().skip_locked(),
        columns!().replace("r.", "")
    );
    let sql = sqlx::AssertSqlSafe(sql);
    let rows: Vec<Row> =
        run!(tx, c => sqlx::query_as(sql).bind(until.0).bind(lease).bind(now.0).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(Rollout::try_from).collect()
}

/// Writes what can change of a rollout that was `was`; its lease ends. False, and nothing is written, where it is in another
/// state by now, or where `lease` is given and holds it no longer (RG-23).
pub async fn save(tx: &mut Tx, r: &Rollout, was: State, lease: Option<Uuid>, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE rollout SET from_revision = $3, plan = $4, step = $5, state = $6, why = $7, forgiven = $8, step_at = $9,
                due_at = $10, updated_at = $11, leased_until = 0, lease = NULL
          WHERE policy_id = $1 AND revision = $2 AND state = $12 AND ($13 IS NULL OR lease = $13)")
        .bind(r.policy.0).bind(r.revision).bind(r.from_revision).bind(&r.plan).bind(r.step).bind(r.state.as_str())
        .bind(&r.why).bind(r.forgiven).bind(r.step_at.0).bind(r.due_at.map(|at| at.0)).bind(now.0).bind(was.as_str())
        .bind(lease)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The rollouts of the policy's other revisions end, as far as they have not; how many.
pub async fn supersede(tx: &mut Tx, policy: PolicyId, by: i64, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE rollout SET state = 'superseded', due_at = NULL, leased_until = 0, lease = NULL, updated_at = $3
          WHERE policy_id = $1 AND revision <> $2 AND state IN ('running', 'paused')")
        .bind(policy.0).bind(by).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes an older revision of the policy the current one again; false where there is no such policy.
pub async fn point_back(tx: &mut Tx, policy: PolicyId, revision: i64, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE acme_policy SET revision = $2, updated_at = $3 WHERE id = $1 AND deleted_at IS NULL")
        .bind(policy.0).bind(revision).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Whether any assignment of the policy is beyond `assigned` and `held`: a revision has reached somebody, or is on its way.
pub async fn in_use(tx: &mut Tx, policy: PolicyId) -> Result<bool> {
    let one: Option<i64> = run!(tx, c => sqlx::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM assignment WHERE policy_id = $1
            AND state IN ('awaiting_facts', 'blocked', 'installing', 'installed', 'verified', 'failed', 'removing') LIMIT 1")
        .bind(policy.0).fetch_optional(c).await)?;
    Ok(one.is_some())
}

/// Gives every assignment of the policy this ring: one that no step admits, until it is known which one does.
pub async fn unsort(tx: &mut Tx, policy: PolicyId, ring: i64) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query("UPDATE assignment SET ring = $2 WHERE policy_id = $1 AND ring <> $2")
        .bind(policy.0).bind(ring).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes those assignments of the policy due that a step up to `step` admits and that do not have the revision; how many.
pub async fn admit(tx: &mut Tx, policy: PolicyId, revision: i64, step: i64, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE assignment SET due_at = $4
          WHERE policy_id = $1 AND ring <= $3 AND (revision <> $2 OR state IN ('assigned', 'held', 'awaiting_facts', 'installing'))")
        .bind(policy.0).bind(revision).bind(step).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes those assignments of the policy due at once that failed with the revision, with a back-off that begins anew; a renewal keeps
/// its own. How many there were.
pub async fn retry_failed(tx: &mut Tx, policy: PolicyId, revision: i64, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE assignment SET due_at = $3, attempts = 1
          WHERE policy_id = $1 AND revision = $2 AND state = 'failed' AND renew_at IS NULL")
        .bind(policy.0).bind(revision).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Whether the policy's scope is still being turned into assignments.
pub async fn rescoping(tx: &mut Tx, policy: PolicyId) -> Result<bool> {
    let at: Option<i64> = run!(tx, c => sqlx::query_scalar("SELECT rescope_at FROM acme_policy WHERE id = $1 AND rescope_at IS NOT NULL")
        .bind(policy.0).fetch_optional(c).await)?;
    Ok(at.is_some())
}

/// How many assignments of a policy are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The step that admits them.
    pub ring: i64,
    /// The revision that their state speaks of.
    pub revision: i64,
    /// Their state.
    pub state: String,
    /// The code of the reason, where there is one.
    pub reason: Option<String>,
    /// Apple's row for their chip, as it was decided last.
    pub silicon: Option<String>,
    /// 1 where it failed and has not succeeded since, or where a profile was sent once and is refused now; otherwise 0.
    pub failing: i64,
    /// How many.
    pub count: i64,
}

from_row!(Tally { ring, revision, state, reason, silicon, failing, count });

/// The assignments of a policy, counted by everything that a report tells them apart by.
pub async fn tally(tx: &mut Tx, policy: PolicyId) -> Result<Vec<Tally>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT ring, revision, state, reason, silicon, failing, COUNT(*) AS count FROM (
             SELECT ring, revision, state, reason, silicon,
                    CAST(CASE WHEN state = 'failed' OR (state = 'blocked' AND profile_sent)
                                   OR (attempts > 0 AND state <> 'removing') THEN 1 ELSE 0 END AS BIGINT) AS failing
               FROM assignment WHERE policy_id = $1) a
          GROUP BY ring, revision, state, reason, silicon, failing
          ORDER BY ring, revision, state, reason, silicon, failing")
        .bind(policy.0).fetch_all(c).await)?)
}

/// Something that happened to a rollout, from the log of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// When (ms).
    pub at: i64,
    /// What kind of event.
    pub kind: String,
    /// One sentence for people.
    pub summary: String,
    /// Who.
    pub actor: String,
    /// Further facts, as JSON text; `policy_id` says whose.
    pub data: String,
}

from_row!(Happened { at, kind, summary, actor, data });

/// What happened to rollouts of all policies last, newest first.
pub async fn history(tx: &mut Tx, limit: i64) -> Result<Vec<Happened>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT at, kind, summary, actor, data FROM event
          WHERE kind IN ('rollout.begun', 'rollout.step', 'rollout.paused', 'rollout.resumed', 'rollout.rolled_back', 'rollout.done')
          ORDER BY id DESC LIMIT $1")
        .bind(limit).fetch_all(c).await)?)
}

/// How many rollouts are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub state: String,
    /// How many.
    pub count: i64,
}

from_row!(Count { state, count });

/// The rollouts of policies that are not deleted, counted by state.
pub async fn counts(tx: &mut Tx) -> Result<Vec<Count>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT r.state, COUNT(*) AS count FROM rollout r JOIN acme_policy p ON p.id = r.policy_id AND p.deleted_at IS NULL
          GROUP BY r.state ORDER BY r.state").fetch_all(c).await)?)
}
