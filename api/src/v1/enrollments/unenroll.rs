//! `POST /api/v1/enrollments/{id}/unenroll`

use axum::extract::State;
use http::StatusCode;
use mdm_core::enrollment::{Channel, EnrollmentEvent, EnrollmentState, UnenrolledWhy};
use mdm_core::ids::EnrollmentId;
use serde::Deserialize;
use serde_json::json;
use store::events::NewEvent;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::problem::{Problem, ProblemBody, Slug};

/// When the enrollment ends.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// End it at once, for a device that is lost, broken or erased. It is not woken; should it ever speak again, it is told then.
    #[serde(default)]
    now: bool,
}

/// Asks that the device be told to leave management when it next connects.
///
/// Its enrollment ends then: its queue, its policies and its pushes are over, and it can enroll anew by any door. A device that
/// lost the answer is told again.
///
/// This is the one way in which the server ever sends a device the answer that makes it unenroll (TH-12).
#[utoipa::path(
    post, path = "/api/v1/enrollments/{id}/unenroll", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment, on the device channel"), Params),
    responses(
        (status = 204, description = "The enrollment has ended (`now`)"),
        (status = 202, description = "Noted; the device is told when it next connects"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "A user channel, or over already", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn unenroll(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Query(params): Query<Params>,
) -> Result<StatusCode, Problem> {
    caller.must_destroy(&shared)?;
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        store::enrollments::lock(&mut tx, EnrollmentId(id)).await?;
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
        if params.now {
            enroll::leave::end(&mut tx, &enrollment, EnrollmentEvent::Remove, now).await?;
            let event = NewEvent {
                enrollment: Some(EnrollmentId(id)),
                summary: "the enrollment was ended; the device is told to leave management if it ever connects again",
                data: &json!({ "why": UnenrolledWhy::Removed.as_str() }),
                ..caller.event(now, "enrollment.unenrolled")
            };
            store::events::record(&mut tx, &event).await?;
            tx.commit().await?;
            return Ok(StatusCode::NO_CONTENT);
        }
        super::wake(&mut tx, EnrollmentId(id), now).await?;
        tx.commit().await?;
        Ok(StatusCode::ACCEPTED)
    })
    .await
}
