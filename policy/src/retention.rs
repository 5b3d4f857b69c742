//! How long the past of policies is kept: attempts that ended, certificates that are with nobody, calls of webhooks.

use std::time::Duration;

use mdm_core::time::Timestamp;
use store::{Store, Tx, authorities, certificates};

use crate::error::Result;

/// How many rows are deleted in one transaction.
const BATCH: i64 = 500;

/// A call of a webhook is too old to be heard after five minutes; its answer is kept for as long as clocks may differ.
const CALLS: Duration = Duration::from_hours(24);

/// Deletes what is older than `history`: certificates that ended and are in use nowhere, then the attempts without one. Answered
/// calls of webhooks after a day. A batch to a transaction. How many rows there were.
pub async fn prune(store: &Store, history: Duration, now: Timestamp) -> Result<u64> {
    let before = now.minus(history);
    let mut pruned = 0;
    loop {
        let batch = store::retry(|| async {
            let mut tx = store.begin().await?;
            let rows = once(&mut tx, before, now).await?;
            tx.commit().await?;
            Ok::<_, crate::Error>(rows)
        })
        .await?;
        pruned += batch;
        if batch == 0 {
            return Ok(pruned);
        }
    }
}

async fn once(tx: &mut Tx, before: Timestamp, now: Timestamp) -> Result<u64> {
    let certificates = certificates::prune_certificates(tx, before, BATCH).await?;
    let attempts = certificates::prune_attempts(tx, before, BATCH).await?;
    let calls = authorities::prune_calls(tx, now.minus(CALLS), BATCH).await?;
    Ok(certificates + attempts + calls)
}
