//! What an operator may do with a rollout.

use mdm_core::time::Timestamp;
use store::policies::Policy;
use store::rollouts::{self, Rollout, State};
use store::{Tx, Wake, assignments};

use crate::standing::Standing;
use crate::{Error, Result, event};

/// Pauses a running rollout: nothing more begins, whatever has begun goes on.
pub async fn pause(tx: &mut Tx, policy: &Policy, why: Option<&str>, actor: &str, now: Timestamp) -> Result<Rollout> {
    let mut r = latest(tx, policy).await?;
    if r.state != State::Running {
        return Err(Error::State { asked: "paused", state: r.state });
    }
    r.state = State::Paused;
    r.due_at = None;
    r.why = Some(why.unwrap_or("an operator has paused it").to_owned());
    save(tx, &r, State::Running, now).await?;
    event(tx, &r, "rollout.paused", "The rollout was paused", actor, now).await?;
    Ok(r)
}

/// Lets a paused rollout go on from the step that it is at: what has failed so far is forgiven and tried again at once, and the
/// step's wait begins anew. One whose first revision was rolled back begins again with its first step.
pub async fn resume(tx: &mut Tx, policy: &Policy, why: Option<&str>, actor: &str, now: Timestamp) -> Result<Rollout> {
    let mut r = latest(tx, policy).await?;
    let was = r.state;
    let again = was == State::RolledBack && r.from_revision.is_none();
    if was != State::Paused && !again {
        return Err(Error::State { asked: "resumed", state: was });
    }
    current(policy, &r, "resumed")?;
    r.state = State::Running;
    if again {
        r.step = 0;
    }
    let tallies = rollouts::tally(tx, r.policy).await?;
    r.forgiven = Standing::of(&r, &tallies).stages.failing;
    r.step_at = now;
    r.due_at = Some(now);
    r.why = None;
    save(tx, &r, was, now).await?;
    rollouts::admit(tx, r.policy, r.revision, r.step, now).await?;
    // The cause is mended: nobody waits for the end of a back-off.
    rollouts::retry_failed(tx, r.policy, r.revision, now).await?;
    tx.wake(Wake::Reconcile);
    let summary = why.map_or("The rollout goes on".to_owned(), |why| format!("The rollout goes on: {why}"));
    event(tx, &r, "rollout.resumed", &summary, actor, now).await?;
    Ok(r)
}

/// Takes the revision back: the one from before is current again and goes back to the devices that had left it. Where there is
/// none, the profile is taken off every device.
pub async fn roll_back(
    tx: &mut Tx,
    policy: &Policy,
    why: Option<&str>,
    actor: &str,
    now: Timestamp,
) -> Result<Rollout> {
    let mut r = latest(tx, policy).await?;
    let was = r.state;
    if !matches!(was, State::Running | State::Paused | State::Done) {
        return Err(Error::State { asked: "rolled back", state: was });
    }
    current(policy, &r, "rolled back")?;
    r.state = State::RolledBack;
    r.due_at = None;
    r.why = Some(why.unwrap_or("an operator has rolled it back").to_owned());
    // The row of the policy first, as whoever writes a revision does: the two would deadlock otherwise.
    if let Some(from) = r.from_revision {
        rollouts::point_back(tx, r.policy, from, now).await?;
    }
    save(tx, &r, was, now).await?;
    assignments::due_policy(tx, r.policy, now).await?;
    tx.wake(Wake::Reconcile);
    event(tx, &r, "rollout.rolled_back", "The revision was rolled back", actor, now).await?;
    Ok(r)
}

async fn latest(tx: &mut Tx, policy: &Policy) -> Result<Rollout> {
    let found = rollouts::latest(tx, policy.id()).await?;
    found.ok_or_else(|| Error::NoRollout(policy.name.clone()))
}

fn current(policy: &Policy, r: &Rollout, asked: &'static str) -> Result<()> {
    if policy.revision == r.revision {
        return Ok(());
    }
    Err(Error::NotCurrent { asked, revision: r.revision, current: policy.revision })
}

async fn save(tx: &mut Tx, r: &Rollout, was: State, now: Timestamp) -> Result<()> {
    if rollouts::save(tx, r, was, None, now).await? { Ok(()) } else { Err(Error::Changed) }
}
