//! Invitations: codes that stand in for a sign-in.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;
pub(crate) mod show;

use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use signin::invitation::Standing;
use store::invitations::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::when::When;

/// A code that signs one account in, in account-driven enrollment. The code itself is shown once, when it is made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invitation {
    /// Its key.
    id: Uuid,
    /// The Managed Apple Account that the code signs in.
    managed_apple_account: String,
    /// `byod` (User Enrollment) or `adde` (device enrollment).
    mode: String,
    /// `ready`, `used_up`, `expired` or `revoked`.
    standing: &'static str,
    /// What the operator noted about it.
    note: String,
    /// Put on each enrollment that comes by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// How often the code may be used.
    max_uses: i64,
    /// How often it was.
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

/// The mode of account-driven enrollment.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = InvitationMode)]
pub(crate) enum Mode {
    /// User Enrollment.
    Byod,
    /// Device enrollment.
    Adde,
}

/// An invitation as the API shows it.
pub(crate) fn shown(row: Row, now: Timestamp) -> Invitation {
    let standing = match signin::invitation::standing(&row, now) {
        Standing::Ready => "ready",
        Standing::UsedUp => "used_up",
        Standing::Expired => "expired",
        Standing::Revoked => "revoked",
    };
    Invitation {
        id: row.id,
        managed_apple_account: row.managed_apple_account,
        mode: row.mode,
        standing,
        note: row.note,
        label: row.label,
        max_uses: row.max_uses,
        uses: row.uses,
        created_at: When::ms(row.created_at),
        created_by: row.created_by,
        expires_at: When::ms(row.expires_at),
        revoked_at: row.revoked_at.map(When::ms),
    }
}
