//! Certificates of ACME policies: which device has which, until when, and whether it was seen there.

pub(crate) mod list;
pub(crate) mod show;

use serde::Serialize;
use store::certificates::Listed;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::when::When;

/// A certificate that came by an ACME policy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcmeCertificate {
    /// SHA-256 of the certificate, hexadecimal.
    certificate_sha256: String,
    /// The enrollment that holds its key.
    enrollment_id: Uuid,
    /// The policy's name.
    policy: String,
    /// The revision of the policy that it came by.
    revision: i64,
    /// The attempt that it came by: GET /api/v1/acme-traces/{id}.
    trace_id: Uuid,
    /// `reported` (its authority said that it issued it), `verified` (the device has shown it), `replaced` (by a newer one) or `gone`
    /// (the device does not show it any more).
    state: String,
    /// Subject of the certificate.
    subject: String,
    /// Issuer of the certificate.
    issuer: String,
    /// Serial number of the certificate, hexadecimal.
    serial_number: String,
    /// `KeyType` and `KeySize` as the certificate has them, such as `ECSECPrimeRandom 256`.
    key_type: String,
    /// `HardwareBound` was asked for. Where the key is, only an attestation that the authority checked can say.
    hardware_bound: bool,
    /// `Attest` was asked for. That an attestation was given is the authority's to check.
    attested: bool,
    /// From when it is valid.
    not_before: When,
    /// Until when it is valid.
    not_after: When,
    /// When it is renewed; absent where it is not the one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_at: Option<When>,
    /// State of the assignment, where the policy is on the enrollment still.
    #[serde(skip_serializing_if = "Option::is_none")]
    assignment_state: Option<String>,
    /// When its authority reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_at: Option<When>,
    /// When the device showed it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_at: Option<When>,
    /// When the device showed it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<When>,
    /// When a newer one took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_at: Option<When>,
}

impl From<Listed> for AcmeCertificate {
    fn from(row: Listed) -> Self {
        Self {
            certificate_sha256: hex::encode(row.sha256),
            enrollment_id: row.enrollment_id,
            policy: row.policy_name,
            revision: row.revision,
            trace_id: row.attempt_id,
            state: row.state,
            subject: row.subject,
            issuer: row.issuer,
            serial_number: row.serial_number,
            key_type: row.key_type,
            hardware_bound: row.hardware_bound,
            attested: row.attested,
            not_before: When::ms(row.not_before),
            not_after: When::ms(row.not_after),
            renew_at: row.renew_at.map(When::ms),
            assignment_state: row.assignment_state,
            reported_at: row.reported_at.map(When::ms),
            verified_at: row.verified_at.map(When::ms),
            seen_at: row.seen_at.map(When::ms),
            replaced_at: row.replaced_at.map(When::ms),
        }
    }
}
