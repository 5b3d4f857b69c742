//! `PUT /api/v1/enrollments/{id}/labels/{label}`

use axum::extract::State;
use http::StatusCode;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Puts a label on an enrollment. Policies assigned to that label begin to apply to it. A label with a rule is not
/// touched by hand.
#[utoipa::path(
    put, path = "/api/v1/enrollments/{id}/labels/{label}", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment"), ("label" = String, Path, description = "1 to 64 of a-z A-Z 0-9 . _ -")),
    responses(
        (status = 204, description = "It has the label, now or before"),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The label has a rule", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_label(
    State(shared): State<Shared>,
    caller: Caller,
    Path((id, label)): Path<(Uuid, String)>,
) -> Result<StatusCode, Problem> {
    super::labels::put(&shared, &caller, id, &label).await?;
    Ok(StatusCode::NO_CONTENT)
}
