//! `POST /api/v1/ade-servers/{id}/sync`

use axum::extract::State;
use http::StatusCode;
use uuid::Uuid;

use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Visits Apple now: reads what changed and assigns what is due. The server's `synced_at` and `health` tell what came of it.
#[utoipa::path(
    post, path = "/api/v1/ade-servers/{id}/sync", tag = "ade",
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 202, description = "The visit is due; it begins within seconds"),
        (status = 404, description = "No such server", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The server has no token yet", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn sync_ade_server(State(shared): State<Shared>, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = shared.store.begin().await?;
    let server = super::find(&mut tx, id).await?;
    if server.token_sealed.is_none() {
        return Err(ade::Error::NoToken.into());
    }
    store::ade::servers::due(&mut tx, id, shared.clock.now()).await?;
    tx.commit().await?;
    Ok(StatusCode::ACCEPTED)
}
