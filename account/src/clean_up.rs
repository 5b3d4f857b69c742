//! What nobody came in by is forgotten.

use std::time::Duration;

use mdm_core::time::Timestamp;
use store::Store;

use crate::Error;

/// For how long a token or code that belongs to no enrollment is kept, for whoever looks into what happened.
const KEPT: Duration = Duration::from_hours(24);
/// How many rows are deleted in one transaction.
const BATCH: i64 = 1_000;

/// Deletes tokens and codes that never came to belong to an enrollment; says how many. To be run before the sign-ins that they
/// came of are cleaned up.
pub async fn clean_up(store: &Store, now: Timestamp) -> Result<u64, Error> {
    let mut all = 0;
    loop {
        let mut tx = store.begin().await?;
        let deleted = store::account_tokens::delete_unbound(&mut tx, now.minus(KEPT), BATCH).await?;
        tx.commit().await?;
        all += deleted;
        if deleted < BATCH.unsigned_abs() {
            return Ok(all);
        }
    }
}
