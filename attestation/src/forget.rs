//! Forgetting: attestation data is personal, and is kept no longer than it is of use (TH-49).

use std::time::Duration;

use mdm_core::time::Timestamp;
use store::Tx;
use store::attestations::{forget_chains, forget_nonces, forget_verdicts};

use crate::{Context, Result};

/// How long a nonce is known: an attestation that carries an older one is of unknown freshness.
const NONCES: Duration = Duration::from_hours(90 * 24);
/// How long a verdict is kept.
const VERDICTS: Duration = Duration::from_hours(400 * 24);

/// Forgets, in one transaction, so many rows of each kind at most: certificates after the retention that is set, nonces and verdicts
/// after one of their own. How many there were; call it again until there are none.
pub async fn forget(tx: &mut Tx, ctx: &Context, limit: i64, now: Timestamp) -> Result<u64> {
    let chains = forget_chains(tx, now.minus(ctx.retention), limit).await?;
    let nonces = forget_nonces(tx, now.minus(NONCES), limit).await?;
    let verdicts = forget_verdicts(tx, now.minus(VERDICTS), limit).await?;
    Ok(chains + nonces + verdicts)
}
