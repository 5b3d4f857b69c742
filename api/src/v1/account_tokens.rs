//! What devices of account-driven enrollment show as `Authorization: Bearer`.

pub(crate) mod list;
pub(crate) mod revoke;
pub(crate) mod revoke_account;

use serde::Serialize;
use store::account_tokens::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::when::When;

/// A bearer token of account-driven enrollment, without its text: only the device has that.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountToken {
    /// Its key.
    id: Uuid,
    /// `byod` (User Enrollment) or `adde` (device enrollment).
    mode: String,
    /// `apple-as-web` or `apple-oauth2`.
    method: String,
    /// Who signed in.
    managed_apple_account: String,
    /// `code` (apple-oauth2: the device has not exchanged its code yet), `live`, `replaced` (refreshed, or the person signed in
    /// again) or `revoked`.
    state: String,
    /// The enrollment that it belongs to; absent until the device is enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_id: Option<Uuid>,
    /// The sign-in that it came of. All tokens of one sign-in are revoked together.
    #[serde(skip_serializing_if = "Option::is_none")]
    sign_in_id: Option<Uuid>,
    /// Put on the enrollment that comes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// When it was made.
    created_at: When,
    /// When it ends; absent where it lasts as long as the enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<When>,
    /// When a device last showed it, to within an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<When>,
    /// When it was replaced or revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<When>,
}

impl From<Row> for AccountToken {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            mode: row.mode,
            method: row.method,
            managed_apple_account: row.managed_apple_account,
            state: row.state,
            enrollment_id: row.enrollment_id,
            sign_in_id: row.sign_in_id,
            label: row.label,
            created_at: When::ms(row.created_at),
            expires_at: row.expires_at.map(When::ms),
            last_used_at: row.last_used_at.map(When::ms),
            ended_at: row.revoked_at.map(When::ms),
        }
    }
}
