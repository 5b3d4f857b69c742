//! Reports and polls (Apple, "Send MDM commands to a device"): the report is applied, policies react, the next command goes out.

use axum::response::Response;
use commands::{Content, Done, Picked, Rendering};
use mdm_core::checkin::MessageError;
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::report::{Report, Status};
use mdm_core::time::Timestamp;
use store::{Tx, Wake, enrollments};

use crate::authorize::{judge, record_grace, record_refusal, renewed};
use crate::bearer::{Head, is_account_driven};
use crate::identity::Identity;
use crate::reply::{self, DeviceError};
use crate::user_authenticate::check_token;
use crate::{Door, set_up, unenroll, unlock};

/// Commands that may be refused at rendering in one answer before the session is ended.
const MOST_REFUSALS: usize = 20;

/// Answers one report.
pub(crate) async fn connect(
    door: &Door,
    head: &Head,
    identity: &Identity,
    report: &Report,
    raw: &[u8],
) -> Result<Response, DeviceError> {
    metrics::counter!("reports_total", "status" => report.status.as_str()).increment(1);
    let result = store::retry(|| answer(door, head, identity, report, raw)).await;
    let result = unenroll::told(door, identity, &report.sender, result).await;
    if let Err(error) = &result {
        record_refusal(door, identity, "report", error).await;
    }
    result
}

async fn answer(
    door: &Door,
    head: &Head,
    identity: &Identity,
    report: &Report,
    raw: &[u8],
) -> Result<Response, DeviceError> {
    let now = door.clock.now();
    if identity.ended {
        return answer_ended(door, head, identity, report, raw, now).await;
    }
    let look = async |tx: &mut Tx| enrollments::glance(tx, identity.fingerprint, report.sender.user.as_ref()).await;
    let mut glance = None;
    if report.status == Status::Idle {
        // The most frequent request of all: one query, and no write.
        glance = look(&mut door.store.read().await?).await?;
        if let Some(known) = &glance {
            if let Some(enrollment) = judge(Some(known), identity, &report.sender, now)? {
                door.seen.note(enrollment, now);
            }
            if !known.has_work && !is_account_driven(known.door) {
                return Ok(reply::empty());
            }
        }
    }
    let mut tx = door.store.begin().await?;
    if glance.is_none() {
        glance = look(&mut tx).await?;
    }
    // A device may poll with its renewed identity before it says anything else (open question Q10).
    if glance.is_none() && renewed(door, &mut tx, identity, &report.sender.device, now).await?.is_some() {
        glance = look(&mut tx).await?;
    }
    let enrollment = judge(glance.as_ref(), identity, &report.sender, now)?;
    let (Some(enrollment), Some(glance)) = (enrollment, glance) else {
        return Ok(reply::empty());
    };
    check_token(&mut tx, glance.device_id, report.sender.user.as_ref(), report.auth_token()).await?;
    head.check_glance(door, &mut tx, &glance, now).await?;
    door.seen.note(enrollment, now);
    if glance.supersedes {
        supersede(&mut tx, identity, glance.device_id, now).await?;
    }
    let queue = &door.commands;
    if let Some(done) = commands::report(&mut tx, queue, enrollment, report, raw, now).await? {
        react(door, &mut tx, enrollment, &done, report, now).await?;
    }
    let mut passed_over = Vec::new();
    let mut body = next(door, &mut tx, identity, enrollment, report.status, &mut passed_over, now).await?;
    if body.is_none() && glance.in_set_up && set_up::look(&mut tx, queue, enrollment, now).await? {
        body = next(door, &mut tx, identity, enrollment, report.status, &mut passed_over, now).await?;
    }
    // What was passed over waits: whoever sent this does not take the device's push away.
    if body.is_none() && passed_over.is_empty() {
        settle(&mut tx, enrollment, report.status, now).await?;
    }
    tx.commit().await?;
    Ok(body.map_or_else(reply::empty, reply::command))
}

/// The device speaks with an identity that is newer than another one that is accepted: it has proved itself.
async fn supersede(tx: &mut Tx, identity: &Identity, device: EnrollmentId, now: Timestamp) -> Result<(), DeviceError> {
    enrollments::lock(tx, device).await?;
    let pin = store::identities::find_by_fingerprint(tx, identity.fingerprint).await?;
    if let Some(pin) = pin.filter(store::identities::Identity::is_live) {
        renewal::speaks(tx, &pin, now).await?;
    }
    Ok(())
}

/// What follows from a report that changed the state of a command.
async fn react(
    door: &Door,
    tx: &mut Tx,
    enrollment: EnrollmentId,
    done: &Done,
    report: &Report,
    now: Timestamp,
) -> Result<(), DeviceError> {
    set_up::answered(tx, enrollment, done).await?;
    if !policy::concerns(done) && !renewal::concerns(done) {
        return Ok(());
    }
    let enrollment = enrollments::get(tx, enrollment).await?.ok_or(store::Error::Corrupt("enrollment"))?;
    policy::react(tx, &door.policy, &enrollment, done, report, now).await?;
    renewal::react(tx, &door.renewal, &enrollment, done, now).await?;
    Ok(())
}

/// Answers a report that came with an identity that has ended, within its grace: of the queue it gets the renewal only, and of
/// reports only that on the renewal counts. Whatever else waits, waits for the new identity (TH-09).
async fn answer_ended(
    door: &Door,
    head: &Head,
    identity: &Identity,
    report: &Report,
    raw: &[u8],
    now: Timestamp,
) -> Result<Response, DeviceError> {
    if report.sender.user.is_some() {
        return Err(DeviceError::Denied("the certificate has ended"));
    }
    let mut tx = door.store.begin().await?;
    let glance = enrollments::glance(&mut tx, identity.fingerprint, None).await?;
    let enrollment = judge(glance.as_ref(), identity, &report.sender, now)?;
    let (Some(enrollment), Some(glance)) = (enrollment, glance) else {
        return Ok(reply::empty());
    };
    enrollments::lock(&mut tx, enrollment).await?;
    head.check_glance(door, &mut tx, &glance, now).await?;
    door.seen.note(enrollment, now);
    record_grace(door, &mut tx, enrollment, identity.fingerprint, now).await?;
    let ours = match &report.command_uuid {
        Some(uuid) => store::commands::kind(&mut tx, uuid).await?.is_some_and(|c| c.created_by == renewal::CREATED_BY),
        None => false,
    };
    if ours && let Some(done) = commands::report(&mut tx, &door.commands, enrollment, report, raw, now).await? {
        react(door, &mut tx, enrollment, &done, report, now).await?;
    }
    if glance.supersedes {
        supersede(&mut tx, identity, enrollment, now).await?;
    }
    renewal::rescue(&mut tx, &door.renewal, enrollment, now).await?;
    // After NotNow the device ends the session and comes back by itself.
    let picked = match report.status {
        Status::NotNow => None,
        _ => commands::next_of(&mut tx, &door.commands, enrollment, Rendering::Enrollment, now).await?,
    };
    let body = match &picked {
        Some(picked) if may_have(&mut tx, identity, enrollment, picked).await? => {
            hand_out(door, &mut tx, enrollment, picked, now).await?
        }
        Some(_) | None => None,
    };
    tx.commit().await?;
    Ok(body.map_or_else(reply::empty, reply::command))
}

/// Whether a command may go out in answer to this message: one with a secret in it, a permission for a certificate or the unlock
/// token, goes to the device itself only, and not to whoever recorded a message of it (TH-17).
async fn may_have(
    tx: &mut Tx,
    identity: &Identity,
    enrollment: EnrollmentId,
    picked: &Picked,
) -> Result<bool, DeviceError> {
    let secret =
        matches!(&picked.content, Content::Render { rendering: Rendering::Enrollment | Rendering::Unlock, .. });
    if !secret {
        return Ok(true);
    }
    let last = enrollments::get(tx, enrollment).await?.and_then(|enrollment| enrollment.token_signed_at);
    if identity.is_fresh(last) {
        return Ok(true);
    }
    metrics::counter!("secrets_withheld_total").increment(1);
    tracing::warn!(
        enrollment.id = %enrollment,
        command.uuid = %picked.uuid,
        "the message was not signed just now: a command with a secret in it waits for another one"
    );
    Ok(false)
}

/// The next command that can be sent, rendered where it must be: what is refused at rendering is ended, and the one after it taken.
/// What this message may not have is passed over.
async fn next(
    door: &Door,
    tx: &mut Tx,
    identity: &Identity,
    enrollment: EnrollmentId,
    status: Status,
    passed_over: &mut Vec<CommandUuid>,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, DeviceError> {
    for _ in 0..MOST_REFUSALS {
        let queue = &door.commands;
        let Some(picked) = commands::next_but(tx, queue, enrollment, status, passed_over, now).await? else {
            return Ok(None);
        };
        if !may_have(tx, identity, enrollment, &picked).await? {
            passed_over.push(picked.uuid);
            continue;
        }
        if let Some(body) = hand_out(door, tx, enrollment, &picked, now).await? {
            return Ok(Some(body));
        }
    }
    Ok(None)
}

/// What a picked command is sent as; `None` where its rendering refused it: then it has ended.
async fn hand_out(
    door: &Door,
    tx: &mut Tx,
    enrollment: EnrollmentId,
    picked: &Picked,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, DeviceError> {
    let (rendering, parameters, before) = match &picked.content {
        Content::Ready(body) => return Ok(Some(body.clone())),
        Content::Render { rendering, parameters, before } => (rendering, parameters, before),
    };
    let target = enrollments::get(tx, enrollment).await?.ok_or(store::Error::Corrupt("enrollment"))?;
    let rendered = match rendering {
        Rendering::Enrollment => {
            let picked = renewal::Picked { uuid: &picked.uuid, parameters, before: before.as_deref() };
            match renewal::render(tx, &door.renewal, &target, &picked, now).await? {
                renewal::Rendered::Body(body) => Ok(body),
                renewal::Rendered::Refused { why } => Err(why),
            }
        }
        Rendering::Unlock => unlock::render(door, tx, &target, parameters).await?,
        Rendering::Facts => Ok(policy::render_facts(tx, &door.policy, &target, &picked.uuid, now).await?),
        Rendering::Acme | Rendering::Plain => {
            match policy::render(tx, &door.policy, &target, &picked.uuid, before.as_deref(), now).await? {
                policy::Rendered::Body(body) => Ok(body),
                policy::Rendered::Refused { why } => Err(why),
            }
        }
    };
    match rendered {
        Ok(body) => {
            commands::rendered(tx, &door.commands, picked, &body, now).await?;
            Ok(Some(body))
        }
        Err(why) => {
            tracing::info!(enrollment.id = %enrollment, command.uuid = %picked.uuid, why, "command refused at delivery");
            commands::refuse(tx, picked, &why, now).await?;
            Ok(None)
        }
    }
}

/// The session ends: a device that put something off is pushed again later, one that has nothing to do need not be pushed.
async fn settle(tx: &mut Tx, enrollment: EnrollmentId, status: Status, now: Timestamp) -> Result<(), DeviceError> {
    if status == Status::NotNow {
        store::push::not_now(tx, enrollment, now).await?;
        tx.wake(Wake::Push);
    } else {
        store::push::connected(tx, enrollment).await?;
    }
    Ok(())
}

/// A report that cannot be read is refused, so that the device keeps it. After some of them the command in progress is given up
/// and the answer taken, so that the queue goes on (RG-07).
pub(crate) async fn unreadable(door: &Door, identity: &Identity, error: MessageError) -> Result<Response, DeviceError> {
    if identity.ended {
        return Err(DeviceError::Message(error));
    }
    let given_up = store::retry(|| async {
        let now = door.clock.now();
        let mut tx = door.store.begin().await?;
        let known = enrollments::glance(&mut tx, identity.fingerprint, None).await?;
        let Some(known) = known.filter(|known| !known.revoked && !known.retired && known.state == "enrolled") else {
            return Ok(false);
        };
        let given_up = commands::unreadable(&mut tx, known.id, now).await?;
        tx.commit().await?;
        Ok::<_, DeviceError>(given_up)
    })
    .await?;
    if given_up { Ok(reply::empty()) } else { Err(DeviceError::Message(error)) }
}
