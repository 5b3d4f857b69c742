//! An `Authenticate` arrives: what is known about its certificate and its device is read, [`issuer::admission`] decides, and
//! everything that follows is written in the caller's transaction, so that a crash leaves either the old enrollment or the
//! new one (TH-02, TH-10, RG-09).

use issuer::admission::{Admission, Known, Permission, Pinned, Question, admit};
use mdm_core::certificate::Certificate;
use mdm_core::checkin::Authenticate;
use mdm_core::enrollment::{DeviceKey, Door, EnrollmentKind, EnrollmentState, UnenrolledWhy};
use mdm_core::ids::{EnrollmentId, Fingerprint, Label};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::enrollments::{Claims, Enrollment, Entered, NewDevice};
use store::events::NewEvent;
use store::issuance::{Issuance, State};

use crate::{Error, door, external, quarantine};

/// An `Authenticate` with the certificate that it came under.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The certificate; its chain was verified by the caller.
    pub certificate: &'a Certificate,
    /// The certificate comes from an external CA that the operator said to name devices in its certificates
    /// (`identity.external_match = "subject"`). Where it has no record, its names decide.
    pub by_subject: bool,
    /// The external CA (of `identity.external_ca_file`) that itself signed the certificate, where it was one of them.
    pub external_issuer: Option<Fingerprint>,
    /// `ServerURL` of the profiles that this server hands out; kept with the enrollment, because it can never change.
    pub server_url: Option<&'a str>,
    /// The message.
    pub message: &'a Authenticate,
    /// The message as received.
    pub raw: &'a [u8],
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
    /// The same certificate says `Authenticate` again, because an answer was lost; nothing is written (TH-17).
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

/// Admits an `Authenticate` and writes what follows from it, or refuses it and writes nothing.
pub async fn authenticate(
    tx: &mut Tx,
    random: &Random,
    arrival: &Arrival<'_>,
    now: Timestamp,
) -> Result<Admitted, Error> {
    let message = arrival.message;
    let key = &message.sender.device;
    let device = locked_device(tx, key).await?;
    let pinned = pinned(tx, arrival.certificate).await?;
    let mut record = store::issuance::by_certificate(tx, arrival.certificate.fingerprint()).await?;
    if record.is_none() && pinned.is_none() {
        record = external::open_record(tx, arrival.certificate, arrival.external_issuer, None, now).await?;
    }
    let serial = message.serial_number.as_deref();
    let same_serial = match serial {
        Some(serial) => store::enrollments::live_serial(tx, serial).await?,
        None => None,
    };
    let permission = match &record {
        // It was issued, else it would not be here; the record learns of it when the decision is made.
        Some(record) if record.state == State::Open => {
            Some(Permission { state: State::Issued, ..Permission::from(record) })
        }
        Some(record) => Some(Permission::from(record)),
        None if arrival.by_subject => quarantine::by_subject(tx, arrival).await?,
        None => None,
    };
    let same_device = device.as_ref().filter(|d| !is_over(d)).and_then(known);
    let same_serial = same_serial.as_ref().and_then(known);
    let question = Question {
        device: key,
        serial,
        permission: permission.as_ref(),
        pinned: pinned.as_ref().map(|(pinned, _)| pinned),
        same_device: same_device.as_ref(),
        same_serial: same_serial.as_ref(),
        approved: false,
        now,
    };
    let mut approval = None;
    let admission = match admit(&question) {
        Err(refusal) if refusal.is_quarantine() => {
            approval = quarantine::approval(tx, arrival, record.as_ref(), now).await?;
            admit(&Question { approved: approval.is_some(), ..question })?
        }
        decided => decided?,
    };
    let admitted = match admission {
        // Sent again, by the device or by somebody who recorded it: an older word must not undo a newer one (TH-17, RG-24).
        Admission::Repeat { enrollment } | Admission::Unchanged { enrollment } => {
            return go_on(tx, enrollment, Continues::Repeat, message).await;
        }
        Admission::Renew { enrollment } => {
            let admitted = go_on(tx, enrollment, Continues::Renewal, message).await?;
            store::enrollments::claimed(tx, enrollment, &claims(arrival), now).await?;
            pin(tx, enrollment, record.as_ref(), arrival.certificate, now).await?;
            admitted
        }
        Admission::Enroll { again: _, replaces } => {
            if let (Some(record), None) = (&record, &approval) {
                external::ask_the_door_again(tx, record).await?;
            }
            if let Some(other) = replaces {
                end_replaced(tx, other, now).await?;
            }
            let kind = record.as_ref().map_or_else(|| kind_of(key), |record| record.kind);
            let admitted = begin(tx, random, device.as_ref(), kind, record.as_ref(), arrival, now).await?;
            entered(tx, &admitted, device.as_ref(), record.as_ref(), arrival, now).await?;
            if let Some(approval) = approval {
                quarantine::used(tx, approval, admitted.enrollment, now).await?;
            }
            admitted
        }
    };
    tell(tx, &admitted, message, record.as_ref(), now).await?;
    Ok(admitted)
}

/// The newest enrollment of this device, ended or not, read under its lock.
async fn locked_device(tx: &mut Tx, key: &DeviceKey) -> Result<Option<Enrollment>, Error> {
    let Some(found) = store::enrollments::newest_device(tx, key).await? else { return Ok(None) };
    store::enrollments::lock(tx, found.id).await?;
    Ok(store::enrollments::get(tx, found.id).await?)
}

/// What the certificate is pinned to already.
async fn pinned(tx: &mut Tx, certificate: &Certificate) -> Result<Option<(Pinned, Enrollment)>, Error> {
    let Some(identity) = store::identities::find_by_fingerprint(tx, certificate.fingerprint()).await? else {
        return Ok(None);
    };
    let Some(enrollment) = store::enrollments::get(tx, identity.enrollment).await? else { return Ok(None) };
    let known = known(&enrollment).ok_or(store::Error::Corrupt("identity.enrollment_id"))?;
    Ok(Some((Pinned { enrollment: known, live: identity.is_live() }, enrollment)))
}

/// An enrollment as admission looks at it; `None` for a user channel, which has no device key.
fn known(enrollment: &Enrollment) -> Option<Known> {
    Some(Known {
        id: enrollment.id,
        state: enrollment.state,
        device: enrollment.device_key.clone()?,
        serial: enrollment.serial_number.clone(),
    })
}

fn is_over(enrollment: &Enrollment) -> bool {
    matches!(enrollment.state, EnrollmentState::Unenrolled { .. })
}

/// The kind where no record says it: by how the device names itself.
fn kind_of(key: &DeviceKey) -> EnrollmentKind {
    match key {
        DeviceKey::Udid(_) => EnrollmentKind::Device,
        DeviceKey::EnrollmentId(_) => EnrollmentKind::User,
    }
}

/// The enrollment goes on. Its topic can't change (TH-14).
async fn go_on(tx: &mut Tx, id: EnrollmentId, continues: Continues, message: &Authenticate) -> Result<Admitted, Error> {
    let enrollment = store::enrollments::get(tx, id).await?.ok_or(store::Error::Corrupt("identity.enrollment_id"))?;
    if enrollment.topic.as_deref().is_some_and(|topic| topic != message.topic) {
        return Err(Error::Topic);
    }
    Ok(Admitted { enrollment: id, kind: enrollment.kind, continues })
}

/// A new enrollment begins, in the row that the device has or in a new one.
async fn begin(
    tx: &mut Tx,
    random: &Random,
    device: Option<&Enrollment>,
    kind: EnrollmentKind,
    record: Option<&Issuance>,
    arrival: &Arrival<'_>,
    now: Timestamp,
) -> Result<Admitted, Error> {
    let (id, continues) = match device {
        Some(device) => (device.id, Continues::Again),
        None => (EnrollmentId(random.uuid_v7(now)), Continues::New),
    };
    if continues == Continues::Again {
        // Its secrets are kept, sealed, but not handed on to whoever enrolls now (TH-10).
        store::enrollments::archive_escrow(tx, id, [random.uuid_v7(now), random.uuid_v7(now)], now).await?;
        store::renewals::abandon(tx, id, now).await?;
        end_queue(tx, id, now).await?;
        end_users(tx, id, now).await?;
    } else {
        let key = &arrival.message.sender.device;
        store::enrollments::insert_device(tx, &NewDevice { id, kind, key }, now).await?;
    }
    store::enrollments::authenticated(tx, id, continues == Continues::Again, &claims(arrival), now).await?;
    store::identities::retire_others(tx, id, None, now).await?;
    pin(tx, id, record, arrival.certificate, now).await?;
    Ok(Admitted { enrollment: id, kind, continues })
}

/// Writes by which door the device came in, binds the token of its account, and puts the labels on.
async fn entered(
    tx: &mut Tx,
    admitted: &Admitted,
    device: Option<&Enrollment>,
    record: Option<&Issuance>,
    arrival: &Arrival<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    let id = admitted.enrollment;
    let former = device.map_or(Door::Import, |device| device.door);
    let door = record.map_or(Door::Import, |record| external::door_of(record.flow).unwrap_or(former));
    let entered = Entered {
        door,
        managed_apple_account: record.and_then(|record| record.managed_apple_account.as_deref()),
        server_url: arrival.server_url.filter(|_| door != Door::Import),
        anchors: record.and_then(|record| record.anchors.as_deref()),
    };
    store::enrollments::entered(tx, id, &entered).await?;
    if let Some(token) = record.and_then(|record| record.account_token)
        && !store::account_tokens::bind(tx, token, id, now).await?
    {
        return Err(Error::AccountToken);
    }
    let of_record = record.and_then(|r| r.label.as_deref()).and_then(|label| label.parse::<Label>().ok());
    for label in of_record.into_iter().chain(door::load(tx, door).await?.label) {
        store::labels::put(tx, id, &label).await?;
    }
    Ok(())
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
        && record.state == State::Open
        && !issuer::issuance::fulfil_acme(tx, record, certificate, now).await?
    {
        return Err(issuer::admission::Refusal::Used.into());
    }
    if let Some(record) = record
        && !store::issuance::mark_used(tx, record.id, id, now).await?
    {
        return Err(issuer::admission::Refusal::Used.into());
    }
    if !store::identities::bind(tx, id, record.map(|r| r.id), certificate, now).await? {
        return Err(issuer::admission::Refusal::Used.into());
    }
    Ok(())
}

/// The same hardware enrolls under another `UDID`: its former enrollment is over.
async fn end_replaced(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<(), Error> {
    store::enrollments::lock(tx, id).await?;
    store::renewals::abandon(tx, id, now).await?;
    end_queue(tx, id, now).await?;
    end_users(tx, id, now).await?;
    store::identities::retire_others(tx, id, None, now).await?;
    store::enrollments::end(tx, id, replaced(now)).await?;
    let event = NewEvent {
        at: now,
        kind: "enrollment.unenrolled",
        enrollment: Some(id),
        command: None,
        actor: "device",
        summary: "Another enrollment of the same hardware took the place of this one.",
        data: &json!({ "why": UnenrolledWhy::Replaced.as_str() }),
    };
    Ok(store::events::record(tx, &event).await?)
}

async fn end_users(tx: &mut Tx, device: EnrollmentId, now: Timestamp) -> Result<(), Error> {
    for user in store::enrollments::users_of(tx, device).await? {
        if !is_over(&user) {
            end_queue(tx, user.id, now).await?;
            store::enrollments::end(tx, user.id, replaced(now)).await?;
        }
    }
    Ok(())
}

async fn end_queue(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<(), Error> {
    commands::clear(tx, id, "the device enrolled anew", now).await?;
    Ok(store::push::connected(tx, id).await?)
}

fn replaced(at: Timestamp) -> EnrollmentState {
    EnrollmentState::Unenrolled { at, why: UnenrolledWhy::Replaced }
}

fn claims<'a>(arrival: &Arrival<'a>) -> Claims<'a> {
    let message = arrival.message;
    Claims {
        topic: &message.topic,
        serial_number: message.serial_number.as_deref(),
        product_name: message.product_name.as_deref(),
        model: message.model.as_deref(),
        model_name: message.model_name.as_deref(),
        device_name: message.device_name.as_deref(),
        os_version: message.os_version.as_deref(),
        build_version: message.build_version.as_deref(),
        raw: arrival.raw,
    }
}

async fn tell(
    tx: &mut Tx,
    admitted: &Admitted,
    message: &Authenticate,
    record: Option<&Issuance>,
    now: Timestamp,
) -> Result<(), Error> {
    let summary = match admitted.continues {
        Continues::New => "A device asked to be enrolled and was admitted.",
        Continues::Again => "A known device enrolls anew; what waited for the old enrollment was dropped.",
        Continues::Renewal => "The enrollment goes on with a renewed identity certificate.",
        Continues::Repeat => return Ok(()),
    };
    let event = NewEvent {
        at: now,
        kind: "enrollment.authenticated",
        enrollment: Some(admitted.enrollment),
        command: None,
        actor: "device",
        summary,
        data: &json!({
            "continues": admitted.continues.as_str(),
            "issuance": record.map(|r| r.id),
            "product_name": message.product_name,
            "os_version": message.os_version,
        }),
    };
    Ok(store::events::record(tx, &event).await?)
}
