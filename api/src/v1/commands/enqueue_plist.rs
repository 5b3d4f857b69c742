//! `POST /api/v1/commands/plist` with a property list

use axum::extract::{Request, State};
use http::StatusCode;
use mdm_core::ids::Label;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::options::{EnqueuedCommand, LaneName, Options};
use super::spec;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{self, Query};
use crate::problem::{Problem, ProblemBody};

/// For whom and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Enrollments, separated by commas.
    enrollment_ids: Option<String>,
    /// All enrollments that have this label now and are not over.
    #[param(value_type = Option<String>)]
    label: Option<Label>,
    /// `urgent` or `normal`.
    #[param(value_type = Option<String>)]
    lane: Option<LaneName>,
    /// After how many seconds it expires, 60 to 31536000.
    ttl_seconds: Option<u64>,
    /// A queued command with the same key on the same enrollment is replaced by this one.
    coalescing_key: Option<String>,
    /// Whether to wake the devices; true where absent.
    push: Option<bool>,
    /// For a destructive command for more than 10 enrollments: how many it is for.
    confirm_targets: Option<usize>,
}

impl Params {
    fn options(self) -> Result<Options, Problem> {
        let ids = self.enrollment_ids.unwrap_or_default();
        let parse = |text: &str| {
            Uuid::try_parse(text).map_err(|_| Problem::field("enrollment_ids", format!("{text:?} must be a UUID")))
        };
        Ok(Options {
            enrollment_ids: ids.split(',').filter(|t| !t.is_empty()).map(parse).collect::<Result<_, _>>()?,
            labels: self.label.into_iter().collect(),
            lane: self.lane,
            ttl_seconds: self.ttl_seconds,
            coalescing_key: self.coalescing_key,
            push: self.push,
            confirm_targets: self.confirm_targets,
            target_field: "enrollment_ids",
        })
    }
}

/// Enqueues any command, given as the XML property list that is to be sent.
#[utoipa::path(
    post, path = "/api/v1/commands/plist", tag = "commands", params(Params),
    request_body(content = String, content_type = "application/xml", description = "`CommandUUID` and `Command`, at most 5 MiB"),
    responses(
        (status = 201, description = "Enqueued", body = EnqueuedCommand),
        (status = 200, description = "The same command had been enqueued before; missing targets were added", body = EnqueuedCommand),
        (status = 409, description = "The CommandUUID belongs to a command with another body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong, or no target can take commands", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn enqueue_plist(
    State(shared): State<Shared>,
    caller: Caller,
    Query(params): Query<Params>,
    request: Request,
) -> Result<(StatusCode, axum::Json<EnqueuedCommand>), Problem> {
    extract::media_type(request.headers(), &["application/xml", "text/xml"])?;
    let body = extract::body(request, &shared).await?;
    let envelope = spec::raw(&body, "body", None)?;
    super::enqueue(&shared, &caller, &envelope, &params.options()?).await
}
