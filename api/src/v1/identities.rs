//! Identity certificates of devices: how long each lives, and where its renewal stands.

pub(crate) mod list;
pub(crate) mod revoke;

use mdm_core::certificate::Certificate;
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::identities::{Listed, Standing};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::when::When;

/// An identity certificate that is, or was, pinned to an enrollment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Identity {
    /// SHA-256 of the certificate, hexadecimal.
    certificate_sha256: String,
    /// The enrollment that it stands for.
    enrollment_id: Uuid,
    /// The issuance record that it came by.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuance_id: Option<Uuid>,
    /// `live`, `expired`, `retired` (a newer one took its place) or `revoked`.
    state: &'static str,
    /// Who issued it: `scep` (the built-in CA), `acme`, or `import`; absent where an external CA's names admitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Why this identity and no other: what the gate said, with reason codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    reason: Option<serde_json::Value>,
    /// Subject of the certificate.
    subject: String,
    /// Issuer of the certificate.
    issuer: String,
    /// Serial number of the certificate, hexadecimal.
    serial_number: String,
    /// From when it is valid.
    not_before: When,
    /// Until when it is valid.
    not_after: When,
    /// When it was pinned.
    pinned_at: When,
    /// When a newer one took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<When>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<When>,
    /// Where its renewal stands; absent as long as none was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    renewal: Option<Renewal>,
}

/// The renewal of an identity.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Renewal {
    /// `due` (waits for its time), `queued` (its command waits or is with the device), `issued` (the device took the profile; its
    /// new identity was not seen yet) or `done`.
    state: String,
    /// `expiry`, `expired`, `to_acme`, `anchors` or `operator`.
    reason: String,
    /// How often it failed.
    attempts: i64,
    /// What the last failure was: a stable word, or the device's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// When it is looked at next; absent where nothing more can be done from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<When>,
}

impl Identity {
    pub(crate) fn new(row: Listed, now: Timestamp) -> Self {
        let certificate = Certificate::from_der(&row.certificate).ok();
        let standing = match (row.revoked_at, row.retired_at) {
            (Some(_), _) => Standing::Revoked,
            (None, Some(_)) => Standing::Retired,
            (None, None) if row.not_after < now.0 => Standing::Expired,
            (None, None) => Standing::Live,
        };
        let renewal = row.renewal_state.zip(row.renewal_reason).map(|(state, reason)| Renewal {
            state,
            reason,
            attempts: row.renewal_attempts.unwrap_or_default(),
            last_error: row.renewal_last_error,
            next_at: row.renewal_due_at.map(When::ms),
        });
        Self {
            certificate_sha256: hex::encode(row.cert_sha256),
            enrollment_id: row.enrollment_id,
            issuance_id: row.issuance_id,
            state: standing.as_str(),
            source: row.source,
            reason: row.identity_reason.and_then(|text| serde_json::from_str(&text).ok()),
            subject: certificate.as_ref().map(Certificate::subject).unwrap_or_default(),
            issuer: certificate.as_ref().map(Certificate::issuer).unwrap_or_default(),
            serial_number: certificate.as_ref().map(Certificate::serial_hex).unwrap_or_default(),
            not_before: When::ms(row.not_before),
            not_after: When::ms(row.not_after),
            pinned_at: When::ms(row.pinned_at),
            retired_at: row.retired_at.map(When::ms),
            revoked_at: row.revoked_at.map(When::ms),
            renewal,
        }
    }
}
