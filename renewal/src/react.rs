//! What a report of the renewal's command means, and what it means that a message came with the new identity.

use commands::{Done, Outcome};
use mdm_core::ids::{EnrollmentId, IssuanceId};
use mdm_core::report::error_chain_text;
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::{self, Enrollment, Entered};
use store::identities::{self, Identity};
use store::issuance::Purpose;
use store::renewals::{self, Renewal, State};

use crate::drive::again;
use crate::plan::{Facts, Standing, identity_expected_by, next_try};
use crate::{CREATED_BY, Context, Error, event};

/// Whether a report is one of a renewal's command.
pub fn concerns(done: &Done) -> bool {
    done.created_by == CREATED_BY
}

/// Draws the conclusions from a report on a renewal's command. The lock on the enrollment is held.
pub async fn react(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    done: &Done,
    now: Timestamp,
) -> Result<(), Error> {
    if !concerns(done) {
        return Ok(());
    }
    let Some(mut row) = renewals::get(tx, enrollment.id).await? else { return Ok(()) };
    // The new identity may have been seen before the report: then there is nothing to wait for.
    if row.state != State::Queued || row.command.as_ref() != Some(&done.uuid) {
        return Ok(());
    }
    let facts = facts(&row, ctx);
    match &done.outcome {
        Outcome::Acknowledged => {
            row.state = State::Issued;
            row.due_at = Some(identity_expected_by(&facts, now));
        }
        // The queue offers it again; its own end leads back to due.
        Outcome::NotNow => row.last_error = Some("NotNow".to_owned()),
        Outcome::Error(chain) => {
            let at = next_try(&facts, now);
            again(tx, &mut row, error_chain_text(chain), at, now).await?;
        }
        Outcome::CommandFormatError => {
            let at = next_try(&facts, now);
            again(tx, &mut row, "CommandFormatError".to_owned(), at, now).await?;
        }
    }
    Ok(renewals::save(tx, &row, now).await?)
}

pub(crate) fn facts<'a>(row: &Renewal, ctx: &Context) -> Facts<'a> {
    Facts {
        enrollment: row.enrollment,
        standing: Standing::Enrolled,
        state: row.state,
        due_at: row.due_at,
        attempts: row.attempts,
        live: true,
        deadline: row.deadline,
        grace: ctx.settings.expired_grace,
        command: None,
        delivered: true,
    }
}

/// A message other than `Authenticate` came with this identity: it has proved itself. Those that it took the place of are not
/// accepted any more, and the renewal that led to it is done. The lock on the enrollment is held.
pub async fn identity_seen(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    identity: &Identity,
    now: Timestamp,
) -> Result<(), Error> {
    identities::retire_earlier(tx, identity, now).await?;
    if let Some(issuance) = identity.issuance {
        renewals::close_older(tx, enrollment, issuance, now).await?;
        keep_anchors(tx, enrollment, issuance).await?;
    }
    let Some(mut row) = renewals::get(tx, enrollment).await? else { return Ok(()) };
    if row.state == State::Done || row.identity == identity.fingerprint {
        return Ok(());
    }
    // An older identity than the one that is to be renewed: the device went back to it, and nothing is done.
    let renewed = identities::find_by_fingerprint(tx, row.identity).await?;
    if renewed.is_some_and(|renewed| renewed.pinned_at > identity.pinned_at) {
        return Ok(());
    }
    if let Some(uuid) = &row.command
        && let Some(target) = store::commands::target(tx, enrollment, uuid).await?
        && target.first_sent_at.is_none()
    {
        commands::cancel(tx, enrollment, uuid, "the identity is renewed already", now).await?;
    }
    row.state = State::Done;
    row.due_at = None;
    row.last_error = None;
    event(
        tx,
        &row,
        "identity.renewed",
        "The device speaks with a renewed identity; the old one is not accepted any more",
        now,
    )
    .await?;
    tracing::info!(enrollment.id = %enrollment, certificate = %identity.fingerprint, attempts = row.attempts, "identity renewed");
    row.command = None;
    Ok(renewals::save(tx, &row, now).await?)
}

/// The profile that came with a renewed identity has the anchors of its record; the device has them now that it speaks with it.
async fn keep_anchors(tx: &mut Tx, id: EnrollmentId, issuance: IssuanceId) -> Result<(), Error> {
    let record = store::issuance::get(tx, issuance).await?.filter(|record| record.purpose == Purpose::Renewal);
    let Some(anchors) = record.and_then(|record| record.anchors) else { return Ok(()) };
    let Some(enrollment) = enrollments::get(tx, id).await? else { return Ok(()) };
    if enrollment.anchors.as_ref() == Some(&anchors) {
        return Ok(());
    }
    let entered = Entered {
        door: enrollment.door,
        managed_apple_account: enrollment.managed_apple_account.as_deref(),
        server_url: enrollment.server_url.as_deref(),
        anchors: Some(&anchors),
    };
    Ok(enrollments::entered(tx, id, &entered).await?)
}

/// The same for any message other than `Authenticate`, where an older identity is accepted still; cheap where none is. The lock
/// on the enrollment is held.
pub async fn speaks(tx: &mut Tx, identity: &Identity, now: Timestamp) -> Result<(), Error> {
    let all = identities::of(tx, identity.enrollment).await?;
    if all.iter().any(|other| other.is_live() && other.pinned_at < identity.pinned_at) {
        identity_seen(tx, identity.enrollment, identity, now).await?;
    }
    Ok(())
}
