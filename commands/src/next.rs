//! Handing out the next command.

use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::report::Status;
use mdm_core::time::Timestamp;
use store::Tx;
use store::commands as rows;

use crate::choose::{choose, is_plain_turn};
use crate::stall::{Why, stall};
use crate::{Context, Error, Rendering, body_context, rendered_context};

/// The command to hand out now.
#[derive(Debug)]
pub struct Picked {
    /// Whose queue.
    pub enrollment: EnrollmentId,
    /// `CommandUUID`.
    pub uuid: CommandUuid,
    /// `RequestType`.
    pub request_type: String,
    /// What to send.
    pub content: Content,
    seq: i64,
    others_sent: bool,
}

/// What a picked command holds.
#[derive(Debug)]
pub enum Content {
    /// These bytes; the delivery is noted already.
    Ready(Vec<u8>),
    /// Parameters to render first; then call [`rendered`] or [`refuse`].
    Render {
        /// Who renders it.
        rendering: Rendering,
        /// The parameters.
        parameters: Vec<u8>,
        /// What an earlier delivery was rendered to. A profile with a permission for a certificate in it, one of an enrollment
        /// or of an ACME policy, is good for a time only, so that whoever renders it decides whether these bytes still are;
        /// everything else comes again as it was ([`Content::Ready`]).
        before: Option<Vec<u8>>,
    },
}

/// How many outstanding rows are looked at before all of them are: more than one only where commands were put off.
const FIRST_LOOK: i64 = 16;

/// Picks the next command for an enrollment after a report with this status, or nothing: the session ends.
///
/// Call it in the transaction of the report. A command whose content is [`Content::Ready`] counts as handed out.
pub async fn next(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: EnrollmentId,
    status: Status,
    now: Timestamp,
) -> Result<Option<Picked>, Error> {
    next_but(tx, ctx, enrollment, status, &[], now).await
}

/// The same, as if these commands were not there: they wait for another session.
pub async fn next_but(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: EnrollmentId,
    status: Status,
    passed_over: &[CommandUuid],
    now: Timestamp,
) -> Result<Option<Picked>, Error> {
    let Some(first) = rows::first(tx, enrollment, now).await? else {
        return Ok(None);
    };
    let (row, content, others_sent) = if passed_over.is_empty() && is_plain_turn(&first.waiting, ctx.stall, now) {
        // Only an urgent command can come before one that is in progress.
        let others_sent = first.waiting.lane == 0 && first.waiting.state == "queued";
        (first.waiting, first.content, others_sent)
    } else {
        let Some((row, others_sent)) = look_further(tx, ctx, enrollment, status, passed_over, now).await? else {
            return Ok(None);
        };
        let content = rows::content(tx, enrollment, row.seq).await?.ok_or(store::Error::Corrupt("command_target"))?;
        (row, content, others_sent)
    };
    Ok(Some(hand_out(tx, ctx, enrollment, row, content, others_sent, now).await?))
}

/// Picks the oldest outstanding command of one rendering, whatever else waits, or nothing.
///
/// For a device that may be given that kind of command only. What else was in progress waits again.
pub async fn next_of(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: EnrollmentId,
    rendering: Rendering,
    now: Timestamp,
) -> Result<Option<Picked>, Error> {
    let Some(first) = rows::first_of(tx, enrollment, rendering.as_str(), now).await? else {
        return Ok(None);
    };
    Ok(Some(hand_out(tx, ctx, enrollment, first.waiting, first.content, true, now).await?))
}

async fn hand_out(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: EnrollmentId,
    row: rows::Outstanding,
    content: rows::Content,
    others_sent: bool,
    now: Timestamp,
) -> Result<Picked, Error> {
    let uuid: CommandUuid = row.command_uuid.parse().map_err(|_| store::Error::Corrupt("command.uuid"))?;
    let rendering = Rendering::from_text(&content.rendering).ok_or(store::Error::Corrupt("command.rendering"))?;
    let open = |context: &str, sealed: &[u8]| {
        ctx.sealer
            .open(context, sealed)
            .map(|plain| plain.expose().clone())
            .map_err(|source| Error::Sealed { uuid: uuid.clone(), source })
    };
    let before = match &content.rendered_sealed {
        Some(sealed) => Some(open(&rendered_context(enrollment, &uuid), sealed)?),
        None => None,
    };
    let content_now = match (before, rendering) {
        (Some(bytes), Rendering::Plain | Rendering::Facts) => Content::Ready(bytes),
        (None, Rendering::Plain) => Content::Ready(open(&body_context(&uuid), &content.body_sealed)?),
        (before, rendering) => {
            Content::Render { rendering, parameters: open(&body_context(&uuid), &content.body_sealed)?, before }
        }
    };
    if matches!(content_now, Content::Ready(_)) {
        rows::sent(tx, enrollment, row.seq, others_sent, None, now).await?;
    }
    Ok(Picked { enrollment, uuid, request_type: content.request_type, content: content_now, seq: row.seq, others_sent })
}

/// Chooses among all that is outstanding, where the first was put off or gets no answer.
async fn look_further(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: EnrollmentId,
    status: Status,
    passed_over: &[CommandUuid],
    now: Timestamp,
) -> Result<Option<(rows::Outstanding, bool)>, Error> {
    let session = rows::session(tx, enrollment).await?;
    let mut limit = FIRST_LOOK;
    let (waiting, choice) = loop {
        let all = rows::outstanding(tx, enrollment, now, limit).await?;
        let saw_all = i64::try_from(all.len()).unwrap_or(i64::MAX) < limit;
        let (passed, waiting): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|row| passed_over.iter().any(|uuid| uuid.as_str() == row.command_uuid));
        let mut choice = choose(&waiting, status, session, ctx.stall, now);
        choice.others_sent |= passed.iter().any(|row| row.state == "sent");
        let put_off = |seq| waiting.iter().any(|row| row.seq == seq && row.state == "not_now");
        if saw_all || choice.deliver.is_some_and(|seq| !put_off(seq)) {
            break (waiting, choice);
        }
        limit = i64::MAX;
    };
    for seq in &choice.stalled {
        let uuid = waiting.iter().find(|row| row.seq == *seq).and_then(|row| row.command_uuid.parse().ok());
        stall(tx, enrollment, *seq, uuid.as_ref(), Why::NoReport, now).await?;
    }
    let row = choice.deliver.and_then(|seq| waiting.into_iter().find(|row| row.seq == seq));
    Ok(row.map(|row| (row, choice.others_sent)))
}

/// Notes that a picked command was rendered to `body`, which is what a repeat of the delivery will send again (RG-03).
pub async fn rendered(tx: &mut Tx, ctx: &Context, picked: &Picked, body: &[u8], now: Timestamp) -> Result<(), Error> {
    let sealed = ctx.sealer.seal(&rendered_context(picked.enrollment, &picked.uuid), body, &ctx.random);
    rows::sent(tx, picked.enrollment, picked.seq, picked.others_sent, Some(&sealed), now).await?;
    Ok(())
}

/// Ends a picked command that must not be sent, with the reason; call [`next`] again after it.
pub async fn refuse(tx: &mut Tx, picked: &Picked, why: &str, now: Timestamp) -> Result<(), Error> {
    rows::end(tx, picked.enrollment, picked.seq, "refused", why, now).await?;
    Ok(())
}
