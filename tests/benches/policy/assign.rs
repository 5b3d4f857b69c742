//! How long it takes to say that a policy is for everybody, and how long the walk then takes to make the rows.

use std::time::Instant;

use mdm_core::ids::PolicyId;
use mdm_core::time::Timestamp;
use mdm_tests::Database;
use policy::{AcmePolicy, Context, Scope};

/// Assigns a new policy to the whole fleet; its assignments are due when this is over.
pub async fn run(db: &Database, ctx: &Context, policy: &AcmePolicy, size: u64, now: Timestamp) -> PolicyId {
    let mut tx = db.store.begin().await.unwrap();
    let id = policy::create(&mut tx, ctx, policy, "bench", now).await.unwrap();
    tx.commit().await.unwrap();

    let started = Instant::now();
    let mut tx = db.store.begin().await.unwrap();
    let change = policy::set_scope(&mut tx, id, &Scope::everybody(), "bench", now).await.unwrap();
    tx.commit().await.unwrap();
    let assigned = started.elapsed();
    assert_eq!((change.targets, change.assigned), (size, size));
    println!("{}: assigning a policy to {size} enrollments returns in {assigned:.0?}", db.backend);

    let started = Instant::now();
    // Turns of the reconcile loop that take no assignment: the walk alone.
    while count(db, id).await < size {
        policy::reconcile::run_once(&db.store, ctx, now, 0).await.unwrap();
    }
    policy::reconcile::run_once(&db.store, ctx, now, 0).await.unwrap();
    let walked = started.elapsed();
    let rate = f64::from(u32::try_from(size).unwrap()) / walked.as_secs_f64();
    println!("{}: the walk makes the {size} assignments in {walked:.1?}, {rate:.0} a second", db.backend);

    let started = Instant::now();
    let mut tx = db.store.read().await.unwrap();
    let run = policy::dry_run(&mut tx, policy, &Scope::everybody(), now).await.unwrap();
    assert_eq!(run.total, size);
    println!("{}: a dry run over {size} enrollments takes {:.1?}", db.backend, started.elapsed());
    id
}

async fn count(db: &Database, id: PolicyId) -> u64 {
    let mut tx = db.store.read().await.unwrap();
    let counts = store::assignments::counts(&mut tx, id).await.unwrap();
    u64::try_from(counts.iter().map(|c| c.count).sum::<i64>()).unwrap()
}
