//! `GET /api/v1/issuance`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{EnrollmentId, IssuanceId};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Issuance;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those of this enrollment.
    enrollment_id: Option<Uuid>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Issuance records, newest first.
#[utoipa::path(
    get, path = "/api/v1/issuance", tag = "issuance", params(Params),
    responses((status = 200, description = "One page", body = Page<Issuance>)),
)]
pub(crate) async fn list_issuance(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Issuance>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<IssuanceId> = page::after("issuance", params.cursor.as_deref())?;
    let enrollment = params.enrollment_id.map(EnrollmentId);
    let rows = store::listing::issuance(&mut shared.store.read().await?, enrollment, before, limit + 1).await?;
    Ok(Json(page::page("issuance", limit, rows, |row| row.id, Issuance::from)))
}
