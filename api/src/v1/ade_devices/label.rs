//! `POST /api/v1/ade-devices/label`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::Label;
use serde::Deserialize;
use serde_json::json;
use store::events::NewEvent;
use utoipa::ToSchema;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};

/// Which label the enrollments of devices get.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdeLabel {
    /// The devices, 1 to 1000.
    serial_numbers: Vec<String>,
    /// The label; `null`: none.
    #[schema(value_type = Option<String>)]
    label: Option<Label>,
}

/// Says which label devices get when they enroll: all of them, or none where a serial number is not listed. Enrollments that
/// exist keep theirs.
#[utoipa::path(
    post, path = "/api/v1/ade-devices/label", tag = "ade", request_body = AdeLabel,
    responses(
        (status = 204, description = "Done"),
        (status = 409, description = "The label has a rule", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No server lists a device", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn label_ade_devices(
    State(shared): State<Shared>,
    caller: Caller,
    Json(body): Json<AdeLabel>,
) -> Result<StatusCode, Problem> {
    super::serials(&body.serial_numbers)?;
    let now = shared.clock.now();
    let label = body.label.as_ref().map(Label::as_str);
    let mut tx = shared.store.begin().await?;
    if let Some(label) = &body.label {
        policy::label_rules::refuse_by_hand(&mut tx, label).await?;
    }
    for device in ade::profiles::devices(&mut tx, &body.serial_numbers).await? {
        store::ade::devices::label(&mut tx, device.server_id, &device.serial_number, label, now).await?;
    }
    let event = NewEvent {
        summary: &format!(
            "{} device(s) of Automated Device Enrollment get the label {}",
            body.serial_numbers.len(),
            label.unwrap_or("none")
        ),
        data: &json!({ "serial_numbers": body.serial_numbers, "label": label }),
        ..caller.event(now, "ade.labelled")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
