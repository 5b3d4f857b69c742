//! The profile of a renewal, made when its command is handed out: the permission in it lives an hour at most.

use std::time::Duration;

use commands::Rendering;
use mdm_core::command::{Command, InstallProfile};
use mdm_core::ids::CommandUuid;
use mdm_core::time::Timestamp;
use store::enrollments::Enrollment;
use store::issuance::{self, Flow};
use store::renewals::{self, Reason, Renewal, State};
use store::{Busy, Tx};

use crate::drive::{Parameters, again};
use crate::plan::next_try;
use crate::react::facts;
use crate::{Context, Error};

/// A profile whose permission ends sooner than this is made anew before it goes out again.
const STILL_GOOD: Duration = Duration::from_mins(15);

/// What became of a rendering.
#[derive(PartialEq, Eq)]
pub enum Rendered {
    /// The whole command, to be sent.
    Body(Vec<u8>),
    /// It must not be sent. What follows is written already; another command may be next.
    Refused {
        /// Why, in words.
        why: String,
    },
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Body(body) => f.debug_tuple("Body").field(&body.len()).finish(),
            Self::Refused { why } => f.debug_struct("Refused").field("why", why).finish(),
        }
    }
}

/// A command that is to be handed out.
#[derive(Clone, Copy)]
pub struct Picked<'a> {
    /// `CommandUUID`.
    pub uuid: &'a CommandUuid,
    /// The parameters that it was enqueued with.
    pub parameters: &'a [u8],
    /// The bytes of an earlier delivery.
    pub before: Option<&'a [u8]>,
}

impl std::fmt::Debug for Picked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picked").field("uuid", self.uuid).finish_non_exhaustive()
    }
}

/// Renders the `InstallProfile` of a renewal for delivery now. The lock on the enrollment is held.
///
/// The same command that was handed out before comes again as it was (RG-03), as long as the device can still use it.
pub async fn render(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    picked: &Picked<'_>,
    now: Timestamp,
) -> Result<Rendered, Error> {
    let refused = |why: &str| Ok(Rendered::Refused { why: why.to_owned() });
    let meant = serde_json::from_slice::<Parameters>(picked.parameters);
    if !meant.is_ok_and(|parameters| parameters.enrollment == enrollment.id.0) {
        tracing::error!(enrollment.id = %enrollment.id, command.uuid = %picked.uuid, rendering = ?Rendering::Enrollment, "the parameters of a renewal cannot be read, or are another enrollment's");
        return refused("parameters");
    }
    let found = renewals::get(tx, enrollment.id).await?;
    let Some(mut row) = found.filter(|row| row.state == State::Queued && row.command.as_ref() == Some(picked.uuid))
    else {
        return refused("superseded");
    };
    if let Some(before) = picked.before
        && still_good(tx, &row, now).await?
    {
        return Ok(Rendered::Body(before.to_vec()));
    }
    let visitor =
        enroll::Visitor { enrollment: Some(enrollment.id), ..enroll::Visitor::new(Flow::Renewal, enrollment.kind) };
    match enroll::offer(tx, &ctx.enroll, &visitor, now).await {
        Ok(offer) => {
            row.issuance = Some(offer.issuance);
            if row.reason == Reason::Expiry
                && offer.identity.source == issuance::Source::Acme
                && !is_acme(tx, &row).await?
            {
                row.reason = Reason::ToAcme;
            }
            renewals::save(tx, &row, now).await?;
            let envelope = Command::from(InstallProfile { payload: offer.profile }).envelope(picked.uuid.clone());
            Ok(Rendered::Body(envelope.body))
        }
        Err(e) if e.is_busy() => Err(e.into()),
        // It must not block the queue: this command ends, and the renewal is tried again later.
        Err(e) => {
            let why = e.refusal().map_or_else(|| e.to_string(), str::to_owned);
            let at = next_try(&facts(&row, ctx), now);
            again(tx, &mut row, why.clone(), at, now).await?;
            renewals::save(tx, &row, now).await?;
            Ok(Rendered::Refused { why })
        }
    }
}

/// Whether the identity that is to be renewed came from an ACME server.
async fn is_acme(tx: &mut Tx, row: &Renewal) -> Result<bool, Error> {
    let record = issuance::by_certificate(tx, row.identity).await?;
    Ok(record.is_some_and(|record| record.source == issuance::Source::Acme))
}

/// Whether the permission in the profile that was sent before is unused and lives long enough.
async fn still_good(tx: &mut Tx, row: &Renewal, now: Timestamp) -> Result<bool, Error> {
    let Some(id) = row.issuance else { return Ok(false) };
    let record = issuance::get(tx, id).await?.filter(|record| record.state == issuance::State::Open);
    Ok(record.is_some_and(|record| record.challenge_expires_at.is_some_and(|end| end > now.plus(STILL_GOOD))))
}
