//! `PUT /api/v1/enrollment-doors/{door}`

use axum::extract::State;
use enroll::door::Settings;
use serde_json::json;
use store::events::NewEvent;

use super::{EnrollmentDoor, named, shown};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{FieldError, Problem, ProblemBody};

/// Sets a door as a whole: what is left out has its default. Devices that came in by it stay enrolled.
#[utoipa::path(
    put, path = "/api/v1/enrollment-doors/{door}", tag = "enrollment-doors",
    request_body(content = Object, description = "The settings of docs/doors/README.md"),
    params(("door" = String, Path, description = "link, ade, byod or adde")),
    responses(
        (status = 200, description = "Set", body = EnrollmentDoor),
        (status = 404, description = "No such door", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The label has a rule", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Every field that is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_enrollment_door(
    State(shared): State<Shared>,
    caller: Caller,
    Path(door): Path<String>,
    Json(settings): Json<Settings>,
) -> Result<axum::Json<EnrollmentDoor>, Problem> {
    let door = named(&door)?;
    settings.check(door).map_err(|wrong| {
        Problem::fields(wrong.into_iter().map(|w| FieldError { field: w.field, detail: w.why }).collect())
    })?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    if let Some(label) = &settings.label {
        policy::label_rules::refuse_by_hand(&mut tx, label).await?;
    }
    enroll::door::store(&mut tx, door, &settings, &caller.actor, now).await?;
    let event = NewEvent {
        summary: &format!("the enrollment door {door} was set"),
        data: &json!({ "door": door.as_str(), "settings": settings }),
        ..caller.event(now, "door.set")
    };
    store::events::record(&mut tx, &event).await?;
    let door = shown(&mut tx, door).await?;
    tx.commit().await?;
    Ok(axum::Json(door))
}
