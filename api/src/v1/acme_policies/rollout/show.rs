//! `GET /api/v1/acme-policies/{name}/rollout`

use axum::Json;
use axum::extract::State;
use rollout::RolloutReport;

use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};
use crate::v1::acme_policies;

/// How far the newest revision has come: its devices by step, stage, class of silicon and reason, now.
#[utoipa::path(
    get, path = "/api/v1/acme-policies/{name}/rollout", tag = "acme-policies",
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 200, description = "The rollout", body = RolloutReport),
        (status = 404, description = "No such policy, or it has no rollout", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_rollout(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<RolloutReport>, Problem> {
    let mut tx = shared.store.read().await?;
    let policy = acme_policies::find(&mut tx, &name).await?;
    Ok(Json(rollout::rollout_report(&mut tx, &policy, shared.clock.now()).await?))
}
