//! `GET /api/v1/acme-policies/{name}`

use axum::Json;
use axum::extract::State;
use policy::Scope;
use serde::Serialize;
use utoipa::ToSchema;

use super::AcmePolicyView;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// An ACME policy with who it is for and how far it has come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcmePolicyDetail {
    /// The policy.
    acme_policy: AcmePolicyView,
    /// Who it is for.
    scope: Scope,
    /// How many assignments are in which state, for which reason.
    counts: Vec<StateCount>,
}

/// How many assignments are in one state for one reason.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StateCount {
    /// The state.
    state: String,
    /// The code of the reason, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// How many.
    count: i64,
}

/// One ACME policy.
#[utoipa::path(
    get, path = "/api/v1/acme-policies/{name}", tag = "acme-policies",
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 200, description = "The policy", body = AcmePolicyDetail),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_acme_policy(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<AcmePolicyDetail>, Problem> {
    let mut tx = shared.store.read().await?;
    let row = super::find(&mut tx, &name).await?;
    let scope = policy::scope(&mut tx, row.id()).await?;
    let counts = store::assignments::counts(&mut tx, row.id()).await?;
    let count = |c: store::assignments::Count| StateCount { state: c.state, reason: c.reason, count: c.count };
    Ok(Json(AcmePolicyDetail { acme_policy: row.into(), scope, counts: counts.into_iter().map(count).collect() }))
}
