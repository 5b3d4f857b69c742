//! Devices that wait in Setup Assistant (`AwaitingConfiguration`): columns of `enrollment`, and what stands in the way of letting
//! them go on.

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// Notes when a device is looked at next; `released_at` where the command that lets it go on is queued now (the first time
/// stays).
pub async fn until(tx: &mut Tx, id: EnrollmentId, at: Timestamp, released_at: Option<Timestamp>) -> Result<()> {
    const UPDATE: &str =
        "UPDATE enrollment SET set_up_until = $2, set_up_done_at = COALESCE(set_up_done_at, $3) WHERE id = $1";
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).bind(at.0).bind(released_at.map(|t| t.0)).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// The device does not wait any more.
pub async fn over(tx: &mut Tx, id: EnrollmentId) -> Result<()> {
    const UPDATE: &str = "UPDATE enrollment SET awaiting_configuration = FALSE, set_up_until = NULL WHERE id = $1";
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Devices whose time is over, and those that nothing stands in the way of any more.
pub async fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<EnrollmentId>> {
    const DUE: &str = "SELECT e.id FROM enrollment e WHERE e.set_up_until IS NOT NULL AND (e.set_up_until <= $1 \
        OR (e.set_up_done_at IS NULL \
            AND NOT EXISTS (SELECT 1 FROM command_target t WHERE t.enrollment_id = e.id \
                            AND t.state IN ('queued', 'sent', 'not_now')) \
            AND NOT EXISTS (SELECT 1 FROM assignment a WHERE a.enrollment_id = e.id \
                            AND a.state IN ('assigned', 'awaiting_facts', 'installing', 'removing')))) \
        ORDER BY e.set_up_until LIMIT $2";
    let ids: Vec<Uuid> = run!(tx, c => sqlx::query_scalar(DUE).bind(now.0).bind(limit).fetch_all(c).await)?;
    Ok(ids.into_iter().map(EnrollmentId).collect())
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Commands besides the one that lets the device go on are outstanding.
    pub commands: bool,
    /// Policies are on their way to it.
    pub policies: bool,
    /// The command that lets it go on is outstanding.
    pub released: bool,
}

from_row!(Queue { commands, policies, released });

/// Looks up what stands in the way; `release` is the `RequestType` of the command that lets the device go on.
pub async fn queue(tx: &mut Tx, id: EnrollmentId, release: &str) -> Result<Queue> {
    const LOOK: &str = "SELECT \
        EXISTS (SELECT 1 FROM command_target t JOIN command c ON c.uuid = t.command_uuid WHERE t.enrollment_id = $1 \
                AND t.state IN ('queued', 'sent', 'not_now') AND c.request_type <> $2) AS commands, \
        EXISTS (SELECT 1 FROM assignment a WHERE a.enrollment_id = $1 \
                AND a.state IN ('assigned', 'awaiting_facts', 'installing', 'removing')) AS policies, \
        EXISTS (SELECT 1 FROM command_target t JOIN command c ON c.uuid = t.command_uuid WHERE t.enrollment_id = $1 \
                AND t.state IN ('queued', 'sent', 'not_now') AND c.request_type = $2) AS released";
    Ok(run!(tx, c => sqlx::query_as(LOOK).bind(id.0).bind(release).fetch_one(c).await)?)
}
