//! Writing policies and their scopes: rows only. What follows for each device is the reconcile loop's work ([`crate::walk`]),
//! so that a hundred thousand devices neither make a hundred thousand rows nor sign as many profiles inside a request.

use mdm_core::enrollment::Channel;
use mdm_core::ids::{EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::assignments;
use store::enrollments::{self, Enrollment};
use store::events::NewEvent;
use store::policies::{self, NewRevision};
use store::scopes;
use store::{IdSet, Tx, Wake};

use crate::acme::{AcmePolicy, FieldError, InvalidPolicy};
use crate::advance::{Presence, advance_enrollment};
use crate::error::{Error, Result, corrupt};
use crate::scope::Scope;
use crate::{Context, label_rules, ring, target, walk};

/// What a change of scope sets in motion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ScopeChange {
    /// Enrollments in the scope now.
    pub targets: u64,
    /// Those of them that do not have the policy yet: it comes to them.
    pub assigned: u64,
    /// Enrollments that have the policy and are in the scope no longer: the profile is taken off them.
    pub leaving: u64,
}

/// The most bytes of a policy as JSON: every device gets all of it in a profile of its own.
const LARGEST: usize = 256 * 1024;

/// From here on nobody else writes this policy, or the authority that it names, until the transaction ends: what is read afterwards
/// is what will be written over. The authority is always the first, so that two writers never wait for each other.
pub async fn lock(tx: &mut Tx, policy: &AcmePolicy) -> Result<()> {
    if let Some(authority) = &policy.document().certificate_authority {
        store::authorities::lock(tx, authority).await?;
    }
    policies::lock_name(tx, policy.name().as_str()).await?;
    Ok(())
}

/// Makes a policy. Nobody has it before [`set_scope`].
pub async fn create(tx: &mut Tx, ctx: &Context, policy: &AcmePolicy, actor: &str, now: Timestamp) -> Result<PolicyId> {
    lock(tx, policy).await?;
    refuse_taken(tx, policy, None).await?;
    crate::authority::check(tx, policy).await?;
    crate::lint::check(tx, ctx, policy).await?;
    let id = PolicyId(ctx.commands.random.uuid_v7(now));
    let body = body(policy)?;
    match policies::insert(tx, id, &new_revision(ctx, policy, &body, actor), now).await {
        // Another writer was first, and is through by now.
        Err(store::Error::Duplicate(_)) => return Err(Error::NameTaken(policy.name().to_string())),
        written => written?,
    }
    record(tx, "policy.created", "ACME policy created", policy.name().as_str(), id, actor, now).await?;
    Ok(id)
}

/// Writes a new revision; every device with the policy is decided anew, step by step where it has a plan. A body that is the same
/// changes nothing; what was given up is tried again.
pub async fn revise(
    tx: &mut Tx,
    ctx: &Context,
    id: PolicyId,
    policy: &AcmePolicy,
    actor: &str,
    now: Timestamp,
) -> Result<i64> {
    lock(tx, policy).await?;
    policies::lock(tx, id).await?;
    let old = live(tx, id).await?;
    refuse_taken(tx, policy, Some(id)).await?;
    crate::authority::check(tx, policy).await?;
    crate::lint::check(tx, ctx, policy).await?;
    let body = body(policy)?;
    if old.body == body {
        // Written again by who has mended the cause: what was given up is tried again.
        if assignments::retry_given_up(tx, id, now).await? > 0 {
            tx.wake(Wake::Reconcile);
        }
        return Ok(old.revision);
    }
    let new = new_revision(ctx, policy, &body, actor);
    let revision = policies::revise(tx, id, &new, now).await?.ok_or(Error::NoPolicy(id))?;
    match &policy.document().rollout {
        Some(plan) => ring::begin(tx, id, plan, revision, Some(old.revision), actor, now).await?,
        None => drop(store::rollouts::supersede(tx, id, revision, now).await?),
    }
    scopes::begin_walk(tx, id, now).await?;
    tx.wake(Wake::Reconcile);
    record(tx, "policy.revised", "ACME policy revised", policy.name().as_str(), id, actor, now).await?;
    Ok(revision)
}

/// Deletes a policy; its profile is taken off every device.
pub async fn delete(tx: &mut Tx, id: PolicyId, actor: &str, now: Timestamp) -> Result<()> {
    policies::lock(tx, id).await?;
    let old = live(tx, id).await?;
    policies::delete(tx, id, now).await?;
    assignments::due_policy(tx, id, now).await?;
    tx.wake(Wake::Reconcile);
    record(tx, "policy.deleted", "ACME policy deleted", &old.name, id, actor, now).await
}

/// Replaces the scope of a policy: writes its lines, and says that the reconcile loop is to follow them.
pub async fn set_scope(tx: &mut Tx, id: PolicyId, scope: &Scope, actor: &str, now: Timestamp) -> Result<ScopeChange> {
    policies::lock(tx, id).await?;
    let row = live(tx, id).await?;
    let policy = AcmePolicy::from_json(&row.body).map_err(|_| corrupt("acme_policy_revision.body"))?;
    scope.refuse_wrong(tx).await?;
    scopes::set(tx, id, &scope.lines()).await?;
    if let (Some(plan), false) = (&policy.document().rollout, scope.is_empty()) {
        ring::begin(tx, id, plan, row.revision, None, actor, now).await?;
    }
    scopes::begin_walk(tx, id, now).await?;
    tx.wake(Wake::Reconcile);
    record(tx, "policy.scope", "Scope of the ACME policy changed", &row.name, id, actor, now).await?;
    let channel = policy.document().channel;
    let channels: Vec<_> = [Channel::Device, Channel::User].into_iter().filter(|c| channel.includes(*c)).collect();
    let counts = scopes::counts(tx, id, &channels).await?;
    let figure = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(ScopeChange {
        targets: figure(counts.targets),
        assigned: figure(counts.targets - counts.there),
        leaving: figure(counts.assignments - counts.there),
    })
}

/// The scope of a policy.
pub async fn scope(tx: &mut Tx, id: PolicyId) -> Result<Scope> {
    Scope::load(tx, id).await
}

/// A device or a user has enrolled (the first `TokenUpdate`): what was known of a former enrollment is forgotten, facts
/// are those of `Authenticate`, labels follow from them, and the policies whose scope holds it are decided for.
pub async fn enrolled(tx: &mut Tx, ctx: &Context, enrollment: &Enrollment, now: Timestamp) -> Result<()> {
    forget(tx, enrollment.id, now).await?;
    let facts = target::from_authenticate(enrollment);
    target::save(tx, enrollment, &facts, now).await?;
    label_rules::settle(tx, enrollment, &facts, now).await?;
    let there = scopes::enrolled_of(tx, &IdSet::new(&[enrollment.id])).await?;
    walk::assign(tx, ctx, &there, now).await?;
    advance_enrollment(tx, ctx, enrollment, Presence::Away, now).await
}

/// An enrollment is over, or begins anew: with the enrollment profile, every profile that it brought is gone.
pub async fn unenrolled(tx: &mut Tx, enrollment: EnrollmentId, now: Timestamp) -> Result<()> {
    for user in enrollments::users_of(tx, enrollment).await? {
        forget(tx, user.id, now).await?;
    }
    forget(tx, enrollment, now).await
}

async fn forget(tx: &mut Tx, enrollment: EnrollmentId, now: Timestamp) -> Result<()> {
    assignments::delete_of_enrollment(tx, enrollment).await?;
    store::attempts::void_of_enrollment(tx, enrollment, "the enrollment is over", now).await?;
    store::certificates::forsake(tx, enrollment, None).await?;
    store::facts::delete(tx, enrollment).await?;
    Ok(())
}

/// Labels were put on or taken off these enrollments: policies come and go with them, and with them the step of a rollout that
/// admits them.
pub async fn labels_changed(tx: &mut Tx, ctx: &Context, changed: &[EnrollmentId], now: Timestamp) -> Result<()> {
    let there = scopes::enrolled_of(tx, &IdSet::new(changed)).await?;
    walk::assign(tx, ctx, &there, now).await?;
    let ids: Vec<_> = there.iter().map(|e| EnrollmentId(e.id)).collect();
    scopes::due(tx, &IdSet::new(&ids), now).await?;
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
    let body = serde_json::to_string(policy.document()).map_err(|_| corrupt("acme_policy_revision.body"))?;
    if body.len() > LARGEST {
        let expected = "at most 256 KiB as JSON, companions and certificates included".to_owned();
        return Err(Error::Invalid(InvalidPolicy(vec![FieldError { field: "body".to_owned(), expected }])));
    }
    Ok(body)
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
