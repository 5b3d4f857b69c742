//! What a report means for policies: facts learned, profiles installed, certificates seen, profiles failed or removed. What follows is
//! enqueued in the transaction of the report, so that it rides back in the very same response.

use commands::{Done, Outcome};
use mdm_core::command::{certificate_list, device_information};
use mdm_core::ids::{AssignmentId, AttemptId};
use mdm_core::report::{Report, error_chain_text};
use mdm_core::time::Timestamp;
use store::assignments::{self, Assignment};
use store::enrollments::Enrollment;
use store::{Tx, attempts};

use crate::advance::{Presence, advance_all, advance_enrollment, event, failed};
use crate::case::{Book, Case, NOT_YET};
use crate::decide::{MAX_ATTEMPTS, State, back_off};
use crate::error::Result;
use crate::facts::FactName;
use crate::prove;
use crate::reason::ReasonCode;
use crate::writes::Writes;
use crate::{CREATED_BY, Context, label_rules, target, users};

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
    match done.request_type.as_str() {
        "DeviceInformation" => learn(tx, ctx, enrollment, done, report, now).await,
        "CertificateList" => {
            let list = match done.outcome {
                Outcome::Acknowledged => certificate_list::answer(&report.body),
                _ => None,
            };
            prove::certificates(tx, ctx, enrollment, &done.uuid, list.as_deref(), now).await
        }
        _ => profile(tx, ctx, enrollment, done, now).await,
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
    if ours {
        facts.note_asked(enrollment.channel, now);
    } else if complete {
        facts.asked_at = Some(now);
    }
    let mut chain = None;
    if let Some(mut answers) = answers {
        chain = answers.device_properties_attestation.take();
        target::learn_answers(tx, enrollment, &mut facts, answers, now).await?;
    }
    let serial_number = facts.text(FactName::SerialNumber).map(str::to_owned);
    let provisioning_udid = facts.text(FactName::ProvisioningUdid).map(str::to_owned);
    let claims = attestation::Claims {
        platform: target::device(enrollment, &facts, now).0.platform,
        serial_number: serial_number.as_deref(),
        provisioning_udid: provisioning_udid.as_deref(),
    };
    // Also of an answer that has none, or is an error: a nonce without an answer is a verdict too.
    let context = &ctx.attestation;
    if let Some(judged) =
        attestation::judge(tx, context, enrollment, &claims, chain.as_deref(), &done.uuid, now).await?
    {
        facts.learn_attested(&judged, now);
    }
    target::save(tx, enrollment, &facts, now).await?;
    label_rules::follow(tx, ctx, enrollment, &facts, now).await?;
    advance_enrollment(tx, ctx, enrollment, Presence::Connected, now).await?;
    users::follow(tx, ctx, enrollment, now).await
}

/// `InstallProfile` or `RemoveProfile` has ended.
async fn profile(tx: &mut Tx, ctx: &Context, enrollment: &Enrollment, done: &Done, now: Timestamp) -> Result<()> {
    let Some(a) = assignments::by_command(tx, enrollment.id, &done.uuid).await? else { return Ok(()) };
    let id = AssignmentId(a.id);
    let state = State::from_text(&a.state);
    if !matches!(state, Some(State::Installing | State::Removing)) {
        return Ok(());
    }
    let (book, held) = Book::open(tx, vec![a]).await?;
    let Some(a) = held.into_iter().next() else { return Ok(()) };
    let mut writes = Writes::default();
    match book.case(&a, NOT_YET, now) {
        Ok(case) if state == Some(State::Installing) => installed(tx, &mut writes, &case, a, done, now).await?,
        Ok(case) => removed(&mut writes, &case, a, done, now),
        // A fault of ours is no reason to refuse the device's report: it would come again for ever. The next look finds that the
        // command has ended.
        Err(e) if e.needs_human() => {
            tracing::error!(enrollment.id = %enrollment.id, assignment.id = %id, error = %e, "what a report means cannot be told");
        }
        Err(e) => return Err(e),
    }
    writes.write(tx, ctx, Presence::Connected, now).await?;
    let again = assignments::get(tx, id).await?.into_iter().collect();
    advance_all(tx, ctx, again, Presence::Connected, now).await
}

async fn installed(
    tx: &mut Tx,
    writes: &mut Writes,
    case: &Case,
    mut a: Assignment,
    done: &Done,
    now: Timestamp,
) -> Result<()> {
    let refused = match &done.outcome {
        Outcome::Error(chain) => Some((error_chain_text(chain), "The device refused the profile")),
        Outcome::CommandFormatError => {
            Some(("CommandFormatError".to_owned(), "The device did not understand the command"))
        }
        Outcome::Acknowledged | Outcome::NotNow => None,
    };
    if let Some((detail, summary)) = refused {
        let command = a.command_uuid.clone();
        failed(writes, &mut a, case, ReasonCode::InstallFailed, Some(detail), now)?;
        let told = Assignment { command_uuid: command, ..a.clone() };
        writes.events.push(event(case, &told, "assignment.failed", summary));
    } else {
        if let Some(attempt) = a.attempt_id {
            attempts::acknowledged(tx, AttemptId(attempt), now).await?;
        }
        State::Installed.as_str().clone_into(&mut a.state);
        if !case.situation.provable {
            a.attempts = 0;
        }
        (a.reason, a.due_at, a.proof_tries) = (None, None, 0);
        writes.events.push(event(case, &a, "assignment.installed", "The device says that the profile is installed"));
        a.command_uuid = None;
    }
    writes.saved.push(a);
    Ok(())
}

fn removed(writes: &mut Writes, case: &Case, mut a: Assignment, done: &Done, now: Timestamp) {
    if done.outcome == Outcome::Acknowledged {
        a.profile_sent = false;
        a.attempts = 0;
        forget_certificate(&mut a);
        writes.forsaken.push((case.enrollment.id, case.policy.policy));
        writes.events.push(event(case, &a, "assignment.removed", "The profile was removed"));
        State::Assigned.as_str().clone_into(&mut a.state);
        if !case.situation.wanted {
            writes.gone.push(AssignmentId(a.id));
            return;
        }
    } else {
        a.attempts += 1;
        a.due_at = (a.attempts < MAX_ATTEMPTS).then(|| now.plus(back_off(a.attempts)).0);
    }
    a.command_uuid = None;
    writes.saved.push(a);
}

/// No certificate of this policy is on the device.
pub(crate) fn forget_certificate(a: &mut Assignment) {
    (a.certificate_sha256, a.certificate_revision, a.certificate_form) = (None, None, None);
    (a.not_after, a.renew_at) = (None, None);
}
