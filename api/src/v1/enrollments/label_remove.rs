//! `DELETE /api/v1/enrollments/{id}/labels/{label}`

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

/// Takes a label off an enrollment. Policies that applied by that label alone are taken back.
#[utoipa::path(
    delete, path = "/api/v1/enrollments/{id}/labels/{label}", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment"), ("label" = String, Path, description = "The label")),
    responses(
        (status = 204, description = "It does not have the label, now or before"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove_label(
    State(shared): State<Shared>,
    caller: Caller,
    Path((id, label)): Path<(Uuid, String)>,
) -> Result<StatusCode, Problem> {
    let label: Label = label.parse().map_err(|e: mdm_core::ids::InvalidId| Problem::field("label", e.why))?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    super::find(&mut tx, id).await?;
    if store::labels::remove(&mut tx, EnrollmentId(id), &label).await? {
        let event = NewEvent {
            enrollment: Some(EnrollmentId(id)),
            summary: &format!("label {label} was taken off"),
            data: &json!({ "label": label }),
            ..caller.event(now, "enrollment.unlabelled")
        };
        store::events::record(&mut tx, &event).await?;
        policy::labels_changed(&mut tx, &shared.policy, &[EnrollmentId(id)], now).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
