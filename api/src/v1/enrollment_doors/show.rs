//! `GET /api/v1/enrollment-doors/{door}`

use axum::Json;
use axum::extract::State;

use super::{EnrollmentDoor, named, shown};
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// One door, with its settings.
#[utoipa::path(
    get, path = "/api/v1/enrollment-doors/{door}", tag = "enrollment-doors",
    params(("door" = String, Path, description = "link, ade, byod or adde")),
    responses(
        (status = 200, description = "The door", body = EnrollmentDoor),
        (status = 404, description = "No such door", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_enrollment_door(
    State(shared): State<Shared>,
    Path(door): Path<String>,
) -> Result<Json<EnrollmentDoor>, Problem> {
    let door = named(&door)?;
    Ok(Json(shown(&mut shared.store.read().await?, door).await?))
}
