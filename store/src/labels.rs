//! Rows of `enrollment_label`.

use mdm_core::ids::{EnrollmentId, Label};
use uuid::Uuid;

use crate::id_set::over_ids;
use crate::{Dialect, IdSet, Result, Tx};

/// Puts a label on an enrollment; false where it was there already.
pub async fn put(tx: &mut Tx, enrollment: EnrollmentId, label: &Label) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO enrollment_label (enrollment_id, label) VALUES ($1, $2) ON CONFLICT (enrollment_id, label) DO NOTHING")
        .bind(enrollment.0).bind(label.as_str()).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Takes a label off an enrollment; false where it was not there.
pub async fn remove(tx: &mut Tx, enrollment: EnrollmentId, label: &Label) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("DELETE FROM enrollment_label WHERE enrollment_id = $1 AND label = $2")
        .bind(enrollment.0).bind(label.as_str()).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The labels of one enrollment, in alphabetical order.
pub async fn of(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Vec<String>> {
    Ok(run!(tx, c => sqlx::query_scalar("SELECT label FROM enrollment_label WHERE enrollment_id = $1 ORDER BY label")
        .bind(enrollment.0).fetch_all(c).await)?)
}

/// The enrollments that have this label and are not over, in the order in which they came.
pub async fn enrollments(tx: &mut Tx, label: &Label) -> Result<Vec<EnrollmentId>> {
    let ids: Vec<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT l.enrollment_id FROM enrollment_label l JOIN enrollment e ON e.id = l.enrollment_id
          WHERE l.label = $1 AND e.state <> 'unenrolled' ORDER BY l.enrollment_id")
        .bind(label.as_str()).fetch_all(c).await)?;
    Ok(ids.into_iter().map(EnrollmentId).collect())
}

/// A label of one enrollment among many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The label.
    pub label: String,
}

from_row!(Labelled { enrollment_id, label });

/// The labels of these enrollments themselves, in no order.
pub async fn of_many(tx: &mut Tx, enrollments: &IdSet) -> Result<Vec<Labelled>> {
    let sql = over_ids!(tx, "SELECT enrollment_id, label FROM enrollment_label WHERE enrollment_id IN (", ")");
    Ok(run!(tx, c => sqlx::query_as(sql).bind(enrollments.as_json()).fetch_all(c).await)?)
}

/// Those of these enrollments that have the label, in no order.
pub async fn among(tx: &mut Tx, enrollments: &IdSet, label: &Label) -> Result<Vec<EnrollmentId>> {
    let sql = over_ids!(tx, "SELECT enrollment_id FROM enrollment_label WHERE label = $2 AND enrollment_id IN (", ")");
    let ids: Vec<Uuid> =
        run!(tx, c => sqlx::query_scalar(sql).bind(enrollments.as_json()).bind(label.as_str()).fetch_all(c).await)?;
    Ok(ids.into_iter().map(EnrollmentId).collect())
}

/// Puts a label on these enrollments; on how many it was not before.
pub async fn put_many(tx: &mut Tx, enrollments: &IdSet, label: &Label) -> Result<u64> {
    let sql = match tx.dialect() {
        Dialect::Sqlite => {
            "INSERT INTO enrollment_label (enrollment_id, label) SELECT unhex(value), $2 FROM json_each($1) WHERE true
             ON CONFLICT (enrollment_id, label) DO NOTHING"
        }
        Dialect::Postgres => {
            "INSERT INTO enrollment_label (enrollment_id, label)
             SELECT value::uuid, $2 FROM jsonb_array_elements_text($1::text::jsonb)
             ON CONFLICT (enrollment_id, label) DO NOTHING"
        }
    };
    Ok(run!(tx, c => sqlx::query(sql).bind(enrollments.as_json()).bind(label.as_str())
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// Takes a label off these enrollments; off how many.
pub async fn remove_many(tx: &mut Tx, enrollments: &IdSet, label: &Label) -> Result<u64> {
    let sql = over_ids!(tx, "DELETE FROM enrollment_label WHERE label = $2 AND enrollment_id IN (", ")");
    Ok(run!(tx, c => sqlx::query(sql).bind(enrollments.as_json()).bind(label.as_str())
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// How many enrollments that are not over have the label.
pub async fn count(tx: &mut Tx, label: &Label) -> Result<i64> {
    Ok(run!(tx, c => sqlx::query_scalar(
        "SELECT COUNT(*) FROM enrollment_label l JOIN enrollment e ON e.id = l.enrollment_id
          WHERE l.label = $1 AND e.state <> 'unenrolled'")
        .bind(label.as_str()).fetch_one(c).await)?)
}
