//! Rows of `policy_scope`: who a policy is for, and which enrollments that means.
//!
//! An enrollment is in a scope where a line takes it in and none leaves it out: by itself, by a label, or by the device that it
//! is a user of. Every statement here says so in the same words (`hits`), and `MIN(effect) = 'include'` is the whole rule:
//! `exclude` comes first in the alphabet.

use std::collections::HashSet;

use mdm_core::enrollment::Channel;
use mdm_core::ids::{EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::over_ids;
use crate::{Dialect, IdSet, Result, Tx};

/// One line of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// `include` or `exclude`.
    pub effect: String,
    /// `all`, `label` or `enrollment`.
    pub kind: String,
    /// The label, or the enrollment's id without hyphens; empty for `all`.
    pub value: String,
}

from_row!(Line { effect, kind, value });

/// Who the policy is for.
pub async fn get(tx: &mut Tx, policy: PolicyId) -> Result<Vec<Line>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT effect, kind, value FROM policy_scope WHERE policy_id = $1 ORDER BY effect, kind, value")
        .bind(policy.0).fetch_all(c).await)?)
}

/// Replaces the scope.
pub async fn set(tx: &mut Tx, policy: PolicyId, lines: &[Line]) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM policy_scope WHERE policy_id = $1").bind(policy.0).execute(c).await.map(drop))?;
    let insert = match tx.dialect() {
        Dialect::Sqlite => {
            "INSERT INTO policy_scope (policy_id, effect, kind, value)
             SELECT $1, value ->> 0, value ->> 1, value ->> 2 FROM json_each($2) WHERE true
             ON CONFLICT (policy_id, kind, value) DO NOTHING"
        }
        Dialect::Postgres => {
            "INSERT INTO policy_scope (policy_id, effect, kind, value)
             SELECT $1, l ->> 0, l ->> 1, l ->> 2 FROM jsonb_array_elements($2::text::jsonb) AS t(l)
             ON CONFLICT (policy_id, kind, value) DO NOTHING"
        }
    };
    let lines = json(lines);
    run!(tx, c => sqlx::query(insert).bind(policy.0).bind(&lines).execute(c).await.map(drop))?;
    Ok(())
}

/// The lines as the JSON text that statements take: `[["include","label","macs"],…]`.
fn json(lines: &[Line]) -> String {
    let rows = lines.iter().map(|l| {
        let cells = [&l.effect, &l.kind, &l.value];
        cells.map(|cell| serde_json::Value::from(cell.as_str())).to_vec().into()
    });
    serde_json::Value::Array(rows.collect()).to_string()
}

/// The tables that every statement over scopes begins with: `hit` has a line for each line of a scope that names an enrollment
/// of `who` (columns `id` and `parent_id`). `lines` is the table of scopes, or stands for it.
fn hits(dialect: Dialect, who: &str, lines: &str) -> String {
    let text = match dialect {
        Dialect::Sqlite => "lower(hex(n.by_id))",
        Dialect::Postgres => "replace(n.by_id::text, '-', '')",
    };
    format!(
        "WITH who AS ({who}),
              named AS (SELECT id, id AS by_id FROM who UNION ALL SELECT id, parent_id FROM who WHERE parent_id IS NOT NULL),
              hit AS (
                  SELECT n.id, s.policy_id, s.effect FROM named n JOIN {lines} s ON s.kind = 'enrollment' AND s.value = {text}
                  UNION ALL
                  SELECT n.id, s.policy_id, s.effect FROM named n JOIN enrollment_label l ON l.enrollment_id = n.by_id
                    JOIN {lines} s ON s.kind = 'label' AND s.value = l.label
                  UNION ALL
                  SELECT w.id, s.policy_id, s.effect FROM who w JOIN {lines} s ON s.kind = 'all') "
    )
}

/// The enrollments of an [`IdSet`] bound as `$1`.
fn these(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "SELECT e.id, e.parent_id FROM enrollment e WHERE e.id IN (SELECT unhex(value) FROM json_each($1))"
        }
        Dialect::Postgres => {
            "SELECT e.id, e.parent_id FROM enrollment e
              WHERE e.id IN (SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb))"
        }
    }
}

/// The policies whose scope holds this enrollment.
pub async fn matching(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Vec<PolicyId>> {
    let who = "SELECT e.id, e.parent_id FROM enrollment e WHERE e.id = $1";
    let sql = hits(tx.dialect(), who, "policy_scope")
        + "SELECT p.id FROM hit h JOIN acme_policy p ON p.id = h.policy_id AND p.deleted_at IS NULL
            GROUP BY p.id HAVING MIN(h.effect) = 'include' ORDER BY p.id";
    let sql = sqlx::AssertSqlSafe(sql);
    let ids: Vec<Uuid> = run!(tx, c => sqlx::query_scalar(sql).bind(enrollment.0).fetch_all(c).await)?;
    Ok(ids.into_iter().map(PolicyId).collect())
}

/// An enrollment that a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Match {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The policy.
    pub policy_id: Uuid,
}

from_row!(Match { enrollment_id, policy_id });

/// Of many enrollments: the policies whose scope holds each. Whether the policy is for the enrollment's channel is not asked.
pub async fn matching_many(tx: &mut Tx, enrollments: &IdSet) -> Result<Vec<Match>> {
    let sql = hits(tx.dialect(), these(tx.dialect()), "policy_scope")
        + "SELECT h.id AS enrollment_id, p.id AS policy_id FROM hit h JOIN acme_policy p ON p.id = h.policy_id AND p.deleted_at IS NULL
            GROUP BY h.id, p.id HAVING MIN(h.effect) = 'include' ORDER BY h.id, p.id";
    let sql = sqlx::AssertSqlSafe(sql);
    Ok(run!(tx, c => sqlx::query_as(sql).bind(enrollments.as_json()).fetch_all(c).await)?)
}

/// Those of many enrollments that these lines hold, stored or not.
pub async fn held_by(tx: &mut Tx, enrollments: &IdSet, lines: &[Line]) -> Result<Vec<EnrollmentId>> {
    let given = match tx.dialect() {
        Dialect::Sqlite => {
            "(SELECT x'00' AS policy_id, value ->> 0 AS effect, value ->> 1 AS kind, value ->> 2 AS value FROM json_each($2))"
        }
        Dialect::Postgres => {
            "(SELECT 0 AS policy_id, l ->> 0 AS effect, l ->> 1 AS kind, l ->> 2 AS value
                FROM jsonb_array_elements($2::text::jsonb) AS t(l))"
        }
    };
    let sql = hits(tx.dialect(), these(tx.dialect()), given)
        + "SELECT id FROM hit GROUP BY id HAVING MIN(effect) = 'include' ORDER BY id";
    let sql = sqlx::AssertSqlSafe(sql);
    let lines = json(lines);
    let ids: Vec<Uuid> =
        run!(tx, c => sqlx::query_scalar(sql).bind(enrollments.as_json()).bind(&lines).fetch_all(c).await)?;
    Ok(ids.into_iter().map(EnrollmentId).collect())
}

/// What the scope of a policy means, in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Enrollments in it that take commands, on the channels asked for.
    pub targets: i64,
    /// Those of them that have an assignment.
    pub there: i64,
    /// Assignments of the policy, of whomever.
    pub assignments: i64,
}

from_row!(Counts { targets, there, assignments });

/// Counts whom the stored scope holds on these channels, and who of them has the policy already.
pub async fn counts(tx: &mut Tx, policy: PolicyId, channels: &[Channel]) -> Result<Counts> {
    let (device, user) = (channels.contains(&Channel::Device), channels.contains(&Channel::User));
    let who = "SELECT e.id, e.parent_id FROM enrollment e
                WHERE e.state = 'enrolled' AND ((e.channel = 'device' AND $2) OR (e.channel = 'user' AND $3))";
    let sql = hits(tx.dialect(), who, "(SELECT policy_id, effect, kind, value FROM policy_scope WHERE policy_id = $1)")
        + "SELECT COUNT(*) AS targets, COUNT(a.id) AS there,
                  (SELECT COUNT(*) FROM assignment WHERE policy_id = $1) AS assignments
             FROM (SELECT id FROM hit GROUP BY id HAVING MIN(effect) = 'include') t
             LEFT JOIN assignment a ON a.policy_id = $1 AND a.enrollment_id = t.id";
    let sql = sqlx::AssertSqlSafe(sql);
    Ok(run!(tx, c => sqlx::query_as(sql).bind(policy.0).bind(device).bind(user).fetch_one(c).await)?)
}

/// Those of these enrollments that there is no row of.
pub async fn unknown(tx: &mut Tx, enrollments: &[EnrollmentId]) -> Result<Vec<EnrollmentId>> {
    let set = IdSet::new(enrollments);
    let sql = over_ids!(tx, "SELECT e.id FROM enrollment e WHERE e.id IN (", ")");
    let known: Vec<Uuid> = run!(tx, c => sqlx::query_scalar(sql).bind(set.as_json()).fetch_all(c).await)?;
    let known: HashSet<Uuid> = known.into_iter().collect();
    Ok(enrollments.iter().copied().filter(|id| !known.contains(&id.0)).collect())
}

/// Says that the scope of a policy is to be turned into assignments, from the first enrollment on.
pub async fn begin_walk(tx: &mut Tx, policy: PolicyId, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE acme_policy SET rescope_at = $2, rescope_after = NULL WHERE id = $1")
        .bind(policy.0).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// A policy whose scope is being turned into assignments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The policy.
    pub id: Uuid,
    /// The enrollment that was looked at last.
    pub rescope_after: Option<Uuid>,
}

from_row!(Walk { id, rescope_after });

/// The policy that has waited longest; nobody else is given it before the transaction ends.
pub async fn next_walk(tx: &mut Tx, now: Timestamp) -> Result<Option<Walk>> {
    let sql = format!(
        "SELECT id, rescope_after FROM acme_policy WHERE rescope_at IS NOT NULL AND rescope_at <= $1
          ORDER BY rescope_at, id LIMIT 1{}",
        tx.dialect().skip_locked()
    );
    let sql = sqlx::AssertSqlSafe(sql);
    Ok(run!(tx, c => sqlx::query_as(sql).bind(now.0).fetch_optional(c).await)?)
}

/// Notes how far the walk of a policy has come; nothing where it has come to the end.
pub async fn walked(tx: &mut Tx, policy: PolicyId, after: Option<EnrollmentId>) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE acme_policy SET rescope_after = $2, rescope_at = CASE WHEN $2 IS NULL THEN NULL ELSE rescope_at END WHERE id = $1")
        .bind(policy.0).bind(after.map(|id| id.0)).execute(c).await.map(drop))?;
    Ok(())
}

/// The walk of a policy waits until then, where it is.
pub async fn postpone(tx: &mut Tx, policy: PolicyId, until: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE acme_policy SET rescope_at = $2 WHERE id = $1 AND rescope_at IS NOT NULL")
        .bind(policy.0).bind(until.0).execute(c).await.map(drop))?;
    Ok(())
}

/// An enrollment that takes commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The enrollment.
    pub id: Uuid,
    /// The device that it is a user of.
    pub parent_id: Option<Uuid>,
    /// `device` or `user`.
    pub channel: String,
}

from_row!(Enrolled { id, parent_id, channel });

/// The enrollments that take commands, in the order of their keys, from the one after `after`.
pub async fn enrolled(tx: &mut Tx, after: Option<EnrollmentId>, limit: i64) -> Result<Vec<Enrolled>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT id, parent_id, channel FROM enrollment WHERE id > $1 AND state = 'enrolled' ORDER BY id LIMIT $2")
        .bind(after.map_or(Uuid::nil(), |id| id.0)).bind(limit).fetch_all(c).await)?)
}

/// Those of these enrollments that take commands, and the users of these devices that do.
pub async fn enrolled_of(tx: &mut Tx, enrollments: &IdSet) -> Result<Vec<Enrolled>> {
    let sql = match tx.dialect() {
        Dialect::Sqlite => {
            "SELECT id, parent_id, channel FROM enrollment
              WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND state = 'enrolled'
             UNION
             SELECT id, parent_id, channel FROM enrollment
              WHERE parent_id IN (SELECT unhex(value) FROM json_each($1)) AND state = 'enrolled' ORDER BY id"
        }
        Dialect::Postgres => {
            "SELECT id, parent_id, channel FROM enrollment
              WHERE id IN (SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)) AND state = 'enrolled'
             UNION
             SELECT id, parent_id, channel FROM enrollment
              WHERE parent_id IN (SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)) AND state = 'enrolled'
              ORDER BY id"
        }
    };
    Ok(run!(tx, c => sqlx::query_as(sql).bind(enrollments.as_json()).fetch_all(c).await)?)
}

/// A stretch of a policy's assignments, by the key of their enrollment.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// The policy.
    pub policy: PolicyId,
    /// From the enrollment after this one.
    pub after: Option<EnrollmentId>,
    /// To this one; none: to the end.
    pub to: Option<EnrollmentId>,
}

/// Makes those assignments of a stretch due that have something to do: whose enrollment is not among `wanted`, who are on
/// their way out, and who speak of another revision than the current one. How many.
pub async fn sweep(tx: &mut Tx, stretch: &Stretch, wanted: &IdSet, now: Timestamp) -> Result<u64> {
    let sql = over_ids!(
        tx,
        "UPDATE assignment SET due_at = $5 WHERE policy_id = $2 AND enrollment_id > $3 AND enrollment_id <= $4
            AND (state = 'removing' OR revision <> (SELECT p.revision FROM acme_policy p WHERE p.id = $2)
                 OR enrollment_id NOT IN (",
        "))"
    );
    let (after, to) = (stretch.after.map_or(Uuid::nil(), |id| id.0), stretch.to.map_or(Uuid::max(), |id| id.0));
    Ok(run!(tx, c => sqlx::query(sql).bind(wanted.as_json()).bind(stretch.policy.0).bind(after).bind(to).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes every assignment of these enrollments due.
pub async fn due(tx: &mut Tx, enrollments: &IdSet, now: Timestamp) -> Result<u64> {
    let sql = over_ids!(tx, "UPDATE assignment SET due_at = $2 WHERE enrollment_id IN (", ")");
    Ok(run!(tx, c => sqlx::query(sql).bind(enrollments.as_json()).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// Says which step of a policy's rollout admits these enrollments, and makes those due of which it was another one.
pub async fn ring(tx: &mut Tx, policy: PolicyId, enrollments: &IdSet, ring: i64, now: Timestamp) -> Result<u64> {
    let sql = over_ids!(
        tx,
        "UPDATE assignment SET ring = $3, due_at = $4 WHERE policy_id = $2 AND ring <> $3 AND enrollment_id IN (",
        ")"
    );
    Ok(run!(tx, c => sqlx::query(sql).bind(enrollments.as_json()).bind(policy.0).bind(ring).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}
