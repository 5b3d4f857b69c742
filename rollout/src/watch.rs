//! Figures and warnings: a rollout that has paused waits for a person.

use store::rollouts::{self, State};
use store::{Store, Tx};

/// Renews the gauge `rollouts`.
pub async fn figures(store: &Store) -> Result<(), store::Error> {
    let counts = rollouts::counts(&mut store.read().await?).await?;
    for state in [State::Running, State::Paused, State::Done, State::RolledBack] {
        let count = counts.iter().find(|count| count.state == state.as_str()).map_or(0, |count| count.count);
        metrics::gauge!("rollouts", "state" => state.as_str()).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    Ok(())
}

/// What an operator should know, a sentence each; nothing where all is well.
pub async fn warnings(tx: &mut Tx) -> Result<Vec<String>, store::Error> {
    let paused =
        rollouts::counts(tx).await?.into_iter().find(|c| c.state == State::Paused.as_str()).map_or(0, |c| c.count);
    if paused == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "{paused} rollouts are paused: GET /api/v1/acme-policies/{{name}}/rollout says why; resume or roll back"
    )])
}
