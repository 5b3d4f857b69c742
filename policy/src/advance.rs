//! Moving one assignment on: load its rows, decide, write what follows.

use std::time::Duration;

use mdm_core::command::{Command, DeviceInformation, RemoveProfile, device_information};
use mdm_core::enrollment::EnrollmentState;
use mdm_core::ids::{AssignmentId, CommandUuid, PolicyId};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::assignments::{self, Assignment};
use store::enrollments::Enrollment;
use store::events::NewEvent;
use store::{Tx, Wake};

use crate::acme::AcmePolicy;
use crate::decide::{Action, FACTS_MAX_AGE, MAX_ATTEMPTS, Situation, State, back_off, decide};
use crate::decision::{Decision, Note, Target, decision};
use crate::error::{Result, corrupt};
use crate::reason::ReasonCode;
use crate::target;
use crate::{CREATED_BY, Context};

/// Whether the device is on the line and fetches what is enqueued now in the same session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is: a push would come too late, and is only a safety net for a lost reply.
    Connected,
    /// It must be woken.
    Away,
}

/// How long a connected device has to fetch what was enqueued, before it is woken for it.
const SAFETY_NET: Duration = Duration::from_mins(2);

/// How long a command is waited for before the reconcile loop looks whether it is still there.
const LOOK_AGAIN: Duration = Duration::from_hours(24);

/// How long an assignment that cannot be decided is left alone.
pub(crate) const PUT_ASIDE: Duration = Duration::from_mins(10);

/// The parameters of an `InstallProfile` that is rendered when it is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Params {
    pub(crate) assignment: AssignmentId,
    pub(crate) revision: i64,
}

/// Everything that decides about one assignment.
pub(crate) struct Case {
    pub(crate) policy: store::policies::Policy,
    pub(crate) acme: AcmePolicy,
    pub(crate) situation: Situation,
    pub(crate) decision: Decision,
    pub(crate) payload: Option<mdm_core::profile::acme::AcmePayload>,
}

impl Case {
    pub(crate) async fn load(tx: &mut Tx, enrollment: &Enrollment, a: &Assignment, now: Timestamp) -> Result<Self> {
        let policy =
            store::policies::get(tx, PolicyId(a.policy_id)).await?.ok_or_else(|| corrupt("assignment.policy_id"))?;
        let acme = AcmePolicy::from_json(&policy.body).map_err(|_| corrupt("acme_policy_revision.body"))?;
        let device = enrollment.parent.unwrap_or(enrollment.id);
        let wanted = policy.deleted_at.is_none()
            && matches!(enrollment.state, EnrollmentState::Enrolled { .. })
            && acme.document().channel.includes(enrollment.channel)
            && store::policies::matching(tx, enrollment.id, device).await?.contains(&policy.id());
        let facts = target::facts_of(tx, enrollment).await?;
        let values = target::values(enrollment, &facts, &a.random);
        let authority = crate::authority::of(tx, &acme).await?;
        let target = Target { kind: enrollment.kind, channel: enrollment.channel, facts: &facts, values: &values, now };
        let (decision, payload) = decision(&acme, &authority, &target);
        let command_outstanding = match &a.command_uuid {
            None => false,
            Some(uuid) => {
                let state = assignments::command_state(tx, enrollment.id, uuid).await?;
                matches!(state.as_deref(), Some("queued" | "sent" | "not_now"))
            }
        };
        let stored: Option<Decision> = a.decision.as_deref().and_then(|d| serde_json::from_str(d).ok());
        let situation = Situation {
            wanted,
            state: State::from_text(&a.state).ok_or_else(|| corrupt("assignment.state"))?,
            state_revision: a.revision,
            revision: policy.revision,
            command_outstanding,
            profile_sent: a.profile_sent,
            sent_form: stored.and_then(|d| d.form),
            reason: a.reason.as_deref().and_then(ReasonCode::from_text),
            attempts: a.attempts,
            retry_at: a.due_at.map(Timestamp),
            asked_at: facts.asked_at,
        };
        Ok(Self { policy, acme, situation, decision, payload })
    }
}

/// Decides for one assignment and writes what follows. The caller holds the lock on the enrollment.
pub(crate) async fn advance(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    a: Assignment,
    presence: Presence,
    now: Timestamp,
) -> Result<Action> {
    let case = Case::load(tx, enrollment, &a, now).await?;
    let action = decide(&case.situation, &case.decision, now);
    apply(tx, ctx, enrollment, a, &case, action, presence, now).await?;
    Ok(action)
}

/// [`advance`] for a message of the device: an assignment that cannot be decided through a fault of ours is put aside,
/// so that it blocks neither the message nor the other assignments.
pub(crate) async fn advance_or_put_aside(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    a: Assignment,
    presence: Presence,
    now: Timestamp,
) -> Result<()> {
    let id = AssignmentId(a.id);
    match advance(tx, ctx, enrollment, a, presence, now).await {
        Err(e) if e.needs_human() => {
            tracing::error!(enrollment.id = %enrollment.id, assignment.id = %id, error = %e, "assignment put aside");
            Ok(assignments::due(tx, id, now.plus(PUT_ASIDE)).await?)
        }
        done => done.map(drop),
    }
}

/// Writes what an action means.
#[expect(clippy::too_many_arguments, reason = "one step of advance, split off for render")]
pub(crate) async fn apply(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    mut a: Assignment,
    case: &Case,
    action: Action,
    presence: Presence,
    now: Timestamp,
) -> Result<()> {
    let state = case.situation.state;
    let outstanding = case.situation.command_outstanding;
    let new_revision = a.revision != case.policy.revision;
    let set = |a: &mut Assignment, state: State, due: Option<Timestamp>| {
        state.as_str().clone_into(&mut a.state);
        a.due_at = due.map(|t| t.0);
    };
    let decided = |a: &mut Assignment| -> Result<()> {
        if new_revision {
            a.attempts = 0;
        }
        a.revision = case.policy.revision;
        a.reason = case.decision.reason.as_ref().map(|r| r.code.as_str().to_owned());
        a.decision = Some(serde_json::to_string(&case.decision).map_err(|_| corrupt("assignment.decision"))?);
        Ok(())
    };
    match action {
        Action::Nothing => {
            let due = outstanding.then(|| now.plus(LOOK_AGAIN));
            set(&mut a, state, due);
        }
        Action::Wait(until) => set(&mut a, state, Some(until)),
        Action::AskFacts => {
            cancel_waiting(tx, enrollment, &a, state, outstanding, now).await?;
            decided(&mut a)?;
            a.reason = None;
            a.command_uuid = Some(ask(tx, ctx, enrollment, presence, now).await?);
            set(&mut a, State::AwaitingFacts, Some(now.plus(LOOK_AGAIN)));
        }
        Action::Install => {
            cancel_waiting(tx, enrollment, &a, state, outstanding, now).await?;
            decided(&mut a)?;
            a.random = ctx.commands.random.token();
            let params = Params { assignment: AssignmentId(a.id), revision: case.policy.revision };
            let body = serde_json::to_vec(&params).map_err(|_| corrupt("command.body"))?;
            let new = Enqueue {
                request_type: "InstallProfile",
                rendering: commands::Rendering::Acme,
                body: &body,
                key: None,
            };
            a.command_uuid = Some(enqueue(tx, ctx, enrollment, new_uuid(ctx), &new, presence, now).await?);
            set(&mut a, State::Installing, Some(now.plus(LOOK_AGAIN)));
        }
        Action::Block => {
            cancel_waiting(tx, enrollment, &a, state, outstanding, now).await?;
            decided(&mut a)?;
            set(&mut a, State::Blocked, Some(case.situation.asked_at.unwrap_or(now).plus(FACTS_MAX_AGE)));
            event(tx, enrollment, case, &a, "assignment.blocked", "The profile is not sent", now).await?;
        }
        Action::Lost => {
            failed(&mut a, ReasonCode::CommandEnded, None, &case.decision, now)?;
            event(tx, enrollment, case, &a, "assignment.failed", "The profile's command ended without an answer", now)
                .await?;
        }
        Action::Remove => {
            cancel_waiting(tx, enrollment, &a, state, outstanding, now).await?;
            if state != State::Removing {
                a.attempts = 0;
            }
            let uuid = new_uuid(ctx);
            let identifier = ctx.payload_identifier(PolicyId(a.policy_id), enrollment.channel);
            let envelope = Command::from(RemoveProfile { identifier }).envelope(uuid.clone());
            let new = Enqueue {
                request_type: "RemoveProfile",
                rendering: commands::Rendering::Plain,
                body: &envelope.body,
                key: None,
            };
            a.command_uuid = Some(enqueue(tx, ctx, enrollment, uuid, &new, presence, now).await?);
            a.reason = Some(ReasonCode::PolicyGone.as_str().to_owned());
            set(&mut a, State::Removing, Some(now.plus(LOOK_AGAIN)));
        }
        Action::Drop => {
            cancel_waiting(tx, enrollment, &a, state, outstanding, now).await?;
            assignments::delete(tx, AssignmentId(a.id)).await?;
            event(tx, enrollment, case, &a, "assignment.removed", "The policy is no longer on this enrollment", now)
                .await?;
            return Ok(());
        }
    }
    assignments::save(tx, &a, now).await?;
    Ok(())
}

/// Notes a failure: when it is tried again, or that it is not.
pub(crate) fn failed(
    a: &mut Assignment,
    reason: ReasonCode,
    detail: Option<String>,
    decision: &Decision,
    now: Timestamp,
) -> Result<()> {
    a.attempts += 1;
    let given_up = a.attempts >= MAX_ATTEMPTS;
    let reason = if given_up { ReasonCode::GivenUp } else { reason };
    State::Failed.as_str().clone_into(&mut a.state);
    a.due_at = (!given_up).then(|| now.plus(back_off(a.attempts)).0);
    a.reason = Some(reason.as_str().to_owned());
    let told = Decision { reason: Some(Note::from(reason)), detail, ..decision.clone() };
    a.decision = Some(serde_json::to_string(&told).map_err(|_| corrupt("assignment.decision"))?);
    Ok(())
}

/// A command of ours that another one takes the place of is not sent any more.
async fn cancel_waiting(
    tx: &mut Tx,
    enrollment: &Enrollment,
    a: &Assignment,
    state: State,
    outstanding: bool,
    now: Timestamp,
) -> Result<()> {
    // Other assignments wait for the same DeviceInformation.
    if outstanding
        && state != State::AwaitingFacts
        && let Some(uuid) = a.command_uuid.as_deref().and_then(|u| u.parse().ok())
    {
        commands::cancel(tx, enrollment.id, &uuid, "the policy asks for something else now", now).await?;
    }
    Ok(())
}

/// Asks the device what it is, once for all assignments that wait for it.
async fn ask(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    presence: Presence,
    now: Timestamp,
) -> Result<String> {
    for other in assignments::of_enrollment(tx, enrollment.id).await? {
        if other.state == State::AwaitingFacts.as_str()
            && let Some(uuid) = other.command_uuid
            && let Some("queued" | "sent" | "not_now") =
                assignments::command_state(tx, enrollment.id, &uuid).await?.as_deref()
        {
            return Ok(uuid);
        }
    }
    let uuid = new_uuid(ctx);
    let queries = device_information::queries(enrollment.kind, enrollment.channel)
        .iter()
        .copied()
        .filter(|q| *q != device_information::DEVICE_PROPERTIES_ATTESTATION)
        .collect();
    let command = Command::from(DeviceInformation { queries, attestation_nonce: None });
    let envelope = command.envelope(uuid.clone());
    let new = Enqueue {
        request_type: "DeviceInformation",
        rendering: commands::Rendering::Plain,
        body: &envelope.body,
        key: Some("policy-facts"),
    };
    enqueue(tx, ctx, enrollment, uuid, &new, presence, now).await
}

struct Enqueue<'a> {
    request_type: &'a str,
    rendering: commands::Rendering,
    body: &'a [u8],
    key: Option<&'a str>,
}

async fn enqueue(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    uuid: CommandUuid,
    what: &Enqueue<'_>,
    presence: Presence,
    now: Timestamp,
) -> Result<String> {
    let new = commands::New {
        uuid: uuid.clone(),
        request_type: what.request_type,
        rendering: what.rendering,
        body: what.body,
        lane: commands::Lane::Normal,
        coalescing_key: what.key,
        ttl: None,
        created_by: CREATED_BY,
        push: presence == Presence::Away,
    };
    commands::enqueue(tx, &ctx.commands, &new, &[enrollment.id], now).await?;
    if presence == Presence::Connected {
        store::push::due(tx, enrollment.id, now.plus(SAFETY_NET)).await?;
        tx.wake(Wake::Push);
    }
    Ok(uuid.into_string())
}

fn new_uuid(ctx: &Context) -> CommandUuid {
    let text = ctx.commands.random.uuid_v4().to_string();
    text.parse().expect("a UUID is a CommandUUID")
}

/// Writes what happened to an assignment into the log of events.
pub(crate) async fn event(
    tx: &mut Tx,
    enrollment: &Enrollment,
    case: &Case,
    a: &Assignment,
    kind: &str,
    summary: &str,
    now: Timestamp,
) -> Result<()> {
    let command: Option<CommandUuid> = a.command_uuid.as_deref().and_then(|u| u.parse().ok());
    let policy = case.acme.name();
    let summary = format!("{summary} (policy {policy})");
    let data = serde_json::json!({ "policy": policy, "assignment": a.id, "revision": a.revision, "reason": a.reason });
    let event = NewEvent {
        at: now,
        kind,
        enrollment: Some(enrollment.id),
        command: command.as_ref(),
        actor: "server",
        summary: &summary,
        data: &data,
    };
    store::events::record(tx, &event).await?;
    tracing::info!(enrollment.id = %enrollment.id, assignment.id = %a.id, policy.name = %policy, reason = a.reason, "{kind}");
    Ok(())
}
