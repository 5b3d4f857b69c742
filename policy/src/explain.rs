//! What a device would get and why, without doing anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mdm_core::enrollment::Channel;
use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::enrollments::Enrollment;
use store::{IdSet, Tx, enrollments, scopes};

use crate::acme::AcmePolicy;
use crate::decision::{Decision, Form, Note, Outcome, Target, decision};
use crate::error::Result;
use crate::facts::Facts;
use crate::scope::Scope;
use crate::{target, walk};

/// How many enrollments a dry run holds at a time.
const PAGE: usize = 500;
/// How many enrollments a group names.
const EXAMPLES: usize = 5;

/// The decision for one enrollment, from what is known of it now; none where there is no such enrollment.
pub async fn explain(
    tx: &mut Tx,
    policy: &AcmePolicy,
    enrollment: EnrollmentId,
    now: Timestamp,
) -> Result<Option<Decision>> {
    let Some(enrollment) = enrollments::get(tx, enrollment).await? else { return Ok(None) };
    let facts = target::facts_of(tx, &enrollment).await?;
    let authority = crate::authority::of(tx, policy).await?;
    Ok(Some(decide(policy, &authority, &enrollment, &facts, now)))
}

fn decide(
    policy: &AcmePolicy,
    authority: &ca::Authority,
    enrollment: &Enrollment,
    facts: &Facts,
    now: Timestamp,
) -> Decision {
    // {random} is made anew for each installation; its value is nobody's business.
    let values = target::values(enrollment, facts, "random");
    let target = Target { kind: enrollment.kind, channel: enrollment.channel, facts, values: &values, now };
    decision(policy, authority, &target).0
}

/// Enrollments that would get the same, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DryRunCount {
    /// What is decided.
    pub outcome: Outcome,
    /// The code of the reason, where it is `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule that the refusal rests on, where it is `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Note>,
    /// Which value or key, of the first of them, where it is `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The form of the payload, where it is `open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// Why the form is weaker than asked, and what else an operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// How many.
    pub count: u64,
    /// Up to five of them.
    #[schema(value_type = Vec<uuid::Uuid>)]
    pub examples: Vec<EnrollmentId>,
}

/// What a policy would do to a scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DryRun {
    /// Enrollments in the scope.
    pub total: u64,
    /// Those that would get a profile.
    pub open: u64,
    /// Those that would not.
    pub closed: u64,
    /// Those that must be asked first.
    pub need_facts: u64,
    /// By outcome, reason, form and notes; the largest group first.
    pub counts: Vec<DryRunCount>,
}

/// Decides for everybody in a scope and counts by reason; nothing is written, and no more than a page of enrollments is in memory.
pub async fn dry_run(tx: &mut Tx, policy: &AcmePolicy, scope: &Scope, now: Timestamp) -> Result<DryRun> {
    let authority = crate::authority::of(tx, policy).await?;
    let lines = scope.lines();
    let mut groups: BTreeMap<String, DryRunCount> = BTreeMap::new();
    let mut run = DryRun::default();
    let mut after = None;
    loop {
        let page = scopes::enrolled(tx, after, walk::page_size(PAGE)).await?;
        let wanted: Vec<_> = page
            .iter()
            .filter(|e| Channel::from_text(&e.channel).is_some_and(|c| policy.document().channel.includes(c)))
            .map(|e| EnrollmentId(e.id))
            .collect();
        let held = scopes::held_by(tx, &IdSet::new(&wanted), &lines).await?;
        for (enrollment, facts) in loaded(tx, &held).await? {
            count(&mut run, &mut groups, enrollment.id, decide(policy, &authority, &enrollment, &facts, now));
        }
        after = walk::end_of(&page, PAGE);
        if after.is_none() {
            break;
        }
    }
    run.counts = groups.into_values().collect();
    run.counts.sort_by_key(|c| std::cmp::Reverse(c.count));
    Ok(run)
}

/// These enrollments with what is believed of their devices, as [`target::facts_of`] gives it for one.
async fn loaded(tx: &mut Tx, ids: &[EnrollmentId]) -> Result<Vec<(Enrollment, Facts)>> {
    let asked = enrollments::many(tx, &IdSet::new(ids)).await?;
    let parents: BTreeSet<_> = asked.iter().filter_map(|e| e.parent).collect();
    let parents = enrollments::many(tx, &IdSet::new(&parents.into_iter().collect::<Vec<_>>())).await?;
    let everybody: Vec<_> = asked.iter().chain(&parents).map(|e| e.id).collect();
    let documents = store::facts::of_many(tx, &IdSet::new(&everybody)).await?;
    let bodies: HashMap<_, _> = documents.into_iter().map(|d| (EnrollmentId(d.enrollment_id), d.body)).collect();
    let parents: HashMap<_, _> = parents.into_iter().map(|e| (e.id, e)).collect();
    let stored = |e: &Enrollment| target::read(bodies.get(&e.id).map(String::as_str), e);
    let believed = |e: Enrollment| {
        let own = stored(&e);
        let facts = match e.parent.and_then(|id| parents.get(&id)) {
            Some(device) => target::of_user(stored(device), own),
            None => own,
        };
        (e, facts)
    };
    Ok(asked.into_iter().map(believed).collect())
}

fn count(run: &mut DryRun, groups: &mut BTreeMap<String, DryRunCount>, id: EnrollmentId, decision: Decision) {
    run.total += 1;
    match decision.outcome {
        Outcome::Open => run.open += 1,
        Outcome::Closed => run.closed += 1,
        Outcome::NeedFacts => run.need_facts += 1,
    }
    let reason = decision.reason.as_ref().map(|r| r.code.as_str().to_owned());
    let notes: Vec<_> = decision.notes.iter().map(|n| n.code.as_str()).collect();
    let key = format!("{:?} {reason:?} {:?} {notes:?}", decision.outcome, decision.form);
    let group = groups.entry(key).or_insert(DryRunCount {
        outcome: decision.outcome,
        reason,
        rule: decision.reason,
        detail: decision.detail,
        form: decision.form,
        notes: decision.notes,
        count: 0,
        examples: Vec::new(),
    });
    group.count += 1;
    if group.examples.len() < EXAMPLES {
        group.examples.push(id);
    }
}
