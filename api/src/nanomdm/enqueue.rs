//! `/v1/enqueue/{ids}`

use std::collections::HashMap;

use ::commands::New;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use mdm_core::command::Envelope;
use mdm_core::ids::EnrollmentId;
use serde::Deserialize;
use serde_json::json;
use store::events::NewEvent;
use utoipa::IntoParams;

use super::ids::{self, Found};
use super::push;
use super::reply::{ApiResult, go_json, status_of};
use crate::Shared;
use crate::auth::{Caller, Scope};
use crate::extract::{self, Path, Query};
use crate::problem::Problem;
use crate::v1::commands::{Rules, is_destructive, permitted, refused, rendering};

/// How to enqueue.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Any value: do not push.
    nopush: Option<String>,
    /// For a destructive command for more than 10 ids: how many they are.
    confirm_targets: Option<usize>,
}

/// Enqueues one command for enrollments and pushes them. An empty body only pushes; `?nopush=1` only enqueues.
#[utoipa::path(
    method(get, put, post), path = "/v1/enqueue/{ids}", tag = "nanomdm",
    params(("ids" = String, Path, description = "Ids as NanoMDM writes them, separated by commas"), Params),
    request_body(content = String, content_type = "application/xml", description = "`CommandUUID` and `Command`; sent as it is"),
    responses(
        (status = 200, description = "Enqueued for all", body = ApiResult),
        (status = 207, description = "Some ids failed", body = ApiResult),
        (status = 400, description = "The body is no command", body = ApiResult),
        (status = 500, description = "All ids failed, or the CommandUUID belongs to another command", body = ApiResult),
    ),
)]
pub(crate) async fn nanomdm_enqueue(
    State(shared): State<Shared>,
    caller: Caller,
    Path(path): Path<String>,
    Query(params): Query<Params>,
    request: Request,
) -> Response {
    let ids = ids::split(&path);
    let no_push = params.nopush.is_some_and(|value| !value.is_empty());
    let mut result = ApiResult { no_push, ..ApiResult::default() };
    match enqueue(&shared, &caller, &ids, request, params.confirm_targets, &mut result).await {
        Ok(()) => result.response(ids.len()),
        Err(problem) => {
            result.command_error = Some(problem.line());
            go_json(status_of(&problem), &result)
        }
    }
}

async fn enqueue(
    shared: &Shared,
    caller: &Caller,
    ids: &[&str],
    request: Request,
    confirmed: Option<usize>,
    result: &mut ApiResult,
) -> Result<(), Problem> {
    let body = extract::body(request, shared).await?;
    if ids.is_empty() {
        result.command_error = Some("getting enrollment ids: empty path".to_owned());
        return Ok(());
    }
    if body.is_empty() {
        return push_only(shared, caller, ids, result).await;
    }
    let envelope =
        Envelope::from_plist(&body).map_err(|error| Problem::field("decoding command", error.to_string()))?;
    permitted(shared, caller, &envelope, ids.len(), confirmed)?;
    result.command_uuid = Some(envelope.uuid.to_string());
    result.request_type = Some(envelope.request_type.clone());
    let failed = store::retry(async || run(shared, caller, ids, &envelope, !result.no_push).await).await?;
    for (id, failure) in failed {
        match failure {
            Failure::Command(why) => result.command_failed(id, why),
            Failure::Push(why) => result.push_failed(id, why),
        }
    }
    Ok(())
}

async fn push_only(shared: &Shared, caller: &Caller, ids: &[&str], result: &mut ApiResult) -> Result<(), Problem> {
    caller.must(Scope::CommandsWrite)?;
    if result.no_push {
        result.command_error = Some("must enqueue or push".to_owned());
        return Ok(());
    }
    let failed = store::retry(async || push::push_all(shared, ids).await).await?;
    for (id, why) in failed {
        result.push_failed(id, why);
    }
    Ok(())
}

/// Why an id failed.
enum Failure {
    Command(String),
    Push(String),
}

async fn run<'a>(
    shared: &Shared,
    caller: &Caller,
    ids: &[&'a str],
    envelope: &Envelope,
    push: bool,
) -> Result<Vec<(&'a str, Failure)>, Problem> {
    let (now, mut tx) = (shared.clock.now(), shared.store.begin().await?);
    let (mut failed, mut targets, mut names) = (Vec::new(), Vec::new(), HashMap::new());
    let rules = Rules::of(envelope);
    for id in ids {
        let found = ids::find(&mut tx, id).await?;
        let refused = match &found {
            Found::Live(enrollment) => ids::refused(&found).map(str::to_owned).or_else(|| rules.refused(enrollment)),
            _ => ids::refused(&found).map(str::to_owned),
        };
        match (refused, found) {
            (None, Found::Live(enrollment)) => {
                targets.push(enrollment.id);
                names.insert(enrollment.id, (*id, enrollment.topic));
            }
            (why, _) => failed.push((*id, Failure::Command(why.unwrap_or_default()))),
        }
    }
    if targets.is_empty() {
        return Ok(failed);
    }
    let destructive = is_destructive(shared, envelope);
    let new = New {
        uuid: envelope.uuid.clone(),
        request_type: &envelope.request_type,
        rendering: rendering(envelope),
        body: &envelope.body,
        lane: if destructive { ::commands::Lane::Urgent } else { ::commands::Lane::Normal },
        coalescing_key: None,
        ttl: None,
        created_by: &caller.actor,
        push,
    };
    let enqueued = match ::commands::enqueue(&mut tx, &shared.commands, &new, &targets, now).await {
        Ok(enqueued) => enqueued,
        Err(::commands::Error::OtherBody(uuid)) => {
            let why = format!("command already exists: {uuid} (with another body)");
            return Ok(ids.iter().map(|id| (*id, Failure::Command(why.clone()))).collect());
        }
        Err(error) => return Err(error.into()),
    };
    for (target, outcome) in &enqueued.targets {
        let Some((id, topic)) = names.get(target) else { continue };
        if let Some(why) = refused(*outcome) {
            failed.push((id, Failure::Command(why.to_owned())));
        } else if push && let Some(why) = push::not_now(&mut tx, topic.as_deref(), now).await? {
            failed.push((id, Failure::Push(why)));
        }
    }
    if enqueued.created {
        let event = NewEvent {
            enrollment: one(&targets),
            command: Some(&envelope.uuid),
            summary: &format!("{} was enqueued for {} enrollment(s)", envelope.request_type, targets.len()),
            data: &json!({ "request_type": envelope.request_type, "targets": targets.len(), "api": "nanomdm" }),
            ..caller.event(now, "command.enqueued")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(failed)
}

fn one(targets: &[EnrollmentId]) -> Option<EnrollmentId> {
    match targets {
        [one] => Some(*one),
        _ => None,
    }
}

/// An address without an id.
#[utoipa::path(
    method(get, put, post), path = "/v1/enqueue/", tag = "nanomdm",
    responses((status = 500, description = "No id", body = ApiResult)),
)]
pub(crate) async fn empty_enqueue_path() -> Response {
    let command_error = Some("getting enrollment ids: empty path".to_owned());
    go_json(StatusCode::INTERNAL_SERVER_ERROR, &ApiResult { command_error, ..ApiResult::default() })
}
