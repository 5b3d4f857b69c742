//! How a device gets in: links and their pages, the enrollment profile, and who is admitted, on both databases.

#[cfg(test)]
mod enroll_doors;
#[cfg(test)]
mod enroll_world;

use std::time::Duration;

use enroll::link::FETCH_AGAIN;
use enroll::{Continues, Error, Settings};
use enroll_world::{device, link, story, user};
use http::StatusCode;
use issuer::admission::Refusal;
use mdm_core::enrollment::{EnrollmentKind, EnrollmentState};
use mdm_core::plist::Value;
use mdm_core::rate::Rate;
use mdm_core::time::Timestamp;
use store::issuance::State;

#[tokio::test]
async fn th_53_looking_at_a_link_does_not_use_it_up() {
    story(|world| async move {
        let code = world.link(&link()).await;
        for _ in 0..3 {
            let page = world.get(&format!("/enroll/{code}")).await;
            assert_eq!(page.status, StatusCode::OK);
            assert!(page.text().contains("Download the profile") && page.text().contains("<svg"));
        }
        assert_eq!(world.ask("HEAD", &format!("/enroll/{code}/profile"), &[]).await.status, StatusCode::OK);
        let ahead = world.ask("GET", &format!("/enroll/{code}/profile"), &[("sec-purpose", "prefetch")]).await;
        assert_eq!(ahead.status, StatusCode::FORBIDDEN);
        assert_eq!(world.uses(&code).await, 0);
        assert_eq!(world.post(&format!("/enroll/{code}/profile")).await.status, StatusCode::OK);
        assert_eq!(world.uses(&code).await, 1);
    })
    .await;
}

#[tokio::test]
async fn th_53_a_one_time_link_is_used_once() {
    story(|world| async move {
        let code = world.link(&link()).await;
        let path = format!("/enroll/{code}/profile");
        let first = world.post(&path).await.profile();
        // A browser downloads twice; nobody has used the challenge: the older one is void then.
        world.clock.advance(Duration::from_mins(1));
        let second = world.ask("GET", &path, &[]).await.profile();
        assert_ne!(first.challenge(), second.challenge());
        assert_eq!(world.state_of(&first).await, State::Void);
        assert_eq!(world.state_of(&second).await, State::Open);
        assert_eq!(world.uses(&code).await, 1);
        // Once the certificate is issued, the link is used up.
        world.issued(&second).await;
        assert_eq!(world.post(&path).await.status, StatusCode::GONE);
        let page = world.get(&format!("/enroll/{code}")).await;
        assert_eq!(page.status, StatusCode::GONE);
        assert!(page.text().contains("was used already"));
        // Later it is too, used or not.
        let other = world.link(&link()).await;
        let path = format!("/enroll/{other}/profile");
        assert_eq!(world.post(&path).await.status, StatusCode::OK);
        world.clock.advance(FETCH_AGAIN);
        assert_eq!(world.post(&path).await.status, StatusCode::GONE);
    })
    .await;
}

#[tokio::test]
async fn th_53_links_end() {
    story(|world| async move {
        assert_eq!(world.post("/enroll/nonsense/profile").await.status, StatusCode::NOT_FOUND);
        assert_eq!(world.get("/enroll/nonsense").await.status, StatusCode::NOT_FOUND);
        let (id, code) = world.link_with_id(&link()).await;
        let opened = world.post(&format!("/enroll/{code}/profile")).await.profile();
        let mut tx = world.store.begin().await.unwrap();
        assert!(enroll::link::revoke(&mut tx, id, world.now()).await.unwrap());
        assert!(!enroll::link::revoke(&mut tx, id, world.now()).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(world.state_of(&opened).await, State::Void, "what it gave out is worth nothing any more");
        let page = world.post(&format!("/enroll/{code}/profile")).await;
        assert_eq!(page.status, StatusCode::GONE);
        assert!(page.text().contains("withdrawn"));
        let code = world.link(&link()).await;
        world.clock.advance(Duration::from_hours(24));
        let page = world.get(&format!("/enroll/{code}")).await;
        assert_eq!(page.status, StatusCode::GONE);
        assert!(page.text().contains("expired"));
        assert_eq!(world.post(&format!("/enroll/{code}/profile")).await.status, StatusCode::GONE);
    })
    .await;
}

#[tokio::test]
async fn a_counted_link_is_used_as_often_as_it_says_and_no_fetch_hurts_another() {
    story(|world| async move {
        let code = world.link(&enroll::link::NewLink { max_uses: 3, ..link() }).await;
        let path = format!("/enroll/{code}/profile");
        let fetches = futures_util::future::join_all((0..8).map(|_| world.post(&path))).await;
        let good: Vec<_> = fetches.into_iter().filter(|f| f.status == StatusCode::OK).collect();
        assert_eq!(good.len(), 3);
        for fetch in good {
            assert_eq!(world.state_of(&fetch.profile()).await, State::Open);
        }
        assert_eq!(world.uses(&code).await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_one_time_link_that_is_fetched_by_many_at_once_leaves_one_challenge() {
    story(|world| async move {
        let code = world.link(&link()).await;
        let path = format!("/enroll/{code}/profile");
        let fetches = futures_util::future::join_all((0..6).map(|_| world.post(&path))).await;
        let mut open = 0;
        for fetch in fetches.into_iter().filter(|f| f.status == StatusCode::OK) {
            open += usize::from(world.state_of(&fetch.profile()).await == State::Open);
        }
        assert_eq!((open, world.uses(&code).await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn the_profile_is_signed_and_holds_what_a_device_needs() {
    story(|world| async move {
        let code = world.link(&link()).await;
        let answer = world.post(&format!("/enroll/{code}/profile")).await;
        assert_eq!(answer.header("content-type"), "application/x-apple-aspen-config");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(answer.header("content-security-policy").contains("default-src 'self'"));
        let profile = answer.profile();
        let scep = profile.payload("com.apple.security.scep");
        let content = scep.get("PayloadContent").and_then(Value::as_dictionary).unwrap();
        let issuance = world.issuance_of(&profile).await;
        assert_eq!(
            content.get("URL").and_then(Value::as_string),
            Some(format!("https://mdm.example.org/scep/{}", issuance.id).as_str())
        );
        assert_eq!(content.get("Keysize").and_then(Value::as_signed_integer), Some(2048));
        assert_eq!(issuance.kind, EnrollmentKind::Device);
        let mdm = profile.payload("com.apple.mdm");
        assert_eq!(mdm.get("IdentityCertificateUUID"), scep.get("PayloadUUID"));
        assert_eq!(mdm.get("AccessRights").and_then(Value::as_signed_integer), Some(8191));
        assert_eq!(mdm.get("SignMessage").and_then(Value::as_boolean), Some(true));
        assert_eq!(mdm.get("Topic").and_then(Value::as_string), Some(enroll_world::TOPIC));
        let root = profile.payload("com.apple.security.root");
        assert_eq!(root.get("PayloadContent").and_then(Value::as_data), Some(world.anchor.der()));
    })
    .await;
}

#[tokio::test]
async fn a_link_for_user_enrollment_names_the_person_and_asks_for_no_rights() {
    story(|world| async move {
        let code = world.link(&user("ada@example.org")).await;
        assert!(world.get(&format!("/enroll/{code}")).await.text().contains("ada@example.org"));
        let profile = world.post(&format!("/enroll/{code}/profile")).await.profile();
        let mdm = profile.payload("com.apple.mdm");
        assert_eq!(mdm.get("EnrollmentMode").and_then(Value::as_string), Some("BYOD"));
        assert_eq!(mdm.get("AssignedManagedAppleID").and_then(Value::as_string), Some("ada@example.org"));
        assert!(!mdm.contains_key("AccessRights"));
        assert_eq!(world.issuance_of(&profile).await.kind, EnrollmentKind::User);
        // The device must come as what it was asked for (TH-03).
        let certificate = world.issued(&profile).await;
        let refused = world.authenticate(&certificate, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::Kind)), "{refused}");
        let admitted = world.authenticate(&certificate, &enroll_world::user_device(1)).await.unwrap();
        assert_eq!((admitted.kind, admitted.continues), (EnrollmentKind::User, Continues::New));
    })
    .await;
}

#[tokio::test]
async fn without_a_push_certificate_nobody_enrolls_and_no_link_is_used_up() {
    story(|world| async move {
        world.remove_push_certificate().await;
        let code = world.link(&link()).await;
        let answer = world.post(&format!("/enroll/{code}/profile")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.text().contains("not used up"));
        assert_eq!(world.uses(&code).await, 0);
    })
    .await;
}

#[tokio::test]
async fn one_address_can_not_ask_without_end() {
    story(|world| async move {
        let app = world.router(Settings { per_ip: Rate { burst: 2, per_second: 0.1 }, ..world.settings() });
        let ask = |ip: &'static str| world.ask_of(app.clone(), "GET", "/enroll/x", &[], ip);
        assert_eq!(ask("192.0.2.1").await.status, StatusCode::NOT_FOUND);
        assert_eq!(ask("192.0.2.1").await.status, StatusCode::NOT_FOUND);
        let third = ask("192.0.2.1").await;
        assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(!third.header("retry-after").is_empty());
        assert_eq!(ask("192.0.2.2").await.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test]
async fn a_private_ca_can_be_checked_by_its_fingerprint() {
    story(|world| async move {
        let page = world.get("/trust").await;
        assert_eq!(page.status, StatusCode::OK);
        let shown = world.anchor.fingerprint().0.map(|b| format!("{b:02X}")).join(" ");
        assert!(page.text().contains(&shown));
        let profile = world.get("/trust/profile").await.profile();
        let root = profile.payload("com.apple.security.root");
        assert_eq!(root.get("PayloadContent").and_then(Value::as_data), Some(world.anchor.der()));
        let public = world.router(Settings { anchors: Vec::new(), ..world.settings() });
        let page = world.ask_of(public, "GET", "/trust", &[], "192.0.2.1").await;
        assert_eq!(page.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test]
async fn th_02_a_certificate_for_another_device_takes_nothing_over() {
    story(|world| async move {
        let victim = world.enroll(&link(), &device(1)).await;
        world.enqueue(victim, "a").await;
        // No record at all, a record for anybody, a record for another serial number, the victim's certificate for another.
        let stranger = world.certificate("stranger");
        let refusal = |e: Error| match e {
            Error::Refused(refusal) => refusal,
            other => panic!("{other}"),
        };
        assert_eq!(refusal(world.authenticate(&stranger, &device(1)).await.unwrap_err()), Refusal::NoRecord);
        let anybody = world.identity(&link()).await;
        assert_eq!(refusal(world.authenticate(&anybody, &device(1)).await.unwrap_err()), Refusal::DeviceEnrolled);
        let other = world.identity(&enroll_world::bound_to("SERIAL0002")).await;
        assert_eq!(refusal(world.authenticate(&other, &device(1)).await.unwrap_err()), Refusal::Serial);
        let its_own = world.pinned(victim).await;
        assert_eq!(refusal(world.authenticate(&its_own, &device(2)).await.unwrap_err()), Refusal::OtherDevice);
        // The same hardware under another UDID is a claim too.
        let mut claims = device(2);
        claims.serial_number = device(1).serial_number;
        assert_eq!(refusal(world.authenticate(&anybody, &claims).await.unwrap_err()), Refusal::SerialEnrolled);
        let untouched = world.enrollment(victim).await;
        assert!(matches!(untouched.state, EnrollmentState::Enrolled { .. }));
        assert_eq!((untouched.generation, world.waiting(victim).await), (1, 1));
        // The refused certificate was not used up: it is good for the device that it was made for.
        let admitted = world.authenticate(&anybody, &device(3)).await.unwrap();
        assert_eq!(admitted.continues, Continues::New);
    })
    .await;
}

#[tokio::test]
async fn rg_09_a_new_enrollment_of_a_device_drops_the_old_one_once() {
    story(|world| async move {
        let id = world.enroll(&link(), &device(1)).await;
        let user = world.user_channel(id).await;
        world.enqueue(id, "a").await;
        world.enqueue(user, "b").await;
        let old = world.pinned(id).await;
        let certificate = world.identity(&enroll_world::bound_to("SERIAL0001")).await;
        let admitted = world.authenticate(&certificate, &device(1)).await.unwrap();
        assert_eq!((admitted.enrollment, admitted.continues), (id, Continues::Again));
        let now = world.enrollment(id).await;
        assert!(matches!(now.state, EnrollmentState::Authenticated { .. }));
        assert_eq!((now.generation, now.token_at), (2, None));
        assert!(matches!(world.enrollment(user).await.state, EnrollmentState::Unenrolled { .. }));
        assert_eq!((world.waiting(id).await, world.waiting(user).await), (0, 0));
        assert_eq!(world.archived(id).await, 2, "the secrets of the old enrollment are kept, sealed");
        // The old certificate is nobody's any more.
        let refused = world.authenticate(&old, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::Retired)), "{refused}");
        // What is queued from now on stays when the device repeats its Authenticate.
        world.tokens(id).await;
        world.enqueue(id, "c").await;
        let before = world.enrollment(id).await;
        let mut replayed = device(1);
        replayed.os_version = Some("1.0".into());
        let again = world.authenticate(&certificate, &replayed).await.unwrap();
        assert_eq!((again.continues, world.waiting(id).await), (Continues::Repeat, 1));
        assert_eq!(world.enrollment(id).await, before);
    })
    .await;
}

#[tokio::test]
async fn th_10_a_renewal_drops_nothing() {
    story(|world| async move {
        let id = world.enroll(&link(), &device(1)).await;
        world.enqueue(id, "a").await;
        let old = world.pinned(id).await;
        let renewed = world.renewal(id).await;
        // It renews this enrollment only.
        let refused = world.authenticate(&renewed, &device(2)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::OtherRenewal)), "{refused}");
        // Nor does it change the topic (TH-14).
        let mut other_topic = device(1);
        other_topic.topic = "com.apple.mgmt.External.other".into();
        let refused = world.authenticate(&renewed, &other_topic).await.unwrap_err();
        assert_eq!(refused.refusal(), Some("other_topic"));
        let admitted = world.authenticate(&renewed, &device(1)).await.unwrap();
        assert_eq!((admitted.enrollment, admitted.continues), (id, Continues::Renewal));
        let enrollment = world.enrollment(id).await;
        assert!(matches!(enrollment.state, EnrollmentState::Enrolled { .. }));
        assert_eq!((enrollment.generation, world.waiting(id).await, world.archived(id).await), (1, 1, 0));
        // A device that fails to update its profile goes back to the certificate that it had.
        assert_eq!(world.authenticate(&old, &device(1)).await.unwrap().continues, Continues::Repeat);
    })
    .await;
}

#[tokio::test]
async fn th_06_one_certificate_enrolls_one_device_however_many_try_at_once() {
    story(|world| async move {
        let certificate = world.identity(&link()).await;
        let (a, b) = (device(1), device(2));
        let (first, second) = tokio::join!(world.authenticate(&certificate, &a), world.authenticate(&certificate, &b));
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
    })
    .await;
}

#[tokio::test]
async fn a_device_that_checked_out_enrolls_anew_in_its_row_with_any_link() {
    story(|world| async move {
        let id = world.enroll(&link(), &device(1)).await;
        let old = world.pinned(id).await;
        world.check_out(id).await;
        let refused = world.authenticate(&old, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::Ended)), "{refused}");
        let certificate = world.identity(&link()).await;
        let admitted = world.authenticate(&certificate, &device(1)).await.unwrap();
        assert_eq!((admitted.enrollment, admitted.continues), (id, Continues::Again));
        assert_eq!(world.enrollment(id).await.generation, 2);
    })
    .await;
}

#[tokio::test]
async fn the_same_hardware_under_another_udid_replaces_its_former_enrollment() {
    story(|world| async move {
        let former = world.enroll(&link(), &device(1)).await;
        world.enqueue(former, "a").await;
        let mut moved = device(2);
        moved.serial_number = device(1).serial_number;
        let certificate = world.identity(&enroll_world::bound_to("SERIAL0001")).await;
        let admitted = world.authenticate(&certificate, &moved).await.unwrap();
        assert_eq!(admitted.continues, Continues::New);
        assert_ne!(admitted.enrollment, former);
        assert!(matches!(world.enrollment(former).await.state, EnrollmentState::Unenrolled { .. }));
        assert_eq!(world.waiting(former).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_identity_of_an_external_ca_is_for_the_device_that_it_names() {
    story(|world| async move {
        let certificate = world.certificate("SERIAL0001");
        assert!(world.authenticate(&certificate, &device(1)).await.is_err(), "only where the operator said so");
        let refused = world.by_subject(&certificate, &device(2)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::NoRecord)), "{refused}");
        let admitted = world.by_subject(&certificate, &device(1)).await.unwrap();
        assert_eq!((admitted.kind, admitted.continues), (EnrollmentKind::Device, Continues::New));
    })
    .await;
}

#[tokio::test]
async fn a_label_of_the_link_is_on_the_enrollment() {
    story(|world| async move {
        let labelled = enroll::link::NewLink { label: Some("fleet-a".parse().unwrap()), ..link() };
        let id = world.enroll(&labelled, &device(1)).await;
        let mut tx = world.store.read().await.unwrap();
        assert_eq!(store::labels::of(&mut tx, id).await.unwrap(), ["fleet-a"]);
    })
    .await;
}

#[tokio::test]
async fn links_are_listed_newest_first_without_their_codes() {
    story(|world| async move {
        let mut ids = Vec::new();
        for n in 0..3 {
            world.clock.advance(Duration::from_secs(1));
            let (id, _) = world.link_with_id(&enroll::link::NewLink { note: format!("n{n}"), ..link() }).await;
            ids.push(id);
        }
        let mut tx = world.store.read().await.unwrap();
        let newest = store::links::list(&mut tx, None, 2).await.unwrap();
        assert_eq!(newest.iter().map(|r| r.note.as_str()).collect::<Vec<_>>(), ["n2", "n1"]);
        let rest = store::links::list(&mut tx, Some(ids[1]), 2).await.unwrap();
        assert_eq!(rest.iter().map(|r| r.note.as_str()).collect::<Vec<_>>(), ["n0"]);
        let one = store::links::get(&mut tx, ids[0]).await.unwrap().unwrap();
        assert_eq!((one.uses, one.kind.as_str(), Timestamp(one.created_at) < world.now()), (0, "device", true));
    })
    .await;
}
