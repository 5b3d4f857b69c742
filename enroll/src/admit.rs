//! Who may begin an enrollment: at `Authenticate`, the issuance record of the certificate decides (TH-02, TH-10).
//!
//! [`decide`] is pure; [`authenticate`] reads what it needs, asks it, and writes everything that follows in the caller's
//! transaction, so that a crash leaves either the old enrollment or the new one (RG-09).

use mdm_core::certificate::Certificate;
use mdm_core::checkin::Authenticate;
use mdm_core::enrollment::{Channel, DeviceKey, EnrollmentKind, EnrollmentState, UnenrolledWhy};
use mdm_core::ids::{EnrollmentId, IssuanceId, Label};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::enrollments::{Claims, Enrollment, NewDevice};
use store::events::NewEvent;
use store::identities::Identity;
use store::issuance::{Issuance, Purpose, State};

use crate::Error;

/// Why an `Authenticate` is not admitted. The device gets a plain refusal; this is for the log and the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The certificate has no issuance record.
    #[error("no issuance record says that this certificate may enroll a device")]
    NoRecord,
    /// The record was used for another certificate or enrollment before, or the certificate is pinned elsewhere.
    #[error("the issuance record of this certificate was used before")]
    Used,
    /// The record or the identity was revoked.
    #[error("this certificate was revoked")]
    Revoked,
    /// A newer identity took this one's place.
    #[error("a newer identity certificate took the place of this one")]
    Retired,
    /// The enrollment that this certificate belongs to is over.
    #[error("the enrollment of this certificate is over: a new enrollment needs a new identity")]
    Ended,
    /// The certificate belongs to another device.
    #[error("this certificate was issued for another device")]
    OtherDevice,
    /// A device enrollment was expected and a User Enrollment came, or the reverse.
    #[error("this certificate was issued for another kind of enrollment")]
    Kind,
    /// The record names a serial number, and the message has another or none.
    #[error("the issuance record names another serial number than the device")]
    Serial,
    /// The record names a `UDID`, and the message has another.
    #[error("the issuance record names another UDID than the device")]
    Udid,
    /// The device is enrolled, and the record does not say that it may be enrolled anew (TH-02).
    #[error(
        "this device is enrolled already and the link was not made for it: \
         make a link with its serial number or UDID, or remove the enrollment first"
    )]
    Enrolled,
    /// Another push topic than the enrollment has (TH-14).
    #[error("the push topic is not the one of the enrollment")]
    Topic,
}

impl Refused {
    /// A stable word for logs and events.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoRecord => "no_record",
            Self::Used => "used",
            Self::Revoked => "revoked",
            Self::Retired => "retired",
            Self::Ended => "ended",
            Self::OtherDevice => "other_device",
            Self::Kind => "kind",
            Self::Serial => "serial",
            Self::Udid => "udid",
            Self::Enrolled => "enrolled",
            Self::Topic => "topic",
        }
    }
}

/// How an admitted `Authenticate` goes on from what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continues {
    /// A device that was never enrolled here.
    New,
    /// A known device enrolls anew: same row, next generation, everything of the old enrollment dropped.
    Again,
    /// The enrollment goes on with a new certificate; nothing is dropped (TH-10). The older certificate stays good until a
    /// `TokenUpdate` comes with the new one, because a device that fails to update its profile goes back to the old one.
    Renewal,
    /// The same certificate says `Authenticate` again, because an answer was lost; nothing is dropped.
    Repeat,
}

impl Continues {
    /// The word for logs and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Again => "again",
            Self::Renewal => "renewal",
            Self::Repeat => "repeat",
        }
    }
}

/// An admitted `Authenticate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The device-channel enrollment.
    pub enrollment: EnrollmentId,
    /// Its kind.
    pub kind: EnrollmentKind,
    /// How it goes on.
    pub continues: Continues,
}

/// What is known when an `Authenticate` comes.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The issuance record of the certificate.
    pub record: Option<&'a Issuance>,
    /// The pin of the certificate, with the enrollment that it is pinned to.
    pub pinned: Option<(&'a Identity, &'a Enrollment)>,
    /// The enrollment that the record names.
    pub named: Option<&'a Enrollment>,
    /// The newest enrollment of the device that the message names.
    pub device: Option<&'a Enrollment>,
    /// The certificate comes from a CA whose common names are device identifiers, and this is its common name.
    pub external_name: Option<&'a str>,
}

/// Decides about an `Authenticate`: the kind of enrollment and how it goes on, or why not.
pub fn decide(known: &Known<'_>, message: &Authenticate) -> Result<(EnrollmentKind, Continues), Refused> {
    let key = &message.sender.device;
    if let Some((identity, enrollment)) = known.pinned {
        if identity.revoked_at.is_some() {
            return Err(Refused::Revoked);
        }
        if identity.retired_at.is_some() {
            return Err(Refused::Retired);
        }
        goes_on(enrollment, key, &message.topic)?;
        return Ok((enrollment.kind, Continues::Repeat));
    }
    let Some(record) = known.record else {
        return by_name(known, message);
    };
    match record.state {
        State::Issued => {}
        State::Used => return Err(Refused::Used),
        State::Revoked => return Err(Refused::Revoked),
        State::Open | State::Void => return Err(Refused::NoRecord),
    }
    if record.purpose == Purpose::Renewal {
        let enrollment = known.named.ok_or(Refused::NoRecord)?;
        goes_on(enrollment, key, &message.topic)?;
        return Ok((enrollment.kind, Continues::Renewal));
    }
    let user_enrollment = matches!(key, DeviceKey::EnrollmentId(_));
    if (record.kind == EnrollmentKind::User) != user_enrollment {
        return Err(Refused::Kind);
    }
    if record.expected_serial.is_some() && record.expected_serial != message.serial_number {
        return Err(Refused::Serial);
    }
    if let Some(udid) = &record.expected_udid
        && !matches!(key, DeviceKey::Udid(claimed) if claimed.as_str() == udid)
    {
        return Err(Refused::Udid);
    }
    let continues = match known.device {
        None => Continues::New,
        Some(device) if is_over(device) || issued_for(record, device) => Continues::Again,
        Some(_) => return Err(Refused::Enrolled),
    };
    Ok((record.kind, continues))
}

/// An identity issued elsewhere, whose common name must be the device's `UDID`, `EnrollmentID` or serial number.
fn by_name(known: &Known<'_>, message: &Authenticate) -> Result<(EnrollmentKind, Continues), Refused> {
    let name = known.external_name.ok_or(Refused::NoRecord)?;
    let (id, kind) = match &message.sender.device {
        DeviceKey::Udid(udid) => (udid.as_str(), EnrollmentKind::Device),
        DeviceKey::EnrollmentId(id) => (id.as_str(), EnrollmentKind::User),
    };
    // The serial number is the device's word only; an enrolled device is given up for its UDID alone.
    let by_id = name == id;
    if !by_id && message.serial_number.as_deref() != Some(name) {
        return Err(Refused::OtherDevice);
    }
    match known.device {
        None => Ok((kind, Continues::New)),
        Some(device) if is_over(device) || by_id || device.serial_number.as_deref() == Some(name) => {
            Ok((kind, Continues::Again))
        }
        Some(_) => Err(Refused::Enrolled),
    }
}

/// Whether the enrollment lives, is this device's, and keeps its topic.
fn goes_on(enrollment: &Enrollment, key: &DeviceKey, topic: &str) -> Result<(), Refused> {
    if enrollment.device_key.as_ref() != Some(key) {
        return Err(Refused::OtherDevice);
    }
    if is_over(enrollment) {
        return Err(Refused::Ended);
    }
    if enrollment.topic.as_deref().is_some_and(|t| t != topic) {
        return Err(Refused::Topic);
    }
    Ok(())
}

fn is_over(enrollment: &Enrollment) -> bool {
    matches!(enrollment.state, EnrollmentState::Unenrolled { .. })
}

/// Whether the record was opened for this very device: by its UDID (which was compared already), or by the serial number
/// that this enrollment had before, not only by the one that the message claims now.
fn issued_for(record: &Issuance, device: &Enrollment) -> bool {
    record.enrollment == Some(device.id)
        || record.expected_udid.is_some()
        || (record.expected_serial.is_some() && record.expected_serial == device.serial_number)
}

/// Admits an `Authenticate` and writes what follows from it. The chain of `certificate` has been verified by the caller;
/// `external_name` is its common name where it comes from a CA whose common names are device identifiers.
pub async fn authenticate(
    tx: &mut Tx,
    random: &Random,
    certificate: &Certificate,
    external_name: Option<&str>,
    message: &Authenticate,
    raw: &[u8],
    now: Timestamp,
) -> Result<Admitted, Error> {
    let fingerprint = certificate.fingerprint();
    let key = &message.sender.device;
    let mut device = store::enrollments::newest_device(tx, key).await?;
    if let Some(found) = &device {
        store::enrollments::lock(tx, found.id).await?;
        device = store::enrollments::get(tx, found.id).await?;
    }
    let record = store::issuance::by_certificate(tx, fingerprint).await?;
    let identity = store::identities::find_by_fingerprint(tx, fingerprint).await?;
    let pinned_to = match &identity {
        Some(identity) => store::enrollments::get(tx, identity.enrollment).await?,
        None => None,
    };
    let named = match record.as_ref().and_then(|r| r.enrollment) {
        Some(id) => store::enrollments::get(tx, id).await?,
        None => None,
    };
    let known = Known {
        record: record.as_ref(),
        pinned: identity.as_ref().zip(pinned_to.as_ref()),
        named: named.as_ref(),
        device: device.as_ref(),
        external_name,
    };
    let (kind, continues) = decide(&known, message)?;
    let id = match (continues, &device) {
        (Continues::New, _) | (_, None) => EnrollmentId(random.uuid_v7(now)),
        (_, Some(device)) => device.id,
    };
    let claims = claims(message, raw);
    match continues {
        Continues::New => {
            store::enrollments::insert_device(tx, &NewDevice { id, kind, key }, now).await?;
            store::enrollments::authenticated(tx, id, false, &claims, now).await?;
        }
        Continues::Again => {
            drop_everything(tx, id, random, now).await?;
            store::enrollments::authenticated(tx, id, true, &claims, now).await?;
        }
        Continues::Renewal | Continues::Repeat => store::enrollments::claimed(tx, id, &claims, now).await?,
    }
    if continues != Continues::Repeat {
        pin(tx, id, record.as_ref(), certificate, now).await?;
        if continues != Continues::Renewal {
            store::identities::retire_others(tx, id, Some(fingerprint), now).await?;
        }
    }
    if let Some(label) = record.as_ref().and_then(|r| r.label.as_deref()).and_then(|l| l.parse::<Label>().ok()) {
        store::labels::put(tx, id, &label).await?;
    }
    record_event(tx, id, continues, message, record.as_ref().map(|r| r.id), now).await?;
    Ok(Admitted { enrollment: id, kind, continues })
}

/// Uses the record up and pins the certificate; whoever was first wins (TH-06).
async fn pin(
    tx: &mut Tx,
    id: EnrollmentId,
    record: Option<&Issuance>,
    certificate: &Certificate,
    now: Timestamp,
) -> Result<(), Error> {
    if let Some(record) = record
        && !store::issuance::mark_used(tx, record.id, id, now).await?
    {
        return Err(Refused::Used.into());
    }
    if !store::identities::bind(tx, id, record.map(|r| r.id), certificate, now).await? {
        return Err(Refused::Used.into());
    }
    Ok(())
}

/// What ends when a known device enrolls anew: its queue, its wish to be pushed, its user channels. Its secrets are
/// archived as they are sealed, not handed on to whoever enrolls now (TH-10).
async fn drop_everything(tx: &mut Tx, id: EnrollmentId, random: &Random, now: Timestamp) -> Result<(), Error> {
    store::enrollments::archive_escrow(tx, id, [random.uuid_v7(now), random.uuid_v7(now)], now).await?;
    end_queue(tx, id, now).await?;
    for user in store::enrollments::users_of(tx, id).await? {
        if user.channel == Channel::User && !is_over(&user) {
            end_queue(tx, user.id, now).await?;
            let over = EnrollmentState::Unenrolled { at: now, why: UnenrolledWhy::Replaced };
            store::enrollments::end(tx, user.id, over).await?;
        }
    }
    Ok(())
}

async fn end_queue(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<(), Error> {
    commands::clear(tx, id, "the device enrolled anew", now).await?;
    store::push::connected(tx, id).await?;
    Ok(())
}

fn claims<'a>(message: &'a Authenticate, raw: &'a [u8]) -> Claims<'a> {
    Claims {
        topic: &message.topic,
        serial_number: message.serial_number.as_deref(),
        product_name: message.product_name.as_deref(),
        model: message.model.as_deref(),
        model_name: message.model_name.as_deref(),
        device_name: message.device_name.as_deref(),
        os_version: message.os_version.as_deref(),
        build_version: message.build_version.as_deref(),
        raw,
    }
}

async fn record_event(
    tx: &mut Tx,
    id: EnrollmentId,
    continues: Continues,
    message: &Authenticate,
    record: Option<IssuanceId>,
    now: Timestamp,
) -> Result<(), Error> {
    let what = match continues {
        Continues::New => "A device asked to be enrolled and was admitted.",
        Continues::Again => "A known device enrolled anew; what waited for the old enrollment was dropped.",
        Continues::Renewal => "The enrollment goes on with a renewed identity certificate.",
        Continues::Repeat => "The device repeated Authenticate with the same certificate.",
    };
    let event = NewEvent {
        at: now,
        kind: "enrollment.authenticated",
        enrollment: Some(id),
        command: None,
        actor: "device",
        summary: what,
        data: &json!({
            "continues": continues.as_str(),
            "issuance": record,
            "product_name": message.product_name,
            "os_version": message.os_version,
        }),
    };
    Ok(store::events::record(tx, &event).await?)
}

#[cfg(test)]
mod tests {}
