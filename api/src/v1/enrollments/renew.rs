//! `POST /api/v1/enrollments/{id}/renewal`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::EnrollmentId;
use renewal::Reason;
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Renews the identity of a device now: its enrollment profile is installed again, with a permission for a new certificate.
///
/// The old identity is good until the device has spoken with the new one. Where the door's settings and the device allow it, the
/// new identity comes from the ACME server. What becomes of it shows at `GET /api/v1/identities`.
#[utoipa::path(
    post, path = "/api/v1/enrollments/{id}/renewal", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment, on its device channel")),
    responses(
        (status = 202, description = "The renewal is due now, or under way already"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Not enrolled, a user channel, or without an identity that is accepted", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn renew_identity(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    super::find(&mut tx, id).await?;
    if renewal::want(&mut tx, EnrollmentId(id), Reason::Operator, now).await? {
        let event = NewEvent {
            enrollment: Some(EnrollmentId(id)),
            summary: "an operator asked for a new identity certificate",
            data: &json!({}),
            ..caller.event(now, "renewal.requested")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::ACCEPTED)
}
