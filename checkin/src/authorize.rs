//! Which enrollment a request speaks for: the certificate decides, and the body must say the same (TH-01 to TH-06).

use mdm_core::enrollment::{DeviceKey, EnrollmentEvent, EnrollmentState, Sender, UserKey};
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::rate::Rate;
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::{self, Enrollment, Glance};
use store::events::NewEvent;
use store::identities;
use store::issuance;

use crate::Door;
use crate::checkin::external_issuer;
use crate::identity::Identity;
use crate::reply::DeviceError;

/// What an authorized message of a known device speaks for.
#[derive(Debug)]
pub(crate) struct Authorized {
    /// The device channel; its row is locked until the end of the transaction.
    pub(crate) device: Enrollment,
    /// The pin of the certificate.
    pub(crate) identity: identities::Identity,
}

const FOREIGN: &str = "the certificate is not pinned to an enrollment";
const REVOKED: &str = "the certificate was revoked";
const RETIRED: &str = "a newer certificate took the place of this one";
const OTHER_DEVICE: &str = "the body names another device than the certificate";
const UNENROLLED: &str = "the enrollment has ended";
const UNKNOWN_USER: &str = "the body names a user that is not enrolled";

/// Authorizes a message that may change something, and takes the lock on the device's row.
///
/// A certificate that was issued to renew this very enrollment, and is seen for the first time, is pinned here: whether a device
/// that renews says `Authenticate` again is not certain (open question Q10).
pub(crate) async fn authorize(
    door: &Door,
    tx: &mut Tx,
    identity: &Identity,
    sender: &Sender,
    now: Timestamp,
) -> Result<Authorized, DeviceError> {
    let pin = match identities::find_by_fingerprint(tx, identity.fingerprint).await? {
        Some(pin) => pin,
        None => renewed(door, tx, identity, &sender.device, now).await?.ok_or(DeviceError::Denied(FOREIGN))?,
    };
    enrollments::lock(tx, pin.enrollment).await?;
    // Read again under the lock: another message may have retired it meanwhile.
    let pin = identities::find_by_fingerprint(tx, identity.fingerprint).await?.unwrap_or(pin);
    let device = enrollments::get(tx, pin.enrollment).await?.ok_or(DeviceError::Denied(FOREIGN))?;
    if pin.revoked_at.is_some() {
        return Err(DeviceError::Denied(REVOKED));
    }
    if pin.retired_at.is_some() {
        return Err(DeviceError::Denied(RETIRED));
    }
    if device.device_key.as_ref() != Some(&sender.device) {
        return Err(DeviceError::Denied(OTHER_DEVICE));
    }
    if matches!(device.state, EnrollmentState::Enrolled { .. }) {
        renewal::speaks(tx, &pin, now).await?;
    }
    Ok(Authorized { device, identity: pin })
}

/// Pins a certificate whose issuance record renews the enrollment that the body names, where it is seen for the first time in
/// a message other than `Authenticate`: the device uses it, so that the older identities are not accepted any more. Gives the
/// pin, also where another message of the device, at the same time, was first.
pub(crate) async fn renewed(
    door: &Door,
    tx: &mut Tx,
    identity: &Identity,
    key: &DeviceKey,
    now: Timestamp,
) -> Result<Option<identities::Identity>, DeviceError> {
    if let Some(named) = pin_renewed(door, tx, identity, key, now).await? {
        event(tx, Some(named), "enrollment.renewed", "The enrollment goes on with a renewed identity certificate", now)
            .await?;
        if let Some(pin) = identities::find_by_fingerprint(tx, identity.fingerprint).await? {
            renewal::identity_seen(tx, named, &pin, now).await?;
        }
    }
    Ok(identities::find_by_fingerprint(tx, identity.fingerprint).await?)
}

/// Pins the certificate to the enrollment that its record renews, and names that.
async fn pin_renewed(
    door: &Door,
    tx: &mut Tx,
    identity: &Identity,
    key: &DeviceKey,
    now: Timestamp,
) -> Result<Option<EnrollmentId>, DeviceError> {
    let issuer = external_issuer(door, identity);
    let Some(record) = enroll::renewing(tx, &identity.certificate, issuer, now).await? else {
        return Ok(None);
    };
    let Some(named) = record.enrollment else {
        return Ok(None);
    };
    enrollments::lock(tx, named).await?;
    let Some(enrollment) = enrollments::get(tx, named).await? else {
        return Ok(None);
    };
    let goes_on =
        enrollment.device_key.as_ref() == Some(key) && enrollment.state.on(EnrollmentEvent::Renew, now).is_ok();
    if !goes_on
        || !issuance::mark_used(tx, record.id, named, now).await?
        || !identities::bind(tx, named, Some(record.id), &identity.certificate, now).await?
    {
        return Ok(None);
    }
    Ok(Some(named))
}

impl Authorized {
    /// The device channel, if it has not ended (TH-13).
    pub(crate) fn live(&self) -> Result<&Enrollment, DeviceError> {
        match self.device.state {
            EnrollmentState::Unenrolled { .. } => Err(DeviceError::Denied(UNENROLLED)),
            EnrollmentState::Authenticated { .. } | EnrollmentState::Enrolled { .. } => Ok(&self.device),
        }
    }

    /// The enrollment that speaks: the device's, or that of the user who is named.
    pub(crate) async fn speaker(&self, tx: &mut Tx, user: Option<&UserKey>) -> Result<Enrollment, DeviceError> {
        let device = self.live()?;
        match user {
            None => Ok(device.clone()),
            Some(key) => {
                let user = enrollments::live_user(tx, device.id, key).await?;
                user.ok_or(DeviceError::Denied(UNKNOWN_USER))
            }
        }
    }
}

/// Whom a poll speaks for, from one query. `None`: the device is not through its enrollment yet, and has nothing to do.
///
/// Whether an identity that has ended may still speak, `identity` has decided before; here it needs to be pinned and not revoked
/// like any other.
pub(crate) fn judge(
    glance: Option<&Glance>,
    identity: &Identity,
    sender: &Sender,
    now: Timestamp,
) -> Result<Option<EnrollmentId>, DeviceError> {
    let glance = glance.ok_or(DeviceError::Denied(FOREIGN))?;
    if glance.revoked {
        return Err(DeviceError::Denied(REVOKED));
    }
    if glance.retired {
        return Err(DeviceError::Denied(RETIRED));
    }
    if now < glance.not_before || (now > glance.not_after && !identity.ended) {
        return Err(DeviceError::Denied("the certificate is not valid now"));
    }
    let same = match &sender.device {
        DeviceKey::Udid(udid) => glance.udid.as_deref() == Some(udid.as_str()),
        DeviceKey::EnrollmentId(id) => glance.apple_enrollment_id.as_deref() == Some(id.as_str()),
    };
    if !same {
        return Err(DeviceError::Denied(OTHER_DEVICE));
    }
    if glance.unenroll_requested {
        return Err(DeviceError::Unenroll);
    }
    match glance.state.as_str() {
        "enrolled" => Ok(Some(glance.id)),
        "authenticated" => Ok(None),
        _ => Err(DeviceError::Denied(UNENROLLED)),
    }
}

/// How often the refusals of one certificate are written as events: the log has them all, the database must not be filled.
const REFUSALS: Rate = Rate { burst: 3, per_second: 1.0 / 600.0 };

/// How often an operator is told that one identity has ended.
const ONCE_A_DAY: Rate = Rate { burst: 1, per_second: 1.0 / 86_400.0 };

/// Writes a refusal that an operator should hear of, in a transaction of its own: that of the message was given up.
pub(crate) async fn record_refusal(door: &Door, identity: &Identity, what: &'static str, error: &DeviceError) {
    let why = match error {
        DeviceError::Denied(why) => (*why).to_owned(),
        DeviceError::Refused(why) => why.clone(),
        DeviceError::Enroll(refused) if refused.refusal().is_some() => refused.to_string(),
        _ => return,
    };
    let now = door.clock.now();
    tracing::warn!(certificate = %identity.fingerprint, message_type = what, why, "a device's message was refused");
    if !door.refusals.take(identity.fingerprint, REFUSALS, now) {
        return;
    }
    let pin = async { identities::find_by_fingerprint(&mut door.store.read().await?, identity.fingerprint).await };
    let event = NewEvent {
        at: now,
        kind: "enrollment.refused",
        enrollment: pin.await.ok().flatten().map(|pin| pin.enrollment),
        command: None,
        actor: "device",
        summary: "A device's message was refused; nothing was changed",
        data: &serde_json::json!({
            "message": what,
            "why": why,
            "certificate_sha256": identity.fingerprint.to_string(),
            "certificate_subject": identity.certificate.subject(),
        }),
    };
    store::events::record_alone(&door.store, &event).await;
}

/// Tells the operator that a device is cut off because its identity has ended (TH-09): it must be enrolled anew.
pub(crate) async fn record_not_valid(door: &Door, fingerprint: Fingerprint) {
    metrics::counter!("identity_not_valid_total").increment(1);
    let now = door.clock.now();
    if !door.refusals.take(fingerprint, ONCE_A_DAY, now) {
        return;
    }
    let written = async {
        let mut tx = door.store.begin().await?;
        // Of a certificate that was never pinned there is nothing to tell.
        let Some(pin) = identities::find_by_fingerprint(&mut tx, fingerprint).await? else {
            return Ok(());
        };
        let enrollment = pin.enrollment;
        tracing::warn!(enrollment.id = %enrollment, not_after = %pin.not_after, "a device's identity is not valid now");
        let summary =
            "The device's identity certificate is not valid now: the device is cut off until it is enrolled anew";
        event(&mut tx, Some(enrollment), "identity.not_valid", summary, now).await?;
        tx.commit().await
    };
    if let Err(error) = written.await {
        tracing::warn!(%error, "the end of an identity could not be written to the event log");
    }
}

/// Tells the operator, once a day, that a device asks with an identity that has ended and is given the chance to renew it.
pub(crate) async fn record_grace(
    door: &Door,
    tx: &mut Tx,
    enrollment: EnrollmentId,
    fingerprint: Fingerprint,
    now: Timestamp,
) -> Result<(), store::Error> {
    metrics::counter!("identity_grace_total").increment(1);
    if !door.refusals.take(fingerprint, ONCE_A_DAY, now) {
        return Ok(());
    }
    tracing::warn!(enrollment.id = %enrollment, "a device's identity has ended; within its grace it gets the renewal and nothing else");
    let summary =
        "The device's identity certificate has ended. Within its grace the device gets the renewal, and nothing else";
    event(tx, Some(enrollment), "identity.grace", summary, now).await
}

/// Writes an event without further data.
pub(crate) async fn event(
    tx: &mut Tx,
    enrollment: Option<EnrollmentId>,
    kind: &str,
    summary: &str,
    at: Timestamp,
) -> Result<(), store::Error> {
    let data = serde_json::json!({});
    let event = NewEvent { at, kind, enrollment, command: None, actor: "device", summary, data: &data };
    store::events::record(tx, &event).await
}
