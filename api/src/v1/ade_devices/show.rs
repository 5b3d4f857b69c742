//! `GET /api/v1/ade-devices/{serial}`

use axum::Json;
use axum::extract::State;

use super::{AdeDevice, Names};
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// One device that Apple lists.
#[utoipa::path(
    get, path = "/api/v1/ade-devices/{serial}", tag = "ade",
    params(("serial" = String, Path, description = "The serial number")),
    responses(
        (status = 200, description = "The device", body = AdeDevice),
        (status = 404, description = "No server lists it", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_ade_device(
    State(shared): State<Shared>,
    Path(serial): Path<String>,
) -> Result<Json<AdeDevice>, Problem> {
    let mut tx = shared.store.read().await?;
    let device = store::ade::device(&mut tx, &serial).await?;
    let device = device.ok_or_else(|| Problem::not_found("device with the serial number", serial))?;
    Ok(Json(Names::default().shown(&mut tx, device).await?))
}
