//! An `Authenticate` that claims to be a device that is enrolled, under a certificate that was not issued for it: it is refused,
//! kept for an operator, and the enrollment that is there goes on (TH-02).
//!
//! What an operator approves, [`issuer::admission::Approval`] says; it is good once and for a day.

use std::time::Duration;

use issuer::admission::{Approval, Permission, Refusal};
use mdm_core::enrollment::DeviceKey;
use mdm_core::ids::{EnrollmentId, Fingerprint, IssuanceId};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::events::NewEvent;
use store::issuance::{Issuance, State};
use store::quarantine::{self, New, Row};
use uuid::Uuid;

use crate::{Arrival, Error, external};

/// How long an approval holds.
pub const APPROVED_FOR: Duration = Duration::from_hours(24);
/// How many may wait for a decision at a time. Each is a certificate of its own, so that filling it needs as many.
pub const MOST_WAITING: i64 = 1_000;
/// Those that were not heard of for so long make room for others.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(30 * 24);

/// What became of a refused `Authenticate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// An operator finds it in the list now.
    New(Uuid),
    /// The same certificate is in the list already; it was counted.
    Again,
    /// The list is full.
    Full,
}

/// Keeps a refused `Authenticate` for an operator.
pub async fn keep(
    tx: &mut Tx,
    random: &Random,
    arrival: &Arrival<'_>,
    refusal: Refusal,
    now: Timestamp,
) -> Result<Kept, Error> {
    let fingerprint = arrival.certificate.fingerprint();
    if quarantine::seen_again(tx, fingerprint, now).await? {
        return Ok(Kept::Again);
    }
    if quarantine::waiting(tx).await? >= MOST_WAITING {
        quarantine::forget(tx, now.minus(FORGOTTEN_AFTER)).await?;
        if quarantine::waiting(tx).await? >= MOST_WAITING {
            return Ok(Kept::Full);
        }
    }
    let message = arrival.message;
    let device = &message.sender.device;
    let serial = message.serial_number.as_deref();
    let mut claimed = store::enrollments::live_device(tx, device).await?;
    if let (None, Some(serial)) = (&claimed, serial) {
        claimed = store::enrollments::live_serial(tx, serial).await?;
    }
    let mut record = store::issuance::by_certificate(tx, fingerprint).await?;
    if record.is_none() {
        // That of an ACME identity is open still: what the message had changed was given up.
        record = external::open_record(tx, arrival.certificate, arrival.external_issuer, None, now).await?;
    }
    let id = random.uuid_v7(now);
    let new = New {
        id,
        certificate: (arrival.certificate.der(), fingerprint),
        device,
        serial_number: serial,
        product_name: message.product_name.as_deref(),
        os_version: message.os_version.as_deref(),
        reason: refusal.code(),
        enrollment: claimed.map(|enrollment| enrollment.id),
        issuance: record.as_ref().map(|record| record.id),
    };
    if !quarantine::insert(tx, &new, now).await? {
        return Ok(Kept::Again);
    }
    let event = NewEvent {
        at: now,
        kind: "quarantine.added",
        enrollment: new.enrollment,
        command: None,
        actor: "device",
        summary: "A device claims to be one that is enrolled, under a certificate that was not issued for it. \
                  It was refused; the enrollment goes on. Approve or refuse it in the quarantine.",
        data: &json!({
            "quarantine_id": id,
            "reason": refusal.code(),
            "issuance_id": new.issuance,
            "serial_number": serial,
            "product_name": new.product_name,
        }),
    };
    store::events::record(tx, &event).await?;
    Ok(Kept::New(id))
}

/// The approval that covers this `Authenticate`, if there is one.
pub(crate) async fn approval(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
    record: Option<&Issuance>,
    now: Timestamp,
) -> Result<Option<Uuid>, Error> {
    let message = arrival.message;
    let device = &message.sender.device;
    for row in quarantine::approvals(tx, device, now).await? {
        let of = match row.issuance_id {
            Some(id) => store::issuance::get(tx, IssuanceId(id)).await?,
            None => None,
        };
        let id = row.id;
        let one_device = match &of {
            Some(of) => is_for_one_device(tx, of).await?,
            None => false,
        };
        let approval = spoken(row, of, one_device).ok_or(store::Error::Corrupt("quarantine"))?;
        let serial = message.serial_number.as_deref();
        if approval.covers(device, serial, arrival.certificate.fingerprint(), record, now) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Whether whoever has the link of this record is the one that it was given to.
async fn is_for_one_device(tx: &mut Tx, record: &Issuance) -> Result<bool, Error> {
    if record.expected_serial.is_some() || record.expected_udid.is_some() {
        return Ok(true);
    }
    let Some(link) = record.link else { return Ok(false) };
    Ok(store::links::get(tx, link).await?.is_some_and(|link| link.max_uses == 1))
}

fn spoken(row: Row, record: Option<Issuance>, one_device: bool) -> Option<Approval> {
    let device = match (row.udid, row.apple_enrollment_id) {
        (Some(udid), None) => DeviceKey::Udid(udid.parse().ok()?),
        (None, Some(id)) => DeviceKey::EnrollmentId(id.parse().ok()?),
        _ => return None,
    };
    Some(Approval {
        certificate: Fingerprint(row.cert_sha256.try_into().ok()?),
        device,
        serial: row.serial_number,
        record,
        one_device,
        until: Timestamp(row.approved_until?),
    })
}

/// The approval was used: it is good for nothing more.
pub(crate) async fn used(tx: &mut Tx, approval: Uuid, enrollment: EnrollmentId, now: Timestamp) -> Result<(), Error> {
    if !quarantine::mark_used(tx, approval, enrollment).await? {
        return Err(Refusal::Used.into());
    }
    let event = NewEvent {
        at: now,
        kind: "quarantine.used",
        enrollment: Some(enrollment),
        command: None,
        actor: "device",
        summary: "A device that an operator approved in the quarantine has enrolled.",
        data: &json!({ "quarantine_id": approval }),
    };
    Ok(store::events::record(tx, &event).await?)
}

/// What an external certificate permits by its names. It has no record that could be revoked: an operator's refusal stands in.
pub(crate) async fn by_subject(tx: &mut Tx, arrival: &Arrival<'_>) -> Result<Option<Permission>, Error> {
    let message = arrival.message;
    let serial = message.serial_number.as_deref();
    let Some(permission) = Permission::by_subject(arrival.certificate, &message.sender.device, serial) else {
        return Ok(None);
    };
    let refused = external::was_refused(tx, arrival.certificate).await?;
    Ok(Some(Permission { state: if refused { State::Revoked } else { permission.state }, ..permission }))
}
