//! What can be said beside a command, for JSON and for plist bodies alike, and enqueuing it.

use std::time::Duration;

use commands::{Enqueued, Lane, New, Rendering, TargetOutcome};
use http::StatusCode;
use mdm_core::command::Envelope;
use mdm_core::ids::{EnrollmentId, Label};
use mdm_core::plist::{self, Limits};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Tx;
use store::events::NewEvent;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Rules, allowed, is_destructive, permitted};
use crate::Shared;
use crate::auth::Caller;
use crate::problem::{FieldError, Problem};

/// The most enrollments that one request may name.
const MOST_TARGETS: usize = 10_000;

/// Which queue of an enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LaneName {
    /// Before everything that is normal.
    Urgent,
    /// In turn.
    Normal,
}

/// For whom and how.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) enrollment_ids: Vec<Uuid>,
    pub(crate) labels: Vec<Label>,
    pub(crate) lane: Option<LaneName>,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) coalescing_key: Option<String>,
    pub(crate) push: Option<bool>,
    pub(crate) confirm_targets: Option<usize>,
    /// How the request spells the fields for the targets, for errors.
    pub(crate) target_field: &'static str,
}

/// What became of one target.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Target {
    /// The enrollment.
    enrollment_id: Uuid,
    /// `queued`, `present` (it was a target before), `unknown` (no such enrollment), `not_enrolled`, or `not_allowed` (Apple does
    /// not allow this command there).
    outcome: &'static str,
    /// Why it is not allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// A command on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnqueuedCommand {
    /// `CommandUUID`.
    command_uuid: String,
    /// `RequestType`.
    request_type: String,
    /// Whether the command is new; false where the same one had been enqueued before.
    created: bool,
    /// What became of each target.
    targets: Vec<Target>,
}

impl Options {
    /// The targets: those named, then those with one of the labels.
    async fn targets(&self, tx: &mut Tx) -> Result<Vec<EnrollmentId>, Problem> {
        let mut ids: Vec<EnrollmentId> = self.enrollment_ids.iter().copied().map(EnrollmentId).collect();
        for label in &self.labels {
            ids.extend(store::labels::enrollments(tx, label).await?);
        }
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(*id));
        match ids.len() {
            0 if self.labels.is_empty() => {
                Err(Problem::field(self.target_field, "must name at least one enrollment or label"))
            }
            0 => Err(Problem::field(self.target_field, "no enrollment that is not over has this label")),
            1..=MOST_TARGETS => Ok(ids),
            _ => Err(Problem::field(self.target_field, format!("must be at most {MOST_TARGETS} enrollments"))),
        }
    }

    fn ttl(&self) -> Result<Option<Duration>, Problem> {
        match self.ttl_seconds {
            Some(seconds) if !(60..=31_536_000).contains(&seconds) => {
                Err(Problem::field("ttl_seconds", "must be between 60 and 31536000"))
            }
            seconds => Ok(seconds.map(Duration::from_secs)),
        }
    }

    fn coalescing_key(&self) -> Result<Option<&str>, Problem> {
        match self.coalescing_key.as_deref() {
            Some(key) if key.is_empty() || key.len() > 128 || key.chars().any(char::is_control) => {
                Err(Problem::field("coalescing_key", "must have 1 to 128 bytes, no control characters"))
            }
            key => Ok(key),
        }
    }
}

/// Enqueues a command and writes it into the log of events, in one transaction.
pub(crate) async fn enqueue(
    shared: &Shared,
    caller: &Caller,
    envelope: &Envelope,
    options: &Options,
) -> Result<(StatusCode, axum::Json<EnqueuedCommand>), Problem> {
    let (enqueued, not_allowed) = store::retry(async || run(shared, caller, envelope, options).await).await?;
    let taken =
        enqueued.targets.iter().map(|(id, outcome)| Target { enrollment_id: id.0, outcome: word(*outcome), why: None });
    let left_out =
        not_allowed.into_iter().map(|(id, why)| Target { enrollment_id: id.0, outcome: "not_allowed", why: Some(why) });
    let targets = taken.chain(left_out);
    let body = EnqueuedCommand {
        command_uuid: envelope.uuid.as_str().to_owned(),
        request_type: envelope.request_type.clone(),
        created: enqueued.created,
        targets: targets.collect(),
    };
    Ok((if enqueued.created { StatusCode::CREATED } else { StatusCode::OK }, axum::Json(body)))
}

/// What became of the targets, and which were left out because the command is not for them.
type Taken = (Enqueued, Vec<(EnrollmentId, String)>);

async fn run(shared: &Shared, caller: &Caller, envelope: &Envelope, options: &Options) -> Result<Taken, Problem> {
    let (now, mut tx) = (shared.clock.now(), shared.store.begin().await?);
    let mut targets = options.targets(&mut tx).await?;
    permitted(shared, caller, envelope, targets.len(), options.confirm_targets)?;
    let not_allowed = Rules::of(envelope).apply(&mut tx, &mut targets).await?;
    if targets.is_empty() {
        return Err(allowed::for_nobody(&not_allowed, options.target_field));
    }
    let lane = match options.lane {
        Some(LaneName::Normal) => Lane::Normal,
        None if !is_destructive(shared, envelope) => Lane::Normal,
        Some(LaneName::Urgent) | None => Lane::Urgent,
    };
    let new = New {
        uuid: envelope.uuid.clone(),
        request_type: &envelope.request_type,
        rendering: rendering(envelope),
        body: &envelope.body,
        lane,
        coalescing_key: options.coalescing_key()?,
        ttl: options.ttl()?,
        created_by: &caller.actor,
        push: options.push.unwrap_or(true),
    };
    let enqueued = commands::enqueue(&mut tx, &shared.commands, &new, &targets, now).await?;
    if enqueued.targets.iter().all(|(_, outcome)| refused(*outcome).is_some()) {
        // Nobody would ever get it: the transaction is dropped, and nothing of it stays.
        return Err(nobody(&enqueued, options.target_field));
    }
    record(&mut tx, caller, envelope, &enqueued, now).await?;
    tx.commit().await?;
    Ok((enqueued, not_allowed))
}

/// `ClearPasscode` is given without the token that only this server has; it is put in for each device when it is handed out.
pub(crate) fn rendering(envelope: &Envelope) -> Rendering {
    if envelope.request_type != "ClearPasscode" {
        return Rendering::Plain;
    }
    let whole = plist::decode_dictionary(&envelope.body, Limits::API).ok();
    let command = whole.as_ref().and_then(|whole| whole.get("Command")?.as_dictionary());
    if command.is_some_and(|command| command.contains_key("UnlockToken")) {
        Rendering::Plain
    } else {
        Rendering::Unlock
    }
}

async fn record(
    tx: &mut Tx,
    caller: &Caller,
    envelope: &Envelope,
    enqueued: &Enqueued,
    now: mdm_core::time::Timestamp,
) -> Result<(), Problem> {
    let queued: Vec<EnrollmentId> =
        enqueued.targets.iter().filter(|(_, outcome)| *outcome == TargetOutcome::Queued).map(|(id, _)| *id).collect();
    if queued.is_empty() {
        return Ok(());
    }
    let one = match queued.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let event = NewEvent {
        enrollment: one,
        command: Some(&envelope.uuid),
        summary: &format!("{} was enqueued for {} enrollment(s)", envelope.request_type, queued.len()),
        data: &json!({ "request_type": envelope.request_type, "targets": queued.len() }),
        ..caller.event(now, "command.enqueued")
    };
    Ok(store::events::record(tx, &event).await?)
}

fn nobody(enqueued: &Enqueued, field: &str) -> Problem {
    let errors = enqueued.targets.iter().take(20).filter_map(|(id, outcome)| {
        Some(FieldError { field: field.to_owned(), detail: format!("{id}: {}", refused(*outcome)?) })
    });
    Problem::fields(errors.collect())
}

/// Why this target gets nothing, if it does not.
pub(crate) fn refused(outcome: TargetOutcome) -> Option<&'static str> {
    match outcome {
        TargetOutcome::Queued | TargetOutcome::Present => None,
        TargetOutcome::Unknown => Some("there is no such enrollment"),
        TargetOutcome::NotEnrolled => Some("the enrollment takes no commands: it is not enrolled (yet, or any more)"),
    }
}

fn word(outcome: TargetOutcome) -> &'static str {
    match outcome {
        TargetOutcome::Queued => "queued",
        TargetOutcome::Present => "present",
        TargetOutcome::Unknown => "unknown",
        TargetOutcome::NotEnrolled => "not_enrolled",
    }
}
