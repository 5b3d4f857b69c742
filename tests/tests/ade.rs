//! Apple's device service: tokens, the list with its cursor, profiles and their assignment, and everything that goes wrong.

mod ade_world;

use std::sync::Arc;
use std::time::Duration;

use ade::{Definition, Error};
use ade_world::{DAY, HOUR, MINUTE, World, twice};
use mdm_core::certificate::Certificate;
use mdm_core::time::Timestamp;
use simulator::ade_service::{DeviceFault, Fault};

#[tokio::test]
async fn a_token_is_renewed_and_another_ones_is_refused() {
    twice(async |world| {
        let (portal, other) = (world.apple.add_server("ours"), world.apple.add_server("theirs"));
        let server = world.create("ours").await;
        assert_eq!(server.health, "no_token");
        assert_eq!(world.visit().await, 0, "nothing to do without a token");
        let pem = World::pem(&server);
        let refused = world.put_token(&server, "hello", false).await.unwrap_err();
        assert!(matches!(refused, Error::NotAToken(_)), "{refused}");
        let elsewhere = world.create("elsewhere").await;
        let misled = portal.token(&World::pem(&elsewhere), 365).unwrap();
        assert!(matches!(world.put_token(&server, &misled, false).await.unwrap_err(), Error::OtherCertificate));

        let first = portal.token(&pem, 300).unwrap();
        let row = world.put_token(&server, &first, false).await.unwrap();
        assert_eq!(row.token_expires_at, Some(world.clock.now().plus(DAY * 300).0));
        let sealed = row.token_sealed.unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"token"), "the token is sealed");

        // Renewal: a later one of the same server; never an older one.
        let renewed = portal.token(&pem, 365).unwrap();
        world.put_token(&server, &renewed, false).await.unwrap();
        assert!(matches!(world.put_token(&server, &first, false).await.unwrap_err(), Error::Older));
        assert!(matches!(world.put_token(&server, &first, true).await.unwrap_err(), Error::Older));
        assert!(matches!(
            world.put_token(&server, &portal.token(&pem, -1).unwrap(), true).await.unwrap_err(),
            Error::Ended
        ));

        // A token of another server of the portal.
        world.add_devices(&portal, 2);
        let renewed = portal.token(&pem, 366).unwrap();
        world.put_token(&server, &renewed, false).await.unwrap();
        world.visit().await;
        assert!(world.device(0).await.is_some());
        let foreign = other.token(&pem, 365).unwrap();
        assert!(matches!(world.put_token(&server, &foreign, false).await.unwrap_err(), Error::OtherConsumerKey));
        assert!(world.device(0).await.is_some(), "a refusal changes nothing");
        assert!(matches!(
            world.put_token(&elsewhere, &portal.token(&World::pem(&elsewhere), 367).unwrap(), false).await.unwrap_err(),
            Error::InUse(_)
        ));
        world.put_token(&server, &foreign, true).await.unwrap();
        assert!(world.device(0).await.is_none(), "until the other server lists them, these devices are nobody's");
        other.add_device(&world.serial(0), "iPhone 17", "iPhone", "iOS");
        world.visit().await;
        assert_eq!(world.health(&server).await, "ok");
        assert!(world.device(0).await.is_some() && world.device(1).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn the_list_is_read_in_pages_and_then_by_what_changed() {
    twice(async |world| {
        let (server, portal) = world.server("list").await;
        world.apple.set_page(2);
        world.add_devices(&portal, 5);
        assert_eq!(world.visit().await, 1);
        assert_eq!(world.visit().await, 0, "the next visit is not due yet");
        let row = world.row(&server).await;
        assert_eq!((row.phase.as_str(), row.health.as_str()), ("sync", "ok"));
        assert!(row.account.unwrap().contains("Example Inc."));
        for n in 0..5 {
            assert_eq!(world.device(n).await.unwrap().model.as_deref(), Some("iPhone 17"));
        }

        world.pass(HOUR);
        let at = |minutes: u32| world.clock.now().minus(MINUTE * minutes).to_rfc3339();
        portal.tag_device(&world.serial(1), "new", &at(5));
        // Operations come twice, and out of order: the newest holds.
        portal.repeat_last_op();
        portal.tag_device(&world.serial(1), "old", &at(9));
        portal.tell_nonsense();
        portal.delete_device(&world.serial(0));
        portal.add_device(&world.serial(7), "Mac mini", "Mac", "OSX");
        let before = world.asked();
        world.visit().await;
        assert!(world.asked_since(before).iter().all(|asked| asked.what != "POST /server/devices"));
        assert!(world.device(0).await.is_none());
        assert_eq!(world.device(1).await.unwrap().asset_tag.as_deref(), Some("new"));
        assert_eq!(world.device(7).await.unwrap().device_family.as_deref(), Some("Mac"));
        assert_eq!(world.health(&server).await, "ok", "an operation that cannot be read stops nothing");
    })
    .await;
}

#[tokio::test]
async fn th_69_a_cursor_that_is_no_longer_good_leads_to_a_full_list_and_to_no_deletion() {
    twice(async |world| {
        let (server, portal) = world.server("cursor").await;
        world.add_devices(&portal, 3);
        world.visit().await;
        for word in ["EXPIRED_CURSOR", "INVALID_CURSOR", "CURSOR_REQUIRED"] {
            portal.fault("/devices/sync", Fault::Answer(400, word, None));
            let before = world.asked();
            world.next_visit().await;
            let paths: Vec<String> = world.asked_since(before).into_iter().map(|asked| asked.what).collect();
            assert!(paths.contains(&"POST /server/devices".to_owned()), "{word}: {paths:?}");
            assert_eq!(world.health(&server).await, "ok", "{word}");
        }
        // A device left while nobody listened. Its row stays, because only Apple's word deletes, but it counts for nothing.
        let approve = async |n: u32| {
            let mut tx = world.store().begin().await.unwrap();
            let (serial, now) = (world.serial(n), world.clock.now());
            store::ade::devices::approve(&mut tx, server.id, &serial, Some(now), now).await.unwrap();
            tx.commit().await.unwrap();
        };
        approve(0).await;
        approve(1).await;
        portal.expire_cursors();
        portal.delete_device(&world.serial(0));
        portal.add_device(&world.serial(3), "iPad", "iPad", "iPadOS");
        world.next_visit().await;
        let row = store::ade::devices::get(&mut world.store().read().await.unwrap(), server.id, &world.serial(0)).await;
        let row = row.unwrap().unwrap();
        assert_eq!((row.deleted_at, row.approved_at), (None, None));
        assert!(row.unlisted_at.is_some());
        assert!(world.device(0).await.is_none() && world.device(3).await.is_some());
        assert!(world.device(1).await.unwrap().approved_at.is_some(), "what is still listed stays approved");
        assert_eq!(world.events("ade.unlisted", server.id).await.len(), 1);
        portal.add_device(&world.serial(0), "iPhone 17", "iPhone", "iOS");
        world.next_visit().await;
        assert!(world.device(0).await.unwrap().approved_at.is_none(), "it comes back without approval");
        // The list was read to its end before: what follows are changes.
        let mut tx = world.store().begin().await.unwrap();
        let cursor = world.row(&server).await.cursor;
        store::ade::servers::put_cursor(&mut tx, server.id, cursor.as_deref(), "fetch", None).await.unwrap();
        tx.commit().await.unwrap();
        world.next_visit().await;
        let row = world.row(&server).await;
        assert_eq!((row.phase.as_str(), row.health.as_str()), ("sync", "ok"));
    })
    .await;
}

#[tokio::test]
async fn a_cursor_that_repeats_itself_ends_the_visit() {
    twice(async |world| {
        let (server, portal) = world.server("loop").await;
        world.add_devices(&portal, 2);
        world.visit().await;
        for _ in 0..50 {
            portal.fault("/devices/sync", Fault::RepeatCursor);
        }
        let before = world.asked();
        world.next_visit().await;
        let syncs = world.asked_since(before).iter().filter(|asked| asked.what == "POST /devices/sync").count();
        assert_eq!(syncs, 1, "no tight loop");
        let row = world.row(&server).await;
        assert_eq!((row.health.as_str(), row.failures), ("unreachable", 1));
        assert!(row.due_at > world.clock.now().0);
    })
    .await;
}

#[tokio::test]
async fn th_69_a_crash_between_two_pages_loses_nothing() {
    twice(async |world| {
        let (server, portal) = world.server("crash").await;
        world.apple.set_page(2);
        world.add_devices(&portal, 6);
        // The second page is late; by then the process is gone.
        portal.fault("/account", Fault::Slow(Duration::ZERO));
        portal.fault("/server/devices", Fault::Slow(Duration::ZERO));
        portal.fault("/server/devices", Fault::Slow(Duration::from_secs(60)));
        let (context, now) = (world.context.clone(), world.clock.now());
        let visit = tokio::spawn(async move { ade::run_once(&context, now).await });
        world.until_asked("POST /server/devices", 2).await;
        visit.abort();
        assert!(visit.await.unwrap_err().is_cancelled());
        let row = world.row(&server).await;
        assert_eq!(row.phase, "fetch");
        assert!(row.cursor.is_some(), "the cursor of the first page");
        assert!(world.device(0).await.is_some() && world.device(1).await.is_some(), "and its rows");
        assert!(world.device(2).await.is_none());
        assert_eq!(world.visit().await, 0, "the lease of the process that is gone still holds");
        world.pass(MINUTE * 11);
        let before = world.asked();
        assert_eq!(world.visit().await, 1);
        for n in 0..6 {
            assert!(world.device(n).await.is_some(), "{n}");
        }
        let pages = world.asked_since(before).iter().filter(|asked| asked.what == "POST /server/devices").count();
        assert_eq!(pages, 2, "the list goes on where it was");
    })
    .await;
}

#[tokio::test]
async fn rg_23_of_two_replicas_one_visits_and_who_lost_the_lease_writes_nothing() {
    twice(async |world| {
        let (server, portal) = world.server("replicas").await;
        world.add_devices(&portal, 3);
        let now = world.clock.now();
        let (one, two) = tokio::join!(ade::run_once(&world.context, now), ade::run_once(&world.context, now));
        assert_eq!(one.unwrap() + two.unwrap(), 1);

        // One is stopped in the middle of a visit, another takes over, the first wakes up.
        world.pass(HOUR);
        portal.delete_device(&world.serial(0));
        portal.fault("/devices/sync", Fault::Slow(Duration::from_millis(1200)));
        let context = world.context.clone();
        let now = world.clock.now();
        let stopped = tokio::spawn(async move { ade::run_once(&context, now).await });
        world.until_asked("POST /devices/sync", 1).await;
        world.pass(MINUTE * 20);
        assert_eq!(world.visit().await, 1, "its lease is over");
        let cursor = world.row(&server).await.cursor;
        stopped.await.unwrap().unwrap();
        let row = world.row(&server).await;
        assert_eq!((row.cursor, row.health.as_str()), (cursor, "ok"));
        assert!(world.device(0).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn devices_get_their_profile_and_keep_getting_it() {
    twice(async |world| {
        let (server, portal) = world.server("assign").await;
        world.add_devices(&portal, 4);
        world.visit().await;
        assert_eq!(world.states(4).await, ["none"; 4]);
        world.default_profile(&server, "IT").await;
        assert_eq!(world.visit().await, 1, "what an operator says is done at once");
        assert_eq!(world.states(4).await, ["assigned"; 4]);
        let sent = portal.profile(&world.serial(0)).unwrap();
        assert_eq!(sent["url"], "https://mdm.example.com/ade/enroll");
        assert_eq!(sent["anchor_certs"].as_array().unwrap().len(), 1);
        let told = world.apple.profile_of(&world.serial(0)).unwrap();
        assert_eq!(told.anchor_certs, [world.context.settings.anchors[0].der().to_vec()]);
        assert!(told.await_device_configured);

        // The next visit has nothing to assign, and defines nothing.
        let before = world.asked();
        world.next_visit().await;
        assert!(world.asked_since(before).iter().all(|asked| !asked.what.contains("/profile")));
        assert_eq!(world.device(0).await.unwrap().profile_status.as_deref(), Some("pushed"));

        // A change is defined anew and assigned again; a device that is new gets it too.
        world.default_profile(&server, "Sales").await;
        portal.add_device(&world.serial(4), "iPad", "iPad", "iPadOS");
        world.visit().await;
        world.next_visit().await;
        assert_eq!(world.states(5).await, ["assigned"; 5]);
        for n in 0..5 {
            assert_eq!(portal.profile(&world.serial(n)).unwrap()["department"], "Sales");
        }
        assert_eq!(portal.profiles(), 2);

        // Apple has lost the definition: it is made once more.
        portal.forget_profiles();
        let serials = [world.serial(1)];
        let mut tx = world.store().begin().await.unwrap();
        portal.add_device(&world.serial(5), "iPad", "iPad", "iPadOS");
        ade::profiles::wish(&mut tx, &serials, None, world.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.visit().await;
        world.next_visit().await;
        world.next_visit().await;
        assert_eq!(portal.profile(&world.serial(5)).unwrap()["department"], "Sales");

        // Nothing is wished any more.
        let mut tx = world.store().begin().await.unwrap();
        store::ade::servers::set_default_profile(&mut tx, server.id, None, world.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.visit().await;
        assert_eq!(world.states(6).await, ["none"; 6]);
        assert_eq!(portal.profile(&world.serial(1)), None);
    })
    .await;
}

#[tokio::test]
async fn a_device_has_the_profile_that_is_wished_for_it() {
    twice(async |world| {
        let (server, portal) = world.server("wish").await;
        world.apple.set_put_is_known(false);
        world.add_devices(&portal, 3);
        world.default_profile(&server, "IT").await;
        world.visit().await;
        let asked = world.apple.asked();
        assert!(asked.iter().any(|a| a.what == "PUT /profile/devices" && a.status == 405));
        assert!(asked.iter().any(|a| a.what == "POST /profile/devices" && a.status == 200), "{asked:?}");

        let kiosk = Definition { profile_name: "Kiosk".into(), web_sign_in: true, ..Definition::default() };
        let name = format!("kiosk-{}", world.mark);
        let mut tx = world.store().begin().await.unwrap();
        let now = world.clock.now();
        let put = ade::profiles::put(&mut tx, &world.context, &name, &kiosk, "test", now).await.unwrap();
        assert!(put.1);
        assert!(!ade::profiles::put(&mut tx, &world.context, &name, &kiosk, "test", now).await.unwrap().1);
        let unknown = ade::profiles::wish(&mut tx, &["NOBODY".into()], Some(&name), now).await.unwrap_err();
        assert!(matches!(unknown, Error::NoDevice(_)));
        ade::profiles::wish(&mut tx, &[world.serial(1)], Some(&name), now).await.unwrap();
        let used = ade::profiles::delete(&mut tx, &name, now).await.unwrap_err();
        assert!(matches!(used, Error::ProfileInUse(1)), "{used}");
        tx.commit().await.unwrap();
        world.visit().await;
        assert_eq!(world.states(3).await, ["assigned"; 3]);
        let told = world.apple.profile_of(&world.serial(1)).unwrap();
        assert_eq!(told.configuration_web_url.as_deref(), Some("https://mdm.example.com/ade/web"));
        assert_eq!(portal.profile(&world.serial(0)).unwrap()["profile_name"], "Staff");

        let mut tx = world.store().read().await.unwrap();
        let call = ade::at_the_call(&mut tx, &world.serial(1)).await.unwrap().unwrap();
        assert!(call.profile.unwrap().web_sign_in);
        let call = ade::at_the_call(&mut tx, &world.serial(0)).await.unwrap().unwrap();
        assert_eq!(call.profile.unwrap().await_device_configured, Some(true));
    })
    .await;
}

/// The operator speaks while a visit is under way: between the loop's look at a device and its word of what became of it.
#[tokio::test]
async fn a_wish_that_comes_while_a_visit_goes_on_is_not_lost() {
    twice(async |world| {
        let (server, portal) = world.server("meanwhile").await;
        world.add_devices(&portal, 3);
        world.default_profile(&server, "IT").await;
        portal.fault("/profile/devices", Fault::Slow(Duration::from_millis(1200)));
        let (context, now) = (world.context.clone(), world.clock.now());
        let visit = tokio::spawn(async move { ade::run_once(&context, now).await });
        world.until_asked("PUT /profile/devices", 1).await;
        let kiosk = Definition { profile_name: "Kiosk".into(), ..Definition::default() };
        let name = format!("kiosk-{}", world.mark);
        let mut tx = world.store().begin().await.unwrap();
        ade::profiles::put(&mut tx, &world.context, &name, &kiosk, "test", now).await.unwrap();
        ade::profiles::wish(&mut tx, &[world.serial(1)], Some(&name), now).await.unwrap();
        tx.commit().await.unwrap();
        visit.await.unwrap().unwrap();
        // No time has passed: what was wished is done by this visit, or by the next one, which is due now.
        world.visit().await;
        assert_eq!(world.states(3).await, ["assigned"; 3]);
        assert_eq!(portal.profile(&world.serial(1)).unwrap()["profile_name"], "Kiosk");
        assert_eq!(portal.profile(&world.serial(0)).unwrap()["profile_name"], "Staff");
        assert_eq!(world.row(&server).await.health, "ok");
    })
    .await;
}

#[tokio::test]
async fn th_50_a_serial_number_that_no_server_lists_is_nobody() {
    twice(async |world| {
        let (server, portal) = world.server("listed").await;
        world.add_devices(&portal, 1);
        world.visit().await;
        let call =
            async |serial: &str| ade::at_the_call(&mut world.store().read().await.unwrap(), serial).await.unwrap();
        assert!(call(&world.serial(0)).await.unwrap().device.approved_at.is_none(), "listed is not approved");
        assert!(call("SPOOFED").await.is_none());
        portal.delete_device(&world.serial(0));
        world.next_visit().await;
        assert!(call(&world.serial(0)).await.is_none());
        portal.add_device(&world.serial(0), "iPhone 17", "iPhone", "iOS");
        world.next_visit().await;
        assert!(call(&world.serial(0)).await.is_some());
        let mut tx = world.store().begin().await.unwrap();
        store::ade::servers::delete(&mut tx, server.id, world.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(call(&world.serial(0)).await.is_none(), "a server out of use lists nobody");
    })
    .await;
}

#[tokio::test]
async fn throttled_and_refused_devices_are_tried_again() {
    twice(async |world| {
        let (server, portal) = world.server("throttle").await;
        world.add_devices(&portal, 4);
        portal.device_fault(&world.serial(0), DeviceFault::Throttled(1200));
        portal.device_fault(&world.serial(1), DeviceFault::NotAccessible);
        portal.device_fault(&world.serial(2), DeviceFault::Failed);
        world.default_profile(&server, "IT").await;
        world.visit().await;
        assert_eq!(world.states(4).await, ["throttled", "not_accessible", "failed", "assigned"]);
        let due = world.device(0).await.unwrap().assign_due_at.unwrap() - world.clock.now().0;
        assert!((1_200_000..=1_320_000).contains(&due), "as long as Apple says, and a little more: {due}");
        assert_eq!(world.health(&server).await, "ok");
        let mut tx = world.store().read().await.unwrap();
        let warnings = ade::warnings(&mut tx, world.clock.now()).await.unwrap();
        assert!(warnings.iter().any(|warning| warning.contains("2 device(s)")), "{warnings:?}");
        drop(tx);

        for n in 0..3 {
            portal.mend(&world.serial(n));
        }
        world.pass(MINUTE * 7);
        assert_eq!(world.visit().await, 1, "the server is visited when a device is due");
        assert_eq!(world.states(4).await, ["throttled", "not_accessible", "assigned", "assigned"]);
        world.next_visit().await;
        assert_eq!(world.device(0).await.unwrap().assign_state, "assigned");
        world.next_visit().await;
        assert_eq!(world.states(4).await, ["assigned"; 4]);
        assert_eq!(world.device(1).await.unwrap().assign_attempts, 0);
    })
    .await;
}

#[tokio::test]
async fn rg_19_one_device_that_apple_cannot_bear_stops_no_other() {
    twice(async |world| {
        let (server, portal) = world.server("poison").await;
        world.add_devices(&portal, 500);
        portal.device_fault(&world.serial(123), DeviceFault::Poison);
        world.default_profile(&server, "IT").await;
        world.visit().await;
        let mut tx = world.store().read().await.unwrap();
        let counts = store::ade::devices::counts(&mut tx, server.id).await.unwrap();
        let counts: Vec<(&str, i64)> = counts.iter().map(|c| (c.assign_state.as_str(), c.devices)).collect();
        assert_eq!(counts, [("assigned", 499), ("failed", 1)]);
        drop(tx);
        assert_eq!(world.device(123).await.unwrap().assign_state, "failed");
    })
    .await;
}

#[tokio::test]
async fn terms_that_are_not_signed_stop_one_server_and_say_so() {
    twice(async |world| {
        let ((bad, bad_portal), (good, good_portal)) = (world.server("bad").await, world.server("good").await);
        bad_portal.set_terms_signed(false);
        good_portal.add_device(&world.serial(0), "iPhone 17", "iPhone", "iOS");
        assert_eq!(world.visit().await, 2);
        assert_eq!(world.health(&bad).await, "terms_not_signed");
        assert_eq!(world.health(&good).await, "ok");
        assert!(world.device(0).await.is_some(), "the other server goes on");
        let mut tx = world.store().read().await.unwrap();
        let warnings = ade::warnings(&mut tx, world.clock.now()).await.unwrap();
        assert!(warnings.iter().any(|w| w.contains(&bad.name) && w.contains("T_C_NOT_SIGNED")), "{warnings:?}");
        drop(tx);
        assert_eq!(world.events("ade.health", bad.id).await.len(), 1);
        // It is not asked again and again, and it is well by itself once a person has signed.
        world.next_visit().await;
        assert_eq!(world.events("ade.health", bad.id).await.len(), 1, "said once");
        bad_portal.set_terms_signed(true);
        world.next_visit().await;
        assert_eq!(world.health(&bad).await, "ok");
        assert_eq!(world.events("ade.health", bad.id).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn tokens_that_end_or_are_refused_are_health_states() {
    twice(async |world| {
        let (server, portal) = world.server("health").await;
        world.visit().await;
        portal.revoke_token();
        world.next_visit().await;
        let row = world.row(&server).await;
        assert_eq!(row.health, "token_refused");
        assert!(!row.health_text.unwrap().contains(row.consumer_key.as_deref().unwrap()));
        let renewed = portal.token(&World::pem(&server), 400).unwrap();
        world.put_token(&server, &renewed, false).await.unwrap();
        world.visit().await;
        assert_eq!(world.health(&server).await, "ok");
        let warnings = async |at: Timestamp| ade::warnings(&mut world.store().read().await.unwrap(), at).await.unwrap();
        assert!(warnings(world.clock.now()).await.is_empty());
        world.pass(DAY * 390);
        world.pass(DAY * 11);
        world.visit().await;
        assert_eq!(world.health(&server).await, "token_expired");
        let said = warnings(world.clock.now()).await;
        assert!(said.is_empty(), "the end of a token is told once, by W4: {said:?}");
    })
    .await;
}

#[tokio::test]
async fn patience_and_outages_are_waited_for() {
    twice(async |mut world| {
        let (server, portal) = world.server("patience").await;
        portal.fault("/account", Fault::Answer(429, "TOO_MANY_REQUESTS", Some(900)));
        world.visit().await;
        let row = world.row(&server).await;
        assert_eq!(row.health, "throttled");
        let pause = row.due_at - world.clock.now().0;
        assert!((900_000..=990_000).contains(&pause), "Retry-After and a little more: {pause}");
        let mut last = 0;
        for _ in 0..4 {
            portal.fault("/account", Fault::Answer(500, "", None));
            world.pass(HOUR);
            world.visit().await;
            let row = world.row(&server).await;
            assert_eq!(row.health, "unreachable");
            let pause = row.due_at - world.clock.now().0;
            assert!(pause > last, "each pause is longer than the one before: {pause} after {last}");
            last = pause;
        }
        // An answer that comes too late is none.
        portal.fault("/account", Fault::Slow(Duration::from_secs(60)));
        let hasty = world.client(Duration::from_secs(1));
        let patient = std::mem::replace(&mut world.context.client, hasty);
        world.next_visit().await;
        assert_eq!(world.health(&server).await, "unreachable");
        world.context.client = patient;
        world.next_visit().await;
        let row = world.row(&server).await;
        assert_eq!((row.health.as_str(), row.failures), ("ok", 0));
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_over_is_opened_anew_once() {
    twice(async |world| {
        let (server, portal) = world.server("session").await;
        for (status, word) in [(401, "UNAUTHORIZED"), (403, "FORBIDDEN")] {
            portal.fault("/devices/sync", Fault::Answer(status, word, None));
            let before = world.asked();
            world.next_visit().await;
            world.next_visit().await;
            let sessions = world.asked_since(before).iter().filter(|a| a.what == "GET /session").count();
            assert_eq!(sessions, 3, "{word}: one for each visit, and one more");
            assert_eq!(world.health(&server).await, "ok");
        }
        for _ in 0..2 {
            portal.fault("/devices/sync", Fault::Answer(401, "UNAUTHORIZED", None));
        }
        world.next_visit().await;
        assert_eq!(world.health(&server).await, "token_refused");
    })
    .await;
}

#[tokio::test]
async fn a_profile_that_apple_refuses_fails_its_devices_and_no_others() {
    twice(async |world| {
        let (server, portal) = world.server("refused").await;
        world.add_devices(&portal, 2);
        portal.fault("/profile", Fault::Answer(400, "CONFIG_NAME_INVALID", None));
        world.default_profile(&server, "IT").await;
        world.visit().await;
        assert_eq!(world.states(2).await, ["failed"; 2]);
        assert_eq!(world.events("ade.profile_refused", server.id).await.len(), 1);
        world.next_visit().await;
        assert_eq!(world.states(2).await, ["assigned"; 2]);
    })
    .await;
}

#[tokio::test]
async fn anchors_that_changed_are_stale_until_devices_have_the_new_ones() {
    twice(async |mut world| {
        let (server, portal) = world.server("anchors").await;
        world.add_devices(&portal, 2);
        world.default_profile(&server, "IT").await;
        world.visit().await;
        let old: Vec<_> = world.context.settings.anchors.iter().map(Certificate::fingerprint).collect();
        let stale = async |world: &World, anchors: &[mdm_core::ids::Fingerprint]| {
            ade::stale_anchors(&mut world.store().read().await.unwrap(), anchors).await.unwrap()
        };
        assert!(stale(&world, &old).await.is_empty());
        let made = rcgen::generate_simple_self_signed(vec!["next".to_owned()]).unwrap();
        let next = Certificate::from_der(made.cert.der()).unwrap();
        let new = [next.fingerprint()];
        let found = stale(&world, &new).await;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].devices, &found[0].server), (2, &server.name));

        let mut settings = world.context.settings.as_ref().clone();
        settings.anchors = vec![next];
        world.context.settings = Arc::new(settings);
        world.next_visit().await;
        assert!(stale(&world, &new).await.is_empty());
        assert_eq!(stale(&world, &old).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn apple_is_told_where_service_discovery_is() {
    twice(async |world| {
        let (server, portal) = world.server("discovery").await;
        assert_eq!(ade::discovery(&world.context, &server).await.unwrap(), ade::Discovery::default());
        let url = "https://mdm.example.com/.well-known/com.apple.remotemanagement".parse().unwrap();
        ade::put_discovery(&world.context, &server, &url).await.unwrap();
        assert_eq!(portal.discovery().as_deref(), Some(url.as_str()));
        let known = ade::discovery(&world.context, &server).await.unwrap();
        assert_eq!(known.mdm_service_discovery_url.as_deref(), Some(url.as_str()));
        ade::forget_discovery(&world.context, &server).await.unwrap();
        assert_eq!(portal.discovery(), None);
        let none = world.create("no token").await;
        assert!(matches!(ade::discovery(&world.context, &none).await, Err(Error::NoToken)));
    })
    .await;
}
