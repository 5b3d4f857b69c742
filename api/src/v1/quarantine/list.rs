//! `GET /api/v1/quarantine`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Quarantined;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;

/// Which ones.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those in this state: `waiting`, `approved`, `refused` or `used`.
    state: Option<String>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Quarantined devices, newest first.
#[utoipa::path(
    get, path = "/api/v1/quarantine", tag = "quarantine", params(Params),
    responses((status = 200, description = "One page", body = Page<Quarantined>)),
)]
pub(crate) async fn list_quarantine(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Quarantined>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<Uuid> = page::after("quarantine", params.cursor.as_deref())?;
    let state = params.state.as_deref();
    if state.is_some_and(|state| !["waiting", "approved", "refused", "used"].contains(&state)) {
        return Err(Problem::field("state", "must be waiting, approved, refused or used"));
    }
    let rows = store::quarantine::list(&mut shared.store.read().await?, state, before, limit + 1).await?;
    Ok(Json(page::page("quarantine", limit, rows, |row| row.id, Quarantined::from)))
}
