//! `POST /api/v1/acme-policies/{name}/rollout/pause`

use axum::Json;
use axum::extract::State;
use rollout::RolloutReport;

use super::{Act, Because, act};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{self, Path};
use crate::problem::{Problem, ProblemBody};

/// Pauses the rollout: nothing more is sent; what a device has been given already goes on.
#[utoipa::path(
    post, path = "/api/v1/acme-policies/{name}/rollout/pause", tag = "acme-policies", request_body = Because,
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 200, description = "Paused", body = RolloutReport),
        (status = 404, description = "No such policy, or it has no rollout", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It is not running", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn pause_rollout(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    extract::Json(because): extract::Json<Because>,
) -> Result<Json<RolloutReport>, Problem> {
    act(&shared, &caller, &name, &because, Act::Pause).await
}
