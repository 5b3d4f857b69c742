//! The right to one certificate that the signer of a request proves with the certificate that it has (SCEP `RenewalReq`, RFC
//! 8894 §2.3; TH-30), and from when an identity may be renewed.

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::csr::Csr;
use mdm_core::enrollment::{Door, EnrollmentState};
use mdm_core::ids::Fingerprint;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Tx;

use super::{Authorized, Details, Flow, Grant, OpenIssuance, Purpose, open};
use crate::{Authority, Error};

/// The longest window in which an identity is renewed.
pub const LONGEST_WINDOW: Duration = Duration::from_hours(120 * 24);

/// From when an identity may be renewed: the last third of its life, 120 days before its end at the earliest.
pub fn window_opens(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let third = not_after.since(not_before) / 3;
    not_after.minus(third.min(LONGEST_WINDOW))
}

/// Why a certificate is not renewed for its holder. For the log: a client hears one fixed answer (TH-32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewalRefusal {
    /// The signer's certificate is not of this CA.
    #[error("the signer's certificate is not one of this authority")]
    OtherAuthority,
    /// The signer's certificate is no identity of an enrollment.
    #[error("the signer's certificate is not pinned to an enrollment")]
    NotPinned,
    /// It was revoked, or a newer one took its place.
    #[error("the signer's certificate is revoked, or a newer one took its place")]
    NotCurrent,
    /// It has ended, or is not valid yet.
    #[error("the signer's certificate is not valid now")]
    NotValid,
    /// It is too early.
    #[error("it is too early to renew the signer's certificate")]
    TooEarly,
    /// The enrollment is over, or is about to be.
    #[error("the enrollment of the signer's certificate is over")]
    Over,
    /// The enrollment's door gives identities of an ACME server only.
    #[error("the door of the enrollment asks for an identity of an ACME server")]
    OtherIdentity,
}

impl RenewalRefusal {
    /// A stable word for logs and events.
    pub fn code(self) -> &'static str {
        match self {
            Self::OtherAuthority => "signer_of_other_authority",
            Self::NotPinned => "signer_not_pinned",
            Self::NotCurrent => "signer_not_current",
            Self::NotValid => "signer_not_valid",
            Self::TooEarly => "too_early",
            Self::Over => "enrollment_over",
            Self::OtherIdentity => "door_prefers_acme",
        }
    }
}

/// Opens and consumes a renewal record for the holder of a current identity, in one step.
///
/// The caller has checked that `signer`'s key signed the message, and that the request proves possession of its own key, which
/// may be a new one. A challenge in the request counts for nothing here. The same request again, before the certificate is used,
/// is given the same certificate (RG-25).
pub async fn authorize_renewal(
    tx: &mut Tx,
    authority: &Authority,
    random: &Random,
    signer: &Certificate,
    csr: &Csr,
    transaction_id: &str,
    now: Timestamp,
) -> Result<Result<Grant, RenewalRefusal>, Error> {
    if !signer.names_as_issuer(authority.certificate()) {
        return Ok(Err(RenewalRefusal::OtherAuthority));
    }
    // The very certificate that was pinned: whoever makes one of the same names has nothing.
    let fingerprint = signer.fingerprint();
    let Some(pin) = store::identities::find_by_fingerprint(tx, fingerprint).await? else {
        return Ok(Err(RenewalRefusal::NotPinned));
    };
    store::enrollments::lock(tx, pin.enrollment).await?;
    // Read again under the lock: another message may have retired it meanwhile.
    let Some(pin) =
        store::identities::find_by_fingerprint(tx, fingerprint).await?.filter(store::identities::Identity::is_live)
    else {
        return Ok(Err(RenewalRefusal::NotCurrent));
    };
    if now < pin.not_before || now > pin.not_after {
        return Ok(Err(RenewalRefusal::NotValid));
    }
    if now < window_opens(pin.not_before, pin.not_after) {
        return Ok(Err(RenewalRefusal::TooEarly));
    }
    let live = store::enrollments::get(tx, pin.enrollment).await?.filter(|enrollment| {
        matches!(enrollment.state, EnrollmentState::Enrolled { .. }) && enrollment.unenroll_requested_at.is_none()
    });
    let Some(enrollment) = live else { return Ok(Err(RenewalRefusal::Over)) };
    if !gives_scep(tx, enrollment.door).await? {
        return Ok(Err(RenewalRefusal::OtherIdentity));
    }
    let key_sha256 = Fingerprint::of(csr.public_key().spki_der()).0;
    if let Some(record) = store::renewals::issued_for_key(tx, enrollment.id, &key_sha256).await?
        && let Some(der) = &record.certificate
    {
        return Ok(Ok(Grant::Again(Box::new(Certificate::from_der(der)?))));
    }
    let wanted = OpenIssuance {
        flow: Flow::Renewal,
        purpose: Purpose::Renewal,
        kind: enrollment.kind,
        enrollment_id: Some(enrollment.id),
        link_id: None,
        expected_serial: None,
        expected_udid: None,
        label: None,
        ttl: Duration::from_mins(1),
        details: Details {
            managed_apple_account: enrollment.managed_apple_account.as_deref(),
            // No profile goes with it: the device keeps the anchors that it has.
            anchors: enrollment.anchors.as_deref(),
            ..Details::default()
        },
    };
    let (id, _) = open(tx, random, now, &wanted).await?;
    if !store::issuance::consume(tx, id, &key_sha256, transaction_id, now).await? {
        return Err(store::Error::Corrupt("issuance.state").into());
    }
    let record = store::issuance::get(tx, id).await?.ok_or(store::Error::Corrupt("issuance.id"))?;
    Ok(Ok(Grant::Issue(Authorized { record: Box::new(record), key: csr.public_key().clone() })))
}

/// Whether a door lets a device keep an identity of ours: not where it prefers an ACME server's and refuses every other one, or
/// asks for an attestation. `RenewalReq` leads around no door (TH-48).
async fn gives_scep(tx: &mut Tx, door: Door) -> Result<bool, Error> {
    let Some(row) = store::doors::get(tx, door).await? else { return Ok(true) };
    let settings: serde_json::Value =
        serde_json::from_str(&row.body).map_err(|_| store::Error::Corrupt("door.body"))?;
    let word = |pointer| settings.pointer(pointer).and_then(serde_json::Value::as_str);
    let strict =
        matches!(word("/identity/otherwise"), None | Some("refuse")) || word("/require") == Some("attestation");
    Ok(word("/identity/prefer") != Some("acme") || !strict)
}
