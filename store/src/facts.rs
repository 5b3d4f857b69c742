//! Rows of `facts`: one JSON document of named facts for each enrollment.

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;

use crate::{Result, Tx};

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
