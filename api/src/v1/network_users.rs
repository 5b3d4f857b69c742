//! Network users: people whom a Mac may ask for a password of this list (`users.network = "digest"`).

pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod put;

use serde::Serialize;
use store::network_users::Row;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::when::When;

/// A network user, without the password.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NetworkUser {
    /// The name that is typed at the login window.
    short_name: String,
    /// When the password was set.
    created_at: When,
    /// Who set it.
    created_by: String,
}

impl From<Row> for NetworkUser {
    fn from(row: Row) -> Self {
        Self { short_name: row.short_name, created_at: When::ms(row.created_at), created_by: row.created_by }
    }
}

/// A name that digest access can carry (RFC 2617: no colon).
fn checked(short_name: &str) -> Result<&str, Problem> {
    let wrong = short_name.is_empty()
        || short_name.len() > 255
        || short_name.chars().any(|c| c.is_control() || c == ':' || c == '"' || c == '\\');
    if wrong {
        return Err(Problem::field("short_name", "must have 1 to 255 bytes, no colon, quote or backslash"));
    }
    Ok(short_name)
}
