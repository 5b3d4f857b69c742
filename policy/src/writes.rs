//! What follows from the decisions about a batch of assignments, collected and written in few statements: one `DeviceInformation`
//! and one `CertificateList` for the whole batch, one `InstallProfile` for each policy in it.

use std::collections::BTreeMap;
use std::time::Duration;

use mdm_core::command::{CertificateList, Command, RemoveProfile};
use mdm_core::enrollment::Channel;
use mdm_core::ids::{AssignmentId, AttemptId, CommandUuid, EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use serde_json::Value as Json;
use store::assignments::{self, Assignment};
use store::attempts::{self, NewAttempt};
use store::events::NewEvent;
use store::{Tx, Wake};

use crate::advance::Presence;
use crate::error::{Result, corrupt};
use crate::{CREATED_BY, Context};

/// How long a connected device has to fetch what was enqueued, before it is woken for it.
const SAFETY_NET: Duration = Duration::from_mins(2);

/// The coalescing key of `DeviceInformation`: one serves all policies.
pub(crate) const FACTS: &str = "policy-facts";

/// The coalescing key of `CertificateList`: one serves all policies.
pub(crate) const PROOF: &str = "policy-proof";

/// What a command of the batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Batch {
    /// `DeviceInformation`.
    Facts,
    /// `CertificateList`.
    Proof,
    /// `InstallProfile` of a policy.
    Install(PolicyId),
    /// `RemoveProfile` of a policy.
    Remove(PolicyId, bool),
}

/// An event, until it is written.
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) enrollment: EnrollmentId,
    pub(crate) command: Option<CommandUuid>,
    pub(crate) summary: String,
    pub(crate) data: Json,
}

/// What is to be written.
#[derive(Default)]
pub(crate) struct Writes {
    pub(crate) saved: Vec<Assignment>,
    pub(crate) gone: Vec<AssignmentId>,
    pub(crate) forsaken: Vec<(EnrollmentId, PolicyId)>,
    /// By `CommandUUID`.
    pub(crate) cancelled: BTreeMap<String, Vec<EnrollmentId>>,
    pub(crate) void: BTreeMap<&'static str, Vec<AssignmentId>>,
    pub(crate) failed: Vec<(AttemptId, String)>,
    pub(crate) attempts: Vec<NewAttempt>,
    pub(crate) events: Vec<Event>,
    commands: BTreeMap<Batch, (CommandUuid, Vec<EnrollmentId>)>,
}

impl Writes {
    /// Puts a command of the batch on the queue of an enrollment as well.
    pub(crate) fn enqueue(&mut self, ctx: &Context, batch: Batch, enrollment: EnrollmentId) -> CommandUuid {
        let (uuid, enrollments) = self.commands.entry(batch).or_insert_with(|| (new_uuid(ctx), Vec::new()));
        if !enrollments.contains(&enrollment) {
            enrollments.push(enrollment);
        }
        uuid.clone()
    }

    /// Writes everything.
    pub(crate) async fn write(self, tx: &mut Tx, ctx: &Context, presence: Presence, now: Timestamp) -> Result<()> {
        for (uuid, enrollments) in &self.cancelled {
            let uuid = uuid.parse().map_err(|_| corrupt("assignment.command_uuid"))?;
            commands::cancel_many(tx, enrollments, &uuid, "the policy asks for something else now", now).await?;
        }
        for (why, assignments) in &self.void {
            attempts::void_open(tx, assignments, why, now).await?;
        }
        for (attempt, why) in &self.failed {
            attempts::failed(tx, *attempt, why, now).await?;
        }
        for (enrollment, policy) in &self.forsaken {
            store::certificates::forsake(tx, *enrollment, Some(*policy)).await?;
        }
        if !self.attempts.is_empty() {
            attempts::insert_many(tx, &self.attempts, now).await?;
        }
        for (batch, (uuid, enrollments)) in &self.commands {
            enqueue(tx, ctx, *batch, uuid, enrollments, presence, now).await?;
        }
        if !self.saved.is_empty() {
            assignments::save_many(tx, &self.saved, now).await?;
        }
        if !self.gone.is_empty() {
            assignments::delete_many(tx, &self.gone).await?;
        }
        let events: Vec<_> = self
            .events
            .iter()
            .map(|e| NewEvent {
                at: now,
                kind: e.kind,
                enrollment: Some(e.enrollment),
                command: e.command.as_ref(),
                actor: "server",
                summary: &e.summary,
                data: &e.data,
            })
            .collect();
        if !events.is_empty() {
            store::events::record_many(tx, &events).await?;
        }
        Ok(())
    }
}

async fn enqueue(
    tx: &mut Tx,
    ctx: &Context,
    batch: Batch,
    uuid: &CommandUuid,
    enrollments: &[EnrollmentId],
    presence: Presence,
    now: Timestamp,
) -> Result<()> {
    let plain = |command: Command| command.envelope(uuid.clone()).body;
    let (request_type, rendering, body, coalescing_key) = match batch {
        Batch::Facts => ("DeviceInformation", commands::Rendering::Facts, Vec::new(), Some(FACTS)),
        Batch::Proof => {
            let body = plain(CertificateList { managed_only: true }.into());
            ("CertificateList", commands::Rendering::Plain, body, Some(PROOF))
        }
        Batch::Install(policy) => {
            let body = serde_json::json!({ "policy": policy }).to_string().into_bytes();
            ("InstallProfile", commands::Rendering::Acme, body, None)
        }
        Batch::Remove(policy, on_user_channel) => {
            let channel = if on_user_channel { Channel::User } else { Channel::Device };
            let identifier = ctx.payload_identifier(policy, channel);
            ("RemoveProfile", commands::Rendering::Plain, plain(RemoveProfile { identifier }.into()), None)
        }
    };
    let new = commands::New {
        uuid: uuid.clone(),
        request_type,
        rendering,
        body: &body,
        lane: commands::Lane::Normal,
        coalescing_key,
        ttl: None,
        created_by: CREATED_BY,
        push: presence == Presence::Away,
    };
    commands::enqueue(tx, &ctx.commands, &new, enrollments, now).await?;
    if presence == Presence::Connected {
        for enrollment in enrollments {
            store::push::due(tx, *enrollment, now.plus(SAFETY_NET)).await?;
        }
        tx.wake(Wake::Push);
    }
    Ok(())
}

fn new_uuid(ctx: &Context) -> CommandUuid {
    let text = ctx.commands.random.uuid_v4().to_string();
    text.parse().expect("a UUID is a CommandUUID")
}
