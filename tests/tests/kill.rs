//! RG-01: what was acknowledged survives `kill -9` at any moment, and what was not is whole or absent.
//!
//! The process that is killed is this test program itself, started again as a writer.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use commands::{Context, Lane, New, Rendering, Stall};
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::random::Random;
use mdm_core::report::Status;
use mdm_core::time::Timestamp;
use mdm_tests::db::Place;
use store::enrollments::{NewDevice, Tokens};
use store::{Settings, Store};

const URL: &str = "ASSAY_TEST_KILL_URL";
const ROUND: &str = "ASSAY_TEST_KILL_ROUND";
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const TARGETS: u64 = 3;
const ROUNDS: u64 = 12;

fn ctx() -> Context {
    Context { sealer: Sealer::new(&[7; 32]), random: Random::System, stall: Stall::default() }
}

fn id(n: u64) -> EnrollmentId {
    EnrollmentId(uuid::Uuid::from_u64_pair(0, n + 1))
}

async fn enroll(store: &Store, n: u64) {
    let mut tx = store.begin().await.unwrap();
    let key = DeviceKey::Udid(format!("00008110-{n:016X}").parse().unwrap());
    let new = NewDevice { id: id(n), kind: EnrollmentKind::Device, key: &key };
    store::enrollments::insert_device(&mut tx, &new, NOW).await.unwrap();
    let tokens = Tokens {
        topic: "com.apple.mgmt.External.test",
        push_token: b"fakeToken",
        push_magic: "magic",
        signed_at: None,
        awaiting_configuration: false,
        unlock_token_sealed: None,
        raw_sealed: b"",
        user_short_name: None,
        user_long_name: None,
    };
    let state = EnrollmentState::Enrolled { since: NOW };
    store::enrollments::token_update(&mut tx, id(n), state, &tokens, NOW).await.unwrap();
    tx.commit().await.unwrap();
}

/// The writer that is killed: enqueues without end, and prints a command's UUID only after its commit.
#[tokio::test]
#[ignore = "runs only as the process that rg_01 kills"]
async fn writer() {
    let store = Store::open(&Settings::new(std::env::var(URL).unwrap())).await.unwrap();
    let round = std::env::var(ROUND).unwrap();
    let targets: Vec<_> = (0..TARGETS).map(id).collect();
    for n in 0.. {
        let uuid: CommandUuid = format!("r{round}-{n}").parse().unwrap();
        let new = New {
            uuid: uuid.clone(),
            request_type: "ProfileList",
            rendering: Rendering::Plain,
            body: &[b'x'; 3000],
            lane: Lane::Normal,
            coalescing_key: None,
            ttl: None,
            created_by: "test",
            push: true,
        };
        let mut tx = store.begin().await.unwrap();
        commands::enqueue(&mut tx, &ctx(), &new, &targets, NOW).await.unwrap();
        tx.commit().await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "stored {uuid}").unwrap();
        out.flush().unwrap();
    }
}

/// Starts the writer, lets it work for a moment after its first acknowledgement, kills it, and gives what it acknowledged.
fn killed_writer(url: &str, round: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "writer", "--nocapture", "--test-threads=1"])
        .env(URL, url)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let stored = |line: String| line.rsplit_once("stored ").map(|(_, uuid)| uuid.to_owned());
    for line in lines.by_ref() {
        if let Some(uuid) = stored(line.unwrap()) {
            acknowledged.push(uuid);
            break;
        }
    }
    std::thread::sleep(Duration::from_micros(1 + Random::System.below(120_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(lines.map_while(Result::ok).filter_map(stored));
    assert!(!acknowledged.is_empty(), "round {round}: the writer acknowledged nothing");
    acknowledged
}

#[tokio::test]
async fn rg_01_every_acknowledged_enqueue_survives_kill_9() {
    for backend in mdm_tests::both() {
        let place = Place::empty(backend).await;
        let settings = Settings::new(&place.url);
        let store = Store::open(&settings).await.unwrap();
        for n in 0..TARGETS {
            enroll(&store, n).await;
        }
        store.close().await;
        drop(store);

        let mut acknowledged = Vec::new();
        for round in 0..ROUNDS {
            acknowledged.extend(killed_writer(&place.url, round));
        }

        let store = Store::open(&settings).await.unwrap();
        let mut per_target = Vec::new();
        for n in 0..TARGETS {
            let mut order = Vec::new();
            let mut tx = store.begin().await.unwrap();
            while let Some(picked) = commands::next(&mut tx, &ctx(), id(n), Status::Idle, NOW).await.unwrap() {
                commands::refuse(&mut tx, &picked, "counted", NOW).await.unwrap();
                order.push(picked.uuid.into_string());
            }
            tx.rollback().await.unwrap();
            per_target.push(order);
        }
        let found: HashSet<_> = per_target[0].iter().collect();
        assert_eq!(found.len(), per_target[0].len(), "{backend}: a command is there twice");
        for uuid in &acknowledged {
            assert!(found.contains(uuid), "{backend}: {uuid} was acknowledged and is lost");
        }
        let unacknowledged = found.len() - acknowledged.len();
        assert!(
            unacknowledged <= usize::try_from(ROUNDS).unwrap(),
            "{backend}: {unacknowledged} more than were in flight"
        );
        for other in &per_target[1..] {
            assert_eq!(other, &per_target[0], "{backend}: a command is on some of its targets only");
        }
        store.close().await;
        drop(store);
        place.remove().await;
    }
}
