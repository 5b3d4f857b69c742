//! What to do about one renewal: a pure function of what is known, so that every order of events can be tried (TH-11).
//!
//! An identity is renewed in the last third of its life, 120 days at most. The first try of each lies somewhere in the first
//! half of that window, by its enrollment's id, so that a fleet that enrolled in one week does not renew in one hour. What goes
//! wrong is tried again a day later, sooner when the end is near: often enough for anybody, and rarely enough for Apple's
//! attestation servers, which limit how often a device may ask.

use std::time::Duration;

use issuer::issuance::window_opens;
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use store::renewals::State;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How long a command waits for its device before it is taken back and asked again.
const LONGEST_WAIT: Duration = Duration::from_hours(7 * 24);
/// The least time that a device is given for anything.
const SHORTEST: Duration = HOUR;
/// How often a device that can't be asked now is looked at.
const LOOK_AGAIN: Duration = Duration::from_hours(6);

/// How the enrollment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Commands flow.
    Enrolled,
    /// `Authenticate` was accepted, and no `TokenUpdate` came yet.
    Entering,
    /// It is over, or is about to be by an operator's word.
    Over,
}

/// Everything that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whose renewal it is: spreads the work.
    pub enrollment: EnrollmentId,
    /// How the enrollment stands.
    pub standing: Standing,
    /// Where the renewal stands.
    pub state: State,
    /// When it is to be looked at.
    pub due_at: Option<Timestamp>,
    /// Failures so far.
    pub attempts: i64,
    /// Whether the identity is still accepted: neither retired nor revoked.
    pub live: bool,
    /// Its end.
    pub deadline: Timestamp,
    /// How long after its end it may still ask for a new one.
    pub grace: Duration,
    /// State of the command, as `command_target` has it; `None` where there is no such command.
    pub command: Option<&'a str>,
    /// The command was given to the device at least once.
    pub delivered: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do: it was renewed, revoked, or its enrollment is over.
    Finish,
    /// Ask the device now, by a command that is taken back after this time.
    Ask {
        /// How long it waits.
        wait: Duration,
        /// Before anything else on the queue.
        urgent: bool,
    },
    /// Nothing now; look again then.
    Wait {
        /// When.
        until: Timestamp,
    },
    /// It went wrong: back to due.
    Again {
        /// What went wrong, a stable word.
        why: &'static str,
        /// When to try again.
        at: Timestamp,
    },
    /// The identity has ended and so has its grace: the device can't be reached any more.
    Lost,
}

/// Decides. The loop calls it when a renewal is due, and whoever learned something new calls it then.
pub fn plan(facts: &Facts<'_>, now: Timestamp) -> Step {
    if facts.state == State::Done || facts.standing == Standing::Over || !facts.live {
        return Step::Finish;
    }
    if now > facts.deadline.plus(facts.grace) {
        return Step::Lost;
    }
    if let Some(at) = facts.due_at.filter(|at| *at > now) {
        return Step::Wait { until: at };
    }
    match facts.state {
        State::Due if facts.standing == Standing::Entering => Step::Wait { until: now.plus(LOOK_AGAIN) },
        State::Due => {
            Step::Ask { wait: patience(facts, now, LONGEST_WAIT), urgent: facts.deadline.since(now) < DAY * 7 }
        }
        State::Queued => match facts.command {
            // The device takes its time: the command's own end will come.
            Some("queued" | "sent" | "not_now") => {
                Step::Wait { until: now.plus(LOOK_AGAIN.min(patience(facts, now, LOOK_AGAIN))) }
            }
            // The report moved it on already; here only where that was lost.
            Some("acknowledged") => Step::Again { why: "no_new_identity", at: next_try(facts, now) },
            // A device that was never there has refused nothing: the next command waits for it soon.
            Some("expired") if !facts.delivered => Step::Again { why: "not_connected", at: now.plus(MINUTE * 10) },
            Some("expired") => Step::Again { why: "no_answer", at: next_try(facts, now) },
            Some("error") => Step::Again { why: "device_error", at: next_try(facts, now) },
            Some("command_format_error") => Step::Again { why: "command_format_error", at: next_try(facts, now) },
            Some("refused") => Step::Again { why: "not_rendered", at: next_try(facts, now) },
            Some("stalled") => Step::Again { why: "stalled", at: next_try(facts, now) },
            Some("cancelled") => Step::Again { why: "cancelled", at: next_try(facts, now) },
            Some(_) | None => Step::Again { why: "command_lost", at: next_try(facts, now) },
        },
        State::Issued => Step::Again { why: "no_new_identity", at: next_try(facts, now) },
        State::Done => Step::Finish,
    }
}

/// When a renewal is looked at after the device has taken the profile: by then its new identity should have been seen.
pub fn identity_expected_by(facts: &Facts<'_>, now: Timestamp) -> Timestamp {
    now.plus(patience(facts, now, DAY))
}

/// When to try again after a failure: a day later, give or take six hours; near the end after a quarter of what is left.
pub fn next_try(facts: &Facts<'_>, now: Timestamp) -> Timestamp {
    let day = DAY.mul_f64(0.75 + 0.5 * fraction(facts.enrollment, facts.attempts));
    now.plus(patience(facts, now, day))
}

/// When a renewal is tried for the first time: in the first half of its window, or soon where that has passed already.
pub fn first_try(enrollment: EnrollmentId, not_before: Timestamp, not_after: Timestamp, now: Timestamp) -> Timestamp {
    let opens = window_opens(not_before, not_after);
    let share = fraction(enrollment, not_after.0);
    let at = opens.plus((not_after.since(opens) / 2).mul_f64(share));
    if at > now {
        return at;
    }
    // A server that was off, or began to renew only now: not all at once either.
    now.plus((not_after.since(now) / 8).min(DAY).mul_f64(share))
}

/// Some time in the next `span`, the same for the same enrollment.
pub fn spread(enrollment: EnrollmentId, span: Duration, now: Timestamp) -> Timestamp {
    now.plus(span.mul_f64(fraction(enrollment, 0)))
}

/// At most `wish`, and at most a quarter of what is left, of the grace once the identity has ended; an hour at least.
fn patience(facts: &Facts<'_>, now: Timestamp, wish: Duration) -> Duration {
    let end = if now < facts.deadline { facts.deadline } else { facts.deadline.plus(facts.grace) };
    wish.min(end.since(now) / 4).max(SHORTEST)
}

/// A number from 0 to 1 that is the same for the same enrollment and salt.
fn fraction(enrollment: EnrollmentId, salt: i64) -> f64 {
    let digest = Fingerprint::of(&[&enrollment.0.as_bytes()[..], &salt.to_be_bytes()].concat()).0;
    let [a, b, c, d, ..] = digest;
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const START: Timestamp = Timestamp(1_795_320_000_000);
    const LIFE: Duration = Duration::from_hours(365 * 24);

    fn facts(state: State, command: Option<&str>) -> Facts<'_> {
        Facts {
            enrollment: EnrollmentId(Uuid::from_u128(7)),
            standing: Standing::Enrolled,
            state,
            due_at: None,
            attempts: 0,
            live: true,
            deadline: START.plus(LIFE),
            grace: Duration::ZERO,
            command,
            delivered: true,
        }
    }

    #[test]
    fn th_11_every_failure_leads_back_to_due() {
        for state in ["error", "command_format_error", "refused", "stalled", "cancelled", "expired", "acknowledged"] {
            let step = plan(&facts(State::Queued, Some(state)), START);
            let Step::Again { at, .. } = step else { panic!("{state}: {step:?}") };
            assert!(at > START && at <= START.plus(DAY * 2), "{state}: {at}");
        }
        assert!(matches!(plan(&facts(State::Queued, None), START), Step::Again { why: "command_lost", .. }));
        assert!(matches!(plan(&facts(State::Issued, None), START), Step::Again { why: "no_new_identity", .. }));
        for waiting in ["queued", "sent", "not_now"] {
            assert!(matches!(plan(&facts(State::Queued, Some(waiting)), START), Step::Wait { .. }));
        }
    }

    #[test]
    fn an_ended_identity_is_asked_within_its_grace_only() {
        let graced = Facts { grace: DAY * 3, ..facts(State::Due, None) };
        let after = START.plus(LIFE).plus(DAY);
        assert!(matches!(plan(&graced, after), Step::Ask { urgent: true, .. }));
        assert_eq!(plan(&graced, after.plus(DAY * 3)), Step::Lost);
        assert_eq!(plan(&facts(State::Due, None), after), Step::Lost);
    }

    #[test]
    fn first_tries_are_spread_over_the_first_half_of_the_window() {
        let (opens, ends) = (window_opens(START, START.plus(LIFE)), START.plus(LIFE));
        let half = opens.plus(ends.since(opens) / 2);
        let mut by_day = std::collections::HashMap::new();
        for n in 0..1000_u128 {
            let at = first_try(EnrollmentId(Uuid::from_u128(n)), START, ends, START);
            assert!(at >= opens && at <= half, "{at}");
            *by_day.entry(at.0 / 86_400_000).or_insert(0) += 1;
        }
        assert!(by_day.values().all(|count| *count < 60), "{by_day:?}");
        assert!(by_day.len() > 50);
        // Overdue ones are spread over a day.
        let late = ends.minus(DAY * 20);
        let at = first_try(EnrollmentId(Uuid::from_u128(1)), START, ends, late);
        assert!(at >= late && at <= late.plus(DAY));
    }

    /// What the world does with a renewal that asks.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Answer(&'static str),
        Silence,
        Away,
        Acknowledge,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            prop::sample::select(vec!["error", "command_format_error", "refused", "stalled", "cancelled", "lost"])
                .prop_map(Fate::Answer),
            Just(Fate::Silence),
            Just(Fate::Away),
            Just(Fate::Acknowledge),
        ]
    }

    proptest! {
        /// Whatever the device does, as long as its identity lives the renewal asks again and again, at most once in 17 hours
        /// while there is time, and it never ends but by the new identity or by the end of the old one.
        #[test]
        fn th_11_no_renewal_is_ever_stuck(fates in prop::collection::vec(fate(), 1..40), id in any::<u128>(), days in 1_u32..400) {
            let life = DAY * days;
            let deadline = START.plus(life);
            let enrollment = EnrollmentId(Uuid::from_u128(id));
            let mut now = first_try(enrollment, START, deadline, START);
            let mut facts = Facts { enrollment, deadline, ..facts(State::Due, None) };
            let mut asked: Vec<Timestamp> = Vec::new();
            let mut fates = fates.into_iter().cycle();
            loop {
                match plan(&facts, now) {
                    Step::Ask { wait, .. } => {
                        prop_assert!(wait >= HOUR && wait <= LONGEST_WAIT);
                        if let Some(before) = asked.last()
                            && deadline.since(now) > DAY * 8
                        {
                            prop_assert!(now.since(*before) >= MINUTE * 10);
                        }
                        asked.push(now);
                        facts.state = State::Queued;
                        facts.due_at = Some(now.plus(wait));
                        match fates.next().unwrap() {
                            Fate::Answer(state) => {
                                facts.command = (state != "lost").then_some(state);
                                facts.due_at = None;
                                facts.delivered = true;
                            }
                            Fate::Silence => (facts.command, facts.delivered) = (Some("expired"), true),
                            Fate::Away => (facts.command, facts.delivered) = (Some("expired"), false),
                            Fate::Acknowledge => {
                                facts.state = State::Issued;
                                facts.due_at = Some(identity_expected_by(&facts, now));
                            }
                        }
                    }
                    Step::Wait { until } => {
                        prop_assert!(until > now);
                        now = until;
                    }
                    Step::Again { at, .. } => {
                        prop_assert!(at > now && at <= now.plus(DAY * 2));
                        facts.state = State::Due;
                        facts.due_at = Some(at);
                        facts.attempts += 1;
                    }
                    Step::Lost => {
                        prop_assert!(now > deadline);
                        break;
                    }
                    Step::Finish => prop_assert!(false, "finished without a new identity"),
                }
            }
            // With a day between tries and a week's patience, an identity of a month is asked for several times.
            prop_assert!(days < 30 || asked.len() >= 3, "{asked:?}");
            prop_assert!(asked.len() < 4000);
        }
    }
}
