//! Moving assignments on: read what decides, decide, collect what follows, write it. One assignment of a device that is on the line
//! and a batch of the reconcile loop go the same way.

use std::time::Duration;

use mdm_core::enrollment::Channel;
use mdm_core::ids::{AssignmentId, AttemptId, AuthorityId, CommandUuid, PolicyId};
use mdm_core::time::Timestamp;
use store::Tx;
use store::assignments::{self, Assignment};
use store::attempts::NewAttempt;
use store::enrollments::Enrollment;

use crate::Context;
use crate::case::{Book, Case, NOT_YET};
use crate::decide::{Action, FACTS_MAX_AGE, MAX_ATTEMPTS, Purpose, State, back_off, decide};
use crate::decision::{Decision, Note};
use crate::error::{Result, corrupt};
use crate::reason::ReasonCode;
use crate::renew::next_renewal_try;
use crate::writes::{Batch, Event, FACTS, PROOF, Writes};

/// Whether the device is on the line and fetches what is enqueued now in the same session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is: a push would come too late, and is only a safety net for a lost reply.
    Connected,
    /// It must be woken.
    Away,
}

/// How long a command is waited for before the reconcile loop looks whether it is still there.
const LOOK_AGAIN: Duration = Duration::from_hours(24);

/// How long an assignment that cannot be decided is left alone.
const PUT_ASIDE: Duration = Duration::from_mins(10);

/// Moves every assignment of an enrollment on. The lock on the enrollment is held.
pub(crate) async fn advance_enrollment(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    presence: Presence,
    now: Timestamp,
) -> Result<()> {
    let all = assignments::of_enrollment(tx, enrollment.id).await?;
    advance_all(tx, ctx, all, presence, now).await
}

/// Moves assignments on. The locks on their enrollments are held. One that cannot be decided through a fault of ours is put aside, so
/// that it blocks neither a message of its device nor the others (RG-19).
pub(crate) async fn advance_all(
    tx: &mut Tx,
    ctx: &Context,
    all: Vec<Assignment>,
    presence: Presence,
    now: Timestamp,
) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let (book, all) = Book::open(tx, all).await?;
    let mut writes = Writes::default();
    for a in all {
        match book.case(&a, NOT_YET, now) {
            Ok(case) => {
                let action = decide(&case.situation, &case.decision, now);
                follow(&mut writes, ctx, &book, &case, a, action, now)?;
            }
            Err(e) if e.needs_human() => writes.saved.push(put_aside(a, &e, now)),
            Err(e) => return Err(e),
        }
    }
    writes.write(tx, ctx, presence, now).await
}

fn put_aside(mut a: Assignment, error: &crate::Error, now: Timestamp) -> Assignment {
    tracing::error!(assignment.id = %a.id, enrollment.id = %a.enrollment_id, error = %error, "assignment put aside");
    a.due_at = Some(now.plus(PUT_ASIDE).0);
    a
}

/// Collects what an action means.
pub(crate) fn follow(
    writes: &mut Writes,
    ctx: &Context,
    book: &Book,
    case: &Case,
    mut a: Assignment,
    action: Action,
    now: Timestamp,
) -> Result<()> {
    let enrollment = case.enrollment.id;
    let set = |a: &mut Assignment, state: State, due: Option<Timestamp>| {
        state.as_str().clone_into(&mut a.state);
        a.due_at = due.map(|t| t.0);
    };
    a.silicon = Some(case.decision.device.attest_support.clone());
    match action {
        Action::Nothing => a.due_at = case.situation.command_outstanding.then(|| now.plus(LOOK_AGAIN).0),
        Action::Wait(until) => a.due_at = Some(until.0),
        Action::Hold => {
            abandon(writes, &a, case, "held by the rollout");
            a.command_uuid = None;
            a.reason = Some(ReasonCode::RolloutHeld.as_str().to_owned());
            set(&mut a, State::Held, None);
        }
        Action::AskFacts => {
            abandon(writes, &a, case, "the device is asked what it is");
            // What was sent last stays known: it may be just right.
            if !a.profile_sent {
                decided(&mut a, case)?;
            }
            a.reason = None;
            let there = book.waiting(enrollment, FACTS).map(str::to_owned);
            a.command_uuid = Some(there.unwrap_or_else(|| writes.enqueue(ctx, Batch::Facts, enrollment).into_string()));
            set(&mut a, State::AwaitingFacts, Some(now.plus(LOOK_AGAIN)));
        }
        Action::Install(purpose) => {
            abandon(writes, &a, case, "superseded");
            decided(&mut a, case)?;
            let command = writes.enqueue(ctx, Batch::Install(case.policy.policy), enrollment);
            a.command_uuid = Some(command.as_str().to_owned());
            a.attempt_id = Some(begin(writes, ctx, case, &a, purpose, command, now).0);
            a.proof_tries = 0;
            set(&mut a, State::Installing, Some(now.plus(LOOK_AGAIN)));
        }
        Action::AskProof => {
            let there = book.waiting(enrollment, PROOF).map(str::to_owned);
            a.command_uuid = Some(there.unwrap_or_else(|| writes.enqueue(ctx, Batch::Proof, enrollment).into_string()));
            a.due_at = Some(now.plus(LOOK_AGAIN).0);
        }
        Action::Keep => {
            abandon(writes, &a, case, "the certificate that is there is as it should be");
            decided(&mut a, case)?;
            (a.command_uuid, a.attempts) = (None, 0);
            let renew_at = a.renew_at.map(Timestamp);
            set(&mut a, State::Verified, renew_at);
        }
        Action::Block => {
            abandon(writes, &a, case, "the gate is closed");
            decided(&mut a, case)?;
            a.command_uuid = None;
            set(&mut a, State::Blocked, Some(case.situation.asked_at.unwrap_or(now).plus(FACTS_MAX_AGE)));
            writes.events.push(event(case, &a, "assignment.blocked", "The profile is not sent"));
        }
        Action::Lost => {
            failed(writes, &mut a, case, ReasonCode::CommandEnded, None, now)?;
            let summary = "The profile's command ended without an answer";
            writes.events.push(event(case, &a, "assignment.failed", summary));
        }
        Action::Unproved => {
            let reason = case.situation.reason.unwrap_or(ReasonCode::CertificateNotListed);
            failed(writes, &mut a, case, reason, None, now)?;
            let summary = "The device does not show the certificate";
            writes.events.push(event(case, &a, "assignment.failed", summary));
        }
        Action::Remove => {
            abandon(writes, &a, case, "the profile is taken off");
            if case.situation.state != State::Removing {
                a.attempts = 0;
            }
            let on_user_channel = case.enrollment.channel == Channel::User;
            let command = writes.enqueue(ctx, Batch::Remove(case.policy.policy, on_user_channel), enrollment);
            a.command_uuid = Some(command.into_string());
            a.reason = Some(ReasonCode::PolicyGone.as_str().to_owned());
            a.renew_at = None;
            set(&mut a, State::Removing, Some(now.plus(LOOK_AGAIN)));
        }
        Action::Drop => {
            abandon(writes, &a, case, "the policy is gone");
            writes.gone.push(AssignmentId(a.id));
            writes.forsaken.push((enrollment, case.policy.policy));
            let summary = "The policy is no longer on this enrollment";
            writes.events.push(event(case, &a, "assignment.removed", summary));
            return Ok(());
        }
    }
    writes.saved.push(a);
    Ok(())
}

/// Writes the decision into the assignment.
fn decided(a: &mut Assignment, case: &Case) -> Result<()> {
    if a.revision != case.policy.revision {
        a.attempts = 0;
    }
    a.revision = case.policy.revision;
    a.reason = case.decision.reason.as_ref().map(|r| r.code.as_str().to_owned());
    a.decision = Some(json(&case.decision)?);
    Ok(())
}

pub(crate) fn json(decision: &Decision) -> Result<String> {
    serde_json::to_string(decision).map_err(|_| corrupt("assignment.decision"))
}

/// Notes an attempt in the ledger: the trace id of all that follows.
fn begin(
    writes: &mut Writes,
    ctx: &Context,
    case: &Case,
    a: &Assignment,
    purpose: Purpose,
    command: CommandUuid,
    now: Timestamp,
) -> AttemptId {
    let id = AttemptId(ctx.commands.random.uuid_v7(now));
    tracing::debug!(trace.id = %id, enrollment.id = %case.enrollment.id, assignment.id = %a.id, policy.name = %case.policy.acme.name(), purpose = purpose.as_str(), "profile queued");
    writes.attempts.push(NewAttempt {
        id,
        assignment: AssignmentId(a.id),
        policy: case.policy.policy,
        revision: case.policy.revision,
        enrollment: case.enrollment.id,
        authority: case.policy.authority.id.map(AuthorityId),
        purpose: purpose.as_str(),
        command,
    });
    id
}

/// A command of ours that something else takes the place of is not sent any more, and a permission that came with it ends.
fn abandon(writes: &mut Writes, a: &Assignment, case: &Case, why: &'static str) {
    // Other assignments wait for the same DeviceInformation and CertificateList.
    let shared = matches!(case.situation.state, State::AwaitingFacts | State::Installed | State::Verified);
    if case.situation.command_outstanding
        && !shared
        && let Some(uuid) = &a.command_uuid
    {
        writes.cancelled.entry(uuid.clone()).or_default().push(case.enrollment.id);
    }
    if a.attempt_id.is_some() {
        writes.void.entry(why).or_default().push(AssignmentId(a.id));
    }
}

/// Notes a failure, in the assignment and in the ledger.
pub(crate) fn failed(
    writes: &mut Writes,
    a: &mut Assignment,
    case: &Case,
    reason: ReasonCode,
    detail: Option<String>,
    now: Timestamp,
) -> Result<()> {
    if let Some(attempt) = a.attempt_id {
        writes.failed.push((AttemptId(attempt), reason.as_str().to_owned()));
    }
    let reason = fail(a, reason, now);
    let told = Decision { reason: Some(Note::from(reason)), detail, ..case.decision.clone() };
    a.decision = Some(json(&told)?);
    Ok(())
}

/// Notes a failure in the assignment: when it is tried again, or that it is not. What has a certificate to renew does not give up.
pub(crate) fn fail(a: &mut Assignment, reason: ReasonCode, now: Timestamp) -> ReasonCode {
    a.attempts += 1;
    let lasts = a.not_after.filter(|at| a.renew_at.is_some() || *at > now.0);
    let given_up = a.attempts >= MAX_ATTEMPTS && lasts.is_none();
    a.due_at = match lasts {
        _ if given_up => None,
        Some(not_after) => Some(next_renewal_try(a.attempts, Timestamp(not_after), now).0),
        None => Some(now.plus(back_off(a.attempts)).0),
    };
    let reason = if given_up { ReasonCode::GivenUp } else { reason };
    State::Failed.as_str().clone_into(&mut a.state);
    a.command_uuid = None;
    a.reason = Some(reason.as_str().to_owned());
    reason
}

/// What happened to an assignment, for the log of events.
pub(crate) fn event(case: &Case, a: &Assignment, kind: &'static str, summary: &str) -> Event {
    let policy = case.policy.acme.name();
    tracing::info!(trace.id = a.attempt_id.map(tracing::field::display), enrollment.id = %case.enrollment.id, assignment.id = %a.id, policy.name = %policy, reason = a.reason, "{kind}");
    Event {
        kind,
        enrollment: case.enrollment.id,
        command: a.command_uuid.as_deref().and_then(|u| u.parse().ok()),
        summary: format!("{summary} (policy {policy})"),
        data: serde_json::json!({
            "policy": policy,
            "policy_id": PolicyId(a.policy_id),
            "assignment": a.id,
            "revision": a.revision,
            "reason": a.reason,
            "trace": a.attempt_id,
        }),
    }
}
