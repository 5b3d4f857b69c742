//! `GET /api/v1/acme-policies/{name}/report`

use axum::Json;
use axum::extract::State;
use rollout::PolicyReport;

use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// How a policy fares: its devices by state, silicon and reason, its certificates by form and end, renewals and the rollout.
///
/// `assay report --html` draws this.
#[utoipa::path(
    get, path = "/api/v1/acme-policies/{name}/report", tag = "acme-policies",
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 200, description = "The report", body = PolicyReport),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn report_acme_policy(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<PolicyReport>, Problem> {
    let mut tx = shared.store.read().await?;
    let policy = super::find(&mut tx, &name).await?;
    Ok(Json(rollout::policy_report(&mut tx, &policy, shared.clock.now()).await?))
}
