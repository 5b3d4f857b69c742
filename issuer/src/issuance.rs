//! The records: for whom, by which flow and until when one identity certificate may be issued, and that it is issued once.
//!
//! ```text
//! open() ──▶ a record and its one-time challenge
//!              │  authorize(): the challenge is consumed and bound to one key, in one UPDATE
//!              ▼
//!         Authorized ──▶ issue(): signs what the record says, keeps the certificate in the same transaction
//! ```
//!
//! **A crash loses nothing (RG-25).** Consuming, signing and keeping happen in one transaction, and the answer goes out after
//! its commit: a certificate that any client has seen is in the record. A client that lost the answer asks again with the same
//! challenge and the same key, and is given the same certificate.

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::csr::Csr;
use mdm_core::crypto::key::PublicKey;
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{EnrollmentId, Fingerprint, IssuanceId, Label, LinkId, Udid};
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use store::Tx;
use store::events::NewEvent;
use store::issuance::NewIssuance;
pub use store::issuance::{Details, Flow, Issuance, Purpose, Source, State};

pub use self::renewal::{LONGEST_WINDOW, RenewalRefusal, authorize_renewal, window_opens};
use crate::{Authority, Error};

/// The longest life of a challenge (TH-28).
pub const MAX_CHALLENGE_LIFE: Duration = Duration::from_hours(1);

/// How long a renewal by an ACME server may take, from the profile to the first message with the new certificate: the device may
/// be off, or the server slow to issue. There is no secret of ours in it, and the next profile for the device ends it.
pub const ACME_RENEWAL_LIFE: Duration = Duration::from_hours(7 * 24);

/// A record to be opened: who may ask for a certificate, and for what.
#[derive(Debug, Clone)]
pub struct OpenIssuance<'a> {
    /// How it came about; [`Flow::Import`] is for [`import_external`].
    pub flow: Flow,
    /// What the certificate is for.
    pub purpose: Purpose,
    /// Which kind of enrollment it leads to.
    pub kind: EnrollmentKind,
    /// The enrollment that it renews (a must for [`Purpose::Renewal`]), or that it may replace.
    pub enrollment_id: Option<EnrollmentId>,
    /// The link that was opened.
    pub link_id: Option<LinkId>,
    /// Only a device with this serial number may use it.
    pub expected_serial: Option<&'a str>,
    /// Only a device with this UDID may use it.
    pub expected_udid: Option<&'a Udid>,
    /// Put on the enrollment that comes of it.
    pub label: Option<&'a Label>,
    /// How long the challenge is good for; cut to [`MAX_CHALLENGE_LIFE`].
    pub ttl: Duration,
    /// What else the record says. Its `acme` is set by [`open_acme`].
    pub details: Details<'a>,
}

/// Opens a record; gives its id and the one-time challenge (192 random bits), of which only the SHA-256 is kept.
///
/// Opening a renewal makes older open renewals of the same enrollment void.
pub async fn open(
    tx: &mut Tx,
    random: &Random,
    now: Timestamp,
    wanted: &OpenIssuance<'_>,
) -> Result<(IssuanceId, Secret<String>), Error> {
    // Hexadecimal, because a client may have to write it as a PrintableString, which base64url does not fit.
    let challenge = Secret::new(hex::encode(random.bytes::<24>()));
    let ends = now.plus(wanted.ttl.min(MAX_CHALLENGE_LIFE));
    let details = Details { acme: None, ..wanted.details };
    let id = insert(tx, random, now, wanted, Some((hash(challenge.expose()), ends)), details).await?;
    Ok((id, challenge))
}

/// Opens a record that an ACME server fulfils: the certificate is found by `client_identifier` when it first shows itself.
/// Only its SHA-256 is kept, and older open records with the same one and for the same purpose are void.
///
/// There is no challenge, so that our SCEP server cannot fulfil the record in the ACME server's place (TH-48).
pub async fn open_acme(
    tx: &mut Tx,
    random: &Random,
    now: Timestamp,
    wanted: &OpenIssuance<'_>,
    client_identifier: &str,
) -> Result<IssuanceId, Error> {
    let sha256 = hash(client_identifier);
    store::issuance::void_client_identifier(tx, &sha256, wanted.purpose).await?;
    let life = match wanted.purpose {
        Purpose::Renewal => ACME_RENEWAL_LIFE,
        Purpose::Enrollment => wanted.ttl.min(MAX_CHALLENGE_LIFE),
    };
    let details = Details { acme: Some((sha256, now.plus(life))), ..wanted.details };
    insert(tx, random, now, wanted, None, details).await
}

/// The open records for an ACME certificate that bears these names, each once.
pub async fn open_acme_records(tx: &mut Tx, names: &[String], now: Timestamp) -> Result<Vec<Issuance>, Error> {
    let mut found: Vec<Issuance> = Vec::new();
    for name in names {
        for record in store::issuance::open_by_client_identifier(tx, &hash(name), now).await? {
            if found.iter().all(|other| other.id != record.id) {
                found.push(record);
            }
        }
    }
    Ok(found)
}

/// Keeps the ACME certificate that came for an open record: `open` → `issued`; false where somebody was first.
pub async fn fulfil_acme(
    tx: &mut Tx,
    record: &Issuance,
    certificate: &Certificate,
    now: Timestamp,
) -> Result<bool, Error> {
    let Ok(key) = certificate.public_key() else { return Ok(false) };
    if !store::issuance::consume(tx, record.id, &Fingerprint::of(key.spki_der()).0, "acme", now).await? {
        return Ok(false);
    }
    store::issuance::set_certificate(tx, record.id, certificate).await?;
    Ok(true)
}

async fn insert(
    tx: &mut Tx,
    random: &Random,
    now: Timestamp,
    wanted: &OpenIssuance<'_>,
    challenge: Option<([u8; 32], Timestamp)>,
    details: Details<'_>,
) -> Result<IssuanceId, Error> {
    match (wanted.flow, wanted.purpose, wanted.enrollment_id) {
        (Flow::Link | Flow::Ade | Flow::Byod | Flow::Adde, Purpose::Enrollment, _) => {}
        (Flow::Renewal, Purpose::Renewal, Some(enrollment)) => {
            store::issuance::void_renewals(tx, enrollment).await?;
        }
        (Flow::Renewal, Purpose::Renewal, None) => {
            return Err(Error::Record("a renewal names the enrollment that it renews"));
        }
        (Flow::Link | Flow::Ade | Flow::Byod | Flow::Adde, Purpose::Renewal, _)
        | (Flow::Renewal, Purpose::Enrollment, _)
        | (Flow::Import, ..) => {
            return Err(Error::Record("this flow does not issue certificates for this purpose"));
        }
    }
    let id = IssuanceId(random.uuid_v7(now));
    let new = NewIssuance {
        id,
        flow: wanted.flow,
        purpose: wanted.purpose,
        kind: wanted.kind,
        link: wanted.link_id,
        enrollment: wanted.enrollment_id,
        expected_serial: wanted.expected_serial,
        expected_udid: wanted.expected_udid,
        label: wanted.label,
        common_name: &id.to_string(),
        challenge,
        imported: None,
        details,
        created_at: now,
    };
    store::issuance::insert(tx, &new).await?;
    Ok(id)
}

/// An identity that another CA issued and that one device may enroll with.
#[derive(Debug, Clone)]
pub struct ImportExternal<'a> {
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
    /// Which kind of enrollment it leads to.
    pub kind: EnrollmentKind,
    /// The enrollment that it renews ([`Purpose::Renewal`]) or may replace.
    pub enrollment_id: Option<EnrollmentId>,
    /// What the certificate is for.
    pub purpose: Purpose,
    /// Only a device with this serial number may use it.
    pub expected_serial: Option<&'a str>,
    /// Only a device with this UDID may use it.
    pub expected_udid: Option<&'a Udid>,
    /// `AssignedManagedAppleID` of its profile; a must for a new User Enrollment, whose renewals carry it.
    pub managed_apple_account: Option<&'a str>,
    /// Put on the enrollment that comes of it.
    pub label: Option<&'a Label>,
}

/// Makes an externally issued certificate known. It must name the device: trust is never given to whoever comes first (TH-05).
pub async fn import_external(
    tx: &mut Tx,
    random: &Random,
    now: Timestamp,
    import: &ImportExternal<'_>,
) -> Result<IssuanceId, Error> {
    if import.expected_serial.is_none() && import.expected_udid.is_none() && import.enrollment_id.is_none() {
        return Err(Error::Record(
            "an imported identity names its device: expected_serial, expected_udid or enrollment_id",
        ));
    }
    if import.purpose == Purpose::Renewal && import.enrollment_id.is_none() {
        return Err(Error::Record("a renewal names the enrollment that it renews"));
    }
    let nameless = import.managed_apple_account.is_none() && import.purpose == Purpose::Enrollment;
    if import.kind == EnrollmentKind::User && nameless {
        return Err(Error::Record("an imported User Enrollment names its managed_apple_account"));
    }
    let id = IssuanceId(random.uuid_v7(now));
    let new = NewIssuance {
        id,
        flow: Flow::Import,
        purpose: import.purpose,
        kind: import.kind,
        link: None,
        enrollment: import.enrollment_id,
        expected_serial: import.expected_serial,
        expected_udid: import.expected_udid,
        label: import.label,
        common_name: &id.to_string(),
        challenge: None,
        imported: Some(import.fingerprint),
        details: Details { managed_apple_account: import.managed_apple_account, ..Details::default() },
        created_at: now,
    };
    store::issuance::insert(tx, &new).await?;
    Ok(id)
}

/// Why no certificate is issued. For the log: a client hears one fixed answer (TH-32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has no challenge.
    #[error("the request has no challengePassword")]
    NoChallenge,
    /// No record has this challenge.
    #[error("the challenge is not one of ours")]
    UnknownChallenge,
    /// The challenge has ended.
    #[error("the challenge has ended")]
    Expired,
    /// The challenge was used for another key.
    #[error("the challenge was used already, for another key")]
    Consumed,
    /// The record was given up or revoked.
    #[error("the record of this challenge is void or revoked")]
    Closed,
    /// The challenge belongs to another record than the address that was called, or to a flow that issues nothing (TH-33).
    #[error("the challenge does not belong to this address")]
    OtherRoute,
}

impl Refusal {
    /// A stable word for logs and events.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoChallenge => "no_challenge",
            Self::UnknownChallenge => "unknown_challenge",
            Self::Expired => "challenge_expired",
            Self::Consumed => "challenge_consumed",
            Self::Closed => "record_closed",
            Self::OtherRoute => "other_route",
        }
    }
}

/// The right to one certificate for one key. Only [`authorize`] and [`authorize_renewal`] make one, and [`issue`] uses it up.
#[derive(Debug)]
pub struct Authorized {
    record: Box<Issuance>,
    key: PublicKey,
}

/// What a good challenge leads to.
#[derive(Debug)]
pub enum Grant {
    /// The challenge was consumed now: a certificate may be issued.
    Issue(Authorized),
    /// The same request came again: this certificate was issued then.
    Again(Box<Certificate>),
}

/// Consumes the challenge of a request for its key (TH-27, TH-28, TH-33).
///
/// `route` is the record that the called address names, where it names one. The same key with the same challenge is the
/// same client asking again, whatever its transaction id: possession of the key is proven by the request.
pub async fn authorize(
    tx: &mut Tx,
    route: Option<IssuanceId>,
    csr: &Csr,
    transaction_id: &str,
    now: Timestamp,
) -> Result<Result<Grant, Refusal>, Error> {
    let Some(challenge) = csr.challenge() else { return Ok(Err(Refusal::NoChallenge)) };
    let challenge = hash(challenge.expose());
    let Some(record) = store::issuance::by_challenge(tx, &challenge).await? else {
        return Ok(Err(Refusal::UnknownChallenge));
    };
    let routed = route.is_none_or(|id| id == record.id);
    match record.flow {
        Flow::Link | Flow::Ade | Flow::Byod | Flow::Adde | Flow::Renewal if routed => {}
        Flow::Link | Flow::Ade | Flow::Byod | Flow::Adde | Flow::Renewal | Flow::Import => {
            return Ok(Err(Refusal::OtherRoute));
        }
    }
    let key_sha256 = Fingerprint::of(csr.public_key().spki_der()).0;
    if store::issuance::consume(tx, record.id, &key_sha256, transaction_id, now).await? {
        return Ok(Ok(Grant::Issue(Authorized { record: Box::new(record), key: csr.public_key().clone() })));
    }
    // It was not open any more: read again what it has become, by this client or by another one.
    let Some(record) = store::issuance::by_challenge(tx, &challenge).await? else {
        return Ok(Err(Refusal::UnknownChallenge));
    };
    Ok(match record.state {
        State::Open => Err(Refusal::Expired),
        State::Void | State::Revoked => Err(Refusal::Closed),
        State::Issued | State::Used if record.challenge_expires_at.is_none_or(|end| end <= now) => {
            Err(Refusal::Expired)
        }
        State::Issued | State::Used => match &record.certificate {
            Some(der) if record.csr_key_sha256.as_deref() == Some(&key_sha256) => {
                Ok(Grant::Again(Box::new(Certificate::from_der(der)?)))
            }
            _ => Err(Refusal::Consumed),
        },
    })
}

/// Signs the certificate that the record describes, for the key that was authorized, and keeps it.
///
/// Nothing of the request but its key gets into the certificate (TH-29): the common name is the record's, the use is client
/// authentication, and there is no subject alternative name, so that no serial number is told to every server (TH-49).
pub async fn issue(
    tx: &mut Tx,
    authorized: Authorized,
    authority: &Authority,
    random: &Random,
    now: Timestamp,
) -> Result<Certificate, Error> {
    let Authorized { record, key } = authorized;
    let certificate = authority.sign_identity(&record.common_name, &key, random, now)?;
    store::issuance::set_certificate(tx, record.id, &certificate).await?;
    let data = serde_json::json!({
        "issuance": record.id.to_string(),
        "flow": record.flow.as_str(),
        "certificate_sha256": certificate.fingerprint().to_string(),
        "not_after": certificate.not_after().to_rfc3339(),
    });
    let event = NewEvent {
        at: now,
        kind: "identity.issued",
        enrollment: record.enrollment,
        command: None,
        actor: "server",
        summary: "An identity certificate was issued",
        data: &data,
    };
    store::events::record(tx, &event).await?;
    Ok(certificate)
}

/// The SHA-256 under which a challenge is kept: it has 192 random bits, so that no slow hash is needed.
fn hash(challenge: &str) -> [u8; 32] {
    Fingerprint::of(challenge.as_bytes()).0
}

mod renewal;

#[cfg(test)]
pub(crate) mod tests;
