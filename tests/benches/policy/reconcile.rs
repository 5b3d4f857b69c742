//! How many assignments the reconcile loop decides a second, and what each kind of decision costs.

use std::time::Instant;

use mdm_core::ids::PolicyId;
use mdm_core::time::Timestamp;
use mdm_tests::Database;
use policy::Context;

/// As many as a turn of the server's loop takes.
const TURN: i64 = 500;

/// Decides for the whole fleet: a profile for each, a look at each, and each asked again once its facts are old.
pub async fn run(db: &Database, ctx: &Context, policy: PolicyId, size: u64, now: Timestamp) {
    turns(db, ctx, policy, size, now, "installing", "decided to be sent the profile").await;
    due(db, policy, now).await;
    turns(db, ctx, policy, size, now, "installing", "looked at: it is on its way").await;
    // A new revision a day later: what is on its way is taken back, and each device is asked first.
    let later = now.plus(policy::decide::FACTS_MAX_AGE);
    due(db, policy, later).await;
    revise(db, ctx, policy, later).await;
    turns(db, ctx, policy, size, later, "awaiting_facts", "taken back and asked what it is").await;
}

async fn due(db: &Database, policy: PolicyId, now: Timestamp) {
    let mut tx = db.store.begin().await.unwrap();
    store::assignments::due_policy(&mut tx, policy, now).await.unwrap();
    tx.commit().await.unwrap();
}

/// A revision by itself, without the walk that the scope's bench times.
async fn revise(db: &Database, ctx: &Context, policy: PolicyId, now: Timestamp) {
    let mut tx = db.store.begin().await.unwrap();
    let row = store::policies::get(&mut tx, policy).await.unwrap().unwrap();
    let mut body: serde_json::Value = row.body.parse().unwrap();
    body["usage_flags"] = 1.into();
    let body = body.to_string();
    let payload_uuid = ctx.commands.random.uuid_v4();
    let new = store::policies::NewRevision { name: &row.name, body: &body, payload_uuid, created_by: "bench" };
    store::policies::revise(&mut tx, policy, &new, now).await.unwrap();
    tx.commit().await.unwrap();
}

async fn turns(db: &Database, ctx: &Context, policy: PolicyId, size: u64, now: Timestamp, state: &str, what: &str) {
    let started = Instant::now();
    while policy::reconcile::run_once(&db.store, ctx, now, TURN).await.unwrap() > 0 {}
    let took = started.elapsed();
    let mut tx = db.store.read().await.unwrap();
    let counts = store::assignments::counts(&mut tx, policy).await.unwrap();
    let there: Vec<_> = counts.iter().map(|c| (c.state.as_str(), u64::try_from(c.count).unwrap())).collect();
    assert_eq!(there, [(state, size)]);
    let rate = f64::from(u32::try_from(size).unwrap()) / took.as_secs_f64();
    println!("{}: {size} enrollments {what} in {took:.1?}, {rate:.0} a second", db.backend);
}
