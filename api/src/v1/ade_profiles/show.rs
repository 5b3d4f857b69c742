//! `GET /api/v1/ade-profiles/{name}`

use axum::Json;
use axum::extract::State;

use super::AdeProfile;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// One profile of Automated Device Enrollment.
#[utoipa::path(
    get, path = "/api/v1/ade-profiles/{name}", tag = "ade",
    params(("name" = String, Path, description = "The profile's name")),
    responses(
        (status = 200, description = "The profile", body = AdeProfile),
        (status = 404, description = "No such profile", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_ade_profile(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<AdeProfile>, Problem> {
    let mut tx = shared.store.read().await?;
    Ok(Json(ade::profiles::find(&mut tx, &name).await?.into()))
}
