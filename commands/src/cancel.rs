//! Ending commands without the device.

use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use store::commands as rows;
use store::{IdSet, Tx};

use crate::Error;

/// What a cancel found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not been sent and never will be (RG-10).
    Cancelled,
    /// It had been sent before; it will not be sent again, but the device may have carried it out.
    AlreadySent,
    /// It had ended before; nothing changed.
    AlreadyEnded,
    /// It is no command of this enrollment.
    Unknown,
}

/// Cancels a command on one enrollment. Contends with its delivery for the lock on the enrollment's row.
pub async fn cancel(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    uuid: &CommandUuid,
    why: &str,
    now: Timestamp,
) -> Result<Cancelled, Error> {
    store::enrollments::lock(tx, enrollment).await?;
    let Some(target) = rows::target(tx, enrollment, uuid).await? else {
        return Ok(Cancelled::Unknown);
    };
    if !rows::end(tx, enrollment, target.seq, "cancelled", why, now).await? {
        return Ok(Cancelled::AlreadyEnded);
    }
    Ok(if target.first_sent_at.is_some() { Cancelled::AlreadySent } else { Cancelled::Cancelled })
}

/// Cancels one command on many enrollments, whose locks the caller holds; on how many it was outstanding.
pub async fn cancel_many(
    tx: &mut Tx,
    enrollments: &[EnrollmentId],
    uuid: &CommandUuid,
    why: &str,
    now: Timestamp,
) -> Result<u64, Error> {
    Ok(rows::cancel_many(tx, &IdSet::new(enrollments), uuid, why, now).await?)
}

/// Cancels everything outstanding on an enrollment, as a new enrollment of its device does (RG-09).
pub async fn clear(tx: &mut Tx, enrollment: EnrollmentId, why: &str, now: Timestamp) -> Result<u64, Error> {
    store::enrollments::lock(tx, enrollment).await?;
    Ok(rows::clear(tx, enrollment, why, now).await?)
}

/// Ends up to `limit` commands whose time is over, in one transaction, and tells how many there were.
pub async fn expire(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<u64, Error> {
    Ok(rows::expire(tx, now, limit).await?)
}
