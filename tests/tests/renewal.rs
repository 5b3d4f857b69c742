//! The life of a device's identity, on both databases: renewed before its end, tried again, kept apart from enrollment, and what
//! is left to a device whose identity has ended.

#[cfg(test)]
#[expect(dead_code, reason = "the other stories of the device's door use the rest")]
mod checkin_world;
#[cfg(test)]
mod renewal_world;

use std::time::Duration;

use checkin_world::{Proof, World, story};
use http::StatusCode;
use mdm_core::plist::Value;
use mdm_tests::{Backend, Database};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use renewal::{Reason, State};
use renewal_world::{Case, DAY, EVENTS, Event, ask, delivered, fetch, row, run, scep};
use sqlx::Connection;
use tower::ServiceExt;

const BAD: StatusCode = StatusCode::BAD_REQUEST;

#[tokio::test]
async fn th_10_a_renewed_identity_keeps_queue_and_escrow_and_the_old_one_until_it_is_seen() {
    story(|world| async move {
        for (n, first) in [(1, "Authenticate"), (2, "TokenUpdate"), (3, "poll")] {
            let (device, id) = world.enrolled(n).await;
            let secret = device.message("SetBootstrapToken", "<key>BootstrapToken</key><data>c2VjcmV0</data>");
            assert!(world.check_in(Proof::Signed(&device), &secret).await.is_empty());
            assert!(ask(&world, id).await);
            assert!(!ask(&world, id).await, "one at a time");
            let command = fetch(&world, &device).await;
            assert_eq!(fetch(&world, &device).await.profile, command.profile, "lost on the way: the same again");
            world.enqueue(id, &format!("waits-{n}")).await;
            let next = scep(&world, &device, &command).await.unwrap();

            if first == "Authenticate" {
                world.later(1);
                assert!(world.check_in(Proof::Signed(&next), &next.authenticate()).await.is_empty());
                assert!(world.idle(&device).await.status.is_success(), "it may go back to the old one");
            }
            if first == "poll" {
                assert!(world.idle(&next).await.status.is_success());
            } else {
                assert!(world.check_in(Proof::Signed(&next), &next.token_update()).await.is_empty());
            }
            assert_eq!(row(&world, id).await.state, State::Done, "{first}");
            assert_eq!(world.idle(&device).await.status, BAD, "{first}: the old identity is not accepted any more");
            world.later(1);
            assert!(world.acknowledge(&next, &command.uuid).await.body.contains(&format!("waits-{n}")));
            assert!(world.acknowledge(&next, &format!("waits-{n}")).await.is_empty());
            let token = world.check_in(Proof::Signed(&next), &next.message("GetBootstrapToken", "")).await;
            assert!(token.body.contains("c2VjcmV0"), "{first}: {}", token.body);
            assert_eq!(world.enrollment(id).await.generation, 1);
        }
        assert_eq!(world.events("identity.renewed").await, 3);
    })
    .await;
}

#[tokio::test]
async fn messages_that_come_at_once_with_the_new_identity_are_all_taken() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        ask(&world, id).await;
        let command = fetch(&world, &device).await;
        let next = scep(&world, &device, &command).await.unwrap();
        let polls = futures_util::future::join_all((0..6).map(|_| world.idle(&next))).await;
        assert!(polls.iter().all(|answer| answer.status.is_success()), "{polls:?}");
        assert_eq!(world.events("enrollment.renewed").await, 1);
        assert_eq!(world.events("identity.renewed").await, 1);
    })
    .await;
}

#[tokio::test]
async fn the_profile_of_a_renewal_changes_nothing_that_can_not_change() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        ask(&world, id).await;
        let one = fetch(&world, &device).await;
        assert_eq!(one.profile.get("PayloadIdentifier").and_then(Value::as_string), Some("org.example.mdm.enrollment"));
        let mdm = one.payload("com.apple.mdm");
        let text = |key: &str| mdm.get(key).and_then(Value::as_string).map(str::to_owned);
        assert_eq!(text("ServerURL").as_deref(), Some("https://mdm.example.org/mdm"));
        assert_eq!(text("CheckInURL").as_deref(), Some("https://mdm.example.org/checkin"));
        assert_eq!(text("Topic").as_deref(), Some(checkin_world::TOPIC));

        // An hour later the permission in it has ended: the same command comes with a new one.
        world.later(3600);
        let two = fetch(&world, &device).await;
        assert_eq!(one.uuid, two.uuid);
        assert!(scep(&world, &device, &one).await.is_none());
        assert!(scep(&world, &device, &two).await.is_some());
    })
    .await;
}

/// From now on the door of links asks for identities of an ACME server; our CA stands in for it.
async fn prefer_acme(world: &mut World) {
    let issuers = vec![world.ca.fingerprint()];
    world.settings(checkin::Settings { external_issuers: issuers, ..checkin::Settings::default() });
    let settings = serde_json::json!({
        "enabled": true,
        "identity": { "prefer": "acme", "acme": { "directory_url": "https://acme.example.org/directory" } },
    });
    let settings: enroll::door::Settings = serde_json::from_value(settings).unwrap();
    let mut tx = world.store.begin().await.unwrap();
    enroll::door::store(&mut tx, mdm_core::enrollment::Door::Link, &settings, "test", world.now()).await.unwrap();
    tx.commit().await.unwrap();
}

/// What the ACME server gives for the permission in a profile.
fn acme(world: &World, device: &checkin_world::Device, command: &renewal_world::Delivered) -> checkin_world::Device {
    let payload = command.payload("com.apple.security.acme");
    let identifier = payload.get("ClientIdentifier").and_then(Value::as_string).unwrap();
    let key = checkin_world::p256();
    let certificate = world.named_certificate(&key, identifier);
    checkin_world::Device { key, certificate, ..device.clone() }
}

#[tokio::test]
async fn an_acme_renewal_may_take_a_week_and_ends_with_the_next_one() {
    story(|mut world| async move {
        let mut devices = Vec::new();
        for n in 1..=3 {
            devices.push(world.enrolled(n).await);
        }
        prefer_acme(&mut world).await;
        for ((device, id), days) in devices.into_iter().zip([6, 8, 1]) {
            ask(&world, id).await;
            let command = fetch(&world, &device).await;
            world.later(days * DAY);
            let next = acme(&world, &device, &command);
            if days == 1 {
                world.report(Proof::Signed(&device), &device.status("Error", &command.uuid)).await;
                ask(&world, id).await;
                let newer = fetch(&world, &device).await;
                assert_eq!(world.idle(&next).await.status, BAD, "another profile took its place");
                assert!(world.idle(&acme(&world, &device, &newer)).await.status.is_success());
                continue;
            }
            assert_eq!(world.idle(&next).await.status.is_success(), days < 7, "{days} days");
        }
    })
    .await;
}

#[tokio::test]
async fn a_scep_identity_becomes_an_acme_one_and_the_old_one_holds_until_then() {
    story(|mut world| async move {
        let mut devices = Vec::new();
        for n in 1..=4 {
            devices.push(world.enrolled(n).await);
        }
        prefer_acme(&mut world).await;
        world.later(310 * DAY);
        run(&world).await;
        world.later(2 * DAY);
        run(&world).await;
        for ((device, id), way) in devices.into_iter().zip(["Authenticate", "TokenUpdate", "poll", "stranger"]) {
            let command = fetch(&world, &device).await;
            assert_eq!(row(&world, id).await.reason, Reason::ToAcme);
            let acme = command.payload("com.apple.security.acme");
            let identifier = acme.get("ClientIdentifier").and_then(Value::as_string).unwrap();
            assert_eq!(acme.get("HardwareBound").and_then(Value::as_boolean), Some(true));
            let key = checkin_world::p256();
            let name = if way == "stranger" { "guessed" } else { identifier };
            let certificate = world.named_certificate(&key, name);
            let next = checkin_world::Device { key, certificate, ..device.clone() };
            if way == "stranger" {
                for message in [next.authenticate(), next.token_update()] {
                    assert_eq!(world.check_in(Proof::Signed(&next), &message).await.status, BAD);
                }
                assert_eq!(world.idle(&next).await.status, BAD);
                assert!(world.idle(&device).await.status.is_success());
                continue;
            }
            if way == "Authenticate" {
                assert!(world.check_in(Proof::Signed(&next), &next.authenticate()).await.is_empty());
                assert!(world.idle(&device).await.status.is_success());
            }
            if way == "poll" {
                assert!(world.idle(&next).await.status.is_success(), "{way}");
            } else {
                assert!(world.check_in(Proof::Signed(&next), &next.token_update()).await.is_empty(), "{way}");
            }
            assert_eq!(world.idle(&device).await.status, BAD, "{way}");
            assert_eq!(row(&world, id).await.state, State::Done, "{way}");
            assert_eq!(world.enrollment(id).await.generation, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn th_11_what_goes_wrong_is_tried_again_until_the_new_identity_is_seen() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        run(&world).await;
        assert!(store::renewals::get(&mut world.store.read().await.unwrap(), id).await.unwrap().is_none(), "too early");
        world.later(250 * DAY);
        run(&world).await;
        let planned = row(&world, id).await;
        assert_eq!((planned.state, planned.reason, planned.attempts), (State::Due, Reason::Expiry, 0));
        world.later(60 * DAY);
        run(&world).await;
        assert_eq!(row(&world, id).await.state, State::Queued);

        // The device's error.
        let command = fetch(&world, &device).await;
        let error = format!(
            "{}<key>ErrorChain</key><array><dict><key>ErrorCode</key><integer>4001</integer>\
             <key>ErrorDomain</key><string>MCProfileErrorDomain</string></dict></array>",
            device.status("Error", &command.uuid)
        );
        assert!(world.report(Proof::Signed(&device), &error).await.is_empty());
        let failed = row(&world, id).await;
        assert_eq!((failed.state, failed.attempts), (State::Due, 1));
        assert!(failed.last_error.unwrap().contains("MCProfileErrorDomain 4001"));
        run(&world).await;
        assert_eq!(row(&world, id).await.state, State::Due, "not at once");
        world.later(2 * DAY);
        run(&world).await;

        // NotNow, and then no answer until the command's own end.
        let command = fetch(&world, &device).await;
        assert!(world.report(Proof::Signed(&device), &device.status("NotNow", &command.uuid)).await.is_empty());
        assert_eq!(row(&world, id).await.last_error.as_deref(), Some("NotNow"));
        expire_commands(&world, 8 * DAY).await;
        let failed = row(&world, id).await;
        assert_eq!((failed.attempts, failed.last_error.as_deref()), (2, Some("no_answer")));

        // Cancelled by an operator.
        world.later(2 * DAY);
        run(&world).await;
        let uuid = row(&world, id).await.command.unwrap();
        let mut tx = world.store.begin().await.unwrap();
        commands::cancel(&mut tx, id, &uuid, "test", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        expire_commands(&world, 8 * DAY).await;
        assert_eq!(row(&world, id).await.last_error.as_deref(), Some("cancelled"));

        // Acknowledged, but no message comes with a new identity.
        world.later(2 * DAY);
        run(&world).await;
        let command = fetch(&world, &device).await;
        assert!(world.acknowledge(&device, &command.uuid).await.is_empty());
        assert_eq!(row(&world, id).await.state, State::Issued);
        world.later(2 * DAY);
        run(&world).await;
        let failed = row(&world, id).await;
        assert_eq!(
            (failed.state, failed.attempts, failed.last_error.as_deref()),
            (State::Due, 4, Some("no_new_identity"))
        );

        // At last.
        world.later(2 * DAY);
        run(&world).await;
        let command = fetch(&world, &device).await;
        let next = scep(&world, &device, &command).await.unwrap();
        assert!(world.check_in(Proof::Signed(&next), &next.token_update()).await.is_empty());
        assert_eq!(row(&world, id).await.state, State::Done);
        assert_eq!(world.events("renewal.failed").await, 4);
        run(&world).await;
        assert_eq!(row(&world, id).await.state, State::Done, "the new one has its whole life before it");
    })
    .await;
}

/// Time passes, and the loops that end commands and renew identities run every six hours.
async fn expire_commands(world: &World, seconds: u64) {
    for _ in 0..seconds / (DAY / 4) {
        world.later(DAY / 4);
        let mut tx = world.store.begin().await.unwrap();
        commands::expire(&mut tx, world.now(), 1000).await.unwrap();
        tx.commit().await.unwrap();
        run(world).await;
    }
}

#[tokio::test]
async fn th_11_rg_19_stuck_devices_are_shown_and_hold_up_nobody() {
    story(|world| async move {
        let mut devices = Vec::new();
        for n in 0..30 {
            devices.push(world.enrolled(n).await);
        }
        world.later(244 * DAY);
        let mut renewed = [false; 30];
        // Devices look in twice a day; every fifth one refuses the profile each time.
        for _ in 0..2 * 100 {
            world.later(DAY / 2);
            let mut tx = world.store.begin().await.unwrap();
            commands::expire(&mut tx, world.now(), 1000).await.unwrap();
            tx.commit().await.unwrap();
            while renewal::run_once(&world.store, &world.renewal(), world.now(), 4).await.unwrap() >= 4 {}
            for (n, (device, id)) in devices.iter_mut().enumerate() {
                if renewed[n] || world.waiting(*id).await == 0 {
                    continue;
                }
                let command = fetch(&world, device).await;
                if n % 5 == 0 {
                    world.report(Proof::Signed(device), &device.status("Error", &command.uuid)).await;
                } else {
                    let next = scep(&world, device, &command).await.unwrap();
                    assert!(world.check_in(Proof::Signed(&next), &next.token_update()).await.is_empty());
                    world.acknowledge(&next, &command.uuid).await;
                    *device = next;
                    renewed[n] = true;
                }
            }
        }
        assert_eq!(renewed.iter().filter(|done| **done).count(), 24);
        let mut tx = world.store.read().await.unwrap();
        assert_eq!(store::identities::stuck(&mut tx, world.now()).await.unwrap(), 6);
        assert!(renewal::warnings(&mut tx, world.now()).await.unwrap()[0].starts_with("6 device identities"));
        let filter = store::identities::Filter { stuck: true, ..Default::default() };
        let stuck = store::identities::list(&mut tx, &filter, None, world.now(), 100).await.unwrap();
        assert_eq!(stuck.len(), 6);
        for identity in stuck {
            assert!(identity.renewal_attempts.unwrap() > 10, "{identity:?}");
            assert!(identity.renewal_due_at.is_some() || identity.renewal_state.as_deref() == Some("queued"));
        }
    })
    .await;
}

#[tokio::test]
async fn rg_19_a_renewal_that_can_not_be_read_holds_up_nobody() {
    for backend in mdm_tests::both() {
        let database = Database::new(backend).await;
        let world = World::new(database.store.clone()).await;
        let mut ids = Vec::new();
        for n in 0..6 {
            ids.push(world.enrolled(n).await.1);
        }
        world.later(250 * DAY);
        run(&world).await;
        let poison = "UPDATE renewal SET cert_sha256 = $1, due_at = 0 WHERE enrollment_id = $2";
        let bytes = vec![0_u8];
        match backend {
            Backend::Sqlite => {
                let mut raw = sqlx::SqliteConnection::connect(&database.place.url).await.unwrap();
                sqlx::query(poison).bind(bytes).bind(ids[0].0).execute(&mut raw).await.unwrap();
                raw.close().await.unwrap();
            }
            Backend::Postgres => {
                let mut raw = sqlx::PgConnection::connect(&database.place.url).await.unwrap();
                sqlx::query(poison).bind(bytes).bind(ids[0].0).execute(&mut raw).await.unwrap();
                raw.close().await.unwrap();
            }
        }
        world.later(62 * DAY);
        // The broken one is the first in the order, and the batches are small.
        for _ in 0..6 {
            renewal::run_once(&world.store, &world.renewal(), world.now(), 2).await.unwrap();
        }
        for id in &ids[1..] {
            assert_eq!(row(&world, *id).await.state, State::Queued, "{backend}");
        }
        drop(world);
        database.remove().await;
    }
}

#[tokio::test]
async fn th_09_an_ended_identity_within_its_grace_gets_the_renewal_and_nothing_else() {
    story(|mut world| async move {
        world.grace(Duration::from_secs(30 * DAY));
        let (device, id) = world.enrolled(1).await;
        let (revoked, _) = world.enrolled(2).await;
        let (late, late_id) = world.enrolled(3).await;
        world.enqueue(id, "waits").await;
        world.revoke(&revoked).await;
        // The server was off, or the device away: nothing was renewed in time.
        world.later(370 * DAY);

        assert_eq!(world.idle(&revoked).await.status, BAD);
        for message in
            [device.token_update(), device.authenticate(), device.check_out(), device.message("GetBootstrapToken", "")]
        {
            assert_eq!(world.check_in(Proof::Signed(&device), &message).await.status, BAD, "{message}");
        }
        let answer = world.report(Proof::Signed(&device), &device.status("Acknowledged", "waits")).await;
        assert!(!answer.body.contains("waits"));
        let command = delivered(&answer.body).expect("the renewal, and nothing else");
        assert_eq!(row(&world, id).await.reason, Reason::Expired);
        assert_eq!(world.events("identity.grace").await, 1);
        assert_eq!(world.waiting(id).await, 2, "what waits, waits for the new identity");

        let next = scep(&world, &device, &command).await.unwrap();
        assert!(world.report(Proof::Signed(&device), &device.status("Acknowledged", &command.uuid)).await.is_empty());
        assert_eq!(row(&world, id).await.state, State::Issued);
        assert!(world.check_in(Proof::Signed(&next), &next.token_update()).await.is_empty());
        assert_eq!(row(&world, id).await.state, State::Done);
        assert!(world.idle(&next).await.body.contains("waits"));
        assert_eq!(world.idle(&device).await.status, BAD);

        // Beyond the grace, and without one: refused, said once, and never by 401.
        world.later(30 * DAY);
        assert_eq!(world.idle(&late).await.status, BAD);
        assert_eq!(world.events("identity.not_valid").await, 1);
        run(&world).await;
        assert_eq!(row(&world, late_id).await.last_error.as_deref(), Some("identity_ended"));
        assert_eq!(world.events("identity.lost").await, 1);
        let (other, _) = world.enrolled(4).await;
        world.grace(Duration::ZERO);
        world.later(366 * DAY);
        assert_eq!(world.idle(&other).await.status, BAD);
    })
    .await;
}

#[tokio::test]
async fn th_09_a_revoked_identity_is_refused_by_every_server_at_once_and_is_not_renewed() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let servers = [world.door_with(checkin::Settings::default()), world.door_with(checkin::Settings::default())];
        let statuses = async || {
            let mut statuses = Vec::new();
            for server in &servers {
                // Another second, so that nothing but the certificate is the same.
                world.later(1);
                let body = checkin_world::plist(&device.idle());
                let request = world.request("/mdm", None, &body, Proof::Tls(&device));
                statuses.push(server.clone().oneshot(request).await.unwrap().status());
            }
            statuses
        };
        assert_eq!(statuses().await, [StatusCode::OK; 2]);
        world.revoke(&device).await;
        assert_eq!(statuses().await, [BAD; 2]);
        world.later(300 * DAY);
        assert!(!ask(&world, id).await);
        assert!(store::renewals::get(&mut world.store.read().await.unwrap(), id).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn th_09_what_the_holder_of_a_revoked_identity_asked_for_is_void() {
    story(|world| async move {
        for (n, way) in [(1, "open"), (2, "profile"), (3, "asked by itself")] {
            let (device, id) = world.enrolled(n).await;
            ask(&world, id).await;
            let command = fetch(&world, &device).await;
            let next = match way {
                "profile" => scep(&world, &device, &command).await,
                "asked by itself" => Some(world.renewed(&device, id).await),
                _ => None,
            };
            world.revoke(&device).await;
            assert!(scep(&world, &device, &command).await.is_none(), "{way}");
            if let Some(next) = next {
                for message in [next.authenticate(), next.token_update(), next.message("GetBootstrapToken", "")] {
                    assert_eq!(world.check_in(Proof::Signed(&next), &message).await.status, BAD, "{way}: {message}");
                }
                assert_eq!(world.idle(&next).await.status, BAD, "{way}");
            }
            assert_eq!(row(&world, id).await.state, State::Done, "{way}");
        }
        // The successor is revoked and the device is back at its old identity: that one is renewed all the same.
        let (device, id) = world.enrolled(4).await;
        ask(&world, id).await;
        let next = half_renewed(&world, &device).await;
        world.revoke(&next).await;
        run(&world).await;
        let again = row(&world, id).await;
        assert_eq!((again.state, again.identity), (State::Queued, device.certificate.fingerprint()));
        assert!(scep(&world, &device, &fetch(&world, &device).await).await.is_some());
    })
    .await;
}

/// The device takes the renewal that waits, says `Authenticate` with the new identity, and fails to install the profile.
async fn half_renewed(world: &World, device: &checkin_world::Device) -> checkin_world::Device {
    let command = fetch(world, device).await;
    let next = scep(world, device, &command).await.unwrap();
    world.later(1);
    assert!(world.check_in(Proof::Signed(&next), &next.authenticate()).await.is_empty());
    world.later(1);
    world.report(Proof::Signed(device), &device.status("Error", &command.uuid)).await;
    next
}

#[tokio::test]
async fn th_11_a_device_that_went_back_to_its_old_identity_is_renewed_again() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let old = device.certificate.fingerprint();
        ask(&world, id).await;
        let next = half_renewed(&world, &device).await;
        assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
        assert_eq!(world.events("identity.renewed").await, 0);
        assert!(ask(&world, id).await);
        assert_eq!(row(&world, id).await.identity, old, "the one that the device has");
        // Even where a row says that the newer one is to be renewed.
        let mut tx = world.store.begin().await.unwrap();
        let wrong = store::renewals::Renewal { identity: next.certificate.fingerprint(), ..row(&world, id).await };
        store::renewals::save(&mut tx, &wrong, world.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.later(1);
        assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
        assert_eq!(row(&world, id).await.state, State::Queued);
        assert_eq!(world.events("identity.renewed").await, 0);

        // One that was never asked: it is found in its time, and shown as stuck.
        let (device, id) = world.enrolled(2).await;
        world.later(1);
        let next = world.renewed(&device, id).await;
        world.later(1);
        assert!(world.check_in(Proof::Signed(&next), &next.authenticate()).await.is_empty());
        world.later(300 * DAY);
        let mut tx = world.store.begin().await.unwrap();
        let all = store::renewals::unplanned(&mut tx, world.now(), world.now().plus(Duration::from_secs(120 * DAY)), 9);
        let found: Vec<_> = all.await.unwrap().into_iter().filter(|one| one.enrollment == id).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].identity, device.certificate.fingerprint());
        drop(tx);
        world.later(40 * DAY);
        let filter = store::identities::Filter { stuck: true, enrollment: Some(id), ..Default::default() };
        let mut tx = world.store.read().await.unwrap();
        let stuck = store::identities::list(&mut tx, &filter, None, world.now(), 100).await.unwrap();
        assert_eq!(stuck.len(), 1);
        assert_eq!(stuck[0].cert_sha256, device.certificate.fingerprint().0);
    })
    .await;
}

#[tokio::test]
async fn th_10_after_authenticate_any_other_message_proves_the_new_identity() {
    story(|world| async move {
        for (n, way) in [(1, "poll"), (2, "stale TokenUpdate"), (3, "GetBootstrapToken")] {
            let (device, id) = world.enrolled(n).await;
            ask(&world, id).await;
            let command = fetch(&world, &device).await;
            let next = scep(&world, &device, &command).await.unwrap();
            world.later(1);
            let then = world.now();
            assert!(world.check_in(Proof::Signed(&next), &next.authenticate()).await.is_empty());
            assert_eq!(world.enrollment(id).await.anchors, None, "the device may go back to the old profile");
            world.later(1);
            assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
            assert_eq!(row(&world, id).await.state, State::Queued);
            assert_eq!(world.enrollment(id).await.anchors, None);
            match way {
                "poll" => assert!(world.idle(&next).await.status.is_success()),
                "stale TokenUpdate" => {
                    assert!(world.check_in(Proof::SignedAt(&next, then), &next.token_update()).await.is_empty());
                }
                _ => {
                    let token = next.message("GetBootstrapToken", "");
                    assert!(world.check_in(Proof::Signed(&next), &token).await.status.is_success());
                }
            }
            assert_eq!(row(&world, id).await.state, State::Done, "{way}");
            assert_eq!(world.idle(&device).await.status, BAD, "{way}");
            assert_eq!(world.enrollment(id).await.anchors.as_deref(), Some("[]"), "{way}: those of the new profile");
        }
        assert_eq!(world.events("identity.renewed").await, 3);
    })
    .await;
}

#[tokio::test]
async fn th_17_a_recorded_message_is_given_no_permission_and_no_unlock_token() {
    story(|mut world| async move {
        let (device, id) = world.enrolled(1).await;
        let recorded = world.now();
        world.later(60);
        assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
        ask(&world, id).await;
        unlock(&world, id).await;
        world.enqueue(id, "waits").await;
        // Signed a minute ago, but older than what came since; or signed long ago.
        for seconds in [0, 16 * 60] {
            world.later(seconds);
            let answer = world.report(Proof::SignedAt(&device, recorded), &device.idle()).await;
            assert!(answer.body.contains("waits"), "the rest is handed out: {}", answer.body);
            assert_eq!(world.waiting(id).await, 3);
        }
        assert!(delivered(&world.report(Proof::Tls(&device), &device.idle()).await.body).is_some());
        let command = fetch(&world, &device).await;
        // There is no token, so that the command ends when its turn comes.
        let answer = world.acknowledge(&device, &command.uuid).await;
        assert!(answer.body.contains("waits"), "{}", answer.body);
        assert_eq!(world.waiting(id).await, 1);

        // Nor within the grace of an identity that has ended.
        world.grace(Duration::from_secs(30 * DAY));
        let (device, _) = world.enrolled(2).await;
        let recorded = world.now().plus(Duration::from_secs(370 * DAY));
        world.later(370 * DAY + 3600);
        assert!(world.report(Proof::SignedAt(&device, recorded), &device.idle()).await.is_empty());
        assert!(delivered(&world.idle(&device).await.body).is_some());
    })
    .await;
}

/// `ClearPasscode` on the device's queue.
async fn unlock(world: &World, id: mdm_core::ids::EnrollmentId) {
    let body = checkin_world::plist(
        "<key>CommandUUID</key><string>unlock</string><key>Command</key><dict><key>RequestType</key><string>ClearPasscode</string></dict>",
    );
    let new = commands::New {
        uuid: "unlock".parse().unwrap(),
        request_type: "ClearPasscode",
        rendering: commands::Rendering::Unlock,
        body: &body,
        lane: commands::Lane::Normal,
        coalescing_key: None,
        ttl: None,
        created_by: "test",
        push: true,
    };
    let mut tx = world.store.begin().await.unwrap();
    commands::enqueue(&mut tx, &world.policy.commands, &new, &[id], world.now()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn th_10_a_certificate_of_before_the_wipe_does_not_enter_the_new_lineage() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        ask(&world, id).await;
        let command = fetch(&world, &device).await;
        let kept = scep(&world, &device, &command).await.unwrap();
        let fresh = renewal_world::wiped(&world, &device).await;
        assert!(world.check_in(Proof::Signed(&fresh), &fresh.authenticate()).await.is_empty());
        assert!(world.check_in(Proof::Signed(&fresh), &fresh.token_update()).await.is_empty());
        for message in [kept.authenticate(), kept.token_update(), kept.message("GetBootstrapToken", "")] {
            assert_eq!(world.check_in(Proof::Signed(&kept), &message).await.status, BAD);
        }
        assert_eq!(world.idle(&kept).await.status, BAD);
        assert!(world.idle(&fresh).await.is_empty());
        assert_eq!(world.enrollment(id).await.generation, 2);
    })
    .await;
}

/// The state machine of TH-10 and TH-13 against a small model: every pair of events after a renewal was delivered, and random
/// sequences.
async fn sequences(backend: Backend, pairs: bool, random: usize) {
    let mut all: Vec<Vec<Event>> = Vec::new();
    if pairs {
        for one in EVENTS {
            all.extend(EVENTS.map(|two| vec![Event::Queue, Event::Deliver, one, two]));
        }
    }
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::collection::vec(proptest::sample::select(EVENTS.to_vec()), 6..14);
    for _ in 0..random {
        all.push(strategy.new_tree(&mut runner).unwrap().current());
    }
    // Each lets years pass, and the time in a signature has two digits for the year.
    for some in all.chunks(10) {
        let database = Database::new(backend).await;
        let world = World::new(database.store.clone()).await;
        for (n, sequence) in (100..).zip(some) {
            // Shown where the test fails.
            println!("{backend}: {sequence:?}");
            let mut case = Case::new(&world, n).await;
            for event in sequence {
                case.happens(*event).await;
            }
        }
        drop(world);
        database.remove().await;
    }
}

#[tokio::test]
async fn th_10_th_13_renewal_wipe_removal_and_replays_in_every_order_on_sqlite() {
    sequences(Backend::Sqlite, true, 60).await;
}

#[tokio::test]
async fn th_10_th_13_renewal_wipe_removal_and_replays_in_random_order_on_postgres() {
    sequences(Backend::Postgres, false, 20).await;
}
