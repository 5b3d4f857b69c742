//! The loop that looks at every assignment that is due: what a request set in motion, what must be tried again, and
//! what a crash left behind.

use std::time::Duration;

use mdm_core::ids::{AssignmentId, EnrollmentId};
use mdm_core::time::Timestamp;
use store::assignments::{self, Leased};
use store::{Store, enrollments};

use crate::Context;
use crate::advance::{PUT_ASIDE, Presence, advance};
use crate::error::Result;

/// How long a batch has before others may take what it has left.
const LEASE: Duration = Duration::from_mins(1);

/// Takes up to `limit` assignments that are due and moves each on, in a transaction of its own: one that cannot be
/// moved is logged and put aside, the others go on (RG-19). Tells how many were taken; call it again at once when it is
/// `limit`.
pub async fn run_once(store: &Store, ctx: &Context, now: Timestamp, limit: i64) -> Result<usize> {
    let batch = store::retry(|| take(store, ctx, now, limit)).await?;
    for leased in &batch {
        if let Err(e) = store::retry(|| one(store, ctx, *leased, now)).await {
            let id = AssignmentId(leased.id);
            if e.needs_human() {
                tracing::error!(assignment.id = %id, error = %e, "assignment put aside");
            } else {
                tracing::info!(assignment.id = %id, error = %e, "assignment put aside");
            }
            put_aside(store, id, now).await?;
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

async fn one(store: &Store, ctx: &Context, leased: Leased, now: Timestamp) -> Result<()> {
    let mut tx = store.begin().await?;
    let enrollment = EnrollmentId(leased.enrollment_id);
    enrollments::lock(&mut tx, enrollment).await?;
    let found = enrollments::get(&mut tx, enrollment).await?;
    let assignment = assignments::get(&mut tx, AssignmentId(leased.id)).await?;
    if let (Some(enrollment), Some(a)) = (found, assignment) {
        advance(&mut tx, ctx, &enrollment, a, Presence::Away, now).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn put_aside(store: &Store, id: AssignmentId, now: Timestamp) -> Result<()> {
    let mut tx = store.begin().await?;
    assignments::due(&mut tx, id, now.plus(PUT_ASIDE)).await?;
    tx.commit().await?;
    Ok(())
}
