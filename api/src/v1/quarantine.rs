//! The quarantine: an `Authenticate` that claims to be an enrolled device, under a certificate that was not issued for it.

pub(crate) mod approve;
pub(crate) mod list;
pub(crate) mod refuse;
pub(crate) mod show;

use mdm_core::certificate::Certificate;
use serde::Serialize;
use store::Tx;
use store::quarantine::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::Problem;
use crate::when::When;

/// A refused `Authenticate` that an operator decides on. What the device says of itself is a claim, not a fact.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quarantined {
    /// Its key.
    id: Uuid,
    /// `waiting`, `approved`, `refused`, or `used` (a device enrolled by the approval).
    state: String,
    /// Why it was refused: `device_already_enrolled`, `serial_already_enrolled`, `certificate_of_other_device` or
    /// `renewal_of_other_enrollment`.
    reason: String,
    /// The `UDID` that it claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    udid: Option<String>,
    /// The `EnrollmentID` that it claims, in User Enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    apple_enrollment_id: Option<String>,
    /// The `SerialNumber` that it claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    /// The `ProductName` that it claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    product_name: Option<String>,
    /// The `OSVersion` that it claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
    /// The enrollment that it claims to be; it goes on meanwhile. Once used: the enrollment that came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_id: Option<Uuid>,
    /// The issuance record of its certificate: by which door and for whom it was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuance_id: Option<Uuid>,
    /// SHA-256 of its certificate, hexadecimal.
    certificate_sha256: String,
    /// Subject of its certificate.
    certificate_subject: String,
    /// When it first came.
    first_at: When,
    /// When it last came.
    last_at: When,
    /// How often it came.
    times: i64,
    /// Who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<When>,
    /// Until when the approval holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved_until: Option<When>,
}

impl From<Row> for Quarantined {
    fn from(row: Row) -> Self {
        let subject = Certificate::from_der(&row.certificate).map(|certificate| certificate.subject());
        Self {
            id: row.id,
            state: row.state,
            reason: row.reason,
            udid: row.udid,
            apple_enrollment_id: row.apple_enrollment_id,
            serial_number: row.serial_number,
            product_name: row.product_name,
            os_version: row.os_version,
            enrollment_id: row.enrollment_id,
            issuance_id: row.issuance_id,
            certificate_sha256: hex::encode(row.cert_sha256),
            certificate_subject: subject.unwrap_or_default(),
            first_at: When::ms(row.first_at),
            last_at: When::ms(row.last_at),
            times: row.times,
            decided_by: row.decided_by,
            decided_at: row.decided_at.map(When::ms),
            approved_until: row.approved_until.map(When::ms),
        }
    }
}

/// The one with this id, or 404.
async fn find(tx: &mut Tx, id: Uuid) -> Result<Row, Problem> {
    store::quarantine::get(tx, id).await?.ok_or_else(|| Problem::not_found("quarantined device", id))
}
