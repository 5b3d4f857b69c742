//! Reports and polls (Apple, "Send MDM commands to a device"): the report is applied, policies react, the next command goes out.

use axum::response::Response;
use commands::Content;
use mdm_core::checkin::MessageError;
use mdm_core::ids::EnrollmentId;
use mdm_core::report::{Report, Status};
use mdm_core::time::Timestamp;
use policy::Rendered;
use store::{Tx, Wake, enrollments};

use crate::Door;
use crate::authorize::{judge, record_refusal};
use crate::identity::Identity;
use crate::reply::{self, DeviceError};

/// Commands that may be refused at rendering in one answer before the session is ended.
const MOST_REFUSALS: usize = 20;

/// Answers one report.
pub(crate) async fn connect(
    door: &Door,
    identity: &Identity,
    report: &Report,
    raw: &[u8],
) -> Result<Response, DeviceError> {
    metrics::counter!("reports_total", "status" => report.status.as_str()).increment(1);
    let result = store::retry(|| answer(door, identity, report, raw)).await;
    if let Err(error) = &result {
        record_refusal(door, identity, "report", error).await;
    }
    result
}

async fn answer(door: &Door, identity: &Identity, report: &Report, raw: &[u8]) -> Result<Response, DeviceError> {
    let now = door.clock.now();
    let glance = async |tx: &mut Tx| {
        let glance = enrollments::glance(tx, identity.fingerprint, report.sender.user.as_ref()).await?;
        let enrollment = judge(glance.as_ref(), &report.sender, now)?;
        Ok::<_, DeviceError>((enrollment, glance.is_some_and(|glance| glance.has_work)))
    };
    let (mut tx, enrollment) = if report.status == Status::Idle {
        // The most frequent request of all: one query, and no write.
        let (enrollment, has_work) = glance(&mut door.store.read().await?).await?;
        if let Some(enrollment) = enrollment {
            door.seen.note(enrollment, now);
        }
        if !has_work {
            return Ok(reply::empty());
        }
        (door.store.begin().await?, enrollment)
    } else {
        let mut tx = door.store.begin().await?;
        let (enrollment, _) = glance(&mut tx).await?;
        (tx, enrollment)
    };
    let Some(enrollment) = enrollment else {
        return Ok(reply::empty());
    };
    door.seen.note(enrollment, now);
    let queue = &door.commands;
    if let Some(done) = commands::report(&mut tx, queue, enrollment, report, raw, now).await?
        && policy::concerns(&done)
    {
        let enrollment = enrollments::get(&mut tx, enrollment).await?.ok_or(store::Error::Corrupt("enrollment"))?;
        policy::react(&mut tx, &door.policy, &enrollment, &done, report, now).await?;
    }
    let next = next(door, &mut tx, enrollment, report.status, now).await?;
    if next.is_none() {
        settle(&mut tx, enrollment, report.status, now).await?;
    }
    tx.commit().await?;
    Ok(next.map_or_else(reply::empty, reply::command))
}

/// The next command that can be sent, rendered where it must be: what is refused at rendering is ended, and the one after it taken.
async fn next(
    door: &Door,
    tx: &mut Tx,
    enrollment: EnrollmentId,
    status: Status,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, DeviceError> {
    let queue = &door.commands;
    for _ in 0..MOST_REFUSALS {
        let Some(picked) = commands::next(tx, queue, enrollment, status, now).await? else {
            return Ok(None);
        };
        let parameters = match &picked.content {
            Content::Ready(body) => return Ok(Some(body.clone())),
            Content::Render(parameters) => parameters,
        };
        let target = enrollments::get(tx, enrollment).await?.ok_or(store::Error::Corrupt("enrollment"))?;
        match policy::render(tx, &door.policy, &target, &picked.uuid, parameters, now).await? {
            Rendered::Body(body) => {
                commands::rendered(tx, queue, &picked, &body, now).await?;
                return Ok(Some(body));
            }
            Rendered::Refused { why } => {
                tracing::info!(enrollment.id = %enrollment, command.uuid = %picked.uuid, why, "command refused at delivery");
                commands::refuse(tx, &picked, &why, now).await?;
            }
        }
    }
    Ok(None)
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
