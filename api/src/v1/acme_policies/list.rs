//! `GET /api/v1/acme-policies`

use axum::Json;
use axum::extract::State;

use super::AcmePolicyView;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page, Params};
use crate::problem::Problem;

/// ACME policies, by name.
#[utoipa::path(
    get, path = "/api/v1/acme-policies", tag = "acme-policies", params(Params),
    responses((status = 200, description = "One page", body = Page<AcmePolicyView>)),
)]
pub(crate) async fn list_acme_policies(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<AcmePolicyView>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<String> = page::after("acme-policies", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let rows = store::policies::list(&mut tx, after.as_deref().unwrap_or(""), limit + 1).await?;
    Ok(Json(page::page("acme-policies", limit, rows, |row| row.name.clone(), AcmePolicyView::from)))
}
