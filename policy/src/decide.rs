//! What to do next for one assignment: a pure function of rows, callable twice with the same result.
//!
//! Called when something happens to a device (`react`), and later for everyone (`reconcile`), so that a crash, a lost
//! reply or a hand-edited row heals by itself.

use std::time::Duration;

use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decision::{Decision, Form, Outcome};
use crate::reason::ReasonCode;

/// Facts older than this are asked for again before a profile is sent, and before a refusal stands.
pub const FACTS_MAX_AGE: Duration = Duration::from_hours(24);

/// Failures after which nothing more is tried until the policy or the device changes. A renewal is tried on while the
/// certificate lasts.
pub const MAX_ATTEMPTS: i64 = 8;

/// How often a certificate is looked for on the device before the installation counts as failed.
pub const MAX_PROOFS: i64 = 4;

/// The state of an assignment, as text in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing was done yet.
    Assigned,
    /// The rollout has not come to it, and there is nothing that it had before.
    Held,
    /// `DeviceInformation` is on its way.
    AwaitingFacts,
    /// The gate is closed.
    Blocked,
    /// `InstallProfile` is on its way.
    Installing,
    /// The device says that the profile is installed; its certificate was not seen yet.
    Installed,
    /// Its certificate was seen on the device.
    Verified,
    /// It failed; it is tried again, a limited number of times.
    Failed,
    /// `RemoveProfile` is on its way.
    Removing,
}

impl State {
    /// Every state, in the order of its way.
    pub const ALL: [Self; 9] = [
        Self::Assigned,
        Self::Held,
        Self::AwaitingFacts,
        Self::Blocked,
        Self::Installing,
        Self::Installed,
        Self::Verified,
        Self::Failed,
        Self::Removing,
    ];

    /// The state as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Held => "held",
            Self::AwaitingFacts => "awaiting_facts",
            Self::Blocked => "blocked",
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Verified => "verified",
            Self::Failed => "failed",
            Self::Removing => "removing",
        }
    }

    /// Reads the text that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// A profile is on its way, or on the device: what a rollout has begun it does not take back.
    pub fn is_under_way_or_done(self) -> bool {
        matches!(self, Self::Installing | Self::Installed | Self::Verified | Self::Failed)
    }
}

/// The certificate that was proved last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The revision that it is of.
    pub revision: i64,
    /// The form in which it was asked for.
    pub form: Option<Form>,
    /// When it ends.
    pub not_after: Timestamp,
    /// When it is renewed; none once a profile of another revision or form was handed out: it may be gone.
    pub renew_at: Option<Timestamp>,
}

/// What is stored of an assignment, as far as it decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The policy is live and its scope holds the enrollment.
    pub wanted: bool,
    /// The state.
    pub state: State,
    /// The revision that the state speaks of.
    pub state_revision: i64,
    /// The revision that the enrollment is to have now; none: the rollout holds it back.
    pub revision: Option<i64>,
    /// The command that the state waits for is still on the queue.
    pub command_outstanding: bool,
    /// The profile may be on the device.
    pub profile_sent: bool,
    /// The profile is taken off a device that the policy is no longer for.
    pub removes: bool,
    /// The form in which it was sent last.
    pub sent_form: Option<Form>,
    /// The reason of the last refusal.
    pub reason: Option<ReasonCode>,
    /// Failures since the last success.
    pub attempts: i64,
    /// When a failure may be tried again, or a certificate looked for again.
    pub retry_at: Option<Timestamp>,
    /// When the device last answered `DeviceInformation`.
    pub asked_at: Option<Timestamp>,
    /// The certificate that was proved last.
    pub certificate: Option<Certificate>,
    /// How often the certificate was looked for in vain.
    pub proof_tries: i64,
    /// Something is known of who signs the certificates, so that one can be proved.
    pub provable: bool,
}

/// What an installation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The device has no such certificate, or one of another revision or form.
    Install,
    /// The certificate of this revision comes to its end.
    Renewal,
}

impl Purpose {
    /// The purpose as text in `attempt.purpose`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Renewal => "renewal",
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something happens.
    Nothing,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Note that the rollout holds it back.
    Hold,
    /// Ask the device what it is.
    AskFacts,
    /// Send the profile.
    Install(Purpose),
    /// Ask the device for its certificates.
    AskProof,
    /// The certificate that was proved is as it should be: leave it.
    Keep,
    /// Note the refusal.
    Block,
    /// The command ended without an answer: note the failure.
    Lost,
    /// The certificate was looked for often enough: note the failure.
    Unproved,
    /// Take the profile off the device.
    Remove,
    /// Forget the assignment: nothing is on the device.
    Drop,
}

/// Decides what to do for one assignment.
pub fn decide(s: &Situation, decision: &Decision, now: Timestamp) -> Action {
    if !s.wanted {
        return leave(s, s.removes, Action::Drop, now);
    }
    let Some(revision) = s.revision else {
        return if s.state == State::Held { Action::Nothing } else { leave(s, true, Action::Hold, now) };
    };
    // What is on its way is waited for: its report decides.
    let same = s.state_revision == revision;
    let open = decision.outcome == Outcome::Open;
    let stands = same && open && s.sent_form == decision.form;
    // When the certificate that is on the device, and as it should be, is renewed.
    let of_revision = s.certificate.as_ref().filter(|c| c.revision == revision);
    let renew_at = of_revision.filter(|c| open && c.form == decision.form).and_then(|c| c.renew_at);
    match s.state {
        State::Removing | State::AwaitingFacts if s.command_outstanding => return Action::Nothing,
        State::Installing if s.command_outstanding && same && open => return Action::Nothing,
        State::Installing if !s.command_outstanding && same => return Action::Lost,
        // The gate is for what is sent next: what is there may be proved.
        State::Installed if stands || (same && !open && s.provable) => return prove(s, now),
        State::Verified if stands && renew_at.is_none_or(|at| at > now) => {
            return renew_at.map_or(Action::Nothing, Action::Wait);
        }
        // The gate is for what is sent next: a certificate that is proved stays until then.
        State::Verified if same && !open => {
            if let Some(at) = of_revision.and_then(|c| c.renew_at).filter(|at| *at > now) {
                return Action::Wait(at);
            }
        }
        State::Failed if same => {
            // While a certificate lasts, or once it should have been renewed, trying does not end.
            let goes_on = s.certificate.as_ref().is_some_and(|c| c.renew_at.is_some() || c.not_after > now);
            if s.attempts >= MAX_ATTEMPTS && !goes_on && s.sent_form == decision.form {
                return Action::Nothing;
            }
            if let Some(at) = s.retry_at.filter(|at| *at > now) {
                return Action::Wait(at);
            }
        }
        _ => {}
    }
    let fresh = s.asked_at.is_some_and(|at| now.since(at) < FACTS_MAX_AGE);
    match decision.outcome {
        Outcome::Open if renew_at.is_some_and(|at| at > now) => Action::Keep,
        _ if !fresh => Action::AskFacts,
        Outcome::NeedFacts => Action::AskFacts,
        Outcome::Open if renew_at.is_some() => Action::Install(Purpose::Renewal),
        Outcome::Open => Action::Install(Purpose::Install),
        Outcome::Closed
            if s.state == State::Blocked && same && s.reason == decision.reason.as_ref().map(|r| r.code) =>
        {
            // It stands; looked at again once the facts are old: an update of the OS can open the gate.
            Action::Wait(s.asked_at.unwrap_or(now).plus(FACTS_MAX_AGE))
        }
        Outcome::Closed => Action::Block,
    }
}

/// Nothing of the policy is to be on the device, or nobody looks after it any more: the profile goes, then what comes `after`.
fn leave(s: &Situation, removes: bool, after: Action, now: Timestamp) -> Action {
    match s.state {
        State::Removing if s.command_outstanding => Action::Nothing,
        State::Removing if s.attempts >= MAX_ATTEMPTS => after,
        State::Removing => s.retry_at.filter(|at| *at > now).map_or(Action::Remove, Action::Wait),
        _ if s.profile_sent && removes => Action::Remove,
        _ => after,
    }
}

/// The device said that the profile is installed; only a `CertificateList` shows it.
fn prove(s: &Situation, now: Timestamp) -> Action {
    let may = s.retry_at.filter(|at| *at > now);
    match s.proof_tries {
        _ if s.command_outstanding => Action::Nothing,
        0 => Action::AskProof,
        _ if !s.provable => Action::Nothing,
        _ if may.is_some() => may.map_or(Action::Nothing, Action::Wait),
        // That nobody knows who signs is no fault of the device: it is asked again, and never installed again for it.
        MAX_PROOFS.. if s.reason != Some(ReasonCode::IssuersUnknown) => Action::Unproved,
        _ => Action::AskProof,
    }
}

/// How long to wait after this many failures: a quarter of an hour, an hour, six hours, then a day.
pub fn back_off(attempts: i64) -> Duration {
    Duration::from_secs(match attempts {
        ..=1 => 15 * 60,
        2 => 3600,
        3 => 6 * 3600,
        _ => 24 * 3600,
    })
}

#[cfg(test)]
mod tests;
