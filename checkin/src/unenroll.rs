//! The one answer that makes a device unenroll, and the end of the enrollment that goes with it (TH-12).
//!
//! An operator's word marks the enrollment; the device is told when it speaks. Before it is told, its enrollment ends here, so
//! that nothing waits for a device that does not come back, and the device can enroll anew. The mark stays: a device that lost
//! the answer gets it again, under the same certificate, until it has enrolled anew.

use axum::response::Response;
use mdm_core::enrollment::{EnrollmentEvent, EnrollmentState, Sender, UnenrolledWhy};
use serde_json::json;
use store::events::NewEvent;
use store::{enrollments, identities};

use crate::Door;
use crate::authorize::{judge, renewed};
use crate::identity::Identity;
use crate::reply::DeviceError;

/// What was decided about a message, after the end of the enrollment where it is that the device is told to unenroll.
pub(crate) async fn told(
    door: &Door,
    identity: &Identity,
    sender: &Sender,
    decided: Result<Response, DeviceError>,
) -> Result<Response, DeviceError> {
    let is_told = match &decided {
        Err(DeviceError::Unenroll) => true,
        // The channels of users end with that of their device.
        Err(DeviceError::Denied(_)) if sender.user.is_some() => is_marked(door, identity, sender).await?,
        _ => false,
    };
    if !is_told {
        return decided;
    }
    // Told only when its end is written: else it would stay in the books for ever.
    let has_ended = store::retry(|| end(door, identity, sender)).await?;
    Err(if has_ended { DeviceError::Unenroll } else { DeviceError::Denied("the enrollment is not to end any more") })
}

/// Whether the device under this certificate is one to be told, whoever of its users speaks.
async fn is_marked(door: &Door, identity: &Identity, sender: &Sender) -> Result<bool, DeviceError> {
    let glance = enrollments::glance(&mut door.store.read().await?, identity.fingerprint, None).await?;
    let judged = judge(glance.as_ref(), identity, sender, door.clock.now());
    Ok(matches!(judged, Err(DeviceError::Unenroll)))
}

/// Ends the enrollment of this certificate, in a transaction of its own: that of the message was given up. False where it is not
/// marked any more: the device has enrolled anew meanwhile.
async fn end(door: &Door, identity: &Identity, sender: &Sender) -> Result<bool, DeviceError> {
    let now = door.clock.now();
    let mut tx = door.store.begin().await?;
    let pin = match identities::find_by_fingerprint(&mut tx, identity.fingerprint).await? {
        Some(pin) => Some(pin),
        // The pin of a renewed identity was given up with the message.
        None => renewed(door, &mut tx, identity, &sender.device, now).await?,
    };
    let Some(pin) = pin else { return Ok(false) };
    enrollments::lock(&mut tx, pin.enrollment).await?;
    let pin = identities::find_by_fingerprint(&mut tx, identity.fingerprint).await?.unwrap_or(pin);
    let Some(device) = enrollments::get(&mut tx, pin.enrollment).await? else { return Ok(false) };
    if !pin.is_live() || device.unenroll_requested_at.is_none() {
        return Ok(false);
    }
    if matches!(device.state, EnrollmentState::Unenrolled { .. }) {
        return Ok(true);
    }
    enroll::leave::end(&mut tx, &device, EnrollmentEvent::Remove, now).await?;
    let event = NewEvent {
        at: now,
        kind: "enrollment.unenrolled",
        enrollment: Some(device.id),
        command: None,
        actor: "device",
        summary: "The device connected and was told to leave management, as an operator asked; its enrollment has ended.",
        data: &json!({ "why": UnenrolledWhy::Removed.as_str() }),
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    tracing::info!(enrollment.id = %device.id, "a device is told to unenroll; its enrollment has ended");
    Ok(true)
}
