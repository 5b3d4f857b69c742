//! What a device would get and why, without doing anything.

use std::collections::BTreeMap;

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::{Tx, enrollments};

use crate::acme::AcmePolicy;
use crate::decision::{Decision, Form, Outcome, Target, decision};
use crate::error::Result;
use crate::scope::{ScopeItem, targets};
use crate::target;

/// The decision for one enrollment, from what is known of it now; none where there is no such enrollment.
pub async fn explain(
    tx: &mut Tx,
    policy: &AcmePolicy,
    enrollment: EnrollmentId,
    now: Timestamp,
) -> Result<Option<Decision>> {
    let Some(enrollment) = enrollments::get(tx, enrollment).await? else { return Ok(None) };
    let facts = target::facts_of(tx, &enrollment).await?;
    // {random} is made anew for each installation; its value is nobody's business.
    let values = target::values(&enrollment, &facts, "random");
    let authority = crate::authority::of(tx, policy).await?;
    let target = Target { kind: enrollment.kind, channel: enrollment.channel, facts: &facts, values: &values, now };
    Ok(Some(decision(policy, &authority, &target).0))
}

/// Enrollments that would get the same, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DryRunCount {
    /// What is decided.
    pub outcome: Outcome,
    /// Why not, where it is `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The form of the payload, where it is `open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// How many.
    pub count: u64,
    /// Up to five of them.
    #[schema(value_type = Vec<uuid::Uuid>)]
    pub examples: Vec<EnrollmentId>,
}

/// What a policy would do to a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DryRun {
    /// Enrollments in the scope.
    pub total: u64,
    /// Those that would get a profile.
    pub open: u64,
    /// Those that would not.
    pub closed: u64,
    /// Those that must be asked first.
    pub need_facts: u64,
    /// By outcome, reason and form; the largest group first.
    pub counts: Vec<DryRunCount>,
}

/// Decides for everybody in a scope and counts by reason; nothing is written.
pub async fn dry_run(tx: &mut Tx, policy: &AcmePolicy, scope: &[ScopeItem], now: Timestamp) -> Result<DryRun> {
    let mut groups: BTreeMap<String, DryRunCount> = BTreeMap::new();
    let mut run = DryRun { total: 0, open: 0, closed: 0, need_facts: 0, counts: Vec::new() };
    for enrollment in targets(tx, scope, policy.document().channel).await? {
        let Some(decision) = explain(tx, policy, enrollment, now).await? else { continue };
        run.total += 1;
        match decision.outcome {
            Outcome::Open => run.open += 1,
            Outcome::Closed => run.closed += 1,
            Outcome::NeedFacts => run.need_facts += 1,
        }
        let reason = decision.reason.map(|r| r.code.as_str().to_owned());
        let key = format!("{:?} {reason:?} {:?}", decision.outcome, decision.form);
        let group = groups.entry(key).or_insert(DryRunCount {
            outcome: decision.outcome,
            reason,
            form: decision.form,
            count: 0,
            examples: Vec::new(),
        });
        group.count += 1;
        if group.examples.len() < 5 {
            group.examples.push(enrollment);
        }
    }
    run.counts = groups.into_values().collect();
    run.counts.sort_by_key(|c| std::cmp::Reverse(c.count));
    Ok(run)
}
