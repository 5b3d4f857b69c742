//! What to do about a running rollout: a pure function of its row, its plan and its figures.

use mdm_core::time::Timestamp;
use policy::ring::Plan;
use store::rollouts::Rollout;

use crate::standing::Standing;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nobody has the policy: the step has not begun.
    Idle,
    /// Nothing yet.
    Wait(Waiting),
    /// More have failed than are borne.
    Pause {
        /// In a sentence.
        why: String,
    },
    /// Admit the next step.
    Advance,
    /// The last step is over: everybody is admitted, those to come too.
    Finish,
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For its time.
    Time(Timestamp),
    /// For the scope to be turned into assignments.
    Scope,
    /// For certificates to be verified: so many are, and so many must be.
    Verified {
        /// So many are.
        are: i64,
        /// So many must be.
        must: i64,
    },
}

/// What is known of a rollout.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its row.
    pub rollout: &'a Rollout,
    /// Its plan.
    pub plan: &'a Plan,
    /// How far it has come.
    pub standing: &'a Standing,
    /// The scope of the policy is still being turned into assignments.
    pub rescoping: bool,
    /// The policy says whose signature a certificate must have. Without, none is ever verified, and a device's word is taken.
    pub provable: bool,
}

/// How many failures are borne now: what the budget allows, and those that were forgiven as long as they last.
pub fn borne(rollout: &Rollout, plan: &Plan, standing: &Standing) -> i64 {
    plan.failure_budget.of(standing.admitted()) + rollout.forgiven.min(standing.stages.failing)
}

/// Decides about a running rollout.
pub fn next(known: &Known<'_>, now: Timestamp) -> Next {
    let Known { rollout, plan, standing, rescoping, provable } = *known;
    let stages = &standing.stages;
    let admitted = standing.admitted();
    if stages.failing > borne(rollout, plan, standing) {
        return Next::Pause { why: too_many(plan, standing) };
    }
    if rescoping {
        return Next::Wait(Waiting::Scope);
    }
    if stages.total() == 0 {
        return Next::Idle;
    }
    let at = usize::try_from(rollout.step).unwrap_or(usize::MAX);
    let Some(step) = plan.steps.get(at) else { return Next::Finish };
    let over = rollout.step_at.plus(step.wait());
    if now < over {
        return Next::Wait(Waiting::Time(over));
    }
    let are = stages.verified + if provable { 0 } else { stages.installed };
    let of = admitted - stages.refused;
    let must = (of.saturating_mul(i64::from(plan.verified_percent)) + 99) / 100;
    if are < must {
        return Next::Wait(Waiting::Verified { are, must });
    }
    if at + 1 < plan.steps.len() { Next::Advance } else { Next::Finish }
}

fn too_many(plan: &Plan, standing: &Standing) -> String {
    let admitted = standing.admitted();
    let (failing, borne) = (standing.stages.failing, plan.failure_budget.of(admitted));
    let often = standing.failures.iter().max_by_key(|(_, count)| **count);
    let often = often.map(|(reason, count)| format!(". Most often: {reason} ({count})")).unwrap_or_default();
    format!("{failing} of {admitted} admitted devices failed; at most {borne} may{often}")
}

#[cfg(test)]
mod tests {
    use mdm_core::ids::PolicyId;
    use proptest::prelude::*;
    use store::rollouts::{State, Tally};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn plan() -> Plan {
        serde_json::from_value(serde_json::json!({
            "steps": [{"percent": 10, "wait_minutes": 60}, {"percent": 50, "wait_minutes": 60}, {"percent": 100, "wait_minutes": 0}],
            "failure_budget": {"devices": 1, "percent": 10}, "verified_percent": 50,
        }))
        .unwrap()
    }

    fn rollout(step: i64) -> Rollout {
        Rollout {
            policy: PolicyId(uuid::Uuid::nil()),
            revision: 2,
            from_revision: Some(1),
            plan: String::new(),
            step,
            state: State::Running,
            why: None,
            forgiven: 0,
            step_at: NOW,
            due_at: None,
            created_by: String::new(),
            created_at: NOW,
            updated_at: NOW,
        }
    }

    fn tally(ring: i64, revision: i64, state: &str, failing: bool, count: i64) -> Tally {
        let reason = failing.then(|| "install_failed".to_owned());
        Tally { ring, revision, state: state.to_owned(), reason, silicon: None, failing: i64::from(failing), count }
    }

    fn decide(rollout: &Rollout, tallies: &[Tally], minutes: i64) -> Next {
        let standing = Standing::of(rollout, tallies);
        let known = Known { rollout, plan: &plan(), standing: &standing, rescoping: false, provable: true };
        next(&known, Timestamp(NOW.0 + minutes * 60_000))
    }

    #[test]
    fn a_step_ends_when_its_time_is_over_and_enough_is_verified() {
        let r = rollout(0);
        assert_eq!(decide(&r, &[], 600), Next::Idle, "nobody has the policy");
        let half = [
            tally(0, 2, "verified", false, 5),
            tally(0, 2, "installing", false, 5),
            tally(1, 1, "verified", false, 90),
        ];
        assert_eq!(decide(&r, &half, 59), Next::Wait(Waiting::Time(Timestamp(NOW.0 + 3_600_000))));
        assert_eq!(decide(&r, &half, 60), Next::Advance);
        let few = [tally(0, 2, "verified", false, 4), tally(0, 2, "installed", false, 6)];
        assert_eq!(
            decide(&r, &few, 60),
            Next::Wait(Waiting::Verified { are: 4, must: 5 }),
            "a device's word is no proof"
        );
        let refused = [tally(0, 2, "verified", false, 1), tally(0, 2, "blocked", false, 9)];
        assert_eq!(decide(&r, &refused, 60), Next::Advance, "who is refused is not waited for");
        assert_eq!(decide(&rollout(2), &half, 0), Next::Wait(Waiting::Verified { are: 5, must: 50 }));
        assert_eq!(decide(&rollout(2), &[tally(2, 2, "verified", false, 9)], 0), Next::Finish);
    }

    #[test]
    fn where_nothing_can_be_proved_a_devices_word_is_taken() {
        let (r, tallies) = (rollout(0), [tally(0, 2, "installed", false, 6)]);
        let standing = Standing::of(&r, &tallies);
        let known = Known { rollout: &r, plan: &plan(), standing: &standing, rescoping: false, provable: false };
        assert_eq!(next(&known, Timestamp(NOW.0 + 3_600_000)), Next::Advance);
        assert_eq!(next(&Known { rescoping: true, ..known }, Timestamp(NOW.0 + 3_600_000)), Next::Wait(Waiting::Scope));
    }

    #[test]
    fn more_failures_than_are_borne_pause_at_once_and_say_why() {
        let r = rollout(0);
        let tallies = |failing| [tally(0, 2, "failed", true, failing), tally(0, 2, "verified", false, 20 - failing)];
        assert_eq!(decide(&r, &tallies(2), 60), Next::Advance, "10 percent of 20 are borne");
        let Next::Pause { why } = decide(&r, &tallies(3), 0) else { panic!("not paused") };
        assert_eq!(why, "3 of 20 admitted devices failed; at most 2 may. Most often: install_failed (3)");
        assert_eq!(
            decide(&Rollout { forgiven: 3, ..rollout(0) }, &tallies(5), 60),
            Next::Advance,
            "3 were forgiven, 2 are borne"
        );
        assert!(matches!(decide(&Rollout { forgiven: 3, ..rollout(0) }, &tallies(6), 60), Next::Pause { .. }));
        let elsewhere = [tally(1, 1, "failed", true, 50), tally(0, 2, "verified", false, 20)];
        assert_eq!(decide(&r, &elsewhere, 60), Next::Advance, "failures of another revision are not this one's");
    }

    proptest! {
        #[test]
        fn nothing_goes_on_beyond_the_budget_or_before_its_time(
            step in 0i64..3, failing in 0i64..50, verified in 0i64..50, waiting in 0i64..50, held in 0i64..50,
            forgiven in 0i64..20, minutes in 0i64..200, rescoping: bool, provable: bool,
        ) {
            let r = Rollout { forgiven, ..rollout(step) };
            let tallies = [
                tally(0, 2, "failed", true, failing), tally(0, 2, "verified", false, verified),
                tally(0, 2, "awaiting_facts", false, waiting), tally(9, 1, "verified", false, held),
            ];
            let standing = Standing::of(&r, &tallies);
            prop_assert_eq!(standing.stages.total(), failing + verified + waiting + held);
            let plan = plan();
            let known = Known { rollout: &r, plan: &plan, standing: &standing, rescoping, provable };
            let now = Timestamp(NOW.0 + minutes * 60_000);
            let decided = next(&known, now);
            prop_assert_eq!(&decided, &next(&known, now));
            let too_many = failing > plan.failure_budget.of(failing + verified + waiting) + forgiven;
            prop_assert_eq!(matches!(decided, Next::Pause { .. }), too_many);
            if matches!(decided, Next::Advance | Next::Finish) {
                prop_assert!(!rescoping && (step == 2 || minutes >= 60) && verified * 2 >= failing + verified + waiting);
                prop_assert_eq!(decided == Next::Finish, step == 2);
            }
        }
    }
}
