//! `GET /api/v1/events`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::EnrollmentId;
use serde::{Deserialize, Serialize};
use store::events::{Filter, Row};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;
use crate::when::When;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those of this enrollment.
    enrollment_id: Option<Uuid>,
    /// Only those of this kind; with a dot at the end, of all kinds that begin so (`command.`).
    #[param(example = "command.")]
    kind: Option<String>,
    /// Only those that came after the event with this id, oldest first: how a program follows the log.
    after: Option<i64>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// Its place in the log; rises with each event.
    id: i64,
    /// When.
    at: When,
    /// What kind.
    #[schema(example = "command.acknowledged")]
    kind: String,
    /// The enrollment it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_id: Option<Uuid>,
    /// The command it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_uuid: Option<String>,
    /// Who: `device`, `server`, or `token:<name>`.
    actor: String,
    /// One sentence for people.
    summary: String,
    /// Further facts for programs.
    data: serde_json::Value,
}

impl From<Row> for Event {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: When::ms(row.at),
            kind: row.kind,
            enrollment_id: row.enrollment_id,
            command_uuid: row.command_uuid,
            actor: row.actor,
            summary: row.summary,
            data: serde_json::from_str(&row.data).unwrap_or_default(),
        }
    }
}

/// Events, newest first; or, with `after`, oldest first.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "events", params(Params),
    responses((status = 200, description = "One page", body = Page<Event>)),
)]
pub(crate) async fn list_events(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Event>>, Problem> {
    let limit = page::limit(params.limit)?;
    let cursor: Option<i64> = page::after("events", params.cursor.as_deref())?;
    let filter = Filter { enrollment: params.enrollment_id.map(EnrollmentId), kind: params.kind };
    let mut tx = shared.store.read().await?;
    let rows = match params.after {
        Some(after) => store::events::since(&mut tx, &filter, cursor.unwrap_or(after), limit + 1).await?,
        None => store::events::newest(&mut tx, &filter, cursor, limit + 1).await?,
    };
    Ok(Json(page::page("events", limit, rows, |row| row.id, Event::from)))
}
