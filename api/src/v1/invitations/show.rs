//! `GET /api/v1/invitations/{id}`

use axum::Json;
use axum::extract::State;
use uuid::Uuid;

use super::Invitation;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// One invitation, without its code.
#[utoipa::path(
    get, path = "/api/v1/invitations/{id}", tag = "invitations",
    params(("id" = Uuid, Path, description = "The invitation")),
    responses(
        (status = 200, description = "The invitation", body = Invitation),
        (status = 404, description = "No such invitation", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_invitation(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Json<Invitation>, Problem> {
    let mut tx = shared.store.read().await?;
    let row = store::invitations::get(&mut tx, id).await?.ok_or_else(|| Problem::not_found("invitation", id))?;
    Ok(Json(super::shown(row, shared.clock.now())))
}
