//! Figures and warnings: an identity near its end without a successor is a device that will be lost (TH-11).

use mdm_core::time::Timestamp;
use store::{Store, Tx, identities, renewals};

use crate::State;

/// Renews the gauges `identities_near_end` and `renewals`.
pub async fn report(store: &Store, now: Timestamp) -> Result<(), store::Error> {
    let mut tx = store.read().await?;
    let stuck = identities::stuck(&mut tx, now).await?;
    metrics::gauge!("identities_near_end").set(float(stuck));
    let counts = renewals::counts(&mut tx).await?;
    for state in [State::Due, State::Queued, State::Issued, State::Done] {
        let count = counts.iter().find(|count| count.state == state.as_str()).map_or(0, |count| count.count);
        metrics::gauge!("renewals", "state" => state.as_str()).set(float(count));
    }
    Ok(())
}

/// What an operator should know, a sentence each; nothing where all is well.
pub async fn warnings(tx: &mut Tx, now: Timestamp) -> Result<Vec<String>, store::Error> {
    let stuck = identities::stuck(tx, now).await?;
    let mut warnings = Vec::new();
    if stuck > 0 {
        warnings.push(format!(
            "{stuck} device identities are near their end and have no successor yet: GET /api/v1/identities?near_end=true says which and why"
        ));
    }
    Ok(warnings)
}

fn float(count: i64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
