//! `GET /api/v1/acme-policies/{name}/assignments`

use axum::{Json, extract};
use mdm_core::ids::AssignmentId;
use policy::decide::State;
use policy::reason::ReasonCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Assignment;
use crate::Shared;
use crate::extract::{Path, Query};
use crate::page::{self, Page};
use crate::problem::{Problem, ProblemBody};

/// Which of them, and where in the list; everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// `assigned`, `held`, `awaiting_facts`, `blocked`, `installing`, `installed`, `verified`, `failed` or `removing`.
    #[param(value_type = Option<String>, example = "blocked")]
    state: Option<State>,
    /// The code of the reason; see docs/acme-decision-reasons.md.
    #[param(value_type = Option<String>, example = "attest_ignored_by_silicon")]
    reason: Option<ReasonCode>,
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
        (status = 422, description = "No such state or reason", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_assignments(
    extract::State(shared): extract::State<Shared>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Assignment>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<AssignmentId> = page::after("assignments", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let policy = super::find(&mut tx, &name).await?;
    let (state, reason) = (params.state.map(State::as_str), params.reason.map(ReasonCode::as_str));
    let rows = store::assignments::some_of_policy(&mut tx, policy.id(), state, reason, after, limit + 1).await?;
    Ok(Json(page::page("assignments", limit, rows, |row| row.id, |row| Assignment::new(row, name.clone()))))
}
