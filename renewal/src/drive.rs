//! The loop: finds identities that spent two thirds of their life, and moves on what is due, each renewal in a transaction of
//! its own.

use std::time::Duration;

use commands::{Lane, New, Rendering, TargetOutcome};
use issuer::issuance::LONGEST_WINDOW;
use mdm_core::enrollment::EnrollmentState;
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::renewals::{self, Reason, Renewal, State, Unplanned};
use store::{Store, Tx, enrollments, identities};
use uuid::Uuid;

use crate::plan::{Facts, Standing, Step, first_try, plan};
use crate::{CREATED_BY, Context, Error, event};

/// How long a batch has before others may take what it has left.
const LEASE: Duration = Duration::from_mins(2);
/// When a renewal that an error of ours stopped is looked at again.
const PUT_ASIDE: Duration = Duration::from_mins(30);
/// How much longer than its command's life a renewal waits for it: the command is ended by a loop of its own.
const AFTER_THE_END: Duration = Duration::from_mins(2);
/// A queued renewal of these is superseded by a newer one.
const KEY: &str = "renewal";

/// The parameters of the command, which `render` reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parameters {
    /// Whose identity.
    pub(crate) enrollment: Uuid,
    /// Why.
    pub(crate) reason: String,
}

/// How the device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It must be woken.
    Away,
    /// It is asking right now.
    Connected,
}

/// Plans what is new, takes up to `limit` renewals that are due and moves each on: one that cannot be moved is logged and put
/// off, the others go on (RG-19). Tells how many were taken; call it again at once when it is `limit`.
pub async fn run_once(store: &Store, ctx: &Context, now: Timestamp, limit: i64) -> Result<usize, Error> {
    let found = store::retry(|| discover(store, now, limit)).await?;
    let lease = ctx.commands.random.uuid_v4();
    let batch = store::retry(|| take(store, lease, now, limit)).await?;
    for enrollment in &batch {
        if let Err(e) = store::retry(|| one(store, ctx, *enrollment, lease, now)).await {
            tracing::error!(enrollment.id = %enrollment, error = %e, "a renewal could not be moved on; tried again later");
            if let Err(e) = store::retry(|| put_off(store, *enrollment, now.plus(PUT_ASIDE))).await {
                tracing::error!(enrollment.id = %enrollment, error = %e, "a renewal could not be put off");
            }
        }
    }
    Ok(found.max(batch.len()))
}

async fn discover(store: &Store, now: Timestamp, limit: i64) -> Result<usize, Error> {
    let horizon = now.plus(LONGEST_WINDOW);
    // Most of the time there is nothing to write.
    if renewals::unplanned(&mut store.read().await?, now, horizon, 1).await?.is_empty() {
        return Ok(0);
    }
    let mut tx = store.begin().await?;
    let found = renewals::unplanned(&mut tx, now, horizon, limit).await?;
    let mut begun = 0;
    for identity in &found {
        begun += usize::from(renewals::begin(&mut tx, &planned(identity, Reason::Expiry, now), now).await?);
    }
    tx.commit().await?;
    Ok(begun)
}

/// The row of a renewal that begins now.
pub(crate) fn planned(identity: &Unplanned, reason: Reason, now: Timestamp) -> Renewal {
    Renewal {
        enrollment: identity.enrollment,
        state: State::Due,
        reason,
        identity: identity.identity,
        deadline: identity.not_after,
        command: None,
        issuance: None,
        attempts: 0,
        last_error: None,
        due_at: Some(first_try(identity.enrollment, identity.not_before, identity.not_after, now)),
        created_at: now,
        updated_at: now,
    }
}

async fn take(store: &Store, lease: Uuid, now: Timestamp, limit: i64) -> Result<Vec<EnrollmentId>, Error> {
    let mut tx = store.begin().await?;
    let batch = renewals::lease(&mut tx, now, now.plus(LEASE), lease, limit).await?;
    tx.commit().await?;
    Ok(batch)
}

async fn put_off(store: &Store, enrollment: EnrollmentId, at: Timestamp) -> Result<(), Error> {
    let mut tx = store.begin().await?;
    renewals::put_off(&mut tx, enrollment, at).await?;
    tx.commit().await?;
    Ok(())
}

async fn one(store: &Store, ctx: &Context, enrollment: EnrollmentId, lease: Uuid, now: Timestamp) -> Result<(), Error> {
    let mut tx = store.begin().await?;
    enrollments::lock(&mut tx, enrollment).await?;
    if !renewals::holds(&mut tx, enrollment, lease).await? {
        return Ok(());
    }
    if let Some(row) = renewals::get(&mut tx, enrollment).await? {
        advance(&mut tx, ctx, row, Presence::Away, now).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Decides about one renewal and writes what follows. The lock on the enrollment is held.
pub(crate) async fn advance(
    tx: &mut Tx,
    ctx: &Context,
    mut row: Renewal,
    presence: Presence,
    now: Timestamp,
) -> Result<(), Error> {
    let enrollment =
        enrollments::get(tx, row.enrollment).await?.ok_or(store::Error::Corrupt("renewal.enrollment_id"))?;
    let identity = identities::find_by_fingerprint(tx, row.identity).await?;
    let target = match &row.command {
        Some(uuid) => store::commands::target(tx, row.enrollment, uuid).await?,
        None => None,
    };
    let facts = Facts {
        enrollment: row.enrollment,
        standing: match enrollment.state {
            _ if enrollment.unenroll_requested_at.is_some() => Standing::Over,
            EnrollmentState::Enrolled { .. } => Standing::Enrolled,
            EnrollmentState::Authenticated { .. } => Standing::Entering,
            EnrollmentState::Unenrolled { .. } => Standing::Over,
        },
        state: row.state,
        due_at: row.due_at,
        attempts: row.attempts,
        live: identity.is_some_and(|identity| identity.is_live()),
        deadline: row.deadline,
        grace: ctx.settings.expired_grace,
        command: target.as_ref().map(|target| target.state.as_str()),
        delivered: target.as_ref().is_some_and(|target| target.first_sent_at.is_some()),
    };
    match plan(&facts, now) {
        Step::Finish => {
            row.state = State::Done;
            row.command = None;
            row.due_at = None;
        }
        Step::Wait { until } => row.due_at = Some(until),
        Step::Ask { wait, urgent } => {
            if now > row.deadline {
                row.reason = Reason::Expired;
            }
            match ask(tx, ctx, &row, wait, urgent, presence, now).await? {
                Some(uuid) => {
                    row.state = State::Queued;
                    row.command = Some(uuid);
                    row.due_at = Some(now.plus(wait).plus(AFTER_THE_END));
                }
                // It left between the two looks; the next one sees it.
                None => row.due_at = Some(now.plus(PUT_ASIDE)),
            }
        }
        Step::Again { why, at } => again(tx, &mut row, why.to_owned(), at, now).await?,
        Step::Lost => {
            row.state = State::Due;
            row.command = None;
            row.due_at = None;
            row.last_error = Some("identity_ended".to_owned());
            event(
                tx,
                &row,
                "identity.lost",
                "The identity ended before it was renewed: the device must enroll anew",
                now,
            )
            .await?;
            tracing::error!(
                enrollment.id = %row.enrollment,
                "the identity ended before it was renewed: enroll the device anew, or allow [renewal] expired_grace_days"
            );
        }
    }
    renewals::save(tx, &row, now).await?;
    Ok(())
}

/// A failure: back to due. The row is not saved.
pub(crate) async fn again(
    tx: &mut Tx,
    row: &mut Renewal,
    why: String,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    row.attempts += 1;
    row.last_error = Some(why);
    row.due_at = Some(at);
    row.state = State::Due;
    event(tx, row, "renewal.failed", "The renewal of an identity did not succeed; it is tried again", now).await?;
    row.command = None;
    tracing::warn!(
        enrollment.id = %row.enrollment,
        attempts = row.attempts,
        why = row.last_error,
        again_at = %at,
        "the renewal of an identity did not succeed"
    );
    Ok(())
}

/// Puts the command on the device's queue; `None` where it takes none.
async fn ask(
    tx: &mut Tx,
    ctx: &Context,
    row: &Renewal,
    wait: Duration,
    urgent: bool,
    presence: Presence,
    now: Timestamp,
) -> Result<Option<CommandUuid>, Error> {
    let text = ctx.commands.random.uuid_v4().to_string();
    let uuid: CommandUuid = text.parse().expect("a UUID is a CommandUUID");
    let parameters = Parameters { enrollment: row.enrollment.0, reason: row.reason.as_str().to_owned() };
    let body = serde_json::to_vec(&parameters).map_err(|_| store::Error::Corrupt("command.body"))?;
    let new = New {
        uuid: uuid.clone(),
        request_type: "InstallProfile",
        rendering: Rendering::Enrollment,
        body: &body,
        lane: if urgent { Lane::Urgent } else { Lane::Normal },
        coalescing_key: Some(KEY),
        ttl: Some(wait),
        created_by: CREATED_BY,
        push: presence == Presence::Away,
    };
    let done = commands::enqueue(tx, &ctx.commands, &new, &[row.enrollment], now).await?;
    let queued = done.targets.iter().all(|(_, outcome)| *outcome == TargetOutcome::Queued);
    if queued {
        tracing::info!(enrollment.id = %row.enrollment, command.uuid = %uuid, reason = row.reason.as_str(), attempts = row.attempts, "renewal of an identity queued");
    }
    Ok(queued.then_some(uuid))
}
