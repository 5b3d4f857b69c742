//! `GET /api/v1/acme-policies`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AcmePolicyView;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;

/// Where in the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

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
