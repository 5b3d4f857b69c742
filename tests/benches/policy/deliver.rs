//! What rendering and signing a profile adds to its delivery, in CPU time of the whole process, against a command that is sent as it is.

use mdm_core::ids::EnrollmentId;
use mdm_core::report::Status;
use mdm_core::time::Timestamp;
use mdm_tests::Database;
use policy::{Context, Rendered, Scope};
use std::time::Duration;
use store::Tx;

const DEVICES: usize = 1_000;

/// Delivers a plain command to some devices, and then a profile to the same ones.
pub async fn run(db: &Database, ctx: &Context, now: Timestamp) {
    let mut tx = db.store.begin().await.unwrap();
    let after = None;
    let page = store::scopes::enrolled(&mut tx, after, i64::try_from(DEVICES).unwrap()).await.unwrap();
    let devices: Vec<_> = page.iter().map(|e| EnrollmentId(e.id)).collect();
    for device in &devices {
        commands::clear(&mut tx, *device, "bench", now).await.unwrap();
    }
    enqueue(&mut tx, ctx, &devices, now).await;
    tx.commit().await.unwrap();
    let plain = deliver(db, ctx, &devices, now).await;

    let mut tx = db.store.begin().await.unwrap();
    for device in &devices {
        commands::clear(&mut tx, *device, "bench", now).await.unwrap();
    }
    let mut fresh = super::policy().document().clone();
    fresh.name = "deliver".into();
    let fresh = policy::AcmePolicy::new(fresh).unwrap();
    let id = policy::create(&mut tx, ctx, &fresh, "bench", now).await.unwrap();
    let scope = Scope { enrollment_ids: devices.iter().map(|id| id.0).collect(), ..Scope::default() };
    policy::set_scope(&mut tx, id, &scope, "bench", now).await.unwrap();
    tx.commit().await.unwrap();
    loop {
        policy::reconcile::run_once(&db.store, ctx, now, 500).await.unwrap();
        let mut tx = db.store.read().await.unwrap();
        let counts = store::assignments::counts(&mut tx, id).await.unwrap();
        if counts.iter().any(|c| c.state == "installing" && c.count == i64::try_from(DEVICES).unwrap()) {
            break;
        }
    }
    let profile = deliver(db, ctx, &devices, now).await;
    println!(
        "{}: delivering a plain command takes {} µs of CPU, a profile {} µs: rendering and signing add {} µs",
        db.backend,
        plain.as_micros(),
        profile.as_micros(),
        profile.saturating_sub(plain).as_micros()
    );
}

async fn enqueue(tx: &mut Tx, ctx: &Context, devices: &[EnrollmentId], now: Timestamp) {
    let new = commands::New {
        uuid: ctx.commands.random.uuid_v4().to_string().parse().unwrap(),
        request_type: "DeviceInformation",
        rendering: commands::Rendering::Plain,
        body: &[0; 600],
        lane: commands::Lane::Normal,
        coalescing_key: None,
        ttl: None,
        created_by: "bench",
        push: false,
    };
    commands::enqueue(tx, &ctx.commands, &new, devices, now).await.unwrap();
}

/// The CPU time of one delivery, the mean of all: a transaction with the look at the queue, the rendering, and the note of it.
async fn deliver(db: &Database, ctx: &Context, devices: &[EnrollmentId], now: Timestamp) -> Duration {
    let before = cpu();
    for device in devices {
        let mut tx = db.store.begin().await.unwrap();
        let queue = &ctx.commands;
        let picked =
            commands::next(&mut tx, queue, *device, Status::Idle, now).await.unwrap().expect("something waits");
        if let commands::Content::Render { before, .. } = &picked.content {
            let enrollment = store::enrollments::get(&mut tx, *device).await.unwrap().unwrap();
            let rendered =
                policy::render(&mut tx, ctx, &enrollment, &picked.uuid, before.as_deref(), now).await.unwrap();
            let Rendered::Body(body) = rendered else { panic!("{rendered:?}") };
            commands::rendered(&mut tx, queue, &picked, &body, now).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    cpu().saturating_sub(before) / u32::try_from(devices.len()).unwrap()
}

/// The CPU time of this process and all its threads.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this bench reads Linux's /proc");
    let nanos = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.flatten().map(nanos).sum())
}
