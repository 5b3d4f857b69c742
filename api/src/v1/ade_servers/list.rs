//! `GET /api/v1/ade-servers`

use axum::Json;
use axum::extract::State;

use super::AdeServer;
use crate::Shared;
use crate::page::Page;
use crate::problem::Problem;

/// All servers of the portal, by name, with how they are.
#[utoipa::path(
    get, path = "/api/v1/ade-servers", tag = "ade",
    responses((status = 200, description = "All of them", body = Page<AdeServer>)),
)]
pub(crate) async fn list_ade_servers(State(shared): State<Shared>) -> Result<Json<Page<AdeServer>>, Problem> {
    let mut tx = shared.store.read().await?;
    let mut items = Vec::new();
    for server in store::ade::servers::list(&mut tx).await? {
        items.push(super::shown(&mut tx, server).await?);
    }
    Ok(Json(Page { items, next_cursor: None }))
}
