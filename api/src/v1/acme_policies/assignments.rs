//! `GET /api/v1/acme-policies/{name}/assignments`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::AssignmentId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Assignment;
use crate::Shared;
use crate::extract::{Path, Query};
use crate::page::{self, Page};
use crate::problem::{Problem, ProblemBody};

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

/// The enrollments that a policy is on, each with its state and the decision, explained.
#[utoipa::path(
    get, path = "/api/v1/acme-policies/{name}/assignments", tag = "acme-policies",
    params(("name" = String, Path, description = "The policy's name"), Params),
    responses(
        (status = 200, description = "One page", body = Page<Assignment>),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_assignments(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Assignment>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<AssignmentId> = page::after("assignments", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let policy = super::find(&mut tx, &name).await?;
    let rows = store::assignments::of_policy(&mut tx, policy.id(), after, limit + 1).await?;
    Ok(Json(page::page("assignments", limit, rows, |row| row.id, |row| Assignment::new(row, name.clone()))))
}
