//! Taking in what a device reports.

use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::report::{ErrorItem, Report, Status};
use mdm_core::time::Timestamp;
use store::Tx;
use store::commands::{self as rows, Final};

use crate::stall::{Why, stall};
use crate::{Context, Error, result_context};

/// Unreadable answers to one command after which it stops blocking the queue (RG-07).
const MAX_UNREADABLE: i64 = 5;

/// How a command ended, or that it was put off.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// `Acknowledged`.
    Acknowledged,
    /// `Error`, with what the device says of it.
    Error(Vec<ErrorItem>),
    /// `CommandFormatError`: never to be sent again as it is.
    CommandFormatError,
    /// `NotNow`.
    NotNow,
}

/// A report that changed the state of a command.
#[derive(Debug, Clone)]
pub struct Done {
    /// `CommandUUID`.
    pub uuid: CommandUuid,
    /// `RequestType` of the command that was enqueued.
    pub request_type: String,
    /// Who enqueued it.
    pub created_by: String,
    /// How it went.
    pub outcome: Outcome,
}

/// Applies a report, once: a repeated, late, unknown or foreign one changes nothing and gives `None` (RG-04, RG-05).
///
/// Takes the lock on the enrollment's row, so that two replicas behave as one (RG-11). `raw` is the report as received.
pub async fn report(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: EnrollmentId,
    report: &Report,
    raw: &[u8],
    now: Timestamp,
) -> Result<Option<Done>, Error> {
    if report.status == Status::Idle {
        rows::begin_session(tx, enrollment).await?;
        return Ok(None);
    }
    store::enrollments::lock(tx, enrollment).await?;
    let Some(uuid) = &report.command_uuid else {
        return Ok(None);
    };
    let outcome = match report.status {
        Status::Idle => return Ok(None),
        Status::Acknowledged => Outcome::Acknowledged,
        Status::Error => Outcome::Error(report.error_chain.clone()),
        Status::CommandFormatError => Outcome::CommandFormatError,
        Status::NotNow => Outcome::NotNow,
    };
    let kind = match &outcome {
        Outcome::NotNow => {
            let session = rows::session(tx, enrollment).await?;
            if rows::not_now(tx, enrollment, uuid, session, now).await? { rows::kind(tx, uuid).await? } else { None }
        }
        done => {
            let error_chain = match done {
                Outcome::Error(items) => serde_json::to_string(items).ok(),
                _ => None,
            };
            let result_sealed = ctx.sealer.seal(&result_context(enrollment, uuid), raw, &ctx.random);
            let by =
                Final { state: final_state(done), error_chain: error_chain.as_deref(), result_sealed: &result_sealed };
            rows::finish(tx, enrollment, uuid, &by, now).await?
        }
    };
    let Some(kind) = kind else {
        let known = rows::extra_report(tx, enrollment, uuid).await?;
        tracing::info!(enrollment.id = %enrollment, command.uuid = %uuid, known, "report changes nothing: its command has ended or is not this enrollment's");
        return Ok(None);
    };
    Ok(Some(Done { uuid: uuid.clone(), request_type: kind.request_type, created_by: kind.created_by, outcome }))
}

fn final_state(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Acknowledged => "acknowledged",
        Outcome::Error(_) => "error",
        Outcome::CommandFormatError => "command_format_error",
        Outcome::NotNow => "not_now",
    }
}

/// Counts an answer that could not be read. After five, the command in progress is ended as stalled and `true` is given:
/// the device may be told that its answer was taken, so that it goes on (RG-07).
pub async fn unreadable(tx: &mut Tx, enrollment: EnrollmentId, now: Timestamp) -> Result<bool, Error> {
    store::enrollments::lock(tx, enrollment).await?;
    let Some((seq, count)) = rows::unreadable(tx, enrollment).await? else {
        return Ok(false);
    };
    if count < MAX_UNREADABLE {
        return Ok(false);
    }
    stall(tx, enrollment, seq, None, Why::Unreadable(count), now).await?;
    Ok(true)
}

/// The final report of a command on an enrollment, as it was received.
pub fn result(ctx: &Context, target: &rows::Target) -> Result<Option<Vec<u8>>, Error> {
    let Some(sealed) = &target.result_sealed else {
        return Ok(None);
    };
    let uuid: CommandUuid = target.command_uuid.parse().map_err(|_| store::Error::Corrupt("command.uuid"))?;
    let context = result_context(EnrollmentId(target.enrollment_id), &uuid);
    match ctx.sealer.open(&context, sealed) {
        Ok(plain) => Ok(Some(plain.expose().clone())),
        Err(source) => Err(Error::Sealed { uuid, source }),
    }
}
