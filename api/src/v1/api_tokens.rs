//! API tokens.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;

use serde::Serialize;
use store::tokens::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::{Scope, Scopes};
use crate::when::When;

/// An API token, without its text: that is shown once, when it is made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiToken {
    /// Its key.
    id: Uuid,
    /// What it is called.
    name: String,
    /// What it may do.
    scopes: Vec<Scope>,
    /// When it was made.
    created_at: When,
    /// Who made it.
    created_by: String,
    /// From when it is refused.
    expires_at: When,
    /// When it was last used, to within some seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<When>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<When>,
}

impl From<Row> for ApiToken {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            scopes: Scopes::from_text(&row.scopes).as_slice().to_vec(),
            created_at: When::ms(row.created_at),
            created_by: row.created_by,
            expires_at: When::ms(row.expires_at),
            last_used_at: row.last_used_at.map(When::ms),
            revoked_at: row.revoked_at.map(When::ms),
        }
    }
}
