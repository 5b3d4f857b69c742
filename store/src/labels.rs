//! Rows of `enrollment_label`.

use mdm_core::ids::{EnrollmentId, Label};
use uuid::Uuid;

use crate::{Result, Tx};

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
