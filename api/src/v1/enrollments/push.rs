//! `POST /api/v1/enrollments/{id}/push`

use axum::extract::State;
use http::StatusCode;
use mdm_core::enrollment::EnrollmentState;
use mdm_core::ids::EnrollmentId;
use uuid::Uuid;

use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody, Slug};

/// Wakes a device, so that it connects and fetches what waits for it.
#[utoipa::path(
    post, path = "/api/v1/enrollments/{id}/push", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment")),
    responses(
        (status = 202, description = "A push is on its way; what becomes of it shows at the enrollment"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Not enrolled", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn push_enrollment(State(shared): State<Shared>, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let enrollment = super::find(&mut tx, id).await?;
    if !matches!(enrollment.state, EnrollmentState::Enrolled { .. }) {
        return Err(Problem::new(Slug::Conflict, "only an enrollment in the state enrolled can be pushed"));
    }
    super::wake(&mut tx, EnrollmentId(id), now).await?;
    tx.commit().await?;
    Ok(StatusCode::ACCEPTED)
}
