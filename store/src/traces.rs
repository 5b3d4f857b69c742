//! What a trace is read from, besides the rows that it is about: the events that name it, and the attempts before and after.

use mdm_core::ids::{AssignmentId, AttemptId, EnrollmentId};
use uuid::Uuid;

use crate::events::Row;
use crate::{Result, Tx};

/// The events of an enrollment that carry this trace id in their data, oldest first.
///
/// Every event of an attempt has its id as `"trace"`; the index of events by enrollment narrows the search.
pub async fn events(tx: &mut Tx, enrollment: EnrollmentId, trace: AttemptId, limit: i64) -> Result<Vec<Row>> {
    let mark = format!("%\"trace\":\"{}\"%", trace.0);
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT id, at, kind, enrollment_id, command_uuid, actor, summary, data FROM event
          WHERE enrollment_id = $1 AND data LIKE $2 ORDER BY id LIMIT $3")
        .bind(enrollment.0).bind(mark).bind(limit).fetch_all(c).await)?)
}

/// The attempts of the same assignment just before and just after one: what it tried again or renews, and what tries it again
/// or renews it.
pub async fn neighbours(
    tx: &mut Tx,
    assignment: AssignmentId,
    of: AttemptId,
) -> Result<(Option<AttemptId>, Option<AttemptId>)> {
    let before: Option<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT id FROM attempt WHERE assignment_id = $1 AND id < $2 ORDER BY id DESC LIMIT 1")
        .bind(assignment.0).bind(of.0).fetch_optional(c).await)?;
    let after: Option<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT id FROM attempt WHERE assignment_id = $1 AND id > $2 ORDER BY id LIMIT 1")
        .bind(assignment.0).bind(of.0).fetch_optional(c).await)?;
    Ok((before.map(AttemptId), after.map(AttemptId)))
}
