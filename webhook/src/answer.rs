//! One call, one transaction: what is stored, the decision, the answer, and what follows from it.

use ca::Authority;
use ca::webhooks::WebhookKind;
use mdm_core::enrollment::{EnrollmentKind, EnrollmentState};
use mdm_core::ids::{AssignmentId, AttemptId, AuthorityId, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::time::Timestamp;
use policy::proof::Expectation;
use serde_json::{Value, json};
use store::attempts::{self, Attempt};
use store::authorities::{self, NewCall};
use store::enrollments::{self, Enrollment};
use store::events::{self, NewEvent};
use store::{IdSet, Tx, assignments, policies};
use uuid::Uuid;

use crate::decide::{Asked, Candidate, decide};
use crate::denial::Denial;
use crate::error::Result;
use crate::request::{About, Request, Shown, Wish};
use crate::{Shared, certificate, template};

/// The webhook that a call came to.
#[derive(Debug)]
pub(crate) struct Webhook {
    /// Its row's key.
    pub(crate) id: Uuid,
    /// When it is called.
    pub(crate) kind: WebhookKind,
    /// Whose it is.
    pub(crate) authority: Authority,
}

impl Webhook {
    pub(crate) fn authority_id(&self) -> AuthorityId {
        AuthorityId(self.authority.id.unwrap_or_default())
    }
}

/// What becomes of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The answer, as it goes out.
    pub(crate) answer: Value,
    /// The attempt whose permission it used.
    pub(crate) used: Option<AttemptId>,
    /// Why not.
    pub(crate) denial: Option<Denial>,
    /// The attempt that it is about.
    pub(crate) attempt: Option<Attempt>,
}

impl Outcome {
    pub(crate) fn no(denial: Denial, attempt: Option<Attempt>) -> Self {
        let error = json!({ "code": denial.as_str(), "message": denial.sentence() });
        Self { answer: json!({ "allow": false, "error": error }), used: None, denial: Some(denial), attempt }
    }
}

/// Answers a well-signed call in time; `None` where the webhook was revoked meanwhile.
pub(crate) async fn answer(
    shared: &Shared,
    webhook: &Webhook,
    request: &Request,
    body_sha256: Fingerprint,
    now: Timestamp,
) -> Result<Option<String>> {
    let mut tx = shared.store.begin().await?;
    if let About::May(wish) = &request.about {
        wait_for_devices(&mut tx, request.identifier.as_deref(), wish, now).await?;
    }
    // From here on the calls of a webhook are answered in turn.
    if !authorities::webhook_used(&mut tx, webhook.id, now).await? {
        return Ok(None);
    }
    if let Some(before) = authorities::answer(&mut tx, webhook.id, &body_sha256.0).await? {
        tx.commit().await?;
        metrics::counter!("webhook_calls_total", "kind" => webhook.kind.as_str(), "answer" => "again").increment(1);
        return Ok(Some(before));
    }
    let identifier = request.identifier.as_deref();
    let outcome = match &request.about {
        About::May(wish) => permission(&mut tx, shared, webhook, identifier, wish, now).await?,
        About::Issued(issued) => certificate::reported(&mut tx, webhook, identifier, issued, now).await?,
    };
    let text = outcome.answer.to_string();
    let call = NewCall { webhook: webhook.id, body_sha256: &body_sha256.0, attempt: outcome.used, answer: &text };
    authorities::answered(&mut tx, &call, now).await?;
    if let Some(denial) = outcome.denial {
        refused(&mut tx, webhook, denial, outcome.attempt.as_ref(), now).await?;
    }
    tx.commit().await?;
    let word = outcome.denial.map_or("yes", Denial::as_str);
    metrics::counter!("webhook_calls_total", "kind" => webhook.kind.as_str(), "answer" => word).increment(1);
    Ok(Some(text))
}

/// Takes the locks of the devices whose attestation may have to be judged: while one of them is busy, only calls about it wait.
async fn wait_for_devices(tx: &mut Tx, identifier: Option<&str>, wish: &Wish, now: Timestamp) -> Result<()> {
    let (Some(identifier), true) = (identifier, wish.attestation.is_some()) else { return Ok(()) };
    let sha256 = Fingerprint::of(identifier.as_bytes()).0;
    let mut devices = Vec::new();
    for attempt in attempts::open_by_client_identifier(tx, &sha256, now).await? {
        let id = EnrollmentId(attempt.enrollment_id);
        let enrollment = enrollments::get(tx, id).await?.ok_or(store::Error::Corrupt("attempt.enrollment_id"))?;
        devices.push(enrollment.parent.unwrap_or(id));
    }
    Ok(enrollments::lock_many(tx, &IdSet::new(&devices)).await?)
}

/// Decides about a permission, and gives it.
async fn permission(
    tx: &mut Tx,
    shared: &Shared,
    webhook: &Webhook,
    identifier: Option<&str>,
    wish: &Wish,
    now: Timestamp,
) -> Result<Outcome> {
    let asked = Asked {
        authority: &webhook.authority,
        identifier,
        key: &wish.key,
        names: &wish.names,
        shows_attestation: wish.attestation.is_some(),
    };
    // Two authorities that ask for one key at the same moment ask in turn.
    authorities::lock_key(tx, &wish.key.spki_sha256).await?;
    let mut found = Vec::new();
    if let Some(identifier) = identifier {
        let sha256 = Fingerprint::of(identifier.as_bytes()).0;
        for attempt in attempts::open_by_client_identifier(tx, &sha256, now).await? {
            found.push(load(tx, webhook, attempt, wish, now).await?);
        }
    }
    let candidates: Vec<Candidate> = found.iter().map(|(_, _, candidate)| candidate.clone()).collect();
    let first = found.first().map(|(attempt, ..)| attempt.clone());
    let chosen = match decide(&asked, &candidates) {
        Ok(chosen) => chosen,
        Err(denial) => return Ok(Outcome::no(denial, first)),
    };
    let Some((attempt, enrollment, candidate)) = found.into_iter().nth(chosen.at) else {
        return Ok(Outcome::no(Denial::NoOpenAttempt, None));
    };
    if let Some(shown) = wish.attestation.as_ref().filter(|_| chosen.judge_attestation)
        && !stands(tx, shared, &attempt, &enrollment, &candidate, shown, wish, now).await?
    {
        return Ok(Outcome::no(Denial::AttestationRefused, Some(attempt)));
    }
    if !attempts::authorize(tx, attempt.id(), &wish.key.spki_sha256, now).await? {
        return Ok(Outcome::no(Denial::AlreadyUsed, Some(attempt)));
    }
    let policy = policies::get(tx, PolicyId(attempt.policy_id)).await?.map(|row| row.name).unwrap_or_default();
    let told = template::data(&attempt, &policy, identifier.unwrap_or_default(), &candidate.expectation);
    let mut data = json!({
        "trace": attempt.id,
        "authority": webhook.authority.name,
        "webhook": webhook.kind,
        "policy": policy,
        "key_sha256": hex::encode(wish.key.spki_sha256),
    });
    if let (Some((from, to)), Some(fields)) = (wish.validity, data.as_object_mut()) {
        fields.insert("not_before".to_owned(), from.to_rfc3339().into());
        fields.insert("not_after".to_owned(), to.to_rfc3339().into());
    }
    let summary = "The certificate authority may issue to this device";
    record(tx, webhook, "webhook.allowed", summary, Some(&attempt), &data, now).await?;
    tracing::info!(
        enrollment.id = %enrollment.id, trace.id = %attempt.id, policy.name = %policy, authority = webhook.authority.name,
        "the certificate authority may issue"
    );
    let answer = json!({ "allow": true, "data": told });
    Ok(Outcome { answer, used: Some(attempt.id()), denial: None, attempt: Some(attempt) })
}

/// What is stored around an attempt.
async fn load(
    tx: &mut Tx,
    webhook: &Webhook,
    attempt: Attempt,
    wish: &Wish,
    now: Timestamp,
) -> Result<(Attempt, Enrollment, Candidate)> {
    let id = EnrollmentId(attempt.enrollment_id);
    let enrollment = enrollments::get(tx, id).await?.ok_or(store::Error::Corrupt("attempt.enrollment_id"))?;
    let assignment = assignments::get(tx, AssignmentId(attempt.assignment_id)).await?;
    let policy = policies::get(tx, PolicyId(attempt.policy_id)).await?;
    let assigned = policy.is_some_and(|policy| policy.deleted_at.is_none())
        && assignment.is_some_and(|a| {
            a.attempt_id == Some(attempt.id)
                && a.enrollment_id == attempt.enrollment_id
                && matches!(a.state.as_str(), "installing" | "installed")
        });
    let one_time = policy::has_one_time_identifier(tx, PolicyId(attempt.policy_id), attempt.revision).await?;
    let candidate = Candidate {
        device: enrollment.parent.unwrap_or(enrollment.id).0,
        authority: attempt.authority_id,
        delivered_at: attempt.delivered_at.unwrap_or_default(),
        acknowledged: attempt.acknowledged_at.is_some(),
        used_for: attempt.authorized_key_sha256.clone(),
        said_yes: authorities::has_allowed(tx, webhook.id, attempt.id()).await?,
        enrolled: matches!(enrollment.state, EnrollmentState::Enrolled { .. }),
        assigned,
        user_enrollment: enrollment.kind == EnrollmentKind::User,
        one_time,
        names: policy::device_names(tx, &enrollment, now).await?,
        expectation: expectation(&attempt)?,
        key_of_another: authorities::is_key_of_another(tx, &wish.key.spki_sha256, id).await?,
    };
    Ok((attempt, enrollment, candidate))
}

/// What was delivered.
pub(crate) fn expectation(attempt: &Attempt) -> Result<Expectation> {
    let text = attempt.expectation.as_deref().unwrap_or_default();
    Ok(serde_json::from_str(text).map_err(|_| store::Error::Corrupt("attempt.expectation"))?)
}

/// Judges the attestation that the authority was shown: of this device, for this key, made for this challenge.
#[expect(clippy::too_many_arguments, reason = "one step of permission, split off")]
async fn stands(
    tx: &mut Tx,
    shared: &Shared,
    attempt: &Attempt,
    enrollment: &Enrollment,
    candidate: &Candidate,
    shown: &Shown,
    wish: &Wish,
    now: Timestamp,
) -> Result<bool> {
    // An attestation is of the device, whichever of its channels asks.
    let device = match enrollment.parent {
        Some(parent) => enrollments::get(tx, parent).await?.ok_or(store::Error::Corrupt("enrollment.parent_id"))?,
        None => enrollment.clone(),
    };
    enrollments::lock(tx, device.id).await?;
    let claims = attestation::Claims {
        platform: candidate.names.platform,
        serial_number: candidate.names.serial_number.as_deref(),
        provisioning_udid: candidate.names.provisioning_udid.as_deref(),
    };
    let asked_at = Timestamp(attempt.delivered_at.unwrap_or(now.0));
    let object = (shown.object.as_slice(), shown.token.as_str(), wish.spki.as_slice());
    let judged = attestation::judge_object(tx, &shared.attestation, &device, &claims, object, asked_at, now).await?;
    Ok(judged.verdict == attestation::Verdict::Accepted)
}

async fn refused(
    tx: &mut Tx,
    webhook: &Webhook,
    denial: Denial,
    attempt: Option<&Attempt>,
    now: Timestamp,
) -> Result<()> {
    let data = json!({
        "trace": attempt.map(|attempt| attempt.id),
        "authority": webhook.authority.name,
        "webhook": webhook.kind,
        "reason": denial,
    });
    let summary = format!("The certificate authority was told no: {}", denial.sentence());
    record(tx, webhook, "webhook.refused", &summary, attempt, &data, now).await?;
    let trace = attempt.map(|attempt| attempt.id.to_string());
    tracing::warn!(
        trace.id = trace,
        authority = webhook.authority.name,
        reason = denial.as_str(),
        "a certificate authority was told no"
    );
    Ok(())
}

/// Writes an event of a call.
pub(crate) async fn record(
    tx: &mut Tx,
    webhook: &Webhook,
    kind: &str,
    summary: &str,
    attempt: Option<&Attempt>,
    data: &Value,
    now: Timestamp,
) -> Result<()> {
    let actor = format!("authority:{}", webhook.authority.name.as_deref().unwrap_or_default());
    let command = attempt.and_then(|attempt| attempt.command_uuid.as_deref()).and_then(|uuid| uuid.parse().ok());
    let event = NewEvent {
        at: now,
        kind,
        enrollment: attempt.map(|attempt| EnrollmentId(attempt.enrollment_id)),
        command: command.as_ref(),
        actor: &actor,
        summary,
        data,
    };
    Ok(events::record(tx, &event).await?)
}
