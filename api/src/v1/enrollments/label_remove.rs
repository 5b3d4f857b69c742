//! `DELETE /api/v1/enrollments/{id}/labels/{label}`

use axum::extract::State;
use http::StatusCode;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Takes a label off an enrollment. Policies that applied by that label alone are taken back. A label with a rule is not
/// touched by hand.
#[utoipa::path(
    delete, path = "/api/v1/enrollments/{id}/labels/{label}", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment"), ("label" = String, Path, description = "The label")),
    responses(
        (status = 204, description = "It does not have the label, now or before"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The label has a rule", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove_label(
    State(shared): State<Shared>,
    caller: Caller,
    Path((id, label)): Path<(Uuid, String)>,
) -> Result<StatusCode, Problem> {
    super::labels::remove(&shared, &caller, id, &label).await?;
    Ok(StatusCode::NO_CONTENT)
}
