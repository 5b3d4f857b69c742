//! `/version`

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::go_json;

/// The version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    version: &'static str,
}

/// The version of this server; anyone may read it, as at NanoMDM.
#[utoipa::path(
    get, path = "/version", tag = "nanomdm",
    security(()),
    responses((status = 200, description = "The version", body = Version)),
)]
pub(crate) async fn version() -> Response {
    go_json(StatusCode::OK, &Version { version: env!("CARGO_PKG_VERSION") })
}
