//! `GET /api/v1/enrollment-doors`

use axum::Json;
use axum::extract::State;

use super::{DOORS, EnrollmentDoor, shown};
use crate::Shared;
use crate::problem::Problem;

/// All doors, with their settings.
#[utoipa::path(
    get, path = "/api/v1/enrollment-doors", tag = "enrollment-doors",
    responses((status = 200, description = "The four doors", body = Vec<EnrollmentDoor>)),
)]
pub(crate) async fn list_enrollment_doors(State(shared): State<Shared>) -> Result<Json<Vec<EnrollmentDoor>>, Problem> {
    let mut tx = shared.store.read().await?;
    let mut doors = Vec::new();
    for door in DOORS {
        doors.push(shown(&mut tx, door).await?);
    }
    Ok(Json(doors))
}
