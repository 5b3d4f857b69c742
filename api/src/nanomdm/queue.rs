//! `/v1/queue/{ids}`: reading and clearing queues, as proposed for NanoMDM.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use mdm_core::plist::{self, Dictionary, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::NewEvent;
use utoipa::{IntoParams, ToSchema};

use super::ids::{self, Found};
use super::reply::{go_json, status_of};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::page;
use crate::problem::Problem;

/// Where in the queue.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// How many, 1 to 500.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A queue.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = NanoMdmQueue)]
pub(crate) struct Queue {
    commands: Vec<Queued>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A command that waits for its final report.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NanoMdmQueued)]
pub(crate) struct Queued {
    command_uuid: String,
    request_type: String,
    /// A property list with CommandUUID and RequestType, in base64. What else the command holds is not shown: it can be
    /// a PIN or a password.
    command: String,
    /// `queued`, `sent` or `not_now`.
    state: String,
}

impl From<store::listing::Waiting> for Queued {
    fn from(row: store::listing::Waiting) -> Self {
        let mut command = Dictionary::new();
        command.insert("RequestType".into(), row.request_type.as_str().into());
        let mut whole = Dictionary::new();
        whole.insert("Command".into(), Value::Dictionary(command));
        whole.insert("CommandUUID".into(), row.command_uuid.as_str().into());
        Self {
            command: STANDARD.encode(plist::encode(&Value::Dictionary(whole))),
            command_uuid: row.command_uuid,
            request_type: row.request_type,
            state: row.state,
        }
    }
}

/// The commands that wait on an enrollment's queue, in order.
#[utoipa::path(
    get, path = "/v1/queue/{ids}", tag = "nanomdm",
    params(("ids" = String, Path, description = "One id as NanoMDM writes it"), Params),
    responses((status = 200, description = "The queue", body = Queue), (status = 404, description = "No such enrollment", body = Queue)),
)]
pub(crate) async fn show_queue(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    match read(&shared, &id, params).await {
        Ok(Some(queue)) => go_json(StatusCode::OK, &queue),
        Ok(None) => {
            go_json(StatusCode::NOT_FOUND, &Queue { error: Some("no such enrollment".into()), ..Queue::default() })
        }
        Err(problem) => go_json(status_of(&problem), &Queue { error: Some(problem.line()), ..Queue::default() }),
    }
}

async fn read(shared: &Shared, id: &str, params: Params) -> Result<Option<Queue>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<i64> = page::after("queue", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let Found::Live(enrollment) = ids::find(&mut tx, id).await? else { return Ok(None) };
    let rows = store::listing::waiting(&mut tx, enrollment.id, after, limit + 1).await?;
    let page = page::page("queue", limit, rows, |row| row.seq, Queued::from);
    Ok(Some(Queue { commands: page.items, next_cursor: page.next_cursor, error: None }))
}

/// What failed.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = NanoMdmCleared)]
pub(crate) struct Cleared {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Cancels everything that waits on the queues of enrollments.
#[utoipa::path(
    delete, path = "/v1/queue/{ids}", tag = "nanomdm",
    params(("ids" = String, Path, description = "Ids as NanoMDM writes them, separated by commas")),
    responses(
        (status = 204, description = "All queues are empty"),
        (status = 207, description = "Some ids failed", body = Cleared),
        (status = 500, description = "All ids failed", body = Cleared),
    ),
)]
pub(crate) async fn clear_queues(State(shared): State<Shared>, caller: Caller, Path(path): Path<String>) -> Response {
    let ids = ids::split(&path);
    match store::retry(async || clear(&shared, &caller, &ids).await).await {
        Ok(failed) if failed.is_empty() && !ids.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(status) if status.len() < ids.len() => go_json(StatusCode::MULTI_STATUS, &Cleared { status, error: None }),
        Ok(status) => go_json(StatusCode::INTERNAL_SERVER_ERROR, &Cleared { status, error: None }),
        Err(problem) => go_json(status_of(&problem), &Cleared { error: Some(problem.line()), ..Cleared::default() }),
    }
}

async fn clear(shared: &Shared, caller: &Caller, ids: &[&str]) -> Result<BTreeMap<String, String>, Problem> {
    let (now, mut tx) = (shared.clock.now(), shared.store.begin().await?);
    let mut failed = BTreeMap::new();
    for id in ids {
        let Found::Live(enrollment) = ids::find(&mut tx, id).await? else {
            failed.insert((*id).to_owned(), "no such enrollment".to_owned());
            continue;
        };
        let why = format!("cleared by {}", caller.actor);
        let cancelled = ::commands::clear(&mut tx, enrollment.id, &why, now).await?;
        let event = NewEvent {
            enrollment: Some(enrollment.id),
            summary: &format!("the queue was cleared: {cancelled} command(s)"),
            data: &json!({ "cancelled": cancelled }),
            ..caller.event(now, "queue.cleared")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(failed)
}
