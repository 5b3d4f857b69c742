//! `POST /api/v1/commands` with JSON

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::{CommandUuid, Label};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::options::{EnqueuedCommand, LaneName, Options};
use super::spec::CommandSpec;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};

/// For whom a command is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Targets {
    /// These enrollments.
    #[serde(default)]
    enrollment_ids: Vec<Uuid>,
    /// And all enrollments that have one of these labels now and are not over.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    labels: Vec<Label>,
}

/// A command to enqueue.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCommand {
    /// What to send.
    command: CommandSpec,
    /// For whom; at most 10,000 enrollments.
    targets: Targets,
    /// `CommandUUID`, 1 to 128 printable ASCII characters; made by the server where absent. Enqueuing the same command
    /// under the same CommandUUID again is a success that adds missing targets.
    #[schema(value_type = Option<String>)]
    command_uuid: Option<CommandUuid>,
    /// `urgent` for destructive commands, otherwise `normal`, where absent.
    lane: Option<LaneName>,
    /// After how many seconds it expires where it has no final report; never where absent.
    #[schema(minimum = 60, maximum = 31_536_000)]
    ttl_seconds: Option<u64>,
    /// A queued command with the same key on the same enrollment is replaced by this one.
    #[schema(max_length = 128)]
    coalescing_key: Option<String>,
    /// Whether to wake the devices; true where absent.
    push: Option<bool>,
    /// For a destructive command for more than 10 enrollments: how many it is for.
    confirm_targets: Option<usize>,
}

/// Enqueues a command. A destructive one needs the scope `commands:destructive`, any other `commands:write`.
///
/// A whole command can also be sent as `application/xml` to `/api/v1/commands/plist`.
#[utoipa::path(
    post, path = "/api/v1/commands", tag = "commands", request_body = NewCommand,
    responses(
        (status = 201, description = "Enqueued", body = EnqueuedCommand),
        (status = 200, description = "The same command had been enqueued before; missing targets were added", body = EnqueuedCommand),
        (status = 409, description = "The CommandUUID belongs to a command with another body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong, or no target can take commands", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn enqueue_command(
    State(shared): State<Shared>,
    caller: Caller,
    Json(new): Json<NewCommand>,
) -> Result<(StatusCode, axum::Json<EnqueuedCommand>), Problem> {
    let envelope = new.command.envelope(new.command_uuid, || shared.command_uuid())?;
    let options = Options {
        enrollment_ids: new.targets.enrollment_ids,
        labels: new.targets.labels,
        lane: new.lane,
        ttl_seconds: new.ttl_seconds,
        coalescing_key: new.coalescing_key,
        push: new.push,
        confirm_targets: new.confirm_targets,
        target_field: "targets",
    };
    super::enqueue(&shared, &caller, &envelope, &options).await
}
