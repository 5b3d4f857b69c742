//! Rows of `label_rule`: labels that follow from what is known of a device.

use mdm_core::ids::{EnrollmentId, Label};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// The rule of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The label.
    pub label: String,
    /// The rule as JSON, as the API carries it.
    pub body: String,
    /// Raised by each change, from 1.
    pub revision: i64,
    /// Since when everybody is being looked at again (ms); none: that is done.
    pub apply_at: Option<i64>,
    /// The enrollment that was looked at last.
    pub apply_after: Option<Uuid>,
    /// Who wrote it.
    pub updated_by: String,
    /// When it last changed (ms).
    pub updated_at: i64,
}

from_row!(Row { label, body, revision, apply_at, apply_after, updated_by, updated_at });

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT label, body, revision, apply_at, apply_after, updated_by, updated_at FROM label_rule ", $rest)
    };
}

/// Writes the rule of a label, in place of the one that it has; everybody is to be looked at from now on.
pub async fn put(tx: &mut Tx, label: &Label, body: &str, by: &str, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO label_rule (label, body, revision, apply_at, apply_after, updated_by, updated_at)
         VALUES ($1, $2, 1, $4, NULL, $3, $4)
         ON CONFLICT (label) DO UPDATE SET body = excluded.body, revision = label_rule.revision + 1,
             apply_at = excluded.apply_at, apply_after = NULL, updated_by = excluded.updated_by, updated_at = excluded.updated_at")
        .bind(label.as_str()).bind(body).bind(by).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// The rule of a label.
pub async fn get(tx: &mut Tx, label: &Label) -> Result<Option<Row>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE label = $1")).bind(label.as_str()).fetch_optional(c).await)?)
}

/// How many labels have a rule.
pub async fn count(tx: &mut Tx) -> Result<i64> {
    Ok(run!(tx, c => sqlx::query_scalar("SELECT COUNT(*) FROM label_rule").fetch_one(c).await)?)
}

/// Every rule, in the order of the labels.
pub async fn all(tx: &mut Tx) -> Result<Vec<Row>> {
    Ok(run!(tx, c => sqlx::query_as(select!("ORDER BY label")).fetch_all(c).await)?)
}

/// Deletes the rule of a label; the label stays where it is. False where it has no rule.
pub async fn delete(tx: &mut Tx, label: &Label) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("DELETE FROM label_rule WHERE label = $1")
        .bind(label.as_str()).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The rule that has waited longest to be held against everybody; nobody else is given it before the transaction ends.
pub async fn next_walk(tx: &mut Tx, now: Timestamp) -> Result<Option<Row>> {
    let sql = format!(
        "{}{}",
        select!("WHERE apply_at IS NOT NULL AND apply_at <= $1 ORDER BY apply_at, label LIMIT 1"),
        tx.dialect().skip_locked()
    );
    let sql = sqlx::AssertSqlSafe(sql);
    Ok(run!(tx, c => sqlx::query_as(sql).bind(now.0).fetch_optional(c).await)?)
}

/// Notes how far a rule has come; nothing where it has come to the end.
pub async fn walked(tx: &mut Tx, label: &str, after: Option<EnrollmentId>) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE label_rule SET apply_after = $2, apply_at = CASE WHEN $2 IS NULL THEN NULL ELSE apply_at END WHERE label = $1")
        .bind(label).bind(after.map(|id| id.0)).execute(c).await.map(drop))?;
    Ok(())
}

/// The walk of a rule waits until then, where it is.
pub async fn postpone(tx: &mut Tx, label: &str, until: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE label_rule SET apply_at = $2 WHERE label = $1 AND apply_at IS NOT NULL")
        .bind(label).bind(until.0).execute(c).await.map(drop))?;
    Ok(())
}
