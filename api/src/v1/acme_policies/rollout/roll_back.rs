//! `POST /api/v1/acme-policies/{name}/rollout/rollback`

use axum::Json;
use axum::extract::State;
use rollout::RolloutReport;

use super::{Act, Because, act};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{self, Path};
use crate::problem::{Problem, ProblemBody};

/// Takes the revision back: the one from before is current again, and goes to the devices that had left it.
///
/// Where there is none from before, the profile is taken off every device.
#[utoipa::path(
    post, path = "/api/v1/acme-policies/{name}/rollout/rollback", tag = "acme-policies", request_body = Because,
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 200, description = "Rolled back", body = RolloutReport),
        (status = 404, description = "No such policy, or it has no rollout", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It was rolled back before, or a newer revision is current", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn roll_back_rollout(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    extract::Json(because): extract::Json<Because>,
) -> Result<Json<RolloutReport>, Problem> {
    act(&shared, &caller, &name, &because, Act::RollBack).await
}
