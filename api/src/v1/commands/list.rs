//! `GET /api/v1/commands`

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::Tx;
use store::listing::{self, Command as Row};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;
use crate::when::When;

const STATES: &[&str] = &[
    "queued",
    "sent",
    "not_now",
    "acknowledged",
    "error",
    "command_format_error",
    "cancelled",
    "expired",
    "stalled",
    "refused",
];

/// Which commands; everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those with this enrollment as a target; `targets` then counts this one only.
    enrollment_id: Option<Uuid>,
    /// Only those with a target in this state: `queued`, `sent`, `not_now`, `acknowledged`, `error`,
    /// `command_format_error`, `cancelled`, `expired`, `stalled` or `refused`.
    #[param(example = "queued")]
    state: Option<String>,
    /// Only of this RequestType.
    #[param(example = "InstallProfile")]
    request_type: Option<String>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A command in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommandSummary {
    /// `CommandUUID`.
    command_uuid: String,
    /// `RequestType`.
    request_type: String,
    /// `urgent` or `normal`.
    lane: &'static str,
    /// A queued command with the same key on the same enrollment was replaced by this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    coalescing_key: Option<String>,
    /// When it was enqueued.
    created_at: When,
    /// Who enqueued it.
    created_by: String,
    /// When targets without a final report expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<When>,
    /// How many targets are in which state.
    targets: BTreeMap<String, i64>,
}

impl CommandSummary {
    /// Of a command that was looked up by itself.
    pub(super) async fn of(tx: &mut Tx, row: store::commands::Command) -> Result<Self, Problem> {
        let counts = listing::counts(tx, &[&row.uuid], None).await?;
        let row = Row {
            uuid: row.uuid,
            request_type: row.request_type,
            lane: row.lane,
            coalescing_key: row.coalescing_key,
            expires_at: row.expires_at,
            created_by: row.created_by,
            created_at: row.created_at,
        };
        Ok(Self::new(row, counts.into_iter().map(|count| (count.state, count.targets)).collect()))
    }

    fn new(row: Row, targets: BTreeMap<String, i64>) -> Self {
        Self {
            command_uuid: row.uuid,
            request_type: row.request_type,
            lane: if row.lane == 0 { "urgent" } else { "normal" },
            coalescing_key: row.coalescing_key,
            created_at: When::ms(row.created_at),
            created_by: row.created_by,
            expires_at: row.expires_at.map(When::ms),
            targets,
        }
    }
}

/// Where a page ended: time and UUID of the last command.
struct Key(Timestamp, CommandUuid);

impl std::str::FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, uuid) = text.split_once(' ').ok_or(())?;
        Ok(Self(Timestamp(at.parse().map_err(drop)?), uuid.parse().map_err(drop)?))
    }
}

/// Commands, newest first, with how many of their targets are in which state.
#[utoipa::path(
    get, path = "/api/v1/commands", tag = "commands", params(Params),
    responses((status = 200, description = "One page", body = Page<CommandSummary>)),
)]
pub(crate) async fn list_commands(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<CommandSummary>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<Key> = page::after("commands", params.cursor.as_deref())?;
    if params.state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
        return Err(Problem::field("state", format!("must be one of {}", STATES.join(", "))));
    }
    let enrollment = params.enrollment_id.map(EnrollmentId);
    let filter = listing::Commands { enrollment, state: params.state, request_type: params.request_type };
    let mut tx = shared.store.read().await?;
    let rows = listing::commands(&mut tx, &filter, before.map(|key| (key.0, key.1)), limit + 1).await?;
    let uuids: Vec<&str> = rows.iter().map(|row| row.uuid.as_str()).collect();
    let mut counts: HashMap<String, BTreeMap<String, i64>> = HashMap::new();
    for count in listing::counts(&mut tx, &uuids, enrollment).await? {
        counts.entry(count.command_uuid).or_default().insert(count.state, count.targets);
    }
    let key = |row: &Row| format!("{} {}", row.created_at, row.uuid);
    Ok(Json(page::page("commands", limit, rows, key, |row| {
        let targets = counts.remove(&row.uuid).unwrap_or_default();
        CommandSummary::new(row, targets)
    })))
}
