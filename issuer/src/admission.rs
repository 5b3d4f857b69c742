//! Whether an `Authenticate` may be believed: decided from what its certificate was issued for (TH-02, TH-06, TH-08, TH-10).
//!
//! [`admit`] is pure. Every open way into an enrollment goes through it, and it fails closed: a certificate without a record
//! is nobody's, and a device that is enrolled is replaced only by a certificate that was issued for that device, or by one
//! that an operator vouches for after having seen it in quarantine ([`Approval`]).

mod approval;

use std::time::Duration;

use mdm_core::certificate::{AltName, Certificate};
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use store::issuance::{Issuance, Purpose, State};

pub use approval::Approval;

/// What a certificate permits, from the record that it was issued or imported by, or from its own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// What it was issued for.
    pub purpose: Purpose,
    /// Which kind of enrollment it leads to; unknown where an external CA's certificate speaks for itself.
    pub kind: Option<EnrollmentKind>,
    /// Whether it waits to be used, was used, or was taken back.
    pub state: State,
    /// Only this serial number may use it.
    pub expected_serial: Option<String>,
    /// Only this device may use it.
    pub expected_device: Option<String>,
    /// The enrollment that it renews or may replace.
    pub enrollment: Option<EnrollmentId>,
    /// When the certificate was issued here, or first shown; unknown for an imported one.
    pub issued_at: Option<Timestamp>,
}

impl From<&Issuance> for Permission {
    fn from(record: &Issuance) -> Self {
        Self {
            purpose: record.purpose,
            kind: Some(record.kind),
            state: record.state,
            expected_serial: record.expected_serial.clone(),
            expected_device: record.expected_udid.clone(),
            enrollment: record.enrollment,
            issued_at: record.issued_at,
        }
    }
}

impl Permission {
    /// What the certificate of a trusted external CA permits where the operator has said that its common name or an entry of
    /// its subject alternative name is the device's UDID, EnrollmentID or serial number; `None` where none of them is.
    pub fn by_subject(certificate: &Certificate, device: &DeviceKey, serial: Option<&str>) -> Option<Self> {
        let names = names(certificate);
        let named = |wanted: &str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
        let expected_device = Some(key_text(device)).filter(|text| named(text)).map(str::to_owned);
        let expected_serial = serial.filter(|serial| !serial.is_empty() && named(serial)).map(str::to_owned);
        if expected_device.is_none() && expected_serial.is_none() {
            return None;
        }
        Some(Self {
            purpose: Purpose::Enrollment,
            kind: None,
            state: State::Issued,
            expected_serial,
            expected_device,
            enrollment: None,
            issued_at: None,
        })
    }
}

/// The names of a certificate: its common name, and the texts of its subject alternative name, `PermanentIdentifier` among them.
pub fn names(certificate: &Certificate) -> Vec<String> {
    let mut names: Vec<String> = certificate.common_name().into_iter().collect();
    names.extend(certificate.alt_names().into_iter().map(|name| match name {
        AltName::Dns(text)
        | AltName::Email(text)
        | AltName::Uri(text)
        | AltName::UserPrincipal(text)
        | AltName::Permanent(text) => text,
    }));
    names
}

/// An enrollment on the device channel, as far as admission looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Our key.
    pub id: EnrollmentId,
    /// Its state.
    pub state: EnrollmentState,
    /// How its device names itself.
    pub device: DeviceKey,
    /// The serial number that it gave.
    pub serial: Option<String>,
}

/// The enrollment that the certificate is pinned to already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// That enrollment.
    pub enrollment: Known,
    /// Whether the identity is neither retired nor revoked.
    pub live: bool,
}

/// For how long a certificate that was issued for a new enrollment may be used for it. A device goes on at once; what is kept
/// for longer is kept to take something over.
pub const USE_WITHIN: Duration = Duration::from_hours(1);

/// Everything that the decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question<'a> {
    /// How the `Authenticate` names the device.
    pub device: &'a DeviceKey,
    /// Its `SerialNumber`.
    pub serial: Option<&'a str>,
    /// What the certificate permits; `None` where it has no record.
    pub permission: Option<&'a Permission>,
    /// What the certificate is pinned to.
    pub pinned: Option<&'a Pinned>,
    /// The enrollment of this UDID or EnrollmentID that has not ended.
    pub same_device: Option<&'a Known>,
    /// An enrollment of this serial number that has not ended.
    pub same_serial: Option<&'a Known>,
    /// An operator looked at such an `Authenticate` in quarantine and vouches for the device; see [`Approval::covers`].
    pub approved: bool,
    /// Now.
    pub now: Timestamp,
}

/// What an `Authenticate` that is believed does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// A new enrollment begins.
    Enroll {
        /// The live enrollment of this very device, which starts again with a new generation.
        again: Option<EnrollmentId>,
        /// A live enrollment under another UDID whose place is taken: the same serial number, and a record bound to it.
        replaces: Option<EnrollmentId>,
    },
    /// The enrollment goes on under a new certificate; queue and escrowed secrets stay (TH-10).
    Renew {
        /// That enrollment.
        enrollment: EnrollmentId,
    },
    /// The same `Authenticate` came again before any `TokenUpdate`: it does what the first one did, and no more.
    Repeat {
        /// That enrollment.
        enrollment: EnrollmentId,
    },
    /// The device is enrolled with this very certificate: answered well, and nothing changes.
    Unchanged {
        /// That enrollment.
        enrollment: EnrollmentId,
    },
}

/// Why an `Authenticate` is refused. Nothing changes, and an enrollment that exists goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate was not issued or imported as a device identity here.
    #[error("the certificate has no issuance record: it was not issued for an enrollment here")]
    NoRecord,
    /// The record or the identity was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// A newer identity took the place of this one.
    #[error("a newer certificate of this enrollment took the place of this one")]
    Retired,
    /// The record was used, but by no enrollment that still has it.
    #[error("the certificate was used for an enrollment already")]
    Used,
    /// The certificate belongs to another device (TH-01).
    #[error("the certificate belongs to the enrollment of another device")]
    OtherDevice,
    /// The enrollment ended with `CheckOut` or was removed: a new record is needed.
    #[error("this enrollment has ended: the device needs a new enrollment link")]
    Ended,
    /// `UDID` where the record is for User Enrollment, or `EnrollmentID` where it is not (TH-03).
    #[error(
        "the record is for another kind of enrollment: User Enrollment names itself by EnrollmentID, all others by UDID"
    )]
    Kind,
    /// The serial number is not the expected one, or was not sent.
    #[error("the record is for a device with another serial number")]
    Serial,
    /// The UDID is not the expected one.
    #[error("the record is for a device with another UDID")]
    Udid,
    /// A device of this UDID is enrolled, and the certificate was not issued for it: quarantined.
    #[error(
        "a device with this UDID is enrolled and the certificate was not issued for it: remove that enrollment, or make an enrollment link with expected_udid or expected_serial"
    )]
    DeviceEnrolled,
    /// A device of this serial number is enrolled, and the certificate was not issued for it: quarantined.
    #[error(
        "a device with this serial number is enrolled under another UDID and the certificate was not issued for it: remove that enrollment, or make an enrollment link with expected_serial"
    )]
    SerialEnrolled,
    /// The certificate was issued for an enrollment that nobody went on with in time: whoever has it got it for later.
    #[error("the certificate was issued for a new enrollment too long ago: the device needs a new profile")]
    TooLate,
    /// The record renews the enrollment of another device, or one that has ended (TH-10).
    #[error("the record renews another enrollment than that of this device")]
    OtherRenewal,
}

impl Refusal {
    /// A stable word for events and logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoRecord => "no_issuance_record",
            Self::Revoked => "certificate_revoked",
            Self::Retired => "certificate_retired",
            Self::Used => "certificate_used",
            Self::OtherDevice => "certificate_of_other_device",
            Self::Ended => "enrollment_ended",
            Self::Kind => "other_enrollment_kind",
            Self::Serial => "serial_mismatch",
            Self::Udid => "udid_mismatch",
            Self::DeviceEnrolled => "device_already_enrolled",
            Self::SerialEnrolled => "serial_already_enrolled",
            Self::TooLate => "certificate_not_used_in_time",
            Self::OtherRenewal => "renewal_of_other_enrollment",
        }
    }

    /// Whether an operator should look: somebody claims to be a device that is enrolled.
    pub fn is_quarantine(self) -> bool {
        matches!(self, Self::OtherDevice | Self::DeviceEnrolled | Self::SerialEnrolled | Self::OtherRenewal)
    }
}

/// Decides on an `Authenticate` whose certificate chain was verified.
pub fn admit(question: &Question<'_>) -> Result<Admission, Refusal> {
    if let Some(pinned) = question.pinned {
        return again(question, pinned);
    }
    let permission = question.permission.ok_or(Refusal::NoRecord)?;
    match permission.state {
        State::Issued => {}
        State::Used => return Err(Refusal::Used),
        // A certificate is never known for an open or void record.
        State::Open | State::Void => return Err(Refusal::NoRecord),
        State::Revoked => return Err(Refusal::Revoked),
    }
    expected(question, permission)?;
    match permission.purpose {
        Purpose::Renewal => match renew(question, permission) {
            Err(_) if question.approved => enroll(question, permission),
            decided => decided,
        },
        Purpose::Enrollment => {
            let admission = enroll(question, permission)?;
            let late = permission.issued_at.is_some_and(|at| question.now > at.plus(USE_WITHIN));
            if late && !question.approved { Err(Refusal::TooLate) } else { Ok(admission) }
        }
    }
}

/// The certificate speaks for an enrollment already.
fn again(question: &Question<'_>, pinned: &Pinned) -> Result<Admission, Refusal> {
    let enrollment = &pinned.enrollment;
    if !same(key_text(&enrollment.device), key_text(question.device)) || !same_kind(&enrollment.device, question.device)
    {
        return Err(Refusal::OtherDevice);
    }
    if question.permission.is_some_and(|permission| permission.state == State::Revoked) {
        return Err(Refusal::Revoked);
    }
    match enrollment.state {
        EnrollmentState::Unenrolled { .. } => Err(Refusal::Ended),
        EnrollmentState::Authenticated { .. } | EnrollmentState::Enrolled { .. } if !pinned.live => {
            Err(Refusal::Retired)
        }
        EnrollmentState::Authenticated { .. } => Ok(Admission::Repeat { enrollment: enrollment.id }),
        EnrollmentState::Enrolled { .. } => Ok(Admission::Unchanged { enrollment: enrollment.id }),
    }
}

/// The device is the one that the record expects.
fn expected(question: &Question<'_>, permission: &Permission) -> Result<(), Refusal> {
    let user_enrollment = matches!(question.device, DeviceKey::EnrollmentId(_));
    if permission.kind.is_some_and(|kind| (kind == EnrollmentKind::User) != user_enrollment) {
        return Err(Refusal::Kind);
    }
    let wanted = permission.expected_device.as_deref();
    if wanted.is_some_and(|device| !same(device, key_text(question.device))) {
        return Err(Refusal::Udid);
    }
    let wanted = permission.expected_serial.as_deref();
    if wanted.is_some_and(|serial| !question.serial.is_some_and(|sent| same(serial, sent))) {
        return Err(Refusal::Serial);
    }
    Ok(())
}

fn renew(question: &Question<'_>, permission: &Permission) -> Result<Admission, Refusal> {
    match question.same_device {
        Some(live) if permission.enrollment == Some(live.id) => Ok(Admission::Renew { enrollment: live.id }),
        _ => Err(Refusal::OtherRenewal),
    }
}

fn enroll(question: &Question<'_>, permission: &Permission) -> Result<Admission, Refusal> {
    // The record is bound to a device by the enrollment that it names, by that device's UDID, or by its serial number; the
    // serial number must be the one that the *live* enrollment gave, since the one in the message is only a claim.
    let bound = |live: &Known| {
        let by_serial = match (&permission.expected_serial, &live.serial) {
            (Some(expected), Some(serial)) => same(expected, serial),
            _ => false,
        };
        let by_device =
            permission.expected_device.as_deref().is_some_and(|device| same(device, key_text(&live.device)));
        question.approved || permission.enrollment == Some(live.id) || by_device || by_serial
    };
    if question.same_device.is_some_and(|live| !bound(live)) {
        return Err(Refusal::DeviceEnrolled);
    }
    let again = question.same_device.map(|live| live.id);
    let other = question.same_serial.filter(|live| Some(live.id) != again);
    if other.is_some_and(|live| !bound(live)) {
        return Err(Refusal::SerialEnrolled);
    }
    Ok(Admission::Enroll { again, replaces: other.map(|live| live.id) })
}

fn key_text(device: &DeviceKey) -> &str {
    match device {
        DeviceKey::Udid(udid) => udid.as_str(),
        DeviceKey::EnrollmentId(id) => id.as_str(),
    }
}

fn same_kind(a: &DeviceKey, b: &DeviceKey) -> bool {
    matches!(a, DeviceKey::Udid(_)) == matches!(b, DeviceKey::Udid(_))
}

/// UDIDs and serial numbers are hexadecimal digits and letters; operators write them in either case.
fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests;
