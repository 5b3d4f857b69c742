//! Making the profile at the moment of its delivery: the gate is asked again (T1 to T8), because the OS, the facts, the policy and
//! its rollout can have changed since it was enqueued. With the delivery the permission begins that its `ClientIdentifier` is.

use std::time::Duration;

use mdm_core::command::{Command, DeviceInformation, InstallProfile, device_information};
use mdm_core::enrollment::Channel;
use mdm_core::ids::{AssignmentId, AttemptId, AuthorityId, CommandUuid, Fingerprint};
use mdm_core::profile::acme::AcmePayload;
use mdm_core::profile::{Profile, Scope};
use mdm_core::time::Timestamp;
use store::Tx;
use store::assignments::{self, Assignment};
use store::attempts::{self, Attempt, Delivered, NewAttempt};
use store::enrollments::Enrollment;
use uuid::Uuid;

use crate::Context;
use crate::advance::{Presence, fail, follow, json};
use crate::case::{Book, Case};
use crate::companion::{self, IDENTITY};
use crate::decide::{Action, FACTS_MAX_AGE, Purpose, State, decide};
use crate::decision::Outcome;
use crate::error::{Result, corrupt};
use crate::facts::FactName;
use crate::proof::Expectation;
use crate::reason::ReasonCode;
use crate::target;
use crate::writes::Writes;

/// How long after its delivery a `ClientIdentifier` is a permission (TH-43).
pub const PERMISSION: Duration = Duration::from_hours(24);

/// What became of a command that is rendered at its delivery.
#[derive(Clone, PartialEq, Eq)]
pub enum Rendered {
    /// The whole command, as it is sent.
    Body(Vec<u8>),
    /// It must not be sent. What follows is written already; another command may be next.
    Refused {
        /// The reason code.
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

fn refused(why: ReasonCode) -> Rendered {
    Rendered::Refused { why: why.as_str().to_owned() }
}

/// Renders the `InstallProfile` of an assignment for delivery now. `before` is what an earlier delivery was rendered to: the same
/// bytes again, while the permission in them lasts and nothing else was decided. The lock on the enrollment is held.
pub async fn render(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    uuid: &CommandUuid,
    before: Option<&[u8]>,
    now: Timestamp,
) -> Result<Rendered> {
    let waits = assignments::by_command(tx, enrollment.id, uuid).await?;
    let Some(a) = waits.filter(|a| a.state == State::Installing.as_str()) else {
        return Ok(refused(ReasonCode::PolicyGone));
    };
    let (book, held) = Book::open(tx, vec![a]).await?;
    let Some(a) = held.into_iter().next() else { return Ok(refused(ReasonCode::PolicyGone)) };
    match try_render(tx, ctx, uuid, &book, &a, before, now).await {
        // A fault of ours must not block the queue: this command ends, the assignment is tried again later.
        Err(e) if e.needs_human() => {
            tracing::error!(trace.id = a.attempt_id.map(tracing::field::display), enrollment.id = %enrollment.id, assignment.id = %a.id, command.uuid = %uuid, error = %e, "profile not rendered");
            server_fault(tx, a, now).await?;
            Ok(refused(ReasonCode::ServerFault))
        }
        done => done,
    }
}

async fn server_fault(tx: &mut Tx, mut a: Assignment, now: Timestamp) -> Result<()> {
    if let Some(attempt) = a.attempt_id {
        attempts::failed(tx, AttemptId(attempt), ReasonCode::ServerFault.as_str(), now).await?;
    }
    fail(&mut a, ReasonCode::ServerFault, now);
    assignments::save(tx, &a, now).await?;
    Ok(())
}

async fn try_render(
    tx: &mut Tx,
    ctx: &Context,
    uuid: &CommandUuid,
    book: &Book,
    a: &Assignment,
    before: Option<&[u8]>,
    now: Timestamp,
) -> Result<Rendered> {
    let random = ctx.commands.random.token();
    let mut case = book.case(a, &random, now)?;
    // The caller ends this command: it is not to be cancelled as well.
    case.situation.command_outstanding = false;
    if let Some((action, why)) = instead(&case, now) {
        tracing::info!(trace.id = a.attempt_id.map(tracing::field::display), enrollment.id = %case.enrollment.id, assignment.id = %a.id, command.uuid = %uuid, policy.name = %case.policy.acme.name(), reason = %why, "profile refused at delivery");
        let mut writes = Writes::default();
        let a = Assignment { command_uuid: None, ..a.clone() };
        follow(&mut writes, ctx, book, &case, a, action, now)?;
        writes.write(tx, ctx, Presence::Connected, now).await?;
        return Ok(refused(why));
    }
    let attempt = match a.attempt_id {
        Some(id) => attempts::get(tx, AttemptId(id)).await?,
        None => None,
    };
    if let Some(bytes) = before
        && attempt.as_ref().is_some_and(|attempt| lasts(attempt, &case, now))
        && case.situation.sent_form == case.decision.form
    {
        return Ok(Rendered::Body(bytes.to_vec()));
    }
    deliver(tx, ctx, uuid, a.clone(), &case, attempt, &random, now).await
}

/// What is to be done instead of the delivery, and why.
fn instead(case: &Case, now: Timestamp) -> Option<(Action, ReasonCode)> {
    let s = &case.situation;
    let fresh = s.asked_at.is_some_and(|at| now.since(at) < FACTS_MAX_AGE);
    let decided = || decide(s, &case.decision, now);
    match case.decision.outcome {
        _ if !s.wanted => Some((decided(), ReasonCode::PolicyGone)),
        _ if s.revision.is_none() => Some((decided(), ReasonCode::RolloutHeld)),
        _ if !fresh => Some((Action::AskFacts, ReasonCode::FactsStale)),
        Outcome::NeedFacts => Some((Action::AskFacts, ReasonCode::FactsStale)),
        Outcome::Closed => {
            Some((Action::Block, case.decision.reason.as_ref().map_or(ReasonCode::PayloadInvalid, |r| r.code)))
        }
        // The rollout was stopped meanwhile, and the device has what it had before.
        Outcome::Open => Some(decided()).filter(|a| *a == Action::Keep).map(|keep| (keep, ReasonCode::RolloutHeld)),
    }
}

/// The permission of an earlier delivery of this revision is still good.
fn lasts(attempt: &Attempt, case: &Case, now: Timestamp) -> bool {
    attempt.state == "delivered"
        && attempt.revision == case.policy.revision
        && attempt.expires_at.is_some_and(|at| at > now.0)
}

#[expect(clippy::too_many_arguments, reason = "one step of try_render")]
async fn deliver(
    tx: &mut Tx,
    ctx: &Context,
    uuid: &CommandUuid,
    mut a: Assignment,
    case: &Case,
    attempt: Option<Attempt>,
    random: &str,
    now: Timestamp,
) -> Result<Rendered> {
    let payload = case.payload.as_ref().ok_or_else(|| corrupt("assignment.decision"))?;
    let profile = match profile(ctx, case, payload, random) {
        Ok(profile) => profile,
        Err(unfit) => {
            tracing::error!(trace.id = a.attempt_id.map(tracing::field::display), policy.name = %case.policy.acme.name(), detail = unfit.detail, "the decision let a profile pass that cannot be made");
            return Err(corrupt("assignment.decision"));
        }
    };
    let signed = ctx.sign(&case.policy.acme, &profile.encode(), now)?;
    let envelope = Command::from(InstallProfile { payload: signed }).envelope(uuid.clone());
    let delivered = delivered(case, payload, now)?;
    let trace = match &attempt {
        Some(attempt) if attempts::delivered(tx, attempt.id(), &delivered, now).await? => attempt.id(),
        // A permission is given once: another delivery is another attempt.
        _ => again(tx, ctx, uuid, &a, case, attempt.as_ref(), &delivered, now).await?,
    };
    if case
        .situation
        .certificate
        .as_ref()
        .is_some_and(|c| c.revision != case.policy.revision || c.form != case.decision.form)
    {
        // Whatever becomes of the new profile, the certificate that was there may be gone.
        a.renew_at = None;
    }
    a.attempt_id = Some(trace.0);
    a.revision = case.policy.revision;
    a.reason = None;
    a.decision = Some(json(&case.decision)?);
    a.silicon = Some(case.decision.device.attest_support.clone());
    a.profile_sent = true;
    assignments::save(tx, &a, now).await?;
    tracing::info!(trace.id = %trace, enrollment.id = %case.enrollment.id, assignment.id = %a.id, command.uuid = %uuid, policy.name = %case.policy.acme.name(), "profile handed out");
    Ok(Rendered::Body(envelope.body))
}

/// Notes a further attempt with the same command.
#[expect(clippy::too_many_arguments, reason = "one step of deliver")]
async fn again(
    tx: &mut Tx,
    ctx: &Context,
    uuid: &CommandUuid,
    a: &Assignment,
    case: &Case,
    before: Option<&Attempt>,
    delivered: &Delivered,
    now: Timestamp,
) -> Result<AttemptId> {
    let assignment = AssignmentId(a.id);
    attempts::void_open(tx, &[assignment], "its permission had ended before it was taken", now).await?;
    let renews = before.is_some_and(|attempt| attempt.purpose == Purpose::Renewal.as_str());
    let new = NewAttempt {
        id: AttemptId(ctx.commands.random.uuid_v7(now)),
        assignment,
        policy: case.policy.policy,
        revision: case.policy.revision,
        enrollment: case.enrollment.id,
        authority: delivered.authority,
        purpose: if renews { Purpose::Renewal } else { Purpose::Install }.as_str(),
        command: uuid.clone(),
    };
    attempts::insert_many(tx, std::slice::from_ref(&new), now).await?;
    attempts::delivered(tx, new.id, delivered, now).await?;
    Ok(new.id)
}

/// What the ledger keeps of a delivery. A `ClientIdentifier` that names the device is no secret; of any other only the hash is kept.
fn delivered(case: &Case, payload: &AcmePayload, now: Timestamp) -> Result<Delivered> {
    let identifier = &payload.keys().client_identifier;
    let [serial, udid, provisioning_udid] =
        [FactName::SerialNumber, FactName::Udid, FactName::ProvisioningUdid].map(|name| case.facts.text(name));
    let names_device = [serial, udid, provisioning_udid].contains(&Some(identifier.as_str()));
    let expectation = Expectation::of(payload, serial, udid, provisioning_udid);
    Ok(Delivered {
        revision: case.policy.revision,
        authority: case.policy.authority.id.map(AuthorityId),
        mode: if names_device { "device" } else { "one_time" },
        client_identifier_sha256: Fingerprint::of(identifier.as_bytes()),
        client_identifier: names_device.then(|| identifier.clone()),
        expectation: serde_json::to_string(&expectation).map_err(|_| corrupt("attempt.expectation"))?,
        expires_at: now.plus(PERMISSION),
    })
}

/// Renders a `DeviceInformation` for delivery now, with a nonce where an attestation is due. The lock on the enrollment is held.
pub async fn render_facts(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    uuid: &CommandUuid,
    now: Timestamp,
) -> Result<Vec<u8>> {
    let facts = match target::facts_of(tx, enrollment).await {
        // What cannot be read is asked for anew.
        Err(e) if e.needs_human() => target::from_authenticate(enrollment),
        facts => facts?,
    };
    let (hardware, os_version) = target::device(enrollment, &facts, now);
    let asked = attestation::Asked { platform: hardware.platform, os_version, hardware: hardware.attest };
    let nonce = attestation::ask(tx, &ctx.attestation, enrollment, &asked, uuid, now).await?;
    let wanted = |q: &&str| nonce.is_some() || *q != device_information::DEVICE_PROPERTIES_ATTESTATION;
    let queries =
        device_information::queries(enrollment.kind, enrollment.channel).iter().copied().filter(wanted).collect();
    let command = Command::from(DeviceInformation { queries, attestation_nonce: nonce });
    Ok(command.envelope(uuid.clone()).body)
}

/// The profile: one identifier for the life of the policy, one UUID for each revision, first the identity, then what refers to it.
fn profile(ctx: &Context, case: &Case, payload: &AcmePayload, random: &str) -> Result<Profile, crate::acme::Unfit> {
    let enrollment = &case.enrollment;
    let identifier = ctx.payload_identifier(case.policy.policy, enrollment.channel);
    let acme = &case.policy.acme;
    let display_name = acme.display_name().to_owned();
    let uuid_of = |name: &str| payload_uuid(case.policy.payload_uuid, name);
    let identity = payload.payload(format!("{identifier}.{IDENTITY}"), uuid_of(IDENTITY), Some(display_name.clone()));
    let (hardware, os_version) = target::device(enrollment, &case.facts, Timestamp(0));
    let device = companion::Device {
        platform: hardware.platform,
        os_version,
        kind: enrollment.kind,
        channel: enrollment.channel,
    };
    let values = target::values(enrollment, &case.facts, random);
    let names = companion::Names { identifier: &identifier, uuid_of: &uuid_of };
    let mut payloads = vec![identity];
    payloads.extend(companion::payloads(acme, &device, &values, &names)?);
    Ok(Profile {
        uuid: case.policy.payload_uuid,
        display_name,
        organization: acme.document().organization.clone().or_else(|| ctx.organization.clone()),
        description: None,
        scope: Some(if enrollment.channel == Channel::User { Scope::User } else { Scope::System }),
        removal_disallowed: acme.document().removal.is_disallowed_on(hardware.platform, enrollment.kind),
        payloads,
        identifier,
    })
}

/// The UUID of a payload inside the profile: the same in every rendering of the revision.
fn payload_uuid(profile: Uuid, name: &str) -> Uuid {
    let digest = Fingerprint::of(&[profile.as_bytes(), name.as_bytes()].concat()).0;
    let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = digest;
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_inside_depends_on_the_revision_and_the_name_only() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(payload_uuid(a, "identity"), payload_uuid(a, "identity"));
        assert_ne!(payload_uuid(a, "identity"), payload_uuid(b, "identity"));
        assert_ne!(payload_uuid(a, "identity"), payload_uuid(a, "wifi"));
        assert_eq!(payload_uuid(a, "identity").get_version_num(), 8);
    }
}
