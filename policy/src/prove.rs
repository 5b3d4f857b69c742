//! What a `CertificateList` of ours means: each certificate that was promised is there and proved, or it is looked for again.

use mdm_core::command::certificate_list::InstalledCertificate;
use mdm_core::ids::{AttemptId, CommandUuid, PolicyId};
use mdm_core::time::Timestamp;
use store::assignments::{self, Assignment};
use store::enrollments::Enrollment;
use store::{Tx, attempts};

use crate::Context;
use crate::advance::{Presence, advance_enrollment, event, json};
use crate::case::{Book, Case, NOT_YET};
use crate::decide::{State, back_off};
use crate::decision::{Decision, Note};
use crate::error::{Result, corrupt};
use crate::proof::{Proof, prove, seen};
use crate::react::forget_certificate;
use crate::reason::ReasonCode;
use crate::renew::renew_at;
use crate::writes::Writes;

/// Looks for the certificates of all policies whose profile the device has acknowledged. `list` is none where the device gave none.
/// The lock on the enrollment is held.
pub(crate) async fn certificates(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    command: &CommandUuid,
    list: Option<&[InstalledCertificate]>,
    now: Timestamp,
) -> Result<()> {
    let all = assignments::of_enrollment(tx, enrollment.id).await?;
    let (book, mut all) = Book::open(tx, all).await?;
    // In the order of queueing: where two policies ask one authority for the same names, each gets the certificate of its own.
    all.sort_by_key(|a| a.attempt_id);
    let mut writes = Writes::default();
    for a in all.into_iter().filter(|a| a.state == State::Installed.as_str()) {
        let waits = a.command_uuid.as_deref() == Some(command.as_str());
        if list.is_some() || waits {
            let before = a.clone();
            match one(tx, &mut writes, &book, a, list, now).await {
                Err(e) if e.needs_human() => {
                    tracing::error!(enrollment.id = %enrollment.id, assignment.id = %before.id, error = %e, "a certificate cannot be looked for");
                    // In vain like any other: it is not asked for again in this session.
                    writes.saved.push(in_vain(before, now));
                }
                done => done?,
            }
        }
    }
    writes.write(tx, ctx, Presence::Connected, now).await?;
    if let Some(list) = list {
        let gone = seen(tx, enrollment, list, now).await?;
        start_again(tx, enrollment, &gone, now).await?;
    }
    advance_enrollment(tx, ctx, enrollment, Presence::Connected, now).await
}

async fn one(
    tx: &mut Tx,
    writes: &mut Writes,
    book: &Book,
    mut a: Assignment,
    list: Option<&[InstalledCertificate]>,
    now: Timestamp,
) -> Result<()> {
    let case = book.case(&a, NOT_YET, now)?;
    let attempt = match a.attempt_id {
        Some(id) => attempts::get(tx, AttemptId(id)).await?,
        None => None,
    };
    let (reason, detail) = match (list, attempt) {
        (None, _) => (ReasonCode::CertificateListRefused, None),
        (Some(_), None) => (ReasonCode::CertificateNotListed, None),
        (Some(list), Some(attempt)) => {
            match prove(tx, &case.enrollment, &attempt, &case.policy.authority, list, now).await? {
                Proof::Proved { sha256, not_before, not_after } => {
                    attempts::proved(tx, attempt.id(), sha256, now).await?;
                    let percent = case.policy.acme.document().renew_at_percent;
                    let at = renew_at(case.enrollment.id, not_before, not_after, percent);
                    a.certificate_sha256 = Some(sha256.0.to_vec());
                    a.certificate_revision = Some(attempt.revision);
                    a.certificate_form = form(&case)?;
                    (a.not_after, a.renew_at) = (Some(not_after.0), Some(at.0));
                    verified(writes, &case, a);
                    return Ok(());
                }
                Proof::Missing { reason, detail } => (reason, Some(detail)),
            }
        }
    };
    let mut a = in_vain(a, now);
    a.reason = Some(reason.as_str().to_owned());
    if let Some(stored) = a.decision.as_deref().and_then(|d| serde_json::from_str::<Decision>(d).ok()) {
        a.decision = Some(json(&Decision { reason: Some(Note::from(reason)), detail, ..stored })?);
    }
    tracing::info!(trace.id = a.attempt_id.map(tracing::field::display), enrollment.id = %case.enrollment.id, assignment.id = %a.id, policy.name = %case.policy.acme.name(), reason = %reason, "certificate not seen");
    writes.saved.push(a);
    Ok(())
}

/// It was looked for once more, and is looked for again later.
fn in_vain(mut a: Assignment, now: Timestamp) -> Assignment {
    a.proof_tries += 1;
    a.due_at = Some(now.plus(back_off(a.proof_tries)).0);
    a.command_uuid = None;
    a
}

/// The form in which the certificate was asked for.
fn form(case: &Case) -> Result<Option<String>> {
    let form = case.situation.sent_form.as_ref();
    form.map(|form| serde_json::to_string(form).map_err(|_| corrupt("assignment.certificate_form"))).transpose()
}

fn verified(writes: &mut Writes, case: &Case, mut a: Assignment) {
    State::Verified.as_str().clone_into(&mut a.state);
    (a.attempts, a.proof_tries) = (0, 0);
    (a.reason, a.command_uuid) = (None, None);
    a.due_at = a.renew_at;
    writes.events.push(event(case, &a, "assignment.verified", "The certificate was seen on the device"));
    writes.saved.push(a);
}

/// What was verified and is there no more begins anew.
async fn start_again(tx: &mut Tx, enrollment: &Enrollment, gone: &[PolicyId], now: Timestamp) -> Result<()> {
    for policy in gone {
        let found = assignments::find(tx, *policy, enrollment.id).await?;
        if let Some(mut a) = found.filter(|a| a.state == State::Verified.as_str()) {
            forget_certificate(&mut a);
            State::Assigned.as_str().clone_into(&mut a.state);
            a.reason = Some(ReasonCode::CertificateGone.as_str().to_owned());
            assignments::save(tx, &a, now).await?;
        }
    }
    Ok(())
}
