//! `POST /api/v1/ade-devices/approve`

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

/// Which devices an operator vouches for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdeApprove {
    /// The devices, 1 to 1000.
    serial_numbers: Vec<String>,
    /// `false` takes the approval back; `true` where absent.
    approved: Option<bool>,
}

/// Vouches for devices, or takes that back: all of them, or none where a serial number is not listed. A serial number
/// proves nothing by itself; the door's settings say whether a device needs approval to enroll. Approval ends when Apple says
/// that the device left the server.
#[utoipa::path(
    post, path = "/api/v1/ade-devices/approve", tag = "ade", request_body = AdeApprove,
    responses(
        (status = 204, description = "Done"),
        (status = 404, description = "No server lists a device", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn approve_ade_devices(
    State(shared): State<Shared>,
    caller: Caller,
    Json(body): Json<AdeApprove>,
) -> Result<StatusCode, Problem> {
    super::serials(&body.serial_numbers)?;
    let now = shared.clock.now();
    let approved = body.approved.unwrap_or(true);
    let mut tx = shared.store.begin().await?;
    for device in ade::profiles::devices(&mut tx, &body.serial_numbers).await? {
        let at = approved.then_some(now);
        store::ade::devices::approve(&mut tx, device.server_id, &device.serial_number, at, now).await?;
    }
    let verb = if approved { "approved" } else { "no longer approved" };
    let event = NewEvent {
        summary: &format!("{} device(s) of Automated Device Enrollment are {verb}", body.serial_numbers.len()),
        data: &json!({ "serial_numbers": body.serial_numbers, "approved": approved }),
        ..caller.event(now, "ade.approved")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
