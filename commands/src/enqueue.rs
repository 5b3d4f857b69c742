//! Putting a command on the queues of any number of enrollments.

use std::collections::HashMap;
use std::time::Duration;

use mdm_core::ids::{CommandUuid, EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use store::commands as rows;
use store::{IdSet, Tx, Wake};

use crate::{Context, Error, body_context};

/// Which queue of an enrollment: urgent commands are handed out before normal ones (RG-08).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Lock, erase and the like.
    Urgent,
    /// Everything else.
    Normal,
}

impl Lane {
    pub(crate) fn column(self) -> i64 {
        match self {
            Self::Urgent => 0,
            Self::Normal => 1,
        }
    }
}

/// How the bytes that a device gets come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendering {
    /// The body is sent as it is.
    Plain,
    /// The body holds parameters; the ACME profile is rendered, gated and signed when it is handed out.
    Acme,
    /// The body holds parameters; the enrollment profile, with a one-time permission for a new identity, is rendered when it is
    /// handed out.
    Enrollment,
    /// The body is a `ClearPasscode` without its `UnlockToken`; the device's own is put in when it is handed out.
    Unlock,
    /// The body is empty; `DeviceInformation`, with a nonce where an attestation is due, is rendered when it is handed out.
    Facts,
}

impl Rendering {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Acme => "acme",
            Self::Enrollment => "enrollment",
            Self::Unlock => "unlock",
            Self::Facts => "facts",
        }
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        [Self::Plain, Self::Acme, Self::Enrollment, Self::Unlock, Self::Facts]
            .into_iter()
            .find(|rendering| rendering.as_str() == text)
    }
}

/// A command to enqueue.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// `CommandUUID`; enqueuing the same one with the same body again is a success that adds missing targets.
    pub uuid: CommandUuid,
    /// `RequestType`.
    pub request_type: &'a str,
    /// How `body` becomes what is sent.
    pub rendering: Rendering,
    /// The plist, or the parameters of its rendering.
    pub body: &'a [u8],
    /// Which queue.
    pub lane: Lane,
    /// A queued, unsent command with the same key on the same enrollment is cancelled in favour of this one.
    pub coalescing_key: Option<&'a str>,
    /// After this time outstanding targets expire; absent: never.
    pub ttl: Option<Duration>,
    /// Who asks for it: an API token's name, or a part of the server.
    pub created_by: &'a str,
    /// Whether to wake the devices.
    pub push: bool,
}

/// What became of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetOutcome {
    /// It is on the queue now.
    Queued,
    /// It had been a target of this command before.
    Present,
    /// There is no such enrollment.
    Unknown,
    /// The enrollment takes no commands: it is not enrolled (yet, or any more).
    NotEnrolled,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// Whether the command is new; otherwise the same one was there already.
    pub created: bool,
    /// What became of each target, in the order asked for, without repeats.
    pub targets: Vec<(EnrollmentId, TargetOutcome)>,
}

/// Enqueues a command for these enrollments, and writes the wish to wake them, in the caller's transaction.
///
/// # Errors
/// [`Error::OtherBody`] if the `CommandUUID` is taken by a command with another body.
pub async fn enqueue(
    tx: &mut Tx,
    ctx: &Context,
    new: &New<'_>,
    targets: &[EnrollmentId],
    now: Timestamp,
) -> Result<Enqueued, Error> {
    let mut ids = targets.to_vec();
    let mut seen = std::collections::HashSet::with_capacity(ids.len());
    ids.retain(|id| seen.insert(*id));
    let set = IdSet::new(&ids);
    let states: HashMap<_, _> =
        rows::lock_candidates(tx, &set, &new.uuid).await?.into_iter().map(|c| (EnrollmentId(c.id), c)).collect();
    let (command, created) = command(tx, ctx, new, now).await?;

    let outcome = |id: &EnrollmentId| match states.get(id) {
        None => TargetOutcome::Unknown,
        Some(c) if c.present => TargetOutcome::Present,
        Some(c) if c.state != "enrolled" => TargetOutcome::NotEnrolled,
        Some(_) => TargetOutcome::Queued,
    };
    let targets: Vec<_> = ids.iter().map(|id| (*id, outcome(id))).collect();
    let fresh: Vec<_> = targets.iter().filter(|(_, o)| *o == TargetOutcome::Queued).map(|(id, _)| *id).collect();
    if !fresh.is_empty() {
        let set = IdSet::new(&fresh);
        if let Some(key) = new.coalescing_key {
            rows::supersede(tx, &set, key, &new.uuid, now).await?;
        }
        rows::insert_targets(tx, &set, &command, now).await?;
        if new.push {
            store::push::due_many(tx, &set, now).await?;
            tx.wake(Wake::Push);
        }
    }
    Ok(Enqueued { created, targets })
}

/// The command's row: a new one, or the one that is there, if its body is the same.
async fn command(tx: &mut Tx, ctx: &Context, new: &New<'_>, now: Timestamp) -> Result<(rows::Command, bool), Error> {
    let command = rows::Command {
        uuid: new.uuid.as_str().to_owned(),
        request_type: new.request_type.to_owned(),
        rendering: new.rendering.as_str().to_owned(),
        body_sealed: ctx.sealer.seal(&body_context(&new.uuid), new.body, &ctx.random),
        body_sha256: Fingerprint::of(new.body).0.to_vec(),
        lane: new.lane.column(),
        coalescing_key: new.coalescing_key.map(str::to_owned),
        expires_at: new.ttl.map(|ttl| now.plus(ttl).0),
        created_by: new.created_by.to_owned(),
        created_at: now.0,
    };
    if rows::insert(tx, &command).await? {
        return Ok((command, true));
    }
    match rows::get(tx, &new.uuid).await? {
        Some(there) if there.body_sha256 == command.body_sha256 && there.request_type == command.request_type => {
            Ok((there, false))
        }
        _ => Err(Error::OtherBody(new.uuid.clone())),
    }
}
