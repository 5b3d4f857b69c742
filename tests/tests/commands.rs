//! The queue's promises (RG-01 to RG-11), on both databases.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use commands::{Cancelled, Content, Context, Enqueued, Error, Lane, New, Outcome, Rendering, Stall, TargetOutcome};
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, Sender};
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::plist::Dictionary;
use mdm_core::random::Random;
use mdm_core::report::{Report, Status};
use mdm_core::time::Timestamp;
use mdm_tests::{on_both, on_both_databases};
use store::Store;
use store::enrollments::{NewDevice, Tokens};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn ctx() -> Context {
    Context { sealer: Sealer::new(&[7; 32]), random: Random::System, stall: Stall::default() }
}

fn uuid(text: &str) -> CommandUuid {
    text.parse().unwrap()
}

fn new<'a>(id: &str, body: &'a str) -> New<'a> {
    New {
        uuid: uuid(id),
        request_type: "DeviceInformation",
        rendering: Rendering::Plain,
        body: body.as_bytes(),
        lane: Lane::Normal,
        coalescing_key: None,
        ttl: None,
        created_by: "test",
        push: true,
    }
}

fn key(n: u64) -> DeviceKey {
    DeviceKey::Udid(format!("00008110-{n:016X}").parse().unwrap())
}

async fn enrolled(store: &Store, n: u64) -> EnrollmentId {
    let id = EnrollmentId(Random::System.uuid_v7(NOW));
    let mut tx = store.begin().await.unwrap();
    store::enrollments::insert_device(&mut tx, &NewDevice { id, kind: EnrollmentKind::Device, key: &key(n) }, NOW)
        .await
        .unwrap();
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
    store::enrollments::token_update(&mut tx, id, EnrollmentState::Enrolled { since: NOW }, &tokens, NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    id
}

async fn enqueue(store: &Store, new: &New<'_>, targets: &[EnrollmentId], now: Timestamp) -> Result<Enqueued, Error> {
    let mut tx = store.begin().await?;
    let done = commands::enqueue(&mut tx, &ctx(), new, targets, now).await?;
    tx.commit().await?;
    Ok(done)
}

fn report(status: Status, id: Option<&str>) -> Report {
    Report {
        sender: Sender { device: key(0), user: None },
        status,
        command_uuid: id.map(uuid),
        request_type: None,
        error_chain: Vec::new(),
        body: Dictionary::new(),
    }
}

/// One poll as the device edge makes it: report, next, commit. Gives what changed and what is handed out.
async fn poll(
    store: &Store,
    id: EnrollmentId,
    status: Status,
    about: Option<&str>,
    now: Timestamp,
) -> (Option<Outcome>, Option<String>) {
    store::retry(|| async {
        let mut tx = store.begin().await?;
        let done = commands::report(&mut tx, &ctx(), id, &report(status, about), b"raw", now).await?;
        let next = commands::next(&mut tx, &ctx(), id, status, now).await?;
        tx.commit().await?;
        Ok::<_, Error>((done.map(|d| d.outcome), next.map(|p| p.uuid.into_string())))
    })
    .await
    .unwrap()
}

async fn state(store: &Store, id: EnrollmentId, command: &str) -> String {
    let mut tx = store.read().await.unwrap();
    store::commands::target(&mut tx, id, &uuid(command)).await.unwrap().unwrap().state
}

#[tokio::test]
async fn rg_02_commands_come_in_the_order_of_commit_even_when_the_clock_steps_back() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        for (n, hour) in [(0, 5), (1, 1), (2, 3)] {
            enqueue(&store, &new(&format!("c{n}"), "b"), &[id], Timestamp(NOW.0 + hour * 3_600_000)).await.unwrap();
        }
        let mut got = Vec::new();
        let (_, mut next) = poll(&store, id, Status::Idle, None, NOW).await;
        while let Some(c) = next {
            next = poll(&store, id, Status::Acknowledged, Some(&c), NOW).await.1;
            got.push(c);
        }
        assert_eq!(got, ["c0", "c1", "c2"]);
    })
    .await;
}

#[tokio::test]
async fn rg_02_writers_at_once_lose_nothing_and_share_no_place() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        let writers: Vec<_> = (0..8)
            .map(|w| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..10 {
                        store::retry(|| async {
                            enqueue(&store, &new(&format!("w{w}-{n:02}"), "b"), &[id], NOW).await
                        })
                        .await
                        .unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let mut order = Vec::new();
        let (_, mut next) = poll(&store, id, Status::Idle, None, NOW).await;
        while let Some(c) = next {
            next = poll(&store, id, Status::Acknowledged, Some(&c), NOW).await.1;
            order.push(c);
        }
        assert_eq!(order.len(), 80);
        for w in 0..8 {
            let of_writer: Vec<_> = order.iter().filter(|c| c.starts_with(&format!("w{w}-"))).collect();
            assert!(of_writer.is_sorted(), "writer {w} was reordered: {of_writer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn rg_03_an_unanswered_command_is_sent_again_with_the_same_uuid_and_bytes() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        enqueue(&store, &new("a", "body of a"), &[id], NOW).await.unwrap();
        enqueue(&store, &new("b", "body of b"), &[id], NOW).await.unwrap();
        for _ in 0..3 {
            let mut tx = store.begin().await.unwrap();
            commands::report(&mut tx, &ctx(), id, &report(Status::Idle, None), b"", NOW).await.unwrap();
            let picked = commands::next(&mut tx, &ctx(), id, Status::Idle, NOW).await.unwrap().unwrap();
            tx.commit().await.unwrap();
            assert_eq!(picked.uuid, uuid("a"));
            assert!(matches!(picked.content, Content::Ready(ref b) if b == b"body of a"));
        }
        let mut tx = store.read().await.unwrap();
        let target = store::commands::target(&mut tx, id, &uuid("a")).await.unwrap().unwrap();
        assert_eq!((target.state.as_str(), target.deliveries), ("sent", 3));
    })
    .await;
}

#[tokio::test]
async fn rg_03_a_rendered_command_is_repeated_byte_for_byte() {
    on_both(|store| async move {
        for (n, rendering) in [(1, Rendering::Facts), (2, Rendering::Acme), (3, Rendering::Enrollment)] {
            let id = enrolled(&store, n).await;
            let uuid = format!("p{n}");
            enqueue(&store, &New { rendering, ..new(&uuid, "parameters") }, &[id], NOW).await.unwrap();
            let mut tx = store.begin().await.unwrap();
            let picked = commands::next(&mut tx, &ctx(), id, Status::Idle, NOW).await.unwrap().unwrap();
            assert!(
                matches!(picked.content, Content::Render { ref parameters, before: None, .. } if parameters == b"parameters")
            );
            commands::rendered(&mut tx, &ctx(), &picked, b"as sent", NOW).await.unwrap();
            tx.commit().await.unwrap();
            let mut tx = store.begin().await.unwrap();
            let again = commands::next(&mut tx, &ctx(), id, Status::Idle, NOW).await.unwrap().unwrap();
            match again.content {
                Content::Ready(bytes) => assert!(rendering == Rendering::Facts && bytes == b"as sent"),
                // A permission for a certificate ends: whoever renders it says whether these bytes are still good.
                Content::Render { before, .. } => {
                    assert!(rendering != Rendering::Facts && before.as_deref() == Some(b"as sent".as_slice()));
                }
            }
            tx.rollback().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn rg_04_the_first_final_report_counts_whatever_follows() {
    const FINAL: [Status; 3] = [Status::Acknowledged, Status::Error, Status::CommandFormatError];
    let all = [Status::Acknowledged, Status::Error, Status::CommandFormatError, Status::NotNow];
    let mut sequences: Vec<Vec<Status>> = vec![vec![]];
    for _ in 0..3 {
        let longer = sequences.iter().flat_map(|s| all.map(|x| [s.as_slice(), &[x]].concat())).collect::<Vec<_>>();
        sequences.extend(longer);
    }
    sequences.sort_by_key(Vec::len);
    sequences.dedup();
    on_both(|store| {
        let sequences = sequences.clone();
        async move {
            let id = enrolled(&store, 1).await;
            for (n, sequence) in sequences.iter().enumerate() {
                let command = format!("c{n}");
                enqueue(&store, &new(&command, "b"), &[id], NOW).await.unwrap();
                poll(&store, id, Status::Idle, None, NOW).await;
                for status in sequence {
                    poll(&store, id, *status, Some(&command), NOW).await;
                }
                let want = match sequence.iter().find(|s| FINAL.contains(s)) {
                    Some(Status::Acknowledged) => "acknowledged",
                    Some(Status::Error) => "error",
                    Some(_) => "command_format_error",
                    None if sequence.is_empty() => "sent",
                    // After NotNow and nothing else waiting, the session ends; the command waits for the next one.
                    None => "not_now",
                };
                assert_eq!(state(&store, id, &command).await, want, "after {sequence:?}");
                let mut tx = store.begin().await.unwrap();
                commands::clear(&mut tx, id, "next round", NOW).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn rg_05_a_report_for_an_unknown_or_foreign_uuid_changes_nothing_and_does_not_block() {
    on_both(|store| async move {
        let (id, other) = (enrolled(&store, 1).await, enrolled(&store, 2).await);
        enqueue(&store, &new("mine-1", "b"), &[id], NOW).await.unwrap();
        enqueue(&store, &new("mine-2", "b"), &[id], NOW).await.unwrap();
        enqueue(&store, &new("foreign", "b"), &[other], NOW).await.unwrap();
        for about in [Some("foreign"), Some("never-seen"), None] {
            let (done, next) = poll(&store, id, Status::Acknowledged, about, NOW).await;
            assert_eq!((done, next.as_deref()), (None, Some("mine-1")), "{about:?}");
        }
        assert_eq!(state(&store, other, "foreign").await, "queued");
        assert_eq!(poll(&store, id, Status::Acknowledged, Some("mine-1"), NOW).await.1.as_deref(), Some("mine-2"));
    })
    .await;
}

#[tokio::test]
async fn rg_06_every_command_completes_on_a_device_that_polls_only_by_apples_rule() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        for n in 0..6 {
            enqueue(&store, &new(&format!("c{n}"), "b"), &[id], NOW).await.unwrap();
        }
        // Each command is answered NotNow twice before it is carried out.
        let mut put_off: HashMap<String, u32> = HashMap::new();
        let mut done = HashSet::new();
        let mut pushes = 0;
        for _ in 0..40 {
            let mut last = Status::Idle;
            let (_, mut next) = poll(&store, id, Status::Idle, None, NOW).await;
            while let Some(command) = next {
                let times = put_off.entry(command.clone()).or_default();
                last = if *times < 2 {
                    *times += 1;
                    Status::NotNow
                } else {
                    assert!(done.insert(command.clone()), "{command} was carried out twice");
                    Status::Acknowledged
                };
                next = poll(&store, id, last, Some(&command), NOW).await.1;
            }
            if done.len() == 6 {
                break;
            }
            if last != Status::NotNow {
                pushes += 1;
            }
        }
        assert_eq!(done.len(), 6);
        assert_eq!(pushes, 0, "a session ended on another status than NotNow while commands waited");
    })
    .await;
}

#[tokio::test]
async fn rg_07_unreadable_answers_end_the_command_after_five() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        enqueue(&store, &new("bad", "b"), &[id], NOW).await.unwrap();
        enqueue(&store, &new("good", "b"), &[id], NOW).await.unwrap();
        poll(&store, id, Status::Idle, None, NOW).await;
        for n in 1..=5 {
            let mut tx = store.begin().await.unwrap();
            assert_eq!(commands::unreadable(&mut tx, id, NOW).await.unwrap(), n == 5);
            tx.commit().await.unwrap();
        }
        assert_eq!(state(&store, id, "bad").await, "stalled");
        assert_eq!(poll(&store, id, Status::Idle, None, NOW).await.1.as_deref(), Some("good"));
    })
    .await;
}

#[tokio::test]
async fn rg_08_an_erase_is_not_behind_a_thousand_others_and_refetches_coalesce() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        for n in 0..1000 {
            enqueue(&store, &new(&format!("n{n}"), "b"), &[id], NOW).await.unwrap();
        }
        enqueue(&store, &New { lane: Lane::Urgent, ..new("erase", "b") }, &[id], NOW).await.unwrap();
        assert_eq!(poll(&store, id, Status::Idle, None, NOW).await.1.as_deref(), Some("erase"));

        let other = enrolled(&store, 2).await;
        for n in 0..100 {
            let again = New { coalescing_key: Some("refetch"), ..new(&format!("r{n}"), "b") };
            enqueue(&store, &again, &[other], NOW).await.unwrap();
        }
        assert_eq!(poll(&store, other, Status::Idle, None, NOW).await.1.as_deref(), Some("r99"));
        assert_eq!(poll(&store, other, Status::Acknowledged, Some("r99"), NOW).await.1, None);
        assert_eq!(state(&store, other, "r0").await, "cancelled");
    })
    .await;
}

#[tokio::test]
async fn rg_10_what_was_cancelled_in_time_is_never_sent() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        for n in 0..100 {
            let command = format!("c{n}");
            enqueue(&store, &new(&command, "b"), &[id], NOW).await.unwrap();
            let cancel = {
                let (store, command) = (store.clone(), command.clone());
                tokio::spawn(async move {
                    let mut tx = store.begin().await.unwrap();
                    let was = commands::cancel(&mut tx, id, &uuid(&command), "test", NOW).await.unwrap();
                    tx.commit().await.unwrap();
                    was
                })
            };
            let (_, sent) = poll(&store, id, Status::Idle, None, NOW).await;
            let was = cancel.await.unwrap();
            let want = if sent.is_some() { Cancelled::AlreadySent } else { Cancelled::Cancelled };
            assert_eq!(was, want, "{command}");
            assert_eq!(poll(&store, id, Status::Idle, None, NOW).await.1, None, "{command} was sent after its cancel");
        }
    })
    .await;
}

#[tokio::test]
async fn rg_11_a_hundred_polls_at_once_get_one_command() {
    on_both_databases(async |db| {
        let id = enrolled(&db.store, 1).await;
        for n in 0..3 {
            enqueue(&db.store, &new(&format!("c{n}"), "b"), &[id], NOW).await.unwrap();
        }
        let polls: Vec<_> = (0..100)
            .map(|_| {
                let store = db.store.clone();
                tokio::spawn(async move { poll(&store, id, Status::Idle, None, NOW).await.1 })
            })
            .collect();
        let mut got = HashSet::new();
        for one in polls {
            got.insert(one.await.unwrap());
        }
        assert_eq!(got, HashSet::from([Some("c0".to_owned())]));
    })
    .await;
}

#[tokio::test]
async fn the_same_command_again_adds_missing_targets_and_another_body_is_refused() {
    on_both(|store| async move {
        let (a, b) = (enrolled(&store, 1).await, enrolled(&store, 2).await);
        let stranger = EnrollmentId(Random::System.uuid_v4());
        let first = enqueue(&store, &new("c", "body"), &[a, a, stranger], NOW).await.unwrap();
        assert!(first.created);
        assert_eq!(first.targets, [(a, TargetOutcome::Queued), (stranger, TargetOutcome::Unknown)]);
        poll(&store, a, Status::Idle, None, NOW).await;
        poll(&store, a, Status::Acknowledged, Some("c"), NOW).await;

        let again = enqueue(&store, &new("c", "body"), &[a, b], NOW).await.unwrap();
        assert!(!again.created);
        assert_eq!(again.targets, [(a, TargetOutcome::Present), (b, TargetOutcome::Queued)]);
        assert_eq!(state(&store, a, "c").await, "acknowledged");
        assert!(matches!(enqueue(&store, &new("c", "other"), &[a], NOW).await, Err(Error::OtherBody(_))));
    })
    .await;
}

#[tokio::test]
async fn only_enrolled_enrollments_take_commands() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        let mut tx = store.begin().await.unwrap();
        let gone = EnrollmentState::Unenrolled { at: NOW, why: mdm_core::enrollment::UnenrolledWhy::CheckOut };
        store::enrollments::set_state(&mut tx, id, gone).await.unwrap();
        tx.commit().await.unwrap();
        let done = enqueue(&store, &new("c", "b"), &[id], NOW).await.unwrap();
        assert_eq!(done.targets, [(id, TargetOutcome::NotEnrolled)]);
    })
    .await;
}

#[tokio::test]
async fn a_command_whose_time_is_over_is_not_handed_out() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        let minute = New { ttl: Some(Duration::from_secs(60)), ..new("short", "b") };
        enqueue(&store, &minute, &[id], NOW).await.unwrap();
        enqueue(&store, &new("long", "b"), &[id], NOW).await.unwrap();
        let later = NOW.plus(Duration::from_secs(60));
        assert_eq!(poll(&store, id, Status::Idle, None, later).await.1.as_deref(), Some("long"));
        let mut tx = store.begin().await.unwrap();
        assert_eq!(commands::expire(&mut tx, later, 100).await.unwrap(), 1);
        tx.commit().await.unwrap();
        assert_eq!(state(&store, id, "short").await, "expired");
    })
    .await;
}

#[tokio::test]
async fn a_body_for_many_devices_is_stored_once_and_sealed() {
    on_both(|store| async move {
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(enrolled(&store, n).await);
        }
        enqueue(&store, &new("c", "a PIN of 123456"), &ids, NOW).await.unwrap();
        let mut tx = store.read().await.unwrap();
        let row = store::commands::get(&mut tx, &uuid("c")).await.unwrap().unwrap();
        assert!(!row.body_sealed.windows(6).any(|w| w == b"123456"));
        assert_eq!(store::commands::targets_of_command(&mut tx, &uuid("c"), None, 100).await.unwrap().len(), 20);
    })
    .await;
}
