//! Writing policies and their scopes: rows only. What follows for each device is the reconcile loop's work, so that
//! ten thousand devices do not sign ten thousand profiles inside a request.

use std::collections::BTreeSet;

use mdm_core::enrollment::EnrollmentState;
use mdm_core::ids::{AssignmentId, EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::assignments::{self, New};
use store::enrollments::{self, Enrollment};
use store::events::NewEvent;
use store::policies::{self, NewRevision};
use store::{Tx, Wake};

use crate::acme::AcmePolicy;
use crate::advance::{Presence, advance_or_put_aside};
use crate::error::{Error, Result, corrupt};
use crate::scope::{ScopeItem, targets};
use crate::{Context, target};

/// What a change of scope sets in motion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ScopeChange {
    /// Enrollments in the scope now.
    pub targets: u64,
    /// Enrollments that were not before.
    pub assigned: u64,
    /// Enrollments that are no longer: the profile is taken off them.
    pub leaving: u64,
}

/// Makes a policy. Nobody has it before [`set_scope`].
pub async fn create(tx: &mut Tx, ctx: &Context, policy: &AcmePolicy, actor: &str, now: Timestamp) -> Result<PolicyId> {
    refuse_taken(tx, policy, None).await?;
    let id = PolicyId(ctx.commands.random.uuid_v7(now));
    let body = body(policy)?;
    policies::insert(tx, id, &new_revision(ctx, policy, &body, actor), now).await?;
    record(tx, "policy.created", "ACME policy created", policy.name().as_str(), id, actor, now).await?;
    Ok(id)
}

/// Writes a new revision; every device with the policy is decided anew. A body that is the same changes nothing.
pub async fn revise(
    tx: &mut Tx,
    ctx: &Context,
    id: PolicyId,
    policy: &AcmePolicy,
    actor: &str,
    now: Timestamp,
) -> Result<i64> {
    let old = live(tx, id).await?;
    refuse_taken(tx, policy, Some(id)).await?;
    let body = body(policy)?;
    if old.body == body {
        return Ok(old.revision);
    }
    let new = new_revision(ctx, policy, &body, actor);
    let revision = policies::revise(tx, id, &new, now).await?.ok_or(Error::NoPolicy(id))?;
    assignments::due_policy(tx, id, now).await?;
    rescope(tx, ctx, id, policy, now).await?;
    record(tx, "policy.revised", "ACME policy revised", policy.name().as_str(), id, actor, now).await?;
    Ok(revision)
}

/// Deletes a policy; its profile is taken off every device.
pub async fn delete(tx: &mut Tx, id: PolicyId, actor: &str, now: Timestamp) -> Result<()> {
    let old = live(tx, id).await?;
    policies::delete(tx, id, now).await?;
    assignments::due_policy(tx, id, now).await?;
    tx.wake(Wake::Reconcile);
    record(tx, "policy.deleted", "ACME policy deleted", &old.name, id, actor, now).await
}

/// Replaces the scope of a policy.
pub async fn set_scope(
    tx: &mut Tx,
    ctx: &Context,
    id: PolicyId,
    scope: &[ScopeItem],
    actor: &str,
    now: Timestamp,
) -> Result<ScopeChange> {
    let row = live(tx, id).await?;
    let policy = AcmePolicy::from_json(&row.body).map_err(|_| corrupt("acme_policy_revision.body"))?;
    let lines: Vec<_> = scope.iter().map(ScopeItem::to_row).collect();
    policies::set_scope(tx, id, &lines).await?;
    let change = rescope(tx, ctx, id, &policy, now).await?;
    record(tx, "policy.scope", "Scope of the ACME policy changed", &row.name, id, actor, now).await?;
    Ok(change)
}

/// The scope of a policy.
pub async fn scope(tx: &mut Tx, id: PolicyId) -> Result<Vec<ScopeItem>> {
    policies::scope(tx, id).await?.iter().map(ScopeItem::from_row).collect()
}

/// Makes the rows of those who are new in the scope, and makes those due who are in it no longer.
async fn rescope(tx: &mut Tx, ctx: &Context, id: PolicyId, policy: &AcmePolicy, now: Timestamp) -> Result<ScopeChange> {
    let scope = scope(tx, id).await?;
    let wanted: BTreeSet<_> = targets(tx, &scope, policy.document().channel).await?.into_iter().collect();
    let there: BTreeSet<_> = assignments::enrollments_of(tx, id).await?.into_iter().collect();
    let mut change = ScopeChange { targets: count(wanted.len()), ..ScopeChange::default() };
    for enrollment in wanted.difference(&there) {
        change.assigned += u64::from(insert(tx, ctx, id, *enrollment, now).await?);
    }
    for enrollment in there.difference(&wanted) {
        if let Some(a) = assignments::find(tx, id, *enrollment).await? {
            assignments::due(tx, AssignmentId(a.id), now).await?;
            change.leaving += 1;
        }
    }
    // Some may be back in the scope before the profile was taken off.
    assignments::due_removing(tx, id, now).await?;
    tx.wake(Wake::Reconcile);
    Ok(change)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

async fn insert(
    tx: &mut Tx,
    ctx: &Context,
    policy: PolicyId,
    enrollment: EnrollmentId,
    now: Timestamp,
) -> Result<bool> {
    let random = ctx.commands.random.token();
    let id = AssignmentId(ctx.commands.random.uuid_v7(now));
    Ok(assignments::insert(tx, &New { id, policy, enrollment, random: &random }, now).await?)
}

/// A device or a user has enrolled (the first `TokenUpdate`): what was known of a former enrollment is forgotten, facts
/// are those of `Authenticate`, and the policies whose scope holds it are decided for.
pub async fn enrolled(tx: &mut Tx, ctx: &Context, enrollment: &Enrollment, now: Timestamp) -> Result<()> {
    forget(tx, enrollment.id).await?;
    target::save(tx, enrollment, &target::from_authenticate(enrollment), now).await?;
    let device = enrollment.parent.unwrap_or(enrollment.id);
    for policy in policies::matching(tx, enrollment.id, device).await? {
        insert(tx, ctx, policy, enrollment.id, now).await?;
    }
    for a in assignments::of_enrollment(tx, enrollment.id).await? {
        advance_or_put_aside(tx, ctx, enrollment, a, Presence::Away, now).await?;
    }
    Ok(())
}

/// An enrollment is over, or begins anew: with the enrollment profile, every profile that it brought is gone.
pub async fn unenrolled(tx: &mut Tx, enrollment: EnrollmentId) -> Result<()> {
    for user in enrollments::users_of(tx, enrollment).await? {
        forget(tx, user.id).await?;
    }
    forget(tx, enrollment).await
}

async fn forget(tx: &mut Tx, enrollment: EnrollmentId) -> Result<()> {
    assignments::delete_of_enrollment(tx, enrollment).await?;
    store::facts::delete(tx, enrollment).await?;
    Ok(())
}

/// Labels were put on or taken off these enrollments: policies come and go with them.
pub async fn labels_changed(tx: &mut Tx, ctx: &Context, changed: &[EnrollmentId], now: Timestamp) -> Result<()> {
    for id in changed {
        let Some(device) = enrollments::get(tx, *id).await? else { continue };
        let mut all = enrollments::users_of(tx, *id).await?;
        all.push(device);
        for enrollment in all.iter().filter(|e| matches!(e.state, EnrollmentState::Enrolled { .. })) {
            let device = enrollment.parent.unwrap_or(enrollment.id);
            let wanted = policies::matching(tx, enrollment.id, device).await?;
            for policy in &wanted {
                insert(tx, ctx, *policy, enrollment.id, now).await?;
            }
            for a in assignments::of_enrollment(tx, enrollment.id).await? {
                assignments::due(tx, AssignmentId(a.id), now).await?;
            }
        }
    }
    tx.wake(Wake::Reconcile);
    Ok(())
}

async fn live(tx: &mut Tx, id: PolicyId) -> Result<policies::Policy> {
    policies::get(tx, id).await?.filter(|p| p.deleted_at.is_none()).ok_or(Error::NoPolicy(id))
}

async fn refuse_taken(tx: &mut Tx, policy: &AcmePolicy, own: Option<PolicyId>) -> Result<()> {
    let name = policy.name().as_str();
    match policies::by_name(tx, name).await? {
        Some(other) if Some(other.id()) != own => Err(Error::NameTaken(name.to_owned())),
        _ => Ok(()),
    }
}

fn body(policy: &AcmePolicy) -> Result<String> {
    serde_json::to_string(policy.document()).map_err(|_| corrupt("acme_policy_revision.body"))
}

fn new_revision<'a>(ctx: &Context, policy: &'a AcmePolicy, body: &'a str, actor: &'a str) -> NewRevision<'a> {
    let payload_uuid = ctx.commands.random.uuid_v4();
    NewRevision { name: policy.name().as_str(), body, payload_uuid, created_by: actor }
}

async fn record(
    tx: &mut Tx,
    kind: &str,
    what: &str,
    name: &str,
    id: PolicyId,
    actor: &str,
    now: Timestamp,
) -> Result<()> {
    let summary = format!("{what}: {name}");
    let data = serde_json::json!({ "policy": name, "policy_id": id });
    let event = NewEvent { at: now, kind, enrollment: None, command: None, actor, summary: &summary, data: &data };
    store::events::record(tx, &event).await?;
    Ok(())
}
