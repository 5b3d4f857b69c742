//! A renewal that somebody asks for: an operator, the trust settings, or the device itself with an identity that has ended.

use std::time::Duration;

use mdm_core::enrollment::EnrollmentState;
use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use store::identities::{self, Identity};
use store::renewals::{self, Reason, Renewal, State, Unplanned};
use store::{Tx, Wake, enrollments};

use crate::drive::{Presence, advance, planned};
use crate::plan::spread;
use crate::{Context, Error};

/// Over how long renewals that a change of the settings causes are spread.
const SPREAD: Duration = Duration::from_hours(24);

/// Asks for a renewal of this enrollment's identity. A renewal that is under way goes on; false where nothing changed.
///
/// For [`Reason::Operator`] and [`Reason::ToAcme`] it is due now, whatever failed before; for [`Reason::Anchors`] some time in
/// the next 24 hours, so that a fleet does not renew at once, and calling it again changes nothing.
///
/// # Errors
/// [`Error::NothingToRenew`] where the enrollment is not an enrolled device, or has no identity that is accepted.
pub async fn want(tx: &mut Tx, enrollment: EnrollmentId, reason: Reason, now: Timestamp) -> Result<bool, Error> {
    enrollments::lock(tx, enrollment).await?;
    let found = enrollments::get(tx, enrollment).await?;
    if !found.is_some_and(|found| matches!(found.state, EnrollmentState::Enrolled { .. }) && found.parent.is_none()) {
        return Err(Error::NothingToRenew(
            "only the device channel of an enrollment that is enrolled has an identity to renew",
        ));
    }
    let Some(identity) = in_use(tx, enrollment).await? else {
        return Err(Error::NothingToRenew("the enrollment has no identity that is accepted"));
    };
    let at_once = matches!(reason, Reason::Operator | Reason::ToAcme | Reason::Expired);
    let there = renewals::get(tx, enrollment).await?.filter(|row| row.identity == identity.fingerprint);
    let mut row = match there {
        Some(row) if matches!(row.state, State::Queued | State::Issued) => return Ok(false),
        Some(row) if row.state == State::Due && !at_once && (row.reason == reason || row.attempts > 0) => {
            return Ok(false);
        }
        Some(row) if row.state == State::Due => Renewal { reason, ..row },
        _ => planned(&unplanned(&identity), reason, now),
    };
    let soon = if at_once { now } else { spread(enrollment, SPREAD, now) };
    row.due_at = Some(row.due_at.map_or(soon, |at| at.min(soon)));
    renewals::save(tx, &row, now).await?;
    tx.wake(Wake::Renewal);
    Ok(true)
}

/// A device asks with an identity that has ended, within its grace: sees to it that a command for a new one waits, unless the
/// last try failed a short time ago. The lock on the enrollment is held.
pub async fn rescue(tx: &mut Tx, ctx: &Context, enrollment: EnrollmentId, now: Timestamp) -> Result<(), Error> {
    let Some(identity) = in_use(tx, enrollment).await? else { return Ok(()) };
    let there = renewals::get(tx, enrollment).await?.filter(|row| row.identity == identity.fingerprint);
    let row = match there {
        Some(row) if row.state == State::Due => {
            // A first try that lies ahead, or a renewal that was given up as lost, is now.
            let waits = row.attempts > 0 && row.due_at.is_some_and(|at| at > now);
            if waits {
                return Ok(());
            }
            Renewal { due_at: Some(now), ..row }
        }
        Some(row) if matches!(row.state, State::Queued | State::Issued) => row,
        _ => Renewal { due_at: Some(now), ..planned(&unplanned(&identity), Reason::Expired, now) },
    };
    advance(tx, ctx, row, Presence::Connected, now).await
}

/// The oldest identity that is neither retired nor revoked: the one that the device is known to have. A newer one retires it
/// with its first word; until then the device may have gone back to the old one.
async fn in_use(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Option<Identity>, Error> {
    Ok(identities::of(tx, enrollment).await?.into_iter().rfind(Identity::is_live))
}

fn unplanned(identity: &Identity) -> Unplanned {
    Unplanned {
        enrollment: identity.enrollment,
        identity: identity.fingerprint,
        not_before: identity.not_before,
        not_after: identity.not_after,
    }
}
