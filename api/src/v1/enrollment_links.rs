//! Enrollment links.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;

use enroll::link::Standing;
use mdm_core::ids::LinkId;
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::Tx;
use store::links::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::Problem;
use crate::when::When;

/// A permission to enroll, given to a person as a URL.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrollmentLink {
    /// Its key.
    pub(crate) id: Uuid,
    /// `device` or `user` (User Enrollment).
    kind: String,
    /// `ready`, `again` (used, but its profile can be fetched once more for a few minutes), `used_up`, `expired` or
    /// `revoked`.
    standing: &'static str,
    /// What the operator noted about it.
    note: String,
    /// Only a device with this serial number can use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_serial: Option<String>,
    /// Only a device with this UDID can use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_udid: Option<String>,
    /// The person's Managed Apple Account, in User Enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_apple_account: Option<String>,
    /// Put on each enrollment that comes by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// A person signs in before the profile is given out.
    sign_in: bool,
    /// How often a profile may be fetched.
    max_uses: i64,
    /// How often one was.
    uses: i64,
    /// When it was made.
    created_at: When,
    /// Who made it.
    created_by: String,
    /// When it ends.
    expires_at: When,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<When>,
}

/// A link as the API shows it.
pub(crate) async fn shown(tx: &mut Tx, row: Row, now: Timestamp) -> Result<EnrollmentLink, Problem> {
    let newest = store::links::newest_issuance(tx, LinkId(row.id)).await?;
    let standing = match enroll::link::standing(&row, newest.as_ref(), now) {
        Standing::Ready => "ready",
        Standing::Again => "again",
        Standing::UsedUp => "used_up",
        Standing::Expired => "expired",
        Standing::Revoked => "revoked",
    };
    Ok(EnrollmentLink {
        id: row.id,
        kind: row.kind,
        standing,
        note: row.note,
        expected_serial: row.expected_serial,
        expected_udid: row.expected_udid,
        managed_apple_account: row.managed_apple_account,
        label: row.label,
        sign_in: row.sign_in,
        max_uses: row.max_uses,
        uses: row.uses,
        created_at: When::ms(row.created_at),
        created_by: row.created_by,
        expires_at: When::ms(row.expires_at),
        revoked_at: row.revoked_at.map(When::ms),
    })
}
