//! Making the profile at the moment of its delivery: the gate is asked again (T1 to T8), because the OS, the facts and
//! the policy can have changed since it was enqueued.

use mdm_core::command::{Command, DeviceInformation, InstallProfile, device_information};
use mdm_core::enrollment::Channel;
use mdm_core::ids::{CommandUuid, Fingerprint, PolicyId};
use mdm_core::profile::acme::AcmePayload;
use mdm_core::profile::{Profile, Scope};
use mdm_core::time::Timestamp;
use store::Tx;
use store::assignments;
use store::enrollments::Enrollment;
use uuid::Uuid;

use crate::Context;
use crate::advance::{Case, Params, Presence, apply};
use crate::decide::{Action, FACTS_MAX_AGE, MAX_ATTEMPTS, State, back_off, decide};
use crate::decision::Outcome;
use crate::error::{Result, corrupt};
use crate::reason::ReasonCode;

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

/// Renders the `InstallProfile` of an assignment for delivery now. The lock on the enrollment is held.
pub async fn render(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    uuid: &CommandUuid,
    params: &[u8],
    now: Timestamp,
) -> Result<Rendered> {
    let Ok(params) = serde_json::from_slice::<Params>(params) else {
        tracing::error!(enrollment.id = %enrollment.id, command.uuid = %uuid, "the parameters of a profile cannot be read");
        return Ok(Rendered::Refused { why: ReasonCode::ServerFault.as_str().to_owned() });
    };
    match try_render(tx, ctx, enrollment, uuid, params, now).await {
        // A fault of ours must not block the queue: this command ends, the assignment is tried again later.
        Err(e) if e.needs_human() => {
            tracing::error!(enrollment.id = %enrollment.id, assignment.id = %params.assignment, command.uuid = %uuid, error = %e, "profile not rendered");
            if let Some(mut a) = assignments::get(tx, params.assignment).await? {
                a.attempts += 1;
                State::Failed.as_str().clone_into(&mut a.state);
                a.reason = Some(ReasonCode::ServerFault.as_str().to_owned());
                a.command_uuid = None;
                a.due_at = (a.attempts < MAX_ATTEMPTS).then(|| now.plus(back_off(a.attempts)).0);
                assignments::save(tx, &a, now).await?;
            }
            Ok(Rendered::Refused { why: ReasonCode::ServerFault.as_str().to_owned() })
        }
        done => done,
    }
}

async fn try_render(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    uuid: &CommandUuid,
    params: Params,
    now: Timestamp,
) -> Result<Rendered> {
    let refused = |why: ReasonCode| Ok(Rendered::Refused { why: why.as_str().to_owned() });
    let found = assignments::get(tx, params.assignment).await?.filter(|a| {
        a.enrollment_id == enrollment.id.0
            && a.state == State::Installing.as_str()
            && a.command_uuid.as_deref() == Some(uuid.as_str())
    });
    let Some(mut a) = found else { return refused(ReasonCode::PolicyGone) };
    let mut case = Case::load(tx, enrollment, &a, now).await?;
    // The caller ends this command: it is not to be cancelled as well.
    case.situation.command_outstanding = false;
    let fresh = case.situation.asked_at.is_some_and(|at| now.since(at) < FACTS_MAX_AGE);
    let (action, why) = match case.decision.outcome {
        _ if !case.situation.wanted => (decide(&case.situation, &case.decision, now), ReasonCode::PolicyGone),
        _ if !fresh => (Action::AskFacts, ReasonCode::FactsStale),
        Outcome::NeedFacts => (Action::AskFacts, ReasonCode::FactsStale),
        Outcome::Closed => {
            (Action::Block, case.decision.reason.as_ref().map_or(ReasonCode::PayloadInvalid, |r| r.code))
        }
        Outcome::Open => {
            let payload = case.payload.as_ref().ok_or_else(|| corrupt("assignment.decision"))?;
            let profile = profile(ctx, enrollment, &case, payload);
            let signed = ctx.signer.sign(&profile.encode(), now)?;
            let envelope = Command::from(InstallProfile { payload: signed }).envelope(uuid.clone());
            a.revision = case.policy.revision;
            a.reason = None;
            a.decision = Some(serde_json::to_string(&case.decision).map_err(|_| corrupt("assignment.decision"))?);
            a.profile_sent = true;
            assignments::save(tx, &a, now).await?;
            return Ok(Rendered::Body(envelope.body));
        }
    };
    tracing::info!(enrollment.id = %enrollment.id, assignment.id = %a.id, command.uuid = %uuid, policy.name = %case.acme.name(), reason = %why, "profile refused at delivery");
    a.command_uuid = None;
    apply(tx, ctx, enrollment, a, &case, action, Presence::Connected, now).await?;
    refused(why)
}

/// Renders a `DeviceInformation` for delivery now, with a nonce where an attestation is due. The lock on the enrollment is held.
pub async fn render_facts(
    _tx: &mut Tx,
    _ctx: &Context,
    enrollment: &Enrollment,
    uuid: &CommandUuid,
    _now: Timestamp,
) -> Result<Vec<u8>> {
    let queries = device_information::queries(enrollment.kind, enrollment.channel)
        .iter()
        .copied()
        .filter(|q| *q != device_information::DEVICE_PROPERTIES_ATTESTATION)
        .collect();
    let command = Command::from(DeviceInformation { queries, attestation_nonce: None });
    Ok(command.envelope(uuid.clone()).body)
}

/// The profile: one identifier for the life of the policy, one UUID for each revision.
fn profile(ctx: &Context, enrollment: &Enrollment, case: &Case, payload: &AcmePayload) -> Profile {
    let identifier = ctx.payload_identifier(PolicyId(case.policy.id), enrollment.channel);
    let acme = &case.acme;
    let display_name = acme.display_name().to_owned();
    let organization = acme.document().organization.clone().or_else(|| ctx.organization.clone());
    let identity = payload.payload(
        format!("{identifier}.identity"),
        payload_uuid(case.policy.payload_uuid, "identity"),
        Some(display_name.clone()),
    );
    Profile {
        identifier,
        uuid: case.policy.payload_uuid,
        display_name,
        organization,
        description: None,
        scope: Some(if enrollment.channel == Channel::User { Scope::User } else { Scope::System }),
        removal_disallowed: false,
        payloads: vec![identity],
    }
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
