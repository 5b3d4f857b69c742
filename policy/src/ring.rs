//! The steps by which a revision reaches its devices, and which step admits a device.
//!
//! Pure, but for [`begin`]. What moves a rollout on is the crate `rollout`; what a device should have while one is under way is
//! [`effective`], which the decision asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use mdm_core::ids::{EnrollmentId, Fingerprint, Label, PolicyId};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::Tx;
use store::events::NewEvent;
use store::rollouts::{self, Rollout, State};

use crate::acme::FieldError;
use crate::error::{Result, corrupt};

/// The most steps of a plan.
pub const MAX_STEPS: usize = 20;
/// The longest wait of a step: 90 days.
pub const MAX_WAIT_MINUTES: u32 = 90 * 24 * 60;
/// The ring of an assignment of which it is not known yet which step admits it: none does.
pub const UNSORTED: i64 = i64::MAX;

/// A plan: steps in order, and how many failures are borne.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The steps, in order; the last one is `percent` 100.
    pub steps: Vec<Step>,
    /// How many failures are borne before the rollout pauses by itself.
    #[serde(default)]
    pub failure_budget: FailureBudget,
    /// The share of the admitted devices, those left out that are refused, on which the certificate must be verified before the
    /// next step begins, in percent: 0 to 100.
    #[serde(default = "default_verified_percent")]
    pub verified_percent: u8,
}

/// One step: whom it admits, and how long is waited after it. Either `percent` or `label`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// This share of all devices, those of the steps before by percent included: 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// The devices with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub label: Option<Label>,
    /// Minutes from the beginning of this step to the next one at the earliest, or to the end of the rollout.
    #[serde(default = "default_wait_minutes")]
    pub wait_minutes: u32,
}

/// How many failures are borne: that many devices, or that share of the admitted ones, whichever is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureBudget {
    /// Devices.
    #[serde(default)]
    pub devices: u32,
    /// Percent of the admitted devices: 0 to 100.
    #[serde(default = "default_failure_percent")]
    pub percent: u8,
}

impl Default for FailureBudget {
    fn default() -> Self {
        Self { devices: 0, percent: default_failure_percent() }
    }
}

impl FailureBudget {
    /// How many failures are borne among that many admitted devices.
    pub fn of(self, admitted: i64) -> i64 {
        (admitted.max(0).saturating_mul(i64::from(self.percent)) / 100).max(i64::from(self.devices))
    }
}

fn default_wait_minutes() -> u32 {
    24 * 60
}

fn default_failure_percent() -> u8 {
    2
}

fn default_verified_percent() -> u8 {
    50
}

impl Step {
    /// How long is waited after it.
    pub fn wait(&self) -> Duration {
        Duration::from_secs(u64::from(self.wait_minutes) * 60)
    }
}

impl Plan {
    /// Reads a plan from its row.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|_| corrupt("rollout.plan"))
    }

    /// Every field that is wrong, by the name that it has inside `rollout`.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut wrong =
            |field: String, expected: &str| errors.push(FieldError { field, expected: expected.to_owned() });
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            wrong("rollout.steps".into(), "1 to 20 steps");
        }
        let mut before = 0;
        let mut labels = BTreeSet::new();
        for (n, step) in self.steps.iter().enumerate() {
            let field = |key: &str| format!("rollout.steps.{n}.{key}");
            match (step.percent, &step.label) {
                (Some(percent), None) if (1..=100).contains(&percent) && percent > before => before = percent,
                (Some(_), None) => wrong(field("percent"), "1 to 100, and more than in the steps before"),
                (None, Some(label)) if !labels.insert(label.as_str()) => {
                    wrong(field("label"), "one that no step before names");
                }
                (None, Some(_)) => {}
                _ => wrong(field("percent"), "given, or label, and not both"),
            }
            if step.wait_minutes > MAX_WAIT_MINUTES {
                wrong(field("wait_minutes"), "0 to 129600 (90 days)");
            }
        }
        if self.steps.last().is_some_and(|last| last.percent != Some(100)) {
            wrong("rollout.steps".into(), "steps of which the last has percent 100, so that every device is reached");
        }
        if self.failure_budget.percent > 100 {
            wrong("rollout.failure_budget.percent".into(), "0 to 100");
        }
        if self.verified_percent > 100 {
            wrong("rollout.verified_percent".into(), "0 to 100");
        }
        errors
    }

    /// The first step that admits a device, from 0; the number of steps where none does. The device's own id is asked for, so
    /// that its users come with it. `labels` are the device's.
    pub fn ring_of<L: AsRef<str>>(&self, policy: PolicyId, device: EnrollmentId, labels: &[L]) -> i64 {
        let place = place(policy, device);
        let admits = |step: &Step| match (step.percent, &step.label) {
            (Some(percent), _) => place < u64::from(percent),
            (None, Some(label)) => labels.iter().any(|l| l.as_ref() == label.as_str()),
            (None, None) => false,
        };
        let ring = self.steps.iter().position(admits).unwrap_or(self.steps.len());
        i64::try_from(ring).unwrap_or(UNSORTED)
    }
}

/// Where a device stands among all, from 0 to 99: the same for all revisions of a policy, another for another policy, so that it
/// is not always the same devices that go first.
fn place(policy: PolicyId, device: EnrollmentId) -> u64 {
    let digest = Fingerprint::of(&[policy.0.as_bytes().as_slice(), device.0.as_bytes()].concat()).0;
    digest.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte)) % 100
}

/// The revision that an enrollment should have: the current one where it is admitted, otherwise the one from before; none where
/// there is none from before, and where the first revision was rolled back: then a profile that was sent is taken off, and
/// the assignment is `held`.
///
/// `rollout` is that of the policy's current revision ([`rollouts::current`]). `assignment_revision` and `under_way_or_done` are
/// the assignment's: whether an `InstallProfile` of that revision has begun (installing, installed, verified, failed). What has
/// begun goes on, also while the rollout is paused and where a label was taken off: a device is never turned back by a step.
pub fn effective(
    rollout: Option<&Rollout>,
    policy_revision: i64,
    ring: i64,
    assignment_revision: i64,
    under_way_or_done: bool,
) -> Option<i64> {
    let Some(rollout) = rollout.filter(|r| r.revision == policy_revision) else { return Some(policy_revision) };
    let begun = under_way_or_done && assignment_revision == rollout.revision;
    match rollout.state {
        State::Done | State::Superseded => Some(policy_revision),
        State::Running if ring <= rollout.step || begun => Some(policy_revision),
        State::Paused if begun => Some(policy_revision),
        State::Running | State::Paused | State::RolledBack => rollout.from_revision,
    }
}

/// Begins the rollout of a revision, where the policy has a plan: called when a revision is written, and when a scope is set.
///
/// `from_revision` is the revision that was current before. Where no device has anything of the policy yet, there is nothing
/// to go back to, and a rollout of this revision that is there already begins again, unless it is paused or rolled back; otherwise
/// one that is there stays as it is.
/// Where the revision before was itself on its way, what was before that counts.
pub async fn begin(
    tx: &mut Tx,
    policy: PolicyId,
    plan: &Plan,
    revision: i64,
    from_revision: Option<i64>,
    actor: &str,
    now: Timestamp,
) -> Result<()> {
    let in_use = rollouts::in_use(tx, policy).await?;
    let before = match from_revision.filter(|from| in_use && *from != revision) {
        None => None,
        Some(from) => rollouts::get(tx, policy, from)
            .await?
            .filter(|r| r.state != State::Done)
            .map_or(Some(from), |r| r.from_revision),
    };
    let plan_json = serde_json::to_string(plan).map_err(|_| corrupt("rollout.plan"))?;
    let new = Rollout {
        policy,
        revision,
        from_revision: before,
        plan: plan_json,
        step: 0,
        state: State::Running,
        why: None,
        forgiven: 0,
        step_at: now,
        due_at: Some(now),
        created_by: actor.to_owned(),
        created_at: now,
        updated_at: now,
    };
    match rollouts::get(tx, policy, revision).await? {
        None => {
            rollouts::insert(tx, &new).await?;
        }
        // What a person has stopped begins again only by a person.
        Some(old) if !in_use && !matches!(old.state, State::Paused | State::RolledBack) => {
            if !rollouts::save(tx, &new, old.state, None, now).await? {
                return Ok(());
            }
        }
        Some(_) => return Ok(()),
    }
    rollouts::supersede(tx, policy, revision, now).await?;
    // Nobody is admitted by what another plan, or none, has said: the walk through the scope writes the rings anew.
    rollouts::unsort(tx, policy, UNSORTED).await?;
    let name = store::policies::get(tx, policy).await?.map(|p| p.name).unwrap_or_default();
    let data =
        serde_json::json!({ "policy": name, "policy_id": policy, "revision": revision, "from_revision": before });
    let summary = format!("The rollout begins (policy {name}, revision {revision})");
    let event = NewEvent {
        at: now,
        kind: "rollout.begun",
        enrollment: None,
        command: None,
        actor,
        summary: &summary,
        data: &data,
    };
    store::events::record(tx, &event).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const POLICY: PolicyId = PolicyId(Uuid::from_u128(7));

    fn plan(json: serde_json::Value) -> Plan {
        serde_json::from_value(json).unwrap()
    }

    fn rollout(state: State, step: i64, from_revision: Option<i64>) -> Rollout {
        Rollout {
            policy: POLICY,
            revision: 5,
            from_revision,
            plan: String::new(),
            step,
            state,
            why: None,
            forgiven: 0,
            step_at: Timestamp(0),
            due_at: None,
            created_by: String::new(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn what_is_left_out_of_a_plan_is_careful() {
        let plan = plan(json!({"steps": [{"percent": 5}, {"percent": 100}]}));
        assert_eq!(plan.check(), []);
        assert_eq!(plan.steps[0].wait(), Duration::from_hours(24));
        assert_eq!((plan.failure_budget.devices, plan.failure_budget.percent, plan.verified_percent), (0, 2, 50));
        let borne: Vec<i64> = [0, 1, 49, 50, 1000].into_iter().map(|n| plan.failure_budget.of(n)).collect();
        assert_eq!(borne, [0, 0, 0, 1, 20]);
        assert_eq!(FailureBudget { devices: 3, percent: 2 }.of(50), 3, "whichever is more");
    }

    #[test]
    fn every_wrong_field_of_a_plan_is_named() {
        let wrong = |steps: serde_json::Value| {
            plan(json!({ "steps": steps })).check().into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        assert_eq!(wrong(json!([{"label": "pilot"}, {"percent": 10}, {"percent": 100}])), Vec::<String>::new());
        for (steps, field) in [
            (json!([]), "rollout.steps"),
            (json!([{"percent": 50}]), "rollout.steps"),
            (json!([{"label": "pilot"}]), "rollout.steps"),
            (json!([{"percent": 0}, {"percent": 100}]), "rollout.steps.0.percent"),
            (json!([{"percent": 20}, {"percent": 20}, {"percent": 100}]), "rollout.steps.1.percent"),
            (json!([{"percent": 101}, {"percent": 100}]), "rollout.steps.0.percent"),
            (json!([{"percent": 5, "label": "pilot"}, {"percent": 100}]), "rollout.steps.0.percent"),
            (json!([{}, {"percent": 100}]), "rollout.steps.0.percent"),
            (json!([{"label": "a"}, {"label": "a"}, {"percent": 100}]), "rollout.steps.1.label"),
            (json!([{"percent": 5, "wait_minutes": 129_601}, {"percent": 100}]), "rollout.steps.0.wait_minutes"),
        ] {
            assert_eq!(wrong(steps.clone()), [field], "{steps}");
        }
        let budget = json!({"steps": [{"percent": 100}], "failure_budget": {"percent": 101}, "verified_percent": 101});
        let fields: Vec<_> = plan(budget).check().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["rollout.failure_budget.percent", "rollout.verified_percent"]);
        assert!(serde_json::from_value::<Plan>(json!({"steps": [{"percent": 100, "wait_hours": 1}]})).is_err());
        assert!(serde_json::from_value::<Plan>(json!({"steps": [{"label": "../x"}, {"percent": 100}]})).is_err());
    }

    #[test]
    fn what_has_begun_goes_on_and_nobody_else_begins_while_it_is_paused() {
        let old = |state| effective(Some(&rollout(state, 1, Some(4))), 5, 2, 4, true);
        assert_eq!(effective(None, 5, 9, 0, false), Some(5), "without a rollout the current one");
        assert_eq!(effective(Some(&rollout(State::Paused, 0, None)), 6, 9, 0, false), Some(6), "of another revision");
        assert_eq!((old(State::Running), old(State::Done)), (Some(4), Some(5)));
        let admitted = |state| effective(Some(&rollout(state, 1, Some(4))), 5, 1, 4, true);
        assert_eq!((admitted(State::Running), admitted(State::Paused)), (Some(5), Some(4)));
        let begun = |state| effective(Some(&rollout(state, 1, Some(4))), 5, 9, 5, true);
        assert_eq!((begun(State::Running), begun(State::Paused)), (Some(5), Some(5)), "a step turns nobody back");
        assert_eq!(begun(State::RolledBack), Some(4), "a rollback does");
        let first = |state, begun| effective(Some(&rollout(state, 0, None)), 5, 1, 5, begun);
        assert_eq!(first(State::Running, false), None);
        assert_eq!(first(State::RolledBack, true), None, "the profile is taken off");
    }

    proptest! {
        #[test]
        fn every_device_has_a_step_and_a_larger_share_never_moves_it_later(
            device: u128, policy: u128, a in 1u8..99, b in 1u8..99, labelled: bool,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let (policy, device) = (PolicyId(Uuid::from_u128(policy)), EnrollmentId(Uuid::from_u128(device)));
            let labels: &[&str] = if labelled { &["x", "pilot"] } else { &["x"] };
            let of = |percent| {
                plan(json!({"steps": [{"label": "pilot"}, {"percent": percent}, {"percent": 100}]})).ring_of(policy, device, labels)
            };
            prop_assert!(of(high) <= of(low) && (0..3).contains(&of(low)));
            prop_assert_eq!(of(low) == 0, labelled);
            prop_assert_eq!(of(low), of(low));
        }

        #[test]
        fn a_device_that_is_not_admitted_never_gets_the_new_revision(
            n in 0usize..5, step in 0i64..5, ring in 0i64..7, revision in 0i64..6, begun: bool, from in prop::option::of(1i64..5),
        ) {
            let state = [State::Running, State::Paused, State::Done, State::RolledBack, State::Superseded][n];
            let r = rollout(state, step, from);
            let got = effective(Some(&r), 5, ring, revision, begun);
            prop_assert!(got == Some(5) || got == from);
            if got == Some(5) {
                let goes_on = begun && revision == 5 && matches!(state, State::Running | State::Paused);
                let open = matches!(state, State::Done | State::Superseded);
                prop_assert!(open || goes_on || (state == State::Running && ring <= step));
            }
        }
    }

    #[test]
    fn the_shares_are_about_what_they_say() {
        let plan = plan(json!({"steps": [{"percent": 10}, {"percent": 50}, {"percent": 100}]}));
        let mut rings = [0; 3];
        for n in 0..10_000 {
            let ring = plan.ring_of::<&str>(POLICY, EnrollmentId(Uuid::from_u128(n)), &[]);
            rings[usize::try_from(ring).unwrap()] += 1;
        }
        for (got, about) in rings.into_iter().zip([1_000, 4_000, 5_000]) {
            assert!((about - 250..about + 250).contains(&got), "{rings:?}");
        }
    }
}
