//! Staged delivery of a policy: steps, waits, a failure budget; paused by itself, resumed and rolled back by an operator.
//!
//! Which step admits a device, and which revision it should have meanwhile, is `policy::ring`: the decision of every assignment
//! asks for it. Here a rollout is moved on:
//!
//! - [`standing`]: how far it has come, in figures, from its rows.
//! - [`plan`]: what to do about it, a pure function of these figures.
//! - `drive`: the loop that acts on it.
//! - `operate`: what an operator may do: pause, resume, roll back.
//! - [`report`]: all of it for people, and how a policy fares.
//! - `watch`: figures and warnings for operators.

mod drive;
mod error;
mod operate;
pub mod plan;
pub mod report;
pub mod standing;
mod watch;

use mdm_core::time::Timestamp;
use store::Tx;
use store::events::NewEvent;
use store::rollouts::Rollout;

pub use drive::run_once;
pub use error::{Error, Result};
pub use operate::{pause, resume, roll_back};
pub use report::{PolicyReport, RolloutReport, policy_report, rollout_report};
pub use watch::{figures, warnings};

/// Writes what happened to a rollout into the log of events.
async fn event(tx: &mut Tx, r: &Rollout, kind: &str, summary: &str, actor: &str, now: Timestamp) -> Result<()> {
    let policy = store::policies::get(tx, r.policy).await?.map(|p| p.name).unwrap_or_default();
    let summary = format!("{summary} (policy {policy}, revision {})", r.revision);
    let data = serde_json::json!({
        "policy": policy, "policy_id": r.policy, "revision": r.revision, "from_revision": r.from_revision,
        "step": r.step + 1, "state": r.state.as_str(), "why": r.why,
    });
    let event = NewEvent { at: now, kind, enrollment: None, command: None, actor, summary: &summary, data: &data };
    store::events::record(tx, &event).await?;
    tracing::info!(policy.name = %policy, revision = r.revision, step = r.step + 1, why = r.why, "{kind}");
    Ok(())
}
