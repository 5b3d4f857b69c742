//! `GET /api/v1/ade-profiles`

use axum::Json;
use axum::extract::State;

use super::AdeProfile;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page, Params};
use crate::problem::Problem;

/// Profiles of Automated Device Enrollment, by name.
#[utoipa::path(
    get, path = "/api/v1/ade-profiles", tag = "ade", params(Params),
    responses((status = 200, description = "One page", body = Page<AdeProfile>)),
)]
pub(crate) async fn list_ade_profiles(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<AdeProfile>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<String> = page::after("ade-profiles", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let rows = store::ade::profiles::list(&mut tx, after.as_deref().unwrap_or(""), limit + 1).await?;
    Ok(Json(page::page("ade-profiles", limit, rows, |row| row.name.clone(), AdeProfile::from)))
}
