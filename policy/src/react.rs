//! What a report means for policies: facts learned, profiles installed, failed or removed. What follows is enqueued in
//! the transaction of the report, so that it rides back in the very same response.

use commands::{Done, Outcome};
use mdm_core::command::device_information;
use mdm_core::ids::AssignmentId;
use mdm_core::report::{Report, error_chain_text};
use mdm_core::time::Timestamp;
use store::Tx;
use store::assignments::{self, Assignment};
use store::enrollments::Enrollment;

use crate::advance::{Case, PUT_ASIDE, Presence, advance_or_put_aside, event, failed};
use crate::decide::{MAX_ATTEMPTS, State, back_off};
use crate::error::Result;
use crate::reason::ReasonCode;
use crate::{CREATED_BY, Context, target};

/// Whether a report can mean anything for policies: facts, or a command of theirs that has ended.
pub fn concerns(done: &Done) -> bool {
    done.outcome != Outcome::NotNow && (done.request_type == "DeviceInformation" || done.created_by == CREATED_BY)
}

/// Draws the conclusions from a report that ended a command of this enrollment. The lock on the enrollment is held.
pub async fn react(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    done: &Done,
    report: &Report,
    now: Timestamp,
) -> Result<()> {
    if !concerns(done) {
        return Ok(());
    }
    if done.request_type == "DeviceInformation" {
        return learn(tx, ctx, enrollment, done, report, now).await;
    }
    let Some(a) = assignments::by_command(tx, enrollment.id, &done.uuid).await? else { return Ok(()) };
    let id = AssignmentId(a.id);
    let ended = match State::from_text(&a.state) {
        Some(State::Installing) => installed(tx, ctx, enrollment, a, done, now).await,
        Some(State::Removing) => removed(tx, ctx, enrollment, a, done, now).await,
        _ => Ok(()),
    };
    match ended {
        // A fault of ours is no reason to refuse the device's report: it would come again for ever.
        Err(e) if e.needs_human() => {
            tracing::error!(enrollment.id = %enrollment.id, assignment.id = %id, error = %e, "assignment put aside");
            Ok(assignments::due(tx, id, now.plus(PUT_ASIDE)).await?)
        }
        ended => ended,
    }
}

/// Facts: anybody's `DeviceInformation` teaches; only one that asked for what the gate needs counts as asked.
async fn learn(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    done: &Done,
    report: &Report,
    now: Timestamp,
) -> Result<()> {
    let mut facts = match target::stored(tx, enrollment).await {
        Err(e) if e.needs_human() => {
            tracing::error!(enrollment.id = %enrollment.id, error = %e, "facts begun anew");
            target::from_authenticate(enrollment)
        }
        facts => facts?,
    };
    let ours = done.created_by == CREATED_BY;
    let answers = match done.outcome {
        Outcome::Acknowledged => device_information::answer(&report.body),
        _ => None,
    };
    if answers.is_none() && !ours {
        return Ok(());
    }
    let complete = answers.as_ref().is_some_and(|a| a.product_name.is_some() && a.os_version.is_some());
    if ours || complete {
        facts.asked_at = Some(now);
    }
    if let Some(answers) = answers {
        target::learn_answers(&mut facts, answers, now);
    }
    target::save(tx, enrollment, &facts, now).await?;
    for a in assignments::of_enrollment(tx, enrollment.id).await? {
        advance_or_put_aside(tx, ctx, enrollment, a, Presence::Connected, now).await?;
    }
    Ok(())
}

async fn installed(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    mut a: Assignment,
    done: &Done,
    now: Timestamp,
) -> Result<()> {
    let case = Case::load(tx, enrollment, &a, now).await?;
    if let Outcome::Error(chain) = &done.outcome {
        failed(&mut a, ReasonCode::InstallFailed, Some(error_chain_text(chain)), &case.decision, now)?;
        event(tx, enrollment, &case, &a, "assignment.failed", "The device refused the profile", now).await?;
    } else if done.outcome == Outcome::CommandFormatError {
        failed(&mut a, ReasonCode::InstallFailed, Some("CommandFormatError".to_owned()), &case.decision, now)?;
        event(tx, enrollment, &case, &a, "assignment.failed", "The device did not understand the command", now).await?;
    } else {
        State::Installed.as_str().clone_into(&mut a.state);
        a.attempts = 0;
        a.reason = None;
        a.due_at = None;
        event(tx, enrollment, &case, &a, "assignment.installed", "The device has installed the profile", now).await?;
    }
    assignments::save(tx, &a, now).await?;
    advance_or_put_aside(tx, ctx, enrollment, a, Presence::Connected, now).await
}

async fn removed(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    mut a: Assignment,
    done: &Done,
    now: Timestamp,
) -> Result<()> {
    let case = Case::load(tx, enrollment, &a, now).await?;
    if done.outcome == Outcome::Acknowledged {
        a.profile_sent = false;
        a.attempts = 0;
        if !case.situation.wanted {
            assignments::delete(tx, AssignmentId(a.id)).await?;
            return event(tx, enrollment, &case, &a, "assignment.removed", "The profile was removed", now).await;
        }
        State::Assigned.as_str().clone_into(&mut a.state);
    } else {
        a.attempts += 1;
        a.due_at = (a.attempts < MAX_ATTEMPTS).then(|| now.plus(back_off(a.attempts)).0);
    }
    assignments::save(tx, &a, now).await?;
    advance_or_put_aside(tx, ctx, enrollment, a, Presence::Connected, now).await
}
