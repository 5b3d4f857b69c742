//! `POST /api/v1/enrollments/{id}/unenroll`

use axum::extract::State;
use http::StatusCode;
use mdm_core::enrollment::{Channel, EnrollmentState};
use mdm_core::ids::EnrollmentId;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody, Slug};

/// Asks that the device be told to leave management when it next connects.
///
/// This is the one way in which the server ever sends a device the answer that makes it unenroll (TH-12).
#[utoipa::path(
    post, path = "/api/v1/enrollments/{id}/unenroll", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment, on the device channel")),
    responses(
        (status = 202, description = "Noted; the device is told when it next connects"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "A user channel, or over already", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn unenroll(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    caller.must_destroy(&shared)?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let enrollment = super::find(&mut tx, id).await?;
    if enrollment.channel == Channel::User || matches!(enrollment.state, EnrollmentState::Unenrolled { .. }) {
        return Err(Problem::new(
            Slug::Conflict,
            "only a device-channel enrollment that is not over can be unenrolled",
        ));
    }
    store::enrollments::request_unenroll(&mut tx, EnrollmentId(id), Some(now)).await?;
    let event = NewEvent {
        enrollment: Some(EnrollmentId(id)),
        summary: "the device is to be told to leave management",
        ..caller.event(now, "enrollment.unenroll_requested")
    };
    store::events::record(&mut tx, &event).await?;
    super::wake(&mut tx, EnrollmentId(id), now).await?;
    tx.commit().await?;
    Ok(StatusCode::ACCEPTED)
}
