//! `GET /api/v1/openapi.json`: this API described for programs.

use axum::response::{IntoResponse, Response};
use http::header;

/// The OpenAPI 3.1 description of this API.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "server",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")),
)]
pub(crate) async fn show_openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], crate::openapi()).into_response()
}
