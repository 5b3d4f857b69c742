//! `DELETE /api/v1/commands/{uuid}`

use axum::Json;
use axum::extract::State;
use commands::Cancelled;
use mdm_core::ids::{CommandUuid, EnrollmentId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::NewEvent;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::problem::{Problem, ProblemBody};

/// How many targets are cancelled in one transaction.
const BATCH: i64 = 500;

/// Which targets.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only this target; all of them where absent.
    enrollment_id: Option<Uuid>,
}

/// What became of a cancelled command.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CancelledCommand {
    /// `CommandUUID`.
    command_uuid: String,
    /// What became of each target.
    targets: Vec<CancelledTarget>,
}

/// What became of one target.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CancelledTarget {
    /// The enrollment.
    enrollment_id: Uuid,
    /// `cancelled`: it was not sent and never will be. `already_sent`: it will not be sent again, but the device may
    /// have carried it out. `already_ended`: nothing changed. `unknown`: it is no target of this command.
    outcome: &'static str,
}

/// Cancels a command for one target or for all.
#[utoipa::path(
    delete, path = "/api/v1/commands/{uuid}", tag = "commands",
    params(("uuid" = String, Path, description = "CommandUUID"), Params),
    responses(
        (status = 200, description = "What became of each target", body = CancelledCommand),
        (status = 404, description = "No such command", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel_command(
    State(shared): State<Shared>,
    caller: Caller,
    Path(uuid): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<CancelledCommand>, Problem> {
    let uuid = super::command_uuid(&uuid)?;
    let known = store::commands::get(&mut shared.store.read().await?, &uuid).await?;
    known.ok_or_else(|| Problem::not_found("command", &uuid))?;
    let targets = match params.enrollment_id {
        Some(id) => cancel(&shared, &caller, &uuid, &[EnrollmentId(id)]).await?,
        None => cancel_all(&shared, &caller, &uuid).await?,
    };
    Ok(Json(CancelledCommand { command_uuid: uuid.into_string(), targets }))
}

async fn cancel_all(shared: &Shared, caller: &Caller, uuid: &CommandUuid) -> Result<Vec<CancelledTarget>, Problem> {
    let (mut done, mut after) = (Vec::new(), None);
    loop {
        let rows = store::commands::targets_of_command(&mut shared.store.read().await?, uuid, after, BATCH).await?;
        let ids: Vec<EnrollmentId> = rows.iter().map(|row| EnrollmentId(row.enrollment_id)).collect();
        let Some(last) = ids.last() else { return Ok(done) };
        after = Some(*last);
        done.extend(cancel(shared, caller, uuid, &ids).await?);
    }
}

async fn cancel(
    shared: &Shared,
    caller: &Caller,
    uuid: &CommandUuid,
    ids: &[EnrollmentId],
) -> Result<Vec<CancelledTarget>, Problem> {
    store::retry(async || {
        let (now, mut tx) = (shared.clock.now(), shared.store.begin().await?);
        let (mut done, mut changed) = (Vec::with_capacity(ids.len()), 0);
        for id in ids {
            let outcome = commands::cancel(&mut tx, *id, uuid, &format!("cancelled by {}", caller.actor), now).await?;
            changed += usize::from(matches!(outcome, Cancelled::Cancelled | Cancelled::AlreadySent));
            done.push(CancelledTarget { enrollment_id: id.0, outcome: word(outcome) });
        }
        if changed > 0 {
            let event = NewEvent {
                enrollment: ids.first().copied().filter(|_| ids.len() == 1),
                command: Some(uuid),
                summary: &format!("a command was cancelled for {changed} enrollment(s)"),
                data: &json!({ "targets": changed }),
                ..caller.event(now, "command.cancelled")
            };
            store::events::record(&mut tx, &event).await?;
        }
        tx.commit().await?;
        Ok(done)
    })
    .await
}

fn word(outcome: Cancelled) -> &'static str {
    match outcome {
        Cancelled::Cancelled => "cancelled",
        Cancelled::AlreadySent => "already_sent",
        Cancelled::AlreadyEnded => "already_ended",
        Cancelled::Unknown => "unknown",
    }
}
