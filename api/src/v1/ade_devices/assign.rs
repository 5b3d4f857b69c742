//! `POST /api/v1/ade-devices/assign`

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use store::events::NewEvent;
use utoipa::ToSchema;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};

/// Which profile devices are to have.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdeAssign {
    /// The devices, 1 to 1000.
    serial_numbers: Vec<String>,
    /// The profile's name; `null`: the server's default.
    profile: Option<String>,
}

/// Says which profile devices are to have: all of them, or none where a serial number is not listed. It is assigned at Apple
/// within seconds, and as often as it takes.
#[utoipa::path(
    post, path = "/api/v1/ade-devices/assign", tag = "ade", request_body = AdeAssign,
    responses(
        (status = 202, description = "Said"),
        (status = 404, description = "No such profile, or no server lists a device", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn assign_ade_profile(
    State(shared): State<Shared>,
    caller: Caller,
    Json(body): Json<AdeAssign>,
) -> Result<StatusCode, Problem> {
    super::serials(&body.serial_numbers)?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    ade::profiles::wish(&mut tx, &body.serial_numbers, body.profile.as_deref(), now).await?;
    let event = NewEvent {
        summary: &format!(
            "{} device(s) are to have {}",
            body.serial_numbers.len(),
            body.profile
                .as_deref()
                .map_or("their server's default profile".to_owned(), |name| format!("the ADE profile {name}"))
        ),
        data: &json!({ "serial_numbers": body.serial_numbers, "ade_profile": body.profile }),
        ..caller.event(now, "ade.assigned")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::ACCEPTED)
}
