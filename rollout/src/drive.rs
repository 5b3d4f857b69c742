//! The loop: every running rollout is looked at every few seconds, each in a transaction of its own.

use std::time::Duration;

use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use policy::AcmePolicy;
use policy::ring::Plan;
use store::rollouts::{self, Rollout, State};
use store::{Store, Tx, Wake};
use uuid::Uuid;

use crate::plan::{Known, Next, next};
use crate::standing::Standing;
use crate::{Result, event};

/// How long a rollout that was taken has before others may take it.
const LEASE: Duration = Duration::from_secs(30);
/// How often a running rollout is looked at: failures must be seen soon.
const LOOK: Duration = Duration::from_secs(5);
/// How often where counting takes longer.
const LOOK_LARGE: Duration = Duration::from_secs(30);
/// From how many devices on it does.
const LARGE: i64 = 20_000;
/// How many rollouts are taken at a time.
const BATCH: i64 = 50;
/// Who does what nobody asked for.
const SERVER: &str = "server";

/// Looks at the rollouts that are due and moves each on. One that cannot be is logged and looked at again later, the others go
/// on (RG-19). Tells how many were taken.
pub async fn run_once(store: &Store, random: &Random, now: Timestamp) -> Result<usize> {
    let lease = random.uuid_v4();
    let batch = store::retry(|| take(store, lease, now)).await?;
    for rollout in &batch {
        if let Err(e) = store::retry(|| one(store, rollout, lease, now)).await {
            // Its lease ends, and it is taken again.
            tracing::error!(error = %e, policy = %rollout.policy, "a rollout could not be moved on; tried again");
        }
    }
    Ok(batch.len())
}

async fn take(store: &Store, lease: Uuid, now: Timestamp) -> Result<Vec<Rollout>> {
    let mut tx = store.begin().await?;
    let batch = rollouts::lease(&mut tx, now, now.plus(LEASE), lease, BATCH).await?;
    tx.commit().await?;
    Ok(batch)
}

async fn one(store: &Store, leased: &Rollout, lease: Uuid, now: Timestamp) -> Result<()> {
    let mut tx = store.begin().await?;
    if look(&mut tx, leased.clone(), lease, now).await? {
        tx.commit().await?;
    } else {
        // An operator, or another server, was there in the meantime.
        tx.rollback().await?;
    }
    Ok(())
}

/// Decides about one rollout and writes what follows; false where it is in other hands by now.
async fn look(tx: &mut Tx, mut r: Rollout, lease: Uuid, now: Timestamp) -> Result<bool> {
    let live = store::policies::get(tx, r.policy).await?.filter(|p| p.deleted_at.is_none());
    let Some(policy) = live.filter(|p| p.revision == r.revision) else {
        r.state = State::Superseded;
        r.due_at = None;
        return Ok(rollouts::save(tx, &r, State::Running, Some(lease), now).await?);
    };
    let plan = Plan::from_json(&r.plan)?;
    let acme = AcmePolicy::from_json(&policy.body).map_err(|_| store::Error::Corrupt("acme_policy_revision.body"))?;
    let authority = policy::authority_of(tx, &acme).await?;
    let tallies = rollouts::tally(tx, r.policy).await?;
    let standing = Standing::of(&r, &tallies);
    let rescoping = rollouts::rescoping(tx, r.policy).await?;
    let provable = policy::authority_provable(tx, &authority).await?;
    let known = Known { rollout: &r, plan: &plan, standing: &standing, rescoping, provable };
    let decided = next(&known, now);
    let look = if standing.stages.total() < LARGE { LOOK } else { LOOK_LARGE };
    // Who has recovered need not be forgiven any more.
    r.forgiven = r.forgiven.min(standing.stages.failing);
    r.due_at = Some(now.plus(look));
    let told = match decided {
        Next::Wait(_) => None,
        Next::Idle => {
            r.step_at = now;
            None
        }
        Next::Pause { why } => {
            r.state = State::Paused;
            r.due_at = None;
            let told = format!("The rollout has paused by itself: {why}");
            r.why = Some(why);
            metrics::counter!("rollouts_paused_total").increment(1);
            Some(("rollout.paused", told))
        }
        Next::Advance => {
            r.step += 1;
            r.step_at = now;
            Some(("rollout.step", format!("Step {} of {} of the rollout begins", r.step + 1, plan.steps.len())))
        }
        Next::Finish => {
            r.state = State::Done;
            r.due_at = None;
            Some(("rollout.done", "The rollout is done: every device is admitted".to_owned()))
        }
    };
    if !rollouts::save(tx, &r, State::Running, Some(lease), now).await? {
        return Ok(false);
    }
    if let Some((kind, summary)) = told {
        if matches!(r.state, State::Running | State::Done) {
            let step = if r.state == State::Done { i64::MAX } else { r.step };
            rollouts::admit(tx, r.policy, r.revision, step, now).await?;
            tx.wake(Wake::Reconcile);
        }
        event(tx, &r, kind, &summary, SERVER, now).await?;
    }
    Ok(true)
}
