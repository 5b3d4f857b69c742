//! The loop that looks at every assignment that is due: what a request set in motion, what must be tried again, and
//! what a crash left behind.

use std::time::Duration;

use mdm_core::ids::{AssignmentId, EnrollmentId};
use mdm_core::time::Timestamp;
use store::assignments::{self, Leased};
use store::{IdSet, Store};

use crate::Context;
use crate::advance::{Presence, advance_all};
use crate::error::Result;

/// How long a batch has before others may take what it has left.
const LEASE: Duration = Duration::from_mins(1);

/// How many assignments one transaction decides. On SQLite nobody else writes meanwhile.
const CHUNK: usize = 250;

/// How long an assignment is left alone whose transaction failed.
const PUT_ASIDE: Duration = Duration::from_mins(10);

/// Takes up to `limit` assignments that are due and moves them on, a chunk in a transaction. Where a chunk fails, each of its
/// assignments gets a transaction of its own: one that cannot be moved is logged and put aside, the others go on (RG-19). Tells how
/// many were taken; call it again at once when it is `limit`. Scopes and label rules that changed are followed as well.
pub async fn run_once(store: &Store, ctx: &Context, now: Timestamp, limit: i64) -> Result<usize> {
    crate::walk::run_once(store, ctx, now).await?;
    let batch = store::retry(|| take(store, ctx, now, limit)).await?;
    for chunk in batch.chunks(CHUNK) {
        let Err(e) = store::retry(|| advance(store, ctx, chunk, now)).await else { continue };
        tracing::warn!(error = %e, "a chunk of assignments is decided one by one");
        for leased in chunk {
            let one = std::slice::from_ref(leased);
            if let Err(e) = store::retry(|| advance(store, ctx, one, now)).await {
                let id = AssignmentId(leased.id);
                tracing::error!(assignment.id = %id, error = %e, "assignment put aside");
                put_aside(store, id, now).await?;
            }
        }
    }
    Ok(batch.len())
}

async fn take(store: &Store, ctx: &Context, now: Timestamp, limit: i64) -> Result<Vec<Leased>> {
    let mut tx = store.begin().await?;
    let lease = ctx.commands.random.uuid_v4();
    let batch = assignments::lease(&mut tx, now, now.plus(LEASE), lease, limit).await?;
    tx.commit().await?;
    Ok(batch)
}

async fn advance(store: &Store, ctx: &Context, chunk: &[Leased], now: Timestamp) -> Result<()> {
    let mut tx = store.begin().await?;
    let enrollments: Vec<_> = chunk.iter().map(|leased| EnrollmentId(leased.enrollment_id)).collect();
    let ids: Vec<_> = chunk.iter().map(|leased| AssignmentId(leased.id)).collect();
    let all = assignments::lock_many(&mut tx, &IdSet::new(&enrollments), &ids).await?;
    advance_all(&mut tx, ctx, all, Presence::Away, now).await?;
    tx.commit().await?;
    Ok(())
}

async fn put_aside(store: &Store, id: AssignmentId, now: Timestamp) -> Result<()> {
    let mut tx = store.begin().await?;
    assignments::due(&mut tx, id, now.plus(PUT_ASIDE)).await?;
    tx.commit().await?;
    Ok(())
}
