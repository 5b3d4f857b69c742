//! `GET /api/v1/commands/{uuid}`

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::ids::EnrollmentId;
use mdm_core::plist::{self, Limits};
use serde::{Deserialize, Serialize};
use store::commands::Target as Row;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::list::CommandSummary;
use crate::Shared;
use crate::extract::{Path, Query};
use crate::page::{self, Page};
use crate::plist_json;
use crate::problem::{Problem, ProblemBody};
use crate::when::When;

/// How many targets a page has where results are shown and nothing is asked: results can be large.
const WITH_RESULTS: i64 = 20;

/// What to show of the targets.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only this target.
    enrollment_id: Option<Uuid>,
    /// Whether to show results; true where absent.
    results: Option<bool>,
    /// How many targets, 1 to 500; 20 with results and 100 without, where absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A command with its targets. Its body is not shown: it can hold PINs and passwords.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommandDetail {
    /// The command.
    command: CommandSummary,
    /// Its targets, by enrollment id.
    targets: Page<CommandTarget>,
}

/// One command on one enrollment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommandTarget {
    /// The enrollment.
    enrollment_id: Uuid,
    /// `queued`, `sent`, `not_now`, `acknowledged`, `error`, `command_format_error`, `cancelled`, `expired`, `stalled`
    /// or `refused`.
    state: String,
    /// Why it was cancelled, refused or called stalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Its place in the enrollment's queue.
    seq: i64,
    /// When it was queued.
    queued_at: When,
    /// When it was first handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_sent_at: Option<When>,
    /// When it was last handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<When>,
    /// How often it was handed out since the device last said something of it.
    deliveries: i64,
    /// How often the device said NotNow.
    not_now_times: i64,
    /// When the device last said NotNow.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_now_at: Option<When>,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<When>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<When>,
    /// The device's `ErrorChain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_chain: Option<serde_json::Value>,
    /// Reports that came after the end and changed nothing.
    extra_reports: i64,
    /// The device's final report.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<CommandResult>,
}

/// A device's final report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommandResult {
    /// As JSON: data as base64, dates as RFC 3339. Absent where the report cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<serde_json::Value>,
    /// As received, in base64.
    #[schema(format = Byte)]
    raw: String,
}

fn shown(shared: &Shared, row: Row, results: bool) -> Result<CommandTarget, Problem> {
    let result = if results { commands::result(&shared.commands, &row)? } else { None };
    Ok(CommandTarget {
        enrollment_id: row.enrollment_id,
        state: row.state,
        why: row.why,
        seq: row.seq,
        queued_at: When::ms(row.queued_at),
        first_sent_at: row.first_sent_at.map(When::ms),
        sent_at: row.sent_at.map(When::ms),
        deliveries: row.deliveries,
        not_now_times: row.not_now_times,
        not_now_at: row.not_now_at.map(When::ms),
        expires_at: row.expires_at.map(When::ms),
        finished_at: row.finished_at.map(When::ms),
        error_chain: row.error_chain.and_then(|text| serde_json::from_str(&text).ok()),
        extra_reports: row.extra_reports,
        result: result.map(|raw| CommandResult {
            json: plist::decode(&raw, Limits::REPORT).ok().map(plist_json::from_plist),
            raw: STANDARD.encode(raw),
        }),
    })
}

/// A command with the state, the times and the result of each target.
#[utoipa::path(
    get, path = "/api/v1/commands/{uuid}", tag = "commands",
    params(("uuid" = String, Path, description = "CommandUUID"), Params),
    responses(
        (status = 200, description = "The command", body = CommandDetail),
        (status = 404, description = "No such command", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_command(
    State(shared): State<Shared>,
    Path(uuid): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<CommandDetail>, Problem> {
    let uuid = super::command_uuid(&uuid)?;
    let results = params.results.unwrap_or(true);
    let limit = page::limit(params.limit.or(results.then_some(WITH_RESULTS)))?;
    let after: Option<EnrollmentId> = page::after("targets", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let row = store::commands::get(&mut tx, &uuid).await?.ok_or_else(|| Problem::not_found("command", &uuid))?;
    let command = CommandSummary::of(&mut tx, row).await?;
    let rows = match params.enrollment_id {
        Some(id) => store::commands::target(&mut tx, EnrollmentId(id), &uuid).await?.into_iter().collect(),
        None => store::commands::targets_of_command(&mut tx, &uuid, after, limit + 1).await?,
    };
    let page = page::page("targets", limit, rows, |row: &Row| row.enrollment_id, |row| shown(&shared, row, results));
    let items = page.items.into_iter().collect::<Result<_, _>>()?;
    Ok(Json(CommandDetail { command, targets: Page { items, next_cursor: page.next_cursor } }))
}
