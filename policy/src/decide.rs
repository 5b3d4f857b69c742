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

/// Failures after which nothing more is tried until the policy or the device changes.
pub const MAX_ATTEMPTS: i64 = 8;

/// The state of an assignment, as text in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing was done yet.
    Assigned,
    /// `DeviceInformation` is on its way.
    AwaitingFacts,
    /// The gate is closed.
    Blocked,
    /// `InstallProfile` is on its way.
    Installing,
    /// The device says that the profile is installed.
    Installed,
    /// It failed; it is tried again, a limited number of times.
    Failed,
    /// `RemoveProfile` is on its way.
    Removing,
}

impl State {
    /// The state as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::AwaitingFacts => "awaiting_facts",
            Self::Blocked => "blocked",
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Failed => "failed",
            Self::Removing => "removing",
        }
    }

    /// Reads the text that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        use State as S;
        [S::Assigned, S::AwaitingFacts, S::Blocked, S::Installing, S::Installed, S::Failed, S::Removing]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
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
    /// The policy's current revision.
    pub revision: i64,
    /// The command that the state waits for is still on the queue.
    pub command_outstanding: bool,
    /// The profile may be on the device.
    pub profile_sent: bool,
    /// The form in which it was sent last.
    pub sent_form: Option<Form>,
    /// The reason of the last refusal.
    pub reason: Option<ReasonCode>,
    /// Failures since the last success.
    pub attempts: i64,
    /// When a failure may be tried again.
    pub retry_at: Option<Timestamp>,
    /// When the device last answered `DeviceInformation`.
    pub asked_at: Option<Timestamp>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something happens.
    Nothing,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Ask the device what it is.
    AskFacts,
    /// Send the profile.
    Install,
    /// Note the refusal.
    Block,
    /// The command ended without an answer: note the failure.
    Lost,
    /// Take the profile off the device.
    Remove,
    /// Forget the assignment: nothing is on the device.
    Drop,
}

/// Decides what to do for one assignment.
pub fn decide(s: &Situation, decision: &Decision, now: Timestamp) -> Action {
    if !s.wanted {
        return match s.state {
            State::Removing if s.command_outstanding => Action::Nothing,
            State::Removing if s.attempts >= MAX_ATTEMPTS => Action::Drop,
            State::Removing => s.retry_at.filter(|at| *at > now).map_or(Action::Remove, Action::Wait),
            _ if s.profile_sent => Action::Remove,
            _ => Action::Drop,
        };
    }
    // What is on its way is waited for: its report decides.
    let same = s.state_revision == s.revision;
    match s.state {
        State::Removing | State::AwaitingFacts if s.command_outstanding => return Action::Nothing,
        State::Installing if s.command_outstanding && same && decision.outcome == Outcome::Open => {
            return Action::Nothing;
        }
        State::Installing if !s.command_outstanding && same => return Action::Lost,
        State::Installed if same && decision.outcome == Outcome::Open && s.sent_form == decision.form => {
            return Action::Nothing;
        }
        State::Failed if same && s.attempts >= MAX_ATTEMPTS && s.sent_form == decision.form => return Action::Nothing,
        State::Failed if same => {
            if let Some(at) = s.retry_at.filter(|at| *at > now) {
                return Action::Wait(at);
            }
        }
        _ => {}
    }
    let fresh = s.asked_at.is_some_and(|at| now.since(at) < FACTS_MAX_AGE);
    match decision.outcome {
        _ if !fresh => Action::AskFacts,
        Outcome::NeedFacts => Action::AskFacts,
        Outcome::Open => Action::Install,
        Outcome::Closed
            if s.state == State::Blocked && same && s.reason == decision.reason.as_ref().map(|r| r.code) =>
        {
            // It stands; looked at again once the facts are old: an update of the OS can open the gate.
            Action::Wait(s.asked_at.unwrap_or(now).plus(FACTS_MAX_AGE))
        }
        Outcome::Closed => Action::Block,
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
mod tests {
    use mdm_core::profile::acme::Attest;
    use proptest::prelude::*;

    use super::*;
    use crate::decision::{DeviceSummary, Note};

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn decision(outcome: Outcome) -> Decision {
        Decision {
            outcome,
            form: (outcome == Outcome::Open).then_some(form()),
            reason: (outcome == Outcome::Closed).then(|| Note::from(ReasonCode::VirtualMachine)),
            demand: None,
            detail: None,
            notes: vec![],
            missing: vec![],
            device: DeviceSummary {
                product_name: None,
                marketing_name: None,
                chip: None,
                attest_support: "unknown".into(),
                basis: "none".into(),
                platform: None,
                os_version: None,
                kind: "device".into(),
                channel: "device".into(),
            },
        }
    }

    fn form() -> Form {
        Form { hardware_bound: true, attest: Attest::True, key_is_extractable: None, allow_all_apps_access: None }
    }

    fn at(state: State) -> Situation {
        Situation {
            wanted: true,
            state,
            state_revision: 2,
            revision: 2,
            command_outstanding: false,
            profile_sent: false,
            sent_form: None,
            reason: None,
            attempts: 0,
            retry_at: None,
            asked_at: Some(NOW),
        }
    }

    #[test]
    fn the_way_of_an_assignment() {
        let (open, closed, need) = (decision(Outcome::Open), decision(Outcome::Closed), decision(Outcome::NeedFacts));
        let next = |s: &Situation, d| decide(s, d, NOW);
        let later = Timestamp(NOW.0 + 60_000);

        assert_eq!(next(&Situation { asked_at: None, ..at(State::Assigned) }, &need), Action::AskFacts);
        assert_eq!(
            next(&Situation { asked_at: None, ..at(State::Assigned) }, &open),
            Action::AskFacts,
            "asked once at least"
        );
        let waiting = Situation { command_outstanding: true, asked_at: None, ..at(State::AwaitingFacts) };
        assert_eq!(next(&waiting, &need), Action::Nothing);
        assert_eq!(next(&at(State::AwaitingFacts), &open), Action::Install);
        assert_eq!(next(&at(State::AwaitingFacts), &closed), Action::Block);
        let blocked = Situation { reason: Some(ReasonCode::VirtualMachine), ..at(State::Blocked) };
        assert_eq!(next(&blocked, &closed), Action::Wait(NOW.plus(FACTS_MAX_AGE)));
        assert_eq!(next(&Situation { reason: None, ..blocked.clone() }, &closed), Action::Block);
        assert_eq!(next(&blocked, &open), Action::Install);
        let installing = Situation { command_outstanding: true, ..at(State::Installing) };
        assert_eq!(next(&installing, &open), Action::Nothing);
        assert_eq!(next(&installing, &closed), Action::Block);
        assert_eq!(next(&Situation { revision: 3, ..installing.clone() }, &open), Action::Install);
        assert_eq!(next(&at(State::Installing), &open), Action::Lost);
        let installed = Situation { sent_form: Some(form()), profile_sent: true, ..at(State::Installed) };
        assert_eq!(next(&installed, &open), Action::Nothing);
        assert_eq!(
            next(&Situation { asked_at: Some(Timestamp(0)), ..installed.clone() }, &open),
            Action::Nothing,
            "no polling"
        );
        assert_eq!(next(&Situation { revision: 3, ..installed.clone() }, &open), Action::Install);
        let weaker = Form { attest: Attest::False, ..form() };
        assert_eq!(
            next(&Situation { sent_form: Some(weaker), ..installed.clone() }, &open),
            Action::Install,
            "stronger now"
        );
        let failed = Situation { attempts: 1, retry_at: Some(later), ..at(State::Failed) };
        assert_eq!(next(&failed, &open), Action::Wait(later));
        assert_eq!(decide(&failed, &open, later), Action::Install);
        assert_eq!(
            next(&Situation { attempts: MAX_ATTEMPTS, sent_form: Some(form()), ..failed.clone() }, &open),
            Action::Nothing
        );
        assert_eq!(next(&Situation { revision: 3, ..failed }, &open), Action::Install, "a new revision starts anew");

        let gone = |s: Situation| next(&Situation { wanted: false, ..s }, &open);
        assert_eq!(gone(at(State::Blocked)), Action::Drop);
        assert_eq!(gone(installed), Action::Remove);
        assert_eq!(gone(Situation { command_outstanding: true, ..at(State::Removing) }), Action::Nothing);
        assert_eq!(gone(Situation { attempts: MAX_ATTEMPTS, ..at(State::Removing) }), Action::Drop);
    }

    #[test]
    fn old_facts_are_asked_for_before_anything_is_sent_or_refused() {
        let old = Situation { asked_at: Some(Timestamp(NOW.0 - 86_400_000)), ..at(State::Assigned) };
        assert_eq!(decide(&old, &decision(Outcome::Open), NOW), Action::AskFacts);
        let blocked = Situation { state: State::Blocked, reason: Some(ReasonCode::VirtualMachine), ..old };
        assert_eq!(decide(&blocked, &decision(Outcome::Closed), NOW), Action::AskFacts);
    }

    #[test]
    fn failures_back_off_and_end() {
        let waits: Vec<u64> = (1..=6).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(waits, [900, 3600, 21_600, 86_400, 86_400, 86_400]);
    }

    #[test]
    fn states_read_back() {
        for text in ["assigned", "awaiting_facts", "blocked", "installing", "installed", "failed", "removing"] {
            assert_eq!(State::from_text(text).map(State::as_str), Some(text));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_sent_on_old_facts_or_past_a_closed_gate(
            wanted: bool, outstanding: bool, sent: bool, n in 0usize..7, outcome in 0usize..3,
            revision in 1i64..4, attempts in 0i64..10, asked in prop::option::of(0i64..2_000_000_000), retry in prop::option::of(0i64..2_000_000_000),
        ) {
            let states = ["assigned", "awaiting_facts", "blocked", "installing", "installed", "failed", "removing"];
            let situation = Situation {
                wanted, command_outstanding: outstanding, profile_sent: sent, revision, attempts,
                asked_at: asked.map(Timestamp), retry_at: retry.map(Timestamp),
                ..at(State::from_text(states[n]).unwrap())
            };
            let outcome = [Outcome::Open, Outcome::Closed, Outcome::NeedFacts][outcome];
            let d = decision(outcome);
            let action = decide(&situation, &d, NOW);
            prop_assert_eq!(action, decide(&situation, &d, NOW));
            if action == Action::Install {
                prop_assert!(wanted && outcome == Outcome::Open);
                prop_assert!(situation.asked_at.is_some_and(|t| NOW.since(t) < FACTS_MAX_AGE));
            }
            if !wanted {
                prop_assert!(!matches!(action, Action::Install | Action::AskFacts | Action::Block | Action::Lost));
            }
        }
    }
}
