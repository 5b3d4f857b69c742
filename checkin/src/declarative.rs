//! `DeclarativeManagement`: a truthful, minimal answer: there are no declarations.
//!
//! Source: Apple, "Declarative management", the synchronization protocol.

use axum::response::Response;
use mdm_core::checkin::DeclarativeManagement;
use serde_json::json;

use crate::reply::{self, DeviceError};

/// Names the empty set of declarations; it never changes.
const TOKEN: &str = "empty";
/// When the set of declarations last changed: it never did.
const SINCE: &str = "2026-01-01T00:00:00Z";

/// Answers one request of the declarative protocol.
pub(crate) fn answer(message: &DeclarativeManagement) -> Result<Response, DeviceError> {
    match message.endpoint.as_str() {
        "tokens" => Ok(reply::json(&json!({
            "SyncTokens": { "Timestamp": SINCE, "DeclarationsToken": TOKEN }
        }))),
        "declaration-items" => Ok(reply::json(&json!({
            "Declarations": { "Activations": [], "Assets": [], "Configurations": [], "Management": [] },
            "DeclarationsToken": TOKEN,
        }))),
        "status" => Ok(reply::empty()),
        endpoint if endpoint.starts_with("declaration/") => Err(DeviceError::NoDeclaration),
        _ => Err(DeviceError::Refused("unknown Endpoint of DeclarativeManagement".to_owned())),
    }
}
