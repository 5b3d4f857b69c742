//! What nobody came in by is forgotten.

use std::time::Duration;

use mdm_core::time::Timestamp;
use store::Store;

use crate::Error;

/// For how long a token or code that belongs to no enrollment is kept, for whoever looks into what happened.
const KEPT: Duration = Duration::from_hours(24);
/// The same for tokens that ended, and those of enrollments that ended.
const KEPT_ENDED: Duration = Duration::from_hours(90 * 24);
/// How many rows are deleted in one transaction.
const BATCH: i64 = 1_000;

/// Deletes tokens and codes that never came to belong to an enrollment, and in time those that ended; says how many. To be run
/// before the sign-ins that they came of are cleaned up.
pub async fn clean_up(store: &Store, now: Timestamp) -> Result<u64, Error> {
    let mut all = 0;
    loop {
        let mut tx = store.begin().await?;
        let unbound = store::account_tokens::delete_unbound(&mut tx, now.minus(KEPT), BATCH).await?;
        let ended = store::account_tokens::delete_ended(&mut tx, now.minus(KEPT_ENDED), BATCH).await?;
        tx.commit().await?;
        all += unbound + ended;
        if unbound.max(ended) < BATCH.unsigned_abs() {
            return Ok(all);
        }
    }
}
