//! Issuance records: for whom an identity certificate may be issued, and which one was.

pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod revoke;

use serde::Serialize;
use store::issuance::Issuance as Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::when::When;

/// An issuance record.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Issuance {
    /// Its key.
    id: Uuid,
    /// By which door: `link`, `ade`, `byod`, `adde`, `renewal`, or `import` (issued elsewhere).
    flow: &'static str,
    /// `enrollment` or `renewal`.
    purpose: &'static str,
    /// Kind of the enrollment.
    kind: &'static str,
    /// `open`, `issued`, `used`, `void` or `revoked`.
    state: &'static str,
    /// Who issues the certificate: `scep` (the built-in CA), `acme`, or `import`.
    source: &'static str,
    /// Why this identity and no other: what the gate said, with reason codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    reason: Option<serde_json::Value>,
    /// `AssignedManagedAppleID` of the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_apple_account: Option<String>,
    /// The link that was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    link_id: Option<Uuid>,
    /// The enrollment that it renews, or that came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_id: Option<Uuid>,
    /// Only a device with this serial number may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_serial: Option<String>,
    /// Only a device with this UDID may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_udid: Option<String>,
    /// Put on the enrollment that comes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// CN of the certificate.
    common_name: String,
    /// SHA-256 of the certificate, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    /// Serial number of the certificate, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_serial: Option<String>,
    /// When the certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_not_after: Option<When>,
    /// When the record was made.
    created_at: When,
    /// When the certificate was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<When>,
    /// When a device enrolled with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at: Option<When>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<When>,
}

impl From<Row> for Issuance {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.0,
            flow: row.flow.as_str(),
            purpose: row.purpose.as_str(),
            kind: row.kind.as_str(),
            state: row.state.as_str(),
            source: row.source.as_str(),
            reason: row.identity_reason.and_then(|text| serde_json::from_str(&text).ok()),
            managed_apple_account: row.managed_apple_account,
            link_id: row.link.map(|id| id.0),
            enrollment_id: row.enrollment.map(|id| id.0),
            expected_serial: row.expected_serial,
            expected_udid: row.expected_udid,
            label: row.label,
            common_name: row.common_name,
            certificate_sha256: row.fingerprint.map(|fingerprint| hex::encode(fingerprint.0)),
            certificate_serial: row.cert_serial,
            certificate_not_after: row.cert_not_after.map(When),
            created_at: row.created_at.into(),
            issued_at: row.issued_at.map(When),
            used_at: row.used_at.map(When),
            revoked_at: row.revoked_at.map(When),
        }
    }
}
