//! `GET /api/v1/network-users`

use axum::Json;
use axum::extract::State;

use super::NetworkUser;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page, Params};
use crate::problem::Problem;

/// Network users by name, without their passwords.
#[utoipa::path(
    get, path = "/api/v1/network-users", tag = "network-users", params(Params),
    responses((status = 200, description = "One page", body = Page<NetworkUser>)),
)]
pub(crate) async fn list_network_users(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<NetworkUser>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<String> = page::after("network-users", params.cursor.as_deref())?;
    let rows = store::network_users::list(&mut shared.store.read().await?, after.as_deref(), limit + 1).await?;
    Ok(Json(page::page("network-users", limit, rows, |row| row.short_name.clone(), NetworkUser::from)))
}
