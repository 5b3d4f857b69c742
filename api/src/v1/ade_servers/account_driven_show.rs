//! `GET /api/v1/ade-servers/{id}/account-driven-enrollment`

use axum::Json;
use axum::extract::State;
use uuid::Uuid;

use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Where Apple sends devices of account-driven enrollment for service discovery, asked of Apple now.
#[utoipa::path(
    get, path = "/api/v1/ade-servers/{id}/account-driven-enrollment", tag = "ade",
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 200, description = "What Apple has", body = ade::Discovery),
        (status = 404, description = "No such server", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Apple does not answer it", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_discovery(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Json<ade::Discovery>, Problem> {
    let server = super::find(&mut shared.store.read().await?, id).await?;
    Ok(Json(ade::discovery(&shared.ade, &server).await?))
}
