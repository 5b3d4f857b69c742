//! `PUT /api/v1/enrollments/{id}/labels/{label}`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::{EnrollmentId, Label};
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Puts a label on an enrollment. Policies assigned to that label begin to apply to it.
#[utoipa::path(
    put, path = "/api/v1/enrollments/{id}/labels/{label}", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment"), ("label" = String, Path, description = "1 to 64 of a-z A-Z 0-9 . _ -")),
    responses(
        (status = 204, description = "It has the label, now or before"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_label(
    State(shared): State<Shared>,
    caller: Caller,
    Path((id, label)): Path<(Uuid, String)>,
) -> Result<StatusCode, Problem> {
    let label: Label = label.parse().map_err(|e: mdm_core::ids::InvalidId| Problem::field("label", e.why))?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    super::find(&mut tx, id).await?;
    if store::labels::put(&mut tx, EnrollmentId(id), &label).await? {
        let event = NewEvent {
            enrollment: Some(EnrollmentId(id)),
            summary: &format!("label {label} was put on"),
            data: &json!({ "label": label }),
            ..caller.event(now, "enrollment.labelled")
        };
        store::events::record(&mut tx, &event).await?;
        policy::labels_changed(&mut tx, &shared.policy, &[EnrollmentId(id)], now).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
