//! Rows of `facts`: one JSON document of named facts for each enrollment.

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::over_ids;
use crate::{IdSet, Result, Tx};

/// The document of this enrollment.
pub async fn get(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Option<String>> {
    Ok(run!(tx, c => sqlx::query_scalar("SELECT body FROM facts WHERE enrollment_id = $1")
        .bind(enrollment.0).fetch_optional(c).await)?)
}

/// Writes the document of this enrollment.
pub async fn put(tx: &mut Tx, enrollment: EnrollmentId, body: &str, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO facts (enrollment_id, body, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (enrollment_id) DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at")
        .bind(enrollment.0).bind(body).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Forgets what is known of this enrollment.
pub async fn delete(tx: &mut Tx, enrollment: EnrollmentId) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM facts WHERE enrollment_id = $1")
        .bind(enrollment.0).execute(c).await.map(drop))?;
    Ok(())
}

/// The document of one enrollment among many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// Its document.
    pub body: String,
}

from_row!(Document { enrollment_id, body });

/// The documents of these enrollments, as far as they have one.
pub async fn of_many(tx: &mut Tx, enrollments: &IdSet) -> Result<Vec<Document>> {
    let sql = over_ids!(tx, "SELECT enrollment_id, body FROM facts WHERE enrollment_id IN (", ")");
    Ok(run!(tx, c => sqlx::query_as(sql).bind(enrollments.as_json()).fetch_all(c).await)?)
}
