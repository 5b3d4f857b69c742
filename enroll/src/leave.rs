//! The end of an enrollment that no other takes the place of: its device checked out, or an operator removed it.

use mdm_core::enrollment::{EnrollmentEvent, EnrollmentState};
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::Enrollment;

use crate::Error;

/// Ends an enrollment: its state, its queue, its pushes, its renewal and its policies; with a device channel, those of its users
/// too. What has ended already stays as it is. The caller holds the lock on the device's row, and writes the event.
///
/// `event` is `CheckOut` or `Remove`. The identities stay pinned: a device that lost the answer to its last message is still known
/// by them.
pub async fn end(tx: &mut Tx, enrollment: &Enrollment, event: EnrollmentEvent, now: Timestamp) -> Result<(), Error> {
    for user in store::enrollments::users_of(tx, enrollment.id).await? {
        end_channel(tx, &user, event, now).await?;
    }
    end_channel(tx, enrollment, event, now).await
}

async fn end_channel(
    tx: &mut Tx,
    enrollment: &Enrollment,
    event: EnrollmentEvent,
    now: Timestamp,
) -> Result<(), Error> {
    if matches!(enrollment.state, EnrollmentState::Unenrolled { .. }) {
        return Ok(());
    }
    let state = enrollment.state.on(event, now)?;
    let why = match event {
        EnrollmentEvent::CheckOut => "the device checked out",
        _ => "an operator removed the enrollment",
    };
    commands::clear(tx, enrollment.id, why, now).await?;
    store::enrollments::end(tx, enrollment.id, state).await?;
    store::renewals::abandon(tx, enrollment.id, now).await?;
    store::push::connected(tx, enrollment.id).await?;
    policy::unenrolled(tx, enrollment.id, now).await?;
    Ok(())
}
