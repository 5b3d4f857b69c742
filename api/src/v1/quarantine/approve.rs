//! `POST /api/v1/quarantine/{id}/approve`

use axum::Json;
use axum::extract::State;
use enroll::quarantine::APPROVED_FOR;
use mdm_core::ids::EnrollmentId;
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use super::Quarantined;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody, Slug};

/// Vouches for the device: for 24 hours, once, an `Authenticate` of the same device and serial number is admitted, under the same
/// certificate or one that was given the same way since (the same link, where it works once or names the device; the same account;
/// the same serial number of Automated Device Enrollment). It begins a new enrollment; the one that is there ends then.
#[utoipa::path(
    post, path = "/api/v1/quarantine/{id}/approve", tag = "quarantine",
    params(("id" = Uuid, Path, description = "The quarantined device")),
    responses(
        (status = 200, description = "Approved", body = Quarantined),
        (status = 404, description = "No such one", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Refused or used before, or an approval would not help", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn approve_quarantined(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<Quarantined>, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let row = super::find(&mut tx, id).await?;
    let until = now.plus(APPROVED_FOR);
    if !store::quarantine::approve(&mut tx, id, &caller.actor, until, now).await? {
        return Err(Problem::new(Slug::Conflict, format!("it is {} already", row.state)));
    }
    let event = NewEvent {
        enrollment: row.enrollment_id.map(EnrollmentId),
        summary: "a quarantined device was approved: it may enroll within a day in place of the one that is enrolled",
        data: &json!({ "quarantine_id": id, "reason": row.reason }),
        ..caller.event(now, "quarantine.approved")
    };
    store::events::record(&mut tx, &event).await?;
    let shown = super::find(&mut tx, id).await?.into();
    tx.commit().await?;
    Ok(Json(shown))
}
