//! `GET /api/v1/quarantine/{id}`

use axum::Json;
use axum::extract::State;
use uuid::Uuid;

use super::Quarantined;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// One quarantined device.
#[utoipa::path(
    get, path = "/api/v1/quarantine/{id}", tag = "quarantine",
    params(("id" = Uuid, Path, description = "The quarantined device")),
    responses(
        (status = 200, description = "The quarantined device", body = Quarantined),
        (status = 404, description = "No such one", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_quarantined(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Json<Quarantined>, Problem> {
    Ok(Json(super::find(&mut shared.store.read().await?, id).await?.into()))
}
