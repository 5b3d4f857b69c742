//! What a policy on a user channel requires of the device: a user channel has no attestation to give, so its device is asked, and
//! the user's assignments are looked at again when the device has answered.

use mdm_core::enrollment::Channel;
use mdm_core::ids::{AssignmentId, EnrollmentId};
use mdm_core::time::Timestamp;
use store::assignments::{self, Assignment};
use store::enrollments::Enrollment;
use store::{IdSet, Tx, Wake};

use crate::advance::Presence;
use crate::decide::State;
use crate::error::Result;
use crate::reason::ReasonCode;
use crate::writes::{Batch, FACTS, Writes};
use crate::{CREATED_BY, Context, require};

/// What follows for the other channel of a device from an answer to `DeviceInformation`, after the assignments of the channel that
/// answered were moved on. The lock on the enrollment is held.
pub(crate) async fn follow(tx: &mut Tx, ctx: &Context, enrollment: &Enrollment, now: Timestamp) -> Result<()> {
    match (enrollment.channel, enrollment.parent) {
        (Channel::User, Some(device)) if !waiting(tx, enrollment.id).await?.is_empty() => {
            ask(tx, ctx, device, now).await
        }
        (Channel::User, _) => Ok(()),
        (Channel::Device, _) => look_again(tx, enrollment, now).await,
    }
}

/// The assignments that the device's attestation keeps closed.
async fn waiting(tx: &mut Tx, user: EnrollmentId) -> Result<Vec<Assignment>> {
    let mut all = assignments::of_enrollment(tx, user).await?;
    all.retain(|a| {
        let reason = a.reason.as_deref().and_then(ReasonCode::from_text);
        State::from_text(&a.state) == Some(State::Blocked) && reason.is_some_and(require::may_be_met_later)
    });
    Ok(all)
}

/// Asks a device what it is, unless it is being asked. A user channel answers once a day while it is blocked, so that its device is
/// asked no more often.
async fn ask(tx: &mut Tx, ctx: &Context, device: EnrollmentId, now: Timestamp) -> Result<()> {
    let outstanding = store::commands::outstanding_by(tx, &IdSet::new(&[device]), CREATED_BY).await?;
    if outstanding.iter().any(|command| command.coalescing_key.as_deref() == Some(FACTS)) {
        return Ok(());
    }
    let mut writes = Writes::default();
    writes.enqueue(ctx, Batch::Facts, device);
    writes.write(tx, ctx, Presence::Away, now).await
}

async fn look_again(tx: &mut Tx, device: &Enrollment, now: Timestamp) -> Result<()> {
    for user in store::enrollments::users_of(tx, device.id).await? {
        for assignment in waiting(tx, user.id).await? {
            assignments::due(tx, AssignmentId(assignment.id), now).await?;
            tx.wake(Wake::Reconcile);
        }
    }
    Ok(())
}
