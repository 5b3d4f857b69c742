//! A trace: one attempt from the decision of the policy to the end of the certificate, as one time line.
//!
//! Nothing is written for a trace's own sake. [`of`] reads the rows that the attempt, its command, its certificate and its events
//! left, and [`time_line`], which is pure, puts them in order. What lies ahead is in it too: the renewal, and the end.

use mdm_core::ids::{AssignmentId, AttemptId, CommandUuid, EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use serde::Serialize;
use serde_json::{Value as Json, json};
use store::Tx;
use store::assignments::{self, Assignment};
use store::attempts::{self, Attempt};
use store::certificates::{self, AcmeCertificate};
use store::commands::{self, Target};
use uuid::Uuid;

use crate::error::Result;
use crate::proof::Expectation;

/// More events than an attempt has.
const MAX_EVENTS: i64 = 200;

/// One attempt from policy to expiry.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Trace {
    /// The trace id: that of the attempt. Events carry it as `trace`, log lines as `trace.id`.
    pub trace_id: Uuid,
    /// The policy's name.
    pub policy: String,
    /// Its revision.
    pub revision: i64,
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The certificate authority, where the policy names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_id: Option<Uuid>,
    /// `install`, or `renewal` of a certificate that was proved before.
    pub purpose: String,
    /// `queued`, `delivered`, `acknowledged`, `proved`, `failed` or `void`.
    pub state: String,
    /// Why it failed or is void.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// CommandUUID of the `InstallProfile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_uuid: Option<String>,
    /// What `ClientIdentifier` is: `one_time`, or `device` where it is the device's serial number or UDID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_identifier: Option<String>,
    /// SHA-256 of the certificate, hexadecimal, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    /// The attempt before this one, which it tries again or renews.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Uuid>,
    /// The attempt after this one, which tries it again or renews it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Uuid>,
    /// What happened and what is to come, in order.
    pub steps: Vec<Step>,
}

/// One thing that happened, or will.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Step {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// A stable word: `decided`, `queued`, `pushed`, `delivered`, `delivered_again`, `not_now`, `authorized`, `issued`, `acknowledged`,
    /// `error`, `command_format_error`, `cancelled`, `expired`, `stalled`, `refused`, `verified`, `failed`, `void`, `renewal_due`,
    /// `replaced`, `ends`; or, with a dot in it, the kind of an event.
    pub what: String,
    /// It lies ahead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub planned: bool,
    /// One sentence.
    pub summary: String,
    /// Further facts.
    #[serde(skip_serializing_if = "Json::is_null")]
    #[schema(value_type = Object)]
    pub data: Json,
}

/// The rows that a trace is read from.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The attempt.
    pub attempt: Attempt,
    /// Its command on the enrollment.
    pub command: Option<Target>,
    /// The assignment, where the policy is on the enrollment still.
    pub assignment: Option<Assignment>,
    /// The certificates that it led to: one, as a rule.
    pub certificates: Vec<AcmeCertificate>,
    /// The events that name it.
    pub events: Vec<store::events::Row>,
    /// When a push was sent last, where the device was not there since.
    pub pushed_at: Option<i64>,
}

/// The trace with this id; none where there is no such attempt (any more).
pub async fn of(tx: &mut Tx, id: AttemptId, now: Timestamp) -> Result<Option<Trace>> {
    let Some(attempt) = attempts::get(tx, id).await? else { return Ok(None) };
    let enrollment = EnrollmentId(attempt.enrollment_id);
    let policy = store::policies::get(tx, PolicyId(attempt.policy_id)).await?;
    let uuid: Option<CommandUuid> = attempt.command_uuid.as_deref().and_then(|uuid| uuid.parse().ok());
    let command = match uuid {
        Some(uuid) => commands::target(tx, enrollment, &uuid).await?,
        None => None,
    };
    let assignment = assignments::get(tx, AssignmentId(attempt.assignment_id)).await?;
    let (previous, next) = store::traces::neighbours(tx, AssignmentId(attempt.assignment_id), id).await?;
    let pushed_at = match attempt.delivered_at {
        Some(_) => attempt.pushed_at,
        None => store::push::intent(tx, enrollment)
            .await?
            .and_then(|i| i.last_sent_at)
            .filter(|at| *at >= attempt.queued_at),
    };
    let certificates = certificates::of_attempt(tx, id).await?;
    let events = store::traces::events(tx, enrollment, id, MAX_EVENTS).await?;
    let rows = Rows { attempt, command, assignment, certificates, events, pushed_at };
    let steps = time_line(&rows, now);
    let attempt = rows.attempt;
    Ok(Some(Trace {
        trace_id: attempt.id,
        policy: policy.map(|p| p.name).unwrap_or_default(),
        revision: attempt.revision,
        enrollment_id: attempt.enrollment_id,
        authority_id: attempt.authority_id,
        purpose: attempt.purpose,
        state: attempt.state,
        why: attempt.why,
        command_uuid: attempt.command_uuid,
        client_identifier: attempt.mode,
        certificate_sha256: attempt.certificate_sha256.as_deref().map(hex::encode),
        previous: previous.map(|id| id.0),
        next: next.map(|id| id.0),
        steps,
    }))
}

/// The rows of an attempt as a time line, oldest first. What is later than `now` is planned.
pub fn time_line(rows: &Rows, now: Timestamp) -> Vec<Step> {
    let attempt = &rows.attempt;
    let mut line = Line { steps: Vec::new(), now };
    let why = if attempt.purpose == "renewal" { "renews the certificate" } else { "installs the profile" };
    line.add(Some(attempt.queued_at), "decided", &format!("The policy {why}"), json!({ "revision": attempt.revision }));
    line.add(rows.pushed_at, "pushed", "A push was sent to wake the device", Json::Null);
    delivery(&mut line, rows);
    line.add(attempt.authorized_at, "authorized", "The certificate authority was told that it may issue", Json::Null);
    line.add(attempt.issued_at, "issued", "The certificate authority said that it issued", Json::Null);
    line.add(attempt.acknowledged_at, "acknowledged", "The device says that the profile is installed", Json::Null);
    for certificate in &rows.certificates {
        life(&mut line, rows, certificate);
    }
    if let Some(word @ ("failed" | "void")) = Some(attempt.state.as_str()) {
        let summary = if word == "failed" { "The attempt has failed" } else { "The attempt counts no longer" };
        line.add(attempt.ended_at, word, summary, json!({ "why": attempt.why }));
    }
    for event in &rows.events {
        let mut data: Json = serde_json::from_str(&event.data).unwrap_or_default();
        if let Some(object) = data.as_object_mut() {
            object.remove("trace");
        }
        line.add(Some(event.at), &event.kind, &event.summary, data);
    }
    line.steps.sort_by_key(|step| step.at);
    line.steps
}

/// What became of the command.
fn delivery(line: &mut Line, rows: &Rows) {
    let attempt = &rows.attempt;
    let expectation: Option<Expectation> =
        attempt.expectation.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let form = expectation.map_or(Json::Null, |e| {
        json!({
            "client_identifier": attempt.mode, "key_type": e.key_type, "key_size": e.key_size,
            "hardware_bound": e.hardware_bound, "attest": e.attested,
            "permission_ends": attempt.expires_at.map(|at| Timestamp(at).to_string()),
        })
    });
    if let Some(command) = &rows.command {
        line.add(
            Some(command.queued_at),
            "queued",
            "The InstallProfile is on the queue",
            json!({ "command_uuid": command.command_uuid }),
        );
    }
    line.add(attempt.delivered_at, "delivered", "The profile was made and handed out", form);
    let Some(command) = &rows.command else { return };
    if command.sent_at != command.first_sent_at {
        line.add(command.sent_at, "delivered_again", "The same profile was handed out again", Json::Null);
    }
    line.add(command.not_now_at, "not_now", "The device said NotNow", json!({ "times": command.not_now_times }));
    let (summary, data) = match command.state.as_str() {
        "error" => {
            let chain: Json =
                command.error_chain.as_deref().and_then(|c| serde_json::from_str(c).ok()).unwrap_or_default();
            ("The device answered with an error", json!({ "error_chain": chain }))
        }
        "command_format_error" => ("The device did not understand the command", Json::Null),
        "cancelled" => ("The command was taken back", json!({ "why": command.why })),
        "expired" => ("The command waited too long", Json::Null),
        "stalled" => ("The device took the command several times without an answer", json!({ "why": command.why })),
        "refused" => ("The profile was not made: the decision had changed", json!({ "why": command.why })),
        _ => return,
    };
    line.add(command.finished_at, &command.state, summary, data);
}

/// The life of a certificate.
fn life(line: &mut Line, rows: &Rows, certificate: &AcmeCertificate) {
    let sha256 = hex::encode(&certificate.sha256);
    let data = json!({
        "certificate_sha256": sha256, "serial_number": certificate.serial_number, "issuer": certificate.issuer,
        "subject": certificate.subject, "key_type": certificate.key_type,
        "not_before": Timestamp(certificate.not_before).to_string(), "not_after": Timestamp(certificate.not_after).to_string(),
    });
    line.add(certificate.verified_at, "verified", "The device's CertificateList shows the certificate", data);
    line.add(
        certificate.replaced_at,
        "replaced",
        "A newer certificate was shown",
        json!({ "certificate_sha256": sha256 }),
    );
    let in_use = rows.assignment.as_ref().filter(|a| a.certificate_sha256.as_ref() == Some(&certificate.sha256));
    line.add(in_use.and_then(|a| a.renew_at), "renewal_due", "The certificate is to be renewed", Json::Null);
    line.add(Some(certificate.not_after), "ends", "The certificate ends", json!({ "certificate_sha256": sha256 }));
}

struct Line {
    steps: Vec<Step>,
    now: Timestamp,
}

impl Line {
    fn add(&mut self, at: Option<i64>, what: &str, summary: &str, data: Json) {
        if let Some(at) = at.map(Timestamp) {
            let planned = at > self.now;
            self.steps.push(Step { at, what: what.to_owned(), planned, summary: summary.to_owned(), data });
        }
    }
}

#[cfg(test)]
mod tests;
