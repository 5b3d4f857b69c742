//! `GET /api/v1/ade-servers/{id}`

use axum::Json;
use axum::extract::State;
use uuid::Uuid;

use super::AdeServer;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// One server of the portal, with how it is.
#[utoipa::path(
    get, path = "/api/v1/ade-servers/{id}", tag = "ade",
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 200, description = "The server", body = AdeServer),
        (status = 404, description = "No such server", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_ade_server(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Json<AdeServer>, Problem> {
    let mut tx = shared.store.read().await?;
    let server = super::find(&mut tx, id).await?;
    Ok(Json(super::shown(&mut tx, server).await?))
}
