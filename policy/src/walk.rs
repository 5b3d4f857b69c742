//! From scopes and label rules to assignments, a stretch of enrollments at a time, in the reconcile loop.
//!
//! A walk begins where a scope, a policy or a rule changed, and goes over all enrollments in the order of their keys. Where it is
//! stands in the row of the policy or the rule, so that it goes on after a crash and on another server. Who enrolls meanwhile,
//! or whose labels change, is looked at by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use mdm_core::enrollment::Channel;
use mdm_core::ids::{AssignmentId, EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use store::assignments::{self, New};
use store::scopes::{self, Enrolled, Stretch};
use store::{IdSet, Store, Tx, Wake, labels, policies};

use crate::acme::AcmePolicy;
use crate::error::Result;
use crate::scope::Scope;
use crate::{Context, label_rules};

/// How many enrollments one transaction looks at.
pub(crate) const CHUNK: usize = 2_000;

/// How long a walk waits that cannot go on.
const PUT_ASIDE: Duration = Duration::from_mins(10);

/// Walks on: first every label rule, so that scopes meet the labels as they are to be, then every scope; a chunk of enrollments at
/// most. Wakes the reconcile loop again while there is more.
pub(crate) async fn run_once(store: &Store, ctx: &Context, now: Timestamp) -> Result<()> {
    let mut left = CHUNK;
    while left > 0 {
        let looked_at = match store::retry(|| step(store, ctx, now, left)).await {
            Err(e) if e.needs_human() => {
                tracing::error!(error = %e, "a scope or the rule of a label cannot be followed; it is put aside");
                store::retry(|| put_aside(store, now)).await?;
                0
            }
            looked_at => match looked_at? {
                Some(looked_at) => looked_at,
                None => return Ok(()),
            },
        };
        left = left.saturating_sub(looked_at.max(1));
    }
    Ok(())
}

/// The walk whose turn it is waits, so that it holds up no other (RG-19).
async fn put_aside(store: &Store, now: Timestamp) -> Result<()> {
    let (mut tx, later) = (store.begin().await?, now.plus(PUT_ASIDE));
    if let Some(rule) = store::label_rules::next_walk(&mut tx, now).await? {
        store::label_rules::postpone(&mut tx, &rule.label, later).await?;
    } else if let Some(walk) = scopes::next_walk(&mut tx, now).await? {
        scopes::postpone(&mut tx, PolicyId(walk.id), later).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// One transaction: how many enrollments were looked at, or nothing where there is no walk.
async fn step(store: &Store, ctx: &Context, now: Timestamp, limit: usize) -> Result<Option<usize>> {
    let mut tx = store.begin().await?;
    let looked_at = match label_rules::step(&mut tx, ctx, now, limit).await? {
        Some(n) => Some(n),
        None => rescope(&mut tx, ctx, now, limit).await?,
    };
    if looked_at.is_some() {
        tx.wake(Wake::Reconcile);
    }
    tx.commit().await?;
    Ok(looked_at)
}

/// Where a walk stands: the page of enrollments is read from here, and ends there.
pub(crate) fn end_of(page: &[Enrolled], limit: usize) -> Option<EnrollmentId> {
    if page.len() < limit { None } else { page.last().map(|e| EnrollmentId(e.id)) }
}

pub(crate) fn page_size(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn set_of(page: &[Enrolled]) -> IdSet {
    IdSet::new(&page.iter().map(|e| EnrollmentId(e.id)).collect::<Vec<_>>())
}

/// The scope that has waited longest: makes the assignments that are missing, says which step admits them, and makes those due that have
/// something to do.
async fn rescope(tx: &mut Tx, ctx: &Context, now: Timestamp, limit: usize) -> Result<Option<usize>> {
    let Some(walk) = scopes::next_walk(tx, now).await? else { return Ok(None) };
    let id = PolicyId(walk.id);
    let row = policies::get(tx, id).await?;
    let Some(policy) = row.filter(|p| p.deleted_at.is_none()).and_then(|row| parsed(&row)) else {
        // Nobody is to have it: what it left behind was made due when it was deleted.
        scopes::walked(tx, id, None).await?;
        return Ok(Some(0));
    };
    let after = walk.rescope_after.map(EnrollmentId);
    let page = scopes::enrolled(tx, after, page_size(limit)).await?;
    let to = end_of(&page, limit);
    let lines = Scope::load(tx, id).await?.lines();
    let held: HashSet<_> = scopes::held_by(tx, &set_of(&page), &lines).await?.into_iter().collect();
    let wanted: Vec<_> =
        page.iter().filter(|e| held.contains(&EnrollmentId(e.id)) && is_for(&policy, e)).cloned().collect();
    let rings = rings(tx, id, &policy, &wanted).await?;
    insert(tx, ctx, id, &wanted, &rings, now).await?;
    sort(tx, id, &rings, now).await?;
    scopes::sweep(tx, &Stretch { policy: id, after, to }, &set_of(&wanted), now).await?;
    scopes::walked(tx, id, to).await?;
    Ok(Some(page.len()))
}

/// The policy that a row holds. One that cannot be read is our fault, and holds nobody up.
fn parsed(row: &policies::Policy) -> Option<AcmePolicy> {
    match AcmePolicy::from_json(&row.body) {
        Ok(policy) => Some(policy),
        Err(e) => {
            tracing::error!(policy.name = %row.name, error = %e, "a stored policy cannot be read; its scope is passed over");
            None
        }
    }
}

fn is_for(policy: &AcmePolicy, enrollment: &Enrolled) -> bool {
    Channel::from_text(&enrollment.channel).is_some_and(|channel| policy.document().channel.includes(channel))
}

/// Which step of the policy's plan admits each of these enrollments; 0 where it has no plan.
async fn rings(
    tx: &mut Tx,
    id: PolicyId,
    policy: &AcmePolicy,
    enrollments: &[Enrolled],
) -> Result<BTreeMap<EnrollmentId, i64>> {
    let Some(plan) = &policy.document().rollout else { return Ok(BTreeMap::new()) };
    let device = |e: &Enrolled| EnrollmentId(e.parent_id.unwrap_or(e.id));
    let mut labels_of: HashMap<EnrollmentId, Vec<String>> = HashMap::new();
    if plan.steps.iter().any(|step| step.label.is_some()) {
        let devices: BTreeSet<_> = enrollments.iter().map(device).collect();
        for row in labels::of_many(tx, &IdSet::new(&devices.into_iter().collect::<Vec<_>>())).await? {
            labels_of.entry(EnrollmentId(row.enrollment_id)).or_default().push(row.label);
        }
    }
    let none = Vec::new();
    let ring = |e: &Enrolled| plan.ring_of(id, device(e), labels_of.get(&device(e)).unwrap_or(&none));
    Ok(enrollments.iter().map(|e| (EnrollmentId(e.id), ring(e))).collect())
}

async fn insert(
    tx: &mut Tx,
    ctx: &Context,
    policy: PolicyId,
    wanted: &[Enrolled],
    rings: &BTreeMap<EnrollmentId, i64>,
    now: Timestamp,
) -> Result<()> {
    let new = |e: &Enrolled| {
        let enrollment = EnrollmentId(e.id);
        let id = AssignmentId(ctx.commands.random.uuid_v7(now));
        New { id, policy, enrollment, ring: rings.get(&enrollment).copied().unwrap_or(0) }
    };
    let new: Vec<_> = wanted.iter().map(new).collect();
    if !new.is_empty() {
        assignments::insert_many(tx, &new, now).await?;
    }
    Ok(())
}

/// Writes the rings of the assignments that were there before.
async fn sort(tx: &mut Tx, policy: PolicyId, rings: &BTreeMap<EnrollmentId, i64>, now: Timestamp) -> Result<()> {
    let mut by_ring: BTreeMap<i64, Vec<EnrollmentId>> = BTreeMap::new();
    for (enrollment, ring) in rings {
        by_ring.entry(*ring).or_default().push(*enrollment);
    }
    for (ring, enrollments) in by_ring {
        scopes::ring(tx, policy, &IdSet::new(&enrollments), ring, now).await?;
    }
    Ok(())
}

/// Makes the assignments that these enrollments lack, by every policy, and says which step admits each.
pub(crate) async fn assign(tx: &mut Tx, ctx: &Context, enrollments: &[Enrolled], now: Timestamp) -> Result<()> {
    let mut by_policy: BTreeMap<PolicyId, HashSet<uuid::Uuid>> = BTreeMap::new();
    for pair in scopes::matching_many(tx, &set_of(enrollments)).await? {
        by_policy.entry(PolicyId(pair.policy_id)).or_default().insert(pair.enrollment_id);
    }
    for (id, held) in by_policy {
        let Some(policy) = policies::get(tx, id).await?.and_then(|row| parsed(&row)) else { continue };
        let wanted: Vec<_> =
            enrollments.iter().filter(|e| held.contains(&e.id) && is_for(&policy, e)).cloned().collect();
        let rings = rings(tx, id, &policy, &wanted).await?;
        insert(tx, ctx, id, &wanted, &rings, now).await?;
        sort(tx, id, &rings, now).await?;
    }
    Ok(())
}
