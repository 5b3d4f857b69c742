//! `GET /api/v1/invitations`

use axum::Json;
use axum::extract::State;
use uuid::Uuid;

use super::Invitation;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page, Params};
use crate::problem::Problem;

/// Invitations, newest first, without their codes.
#[utoipa::path(
    get, path = "/api/v1/invitations", tag = "invitations", params(Params),
    responses((status = 200, description = "One page", body = Page<Invitation>)),
)]
pub(crate) async fn list_invitations(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Invitation>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<Uuid> = page::after("invitations", params.cursor.as_deref())?;
    let now = shared.clock.now();
    let mut tx = shared.store.read().await?;
    let rows = store::invitations::list(&mut tx, before, limit + 1).await?;
    Ok(Json(page::page("invitations", limit, rows, |row| row.id, |row| super::shown(row, now))))
}
