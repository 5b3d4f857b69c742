//! `GET /api/v1/issuance`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{EnrollmentId, IssuanceId};
use serde::Deserialize;
use store::issuance::{Flow, Source, State as Standing};
use store::listing::Issuances;
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
    /// Only those in this state: `open`, `issued`, `used`, `void` or `revoked`.
    state: Option<String>,
    /// Only those of this door or way: `link`, `ade`, `byod`, `adde`, `renewal` or `import`.
    flow: Option<String>,
    /// Only those whose certificate this one issues: `scep`, `acme` or `import`.
    source: Option<String>,
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
    let filter = Issuances {
        enrollment: params.enrollment_id.map(EnrollmentId),
        state: word("state", params.state, Standing::from_text)?,
        flow: word("flow", params.flow, Flow::from_text)?,
        source: word("source", params.source, Source::from_text)?,
    };
    let rows = store::listing::issuance(&mut shared.store.read().await?, &filter, before, limit + 1).await?;
    Ok(Json(page::page("issuance", limit, rows, |row| row.id.0, Issuance::from)))
}

fn word<T>(field: &str, given: Option<String>, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    given
        .map(|text| read(&text).ok_or_else(|| Problem::field(field, "must be one of the words in the description")))
        .transpose()
}
