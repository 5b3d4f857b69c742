//! `POST /api/v1/acme-policies/{name}/rollout/resume`

use axum::Json;
use axum::extract::State;
use rollout::RolloutReport;

use super::Because;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{self, Path};
use crate::problem::{Problem, ProblemBody};
use crate::v1::acme_policies;

/// Lets a paused rollout go on: what has failed so far is forgiven, and the wait of its step begins anew.
///
/// A first revision that was rolled back begins again with its first step.
#[utoipa::path(
    post, path = "/api/v1/acme-policies/{name}/rollout/resume", tag = "acme-policies", request_body = Because,
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 200, description = "It goes on", body = RolloutReport),
        (status = 404, description = "No such policy, or it has no rollout", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It is not paused, or a newer revision is current", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn resume_rollout(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    extract::Json(because): extract::Json<Because>,
) -> Result<Json<RolloutReport>, Problem> {
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let policy = acme_policies::find(&mut tx, &name).await?;
        rollout::resume(&mut tx, &policy, because.why()?, &caller.actor, now).await?;
        let policy = acme_policies::find(&mut tx, &name).await?;
        let report = rollout::rollout_report(&mut tx, &policy, now).await?;
        tx.commit().await?;
        Ok(Json(report))
    })
    .await
}
