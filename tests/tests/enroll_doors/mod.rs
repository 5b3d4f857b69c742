//! The doors that ask for more than a link: Automated Device Enrollment, web sign-in, and the identity that a device is given.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enroll::{Continues, Error};
use http::StatusCode;
use issuer::admission::Refusal;
use mdm_core::enrollment::{Door, EnrollmentKind};
use mdm_core::plist::Value;
use mdm_core::time::Timestamp;
use serde_json::json;
use sha2::Digest;
use simulator::machine_info::{MachineInfo, Tampering};
use std::time::Duration;
use store::issuance::{Source, State};

use crate::enroll_world::{Answer, Fetched, World, bound_to, device, factory, link, story, twice};

const DEVICE_INFO: &str = "x-apple-aspen-deviceinfo";
const MDM: &str = "com.apple.mdm";
const ACME: &str = "com.apple.security.acme";
const SCEP: &str = "com.apple.security.scep";

/// What device number `n` says of itself.
fn info(n: u32) -> MachineInfo {
    MachineInfo {
        udid: Some(format!("00008110-{n:016X}")),
        serial: Some(format!("SERIAL{n:04}")),
        product: "iPhone17,2".into(),
        version: "22B83".into(),
        os_version: Some("18.1".into()),
        ..MachineInfo::default()
    }
}

fn signed(world: &World, info: &MachineInfo) -> Vec<u8> {
    signed_at(info, world.now())
}

fn signed_at(info: &MachineInfo, at: Timestamp) -> Vec<u8> {
    info.signed(factory(), &Tampering::SignedAt(at.0 / 1000)).unwrap()
}

fn open() -> serde_json::Value {
    json!({ "enabled": true })
}

fn acme(otherwise: &str) -> serde_json::Value {
    json!({ "prefer": "acme", "otherwise": otherwise, "acme": { "directory_url": "https://ca.example.org/acme" } })
}

impl World {
    async fn say(&self, n: u32) -> Answer {
        self.call(&signed(self, &info(n))).await
    }

    async fn web(&self, n: u32) -> Answer {
        let header = STANDARD.encode(signed(self, &info(n)));
        self.ask("GET", "/ade/web", &[(DEVICE_INFO, &header)]).await
    }

    /// Nothing was given out, and the reason is in the log of events.
    async fn nothing(&self, answer: &Answer, reason: &str) {
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{reason}");
        assert!(!answer.text().contains("Challenge") && !answer.text().contains(reason));
        assert_eq!(self.turned_away().await.first().map(String::as_str), Some(reason));
        assert_eq!(self.records().await, 0, "{reason}");
    }
}

fn text<'a>(profile: &'a Fetched, payload: &str, key: &str) -> &'a str {
    profile.payload(payload).get(key).and_then(Value::as_string).unwrap()
}

fn flag(profile: &Fetched, key: &str) -> Option<bool> {
    profile.payload(ACME).get(key).and_then(Value::as_boolean)
}

#[tokio::test]
async fn th_50_a_serial_number_of_apples_list_is_no_permission() {
    story(|world| async move {
        world.nothing(&world.say(1).await, "door_closed").await;
        world.set_door(Door::Ade, open()).await;
        world.nothing(&world.say(1).await, "serial_not_listed").await;
        let server = world.ade_server().await;
        world.ade_device(server, 1, None).await;
        world.nothing(&world.say(1).await, "serial_not_approved").await;

        world.set_door(Door::Ade, json!({ "enabled": true, "require": "sign_in" })).await;
        world.nothing(&world.say(1).await, "sign_in_needed").await;
        assert_eq!(world.web(1).await.status, StatusCode::SEE_OTHER);
        assert_eq!(world.records().await, 0);
        // What the device's profile at Apple asks for counts too.
        world.set_door(Door::Ade, open()).await;
        world.ade_device(server, 2, Some(world.now())).await;
        world.wish_web_sign_in(server, 2).await;
        world.nothing(&world.say(2).await, "sign_in_needed").await;
        assert_eq!(world.web(2).await.status, StatusCode::SEE_OTHER);

        // An attested key is asked for, and the silicon can't: no way around it.
        let attested = json!({ "enabled": true, "require": "attestation", "identity": acme("fall_back") });
        world.set_door(Door::Ade, attested).await;
        let old = MachineInfo { product: "iPhone9,1".into(), ..info(1) };
        world.nothing(&world.call(&signed(&world, &old)).await, "attest_ignored_by_silicon").await;
        let profile = world.say(1).await.profile();
        assert_eq!((flag(&profile, "HardwareBound"), flag(&profile, "Attest")), (Some(true), Some(true)));

        world.set_door(Door::Ade, open()).await;
        world.approve(server, 1).await;
        let profile = world.say(1).await.profile();
        let record = world.issuance_of(&profile).await;
        assert_eq!((record.expected_serial.as_deref(), record.kind), (Some("SERIAL0001"), EnrollmentKind::Automated));
        let identity = profile.payload(SCEP).get("PayloadUUID").cloned();
        assert_eq!(profile.payload(MDM).get("IdentityCertificateUUID"), identity.as_ref());

        // Its challenge is for this serial number, and the enrollment says by which door it came in (TH-54).
        let certificate = world.issued(&profile).await;
        let refused = world.authenticate(&certificate, &device(2)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::Udid)), "{refused}");
        // The door is asked again when the device comes (TH-48).
        world.ade_device(server, 1, None).await;
        let refused = world.authenticate(&certificate, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::NotApproved), "{refused}");
        world.approve(server, 1).await;
        world.set_door(Door::Ade, json!({ "enabled": false })).await;
        let refused = world.authenticate(&certificate, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::DoorClosed(Door::Ade)), "{refused}");
        world.set_door(Door::Ade, open()).await;
        let admitted = world.authenticate(&certificate, &device(1)).await.unwrap();
        assert_eq!(admitted.kind, EnrollmentKind::Automated);
        let enrollment = world.enrollment(admitted.enrollment).await;
        assert_eq!((enrollment.door, enrollment.server_url.is_some()), (Door::Ade, true));
        assert!(enrollment.anchors.unwrap().contains(&world.anchor.fingerprint().to_string()));
    })
    .await;
}

#[tokio::test]
async fn th_51_no_profile_without_machine_info_a_link_or_a_sign_in() {
    story(|world| async move {
        world.set_door(Door::Ade, open()).await;
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        let agent = ("user-agent", "MDM-Agent/1.0 (iPhone17,2; SERIAL0001)");
        assert_eq!(world.ask("GET", "/ade/enroll", &[agent]).await.status, StatusCode::METHOD_NOT_ALLOWED);
        world.nothing(&world.ask("GET", "/ade/web", &[agent]).await, "machine_info_missing").await;
        world.nothing(&world.ask("GET", "/ade/web", &[agent, (DEVICE_INFO, "!")]).await, "machine_info_missing").await;
        world.nothing(&world.ask("GET", "/ade/signed-in", &[agent]).await, "not_signed_in").await;
        world.nothing(&world.call(b"").await, "machine_info_signature").await;
        assert_eq!(world.ask("GET", "/enroll/guess/profile", &[agent]).await.status, StatusCode::NOT_FOUND);
        assert_eq!(world.ask("GET", "/enroll/signed-in", &[agent]).await.status, StatusCode::FORBIDDEN);
        assert_eq!(world.records().await, 0);
    })
    .await;
}

#[tokio::test]
async fn th_52_a_machine_info_that_is_not_to_be_believed_gets_nothing() {
    story(|world| async move {
        world.set_door(Door::Ade, open()).await;
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        let tampered = |how: &Tampering| info(1).signed(factory(), how).unwrap();
        world.nothing(&world.call(&tampered(&Tampering::Unsigned)).await, "machine_info_signature").await;
        world.nothing(&world.call(&tampered(&Tampering::Garbled)).await, "machine_info_signature").await;
        world.nothing(&world.call(&tampered(&Tampering::ForeignCa)).await, "machine_info_foreign").await;
        let day = Duration::from_hours(25);
        for wrong in [world.now().minus(day), world.now().plus(day)] {
            world.nothing(&world.call(&signed_at(&info(1), wrong)).await, "machine_info_stale").await;
        }
        let nameless = MachineInfo { serial: None, ..info(1) };
        world.nothing(&world.call(&signed(&world, &nameless)).await, "machine_info_unnamed").await;
        let long = world.call(&vec![0; 64 * 1024 + 1]).await;
        assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
        world.remove_push_certificate().await;
        assert_eq!(world.say(1).await.status, StatusCode::SERVICE_UNAVAILABLE, "our fault is not told as the device's");
        assert_eq!(world.records().await, 0);
    })
    .await;
}

#[tokio::test]
async fn th_52_each_answer_has_a_challenge_of_its_own_and_voids_the_one_before() {
    story(|world| async move {
        world.set_door(Door::Ade, json!({ "enabled": true, "attempts_per_hour": 3 })).await;
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        let message = signed(&world, &info(1));
        let first = world.call(&message).await.profile();
        let replayed = world.call(&message).await.profile();
        assert_ne!(first.challenge(), replayed.challenge());
        assert_eq!(world.state_of(&first).await, State::Void);
        assert_eq!(world.state_of(&replayed).await, State::Open);
        let third = world.call(&message).await.profile();
        let fourth = world.call(&message).await;
        assert_eq!(fourth.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(world.turned_away().await, ["too_often"]);
        assert_eq!(world.state_of(&third).await, State::Open, "a refusal voids nothing");
        world.clock.advance(Duration::from_hours(1));
        assert_eq!(world.call(&message).await.status, StatusCode::OK);

        // Whoever replays a call before the device does has a certificate; the device's own call makes it worthless, and so does
        // time. It is no good for another device either.
        let theirs = world.issued(&world.call(&message).await.profile()).await;
        let mine = world.issued(&world.say(1).await.profile()).await;
        let refused = async |certificate, n| match world.authenticate(certificate, &device(n)).await.unwrap_err() {
            Error::Refused(refusal) => refusal,
            other => panic!("{other}"),
        };
        assert_eq!(refused(&theirs, 1).await, Refusal::NoRecord);
        let enrolled = world.authenticate(&mine, &device(1)).await.unwrap().enrollment;
        world.tokens(enrolled).await;
        assert_eq!(refused(&theirs, 1).await, Refusal::NoRecord);
        world.clock.advance(Duration::from_hours(1));
        let kept = world.issued(&world.call(&signed(&world, &info(1))).await.profile()).await;
        assert_eq!(refused(&kept, 2).await, Refusal::Udid);
        world.clock.advance(Duration::from_mins(61));
        assert_eq!(refused(&kept, 1).await, Refusal::TooLate);
        assert_eq!(world.enrollment(enrolled).await.generation, 1);
    })
    .await;
}

#[tokio::test]
async fn th_54_a_sign_in_for_one_door_opens_no_other() {
    story(|world| async move {
        let sign_in = json!({ "enabled": true, "require": "sign_in", "label": "signed" });
        world.set_door(Door::Ade, sign_in).await;
        let server = world.ade_server().await;
        world.ade_device(server, 1, None).await;
        let code = world.link(&enroll::link::NewLink { sign_in: true, ..link() }).await;
        let page = world.get(&format!("/enroll/{code}")).await;
        assert!(page.text().contains("/sign-in") && !page.text().contains("method=\"post\""));
        assert_eq!(world.post(&format!("/enroll/{code}/profile")).await.status, StatusCode::FORBIDDEN);

        let begun = world.get(&format!("/enroll/{code}/sign-in")).await;
        let of_link = world.sign_in(&begun, "ada@example.org").await;
        let of_ade = world.sign_in(&world.web(1).await, "bob@example.org").await;
        let get = async |path: &str, cookie: &str| world.ask("GET", path, &[("cookie", cookie)]).await;
        world.nothing(&get("/ade/signed-in", &of_link).await, "not_signed_in").await;
        assert_eq!(get("/enroll/signed-in", &of_ade).await.status, StatusCode::FORBIDDEN);
        assert_eq!((world.uses(&code).await, world.records().await), (0, 0));

        // Each opens its own, once.
        let profile = get("/enroll/signed-in", &of_link).await.profile();
        assert_eq!(world.uses(&code).await, 1);
        assert_eq!(get("/enroll/signed-in", &of_link).await.status, StatusCode::FORBIDDEN);
        assert_eq!(world.events("link.fetched").await[0]["signed_in"], "ada@example.org");
        let answer = get("/ade/signed-in", &of_ade).await;
        assert_eq!(answer.header("content-type"), "application/x-apple-aspen-config");
        let ade = answer.profile();
        assert_eq!(get("/ade/signed-in", &of_ade).await.status, StatusCode::FORBIDDEN);
        assert_eq!(world.events("ade.profile_given").await[0]["signed_in"], "bob@example.org");
        let admitted = world.authenticate(&world.issued(&ade).await, &device(1)).await.unwrap();
        let mut tx = world.store.read().await.unwrap();
        assert_eq!(store::labels::of(&mut tx, admitted.enrollment).await.unwrap(), ["signed"]);
        drop(tx);
        // The record of a link is not for a device that came by ADE, and the other way round.
        let refused = world.authenticate(&world.issued(&profile).await, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::DeviceEnrolled)), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn th_48_there_is_no_way_around_the_identity_that_a_door_asks_for() {
    story(|world| async move {
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        let old = signed(&world, &MachineInfo { product: "iPhone9,1".into(), ..info(1) });
        world.set_door(Door::Ade, json!({ "enabled": true, "identity": acme("refuse") })).await;
        world.nothing(&world.call(&old).await, "attest_ignored_by_silicon").await;
        let unknown = signed(&world, &MachineInfo { os_version: None, ..info(1) });
        world.nothing(&world.call(&unknown).await, "os_version_unknown").await;

        // Never silent: the record and an event say why.
        for (otherwise, would) in [("fall_back", None), ("report_only", Some("refuse"))] {
            world.set_door(Door::Ade, json!({ "enabled": true, "identity": acme(otherwise) })).await;
            let record = world.issuance_of(&world.call(&old).await.profile()).await;
            let reason: serde_json::Value = serde_json::from_str(&record.identity_reason.unwrap()).unwrap();
            assert_eq!((record.source, &reason["source"]), (Source::Scep, &json!("scep")));
            assert_eq!(reason["notes"], json!(["attest_ignored_by_silicon"]));
            assert_eq!(reason.get("would").and_then(|w| w.as_str()), would);
            assert_eq!(world.events("identity.fell_back").await[0]["identity"], reason);
        }

        // A device that can gets ACME, and no challenge with which SCEP could be talked into issuing.
        let profile = world.say(1).await.profile();
        assert_eq!(text(&profile, ACME, "DirectoryURL"), "https://ca.example.org/acme");
        let identity = profile.payload(ACME).get("PayloadUUID").cloned();
        assert_eq!(profile.payload(MDM).get("IdentityCertificateUUID"), identity.as_ref());
        let chosen = &world.events("identity.chosen").await[0]["identity"];
        assert_eq!((&chosen["hardware_bound"], &chosen["attest"]), (&json!(true), &json!(true)));
        let mut tx = world.store.begin().await.unwrap();
        let name = sha2::Sha256::digest(text(&profile, ACME, "ClientIdentifier")).into();
        let open = store::issuance::open_by_client_identifier(&mut tx, &name, world.now()).await.unwrap();
        assert_eq!((open.len(), open[0].source), (1, Source::Acme));
        assert!(store::issuance::by_challenge(&mut tx, &name).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn th_02_an_acme_identity_is_admitted_by_its_open_record_only() {
    story(|world| async move {
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        world.set_door(Door::Ade, json!({ "enabled": true, "identity": acme("refuse") })).await;
        let former = world.say(1).await.profile();
        let profile = world.say(1).await.profile();
        let refused = async |name: &str, n: u32| {
            let certificate = world.certificate(name);
            match world.arrive_from_acme(&certificate, &device(n)).await.unwrap_err() {
                Error::Refused(refusal) => refusal,
                other => panic!("{other}"),
            }
        };
        assert_eq!(refused("nobody", 1).await, Refusal::NoRecord);
        assert_eq!(refused(text(&former, ACME, "ClientIdentifier"), 1).await, Refusal::NoRecord, "it is void");
        let name = text(&profile, ACME, "ClientIdentifier");
        assert_eq!(refused(name, 2).await, Refusal::Udid);
        let certificate = world.certificate(name);
        // Only what a configured CA issued.
        let foreign = world.authenticate(&certificate, &device(1)).await.unwrap_err();
        assert!(matches!(foreign, Error::Refused(Refusal::NoRecord)), "{foreign}");
        let other = json!({ "prefer": "acme", "acme":
            { "directory_url": "https://ca.example.org/acme", "issuers": ["0".repeat(64)] } });
        world.set_door(Door::Ade, json!({ "enabled": true, "identity": other })).await;
        assert_eq!(refused(name, 1).await, Refusal::NoRecord);
        world.set_door(Door::Ade, json!({ "enabled": true, "identity": acme("refuse") })).await;

        let admitted = world.arrive_from_acme(&certificate, &device(1)).await.unwrap();
        assert_eq!((admitted.continues, admitted.kind), (Continues::New, EnrollmentKind::Automated));
        let again = world.arrive_from_acme(&certificate, &device(1)).await.unwrap();
        assert_eq!(again.continues, Continues::Repeat);
        assert_eq!(refused(name, 1).await, Refusal::NoRecord, "a second certificate for the same record");
        let mut tx = world.store.read().await.unwrap();
        let record = store::issuance::by_certificate(&mut tx, certificate.fingerprint()).await.unwrap().unwrap();
        assert_eq!((record.state, record.source), (State::Used, Source::Acme));
        assert_eq!(record.enrollment, Some(admitted.enrollment));
    })
    .await;
}

#[tokio::test]
async fn a_system_that_is_too_old_is_told_to_update_or_refused_or_let_in() {
    story(|world| async move {
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        let minimum = |cannot: &str| {
            json!({ "enabled": true, "minimum_os":
                { "iOS": { "os_version": "18.2", "build_version": "22C152", "cannot_update": cannot } } })
        };
        world.set_door(Door::Ade, minimum("refuse")).await;
        let can = MachineInfo { can_request_software_update: true, ..info(1) };
        let answer = world.call(&signed(&world, &can)).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::FORBIDDEN, "application/json"));
        let body: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(body["code"], "com.apple.softwareupdate.required");
        assert_eq!(body["details"], json!({ "OSVersion": "18.2", "BuildVersion": "22C152" }));
        assert_eq!(world.events("ade.update_required").await.len(), 1);
        world.nothing(&world.say(1).await, "system_too_old").await;
        world.set_door(Door::Ade, minimum("let_in")).await;
        world.say(1).await.profile();
        assert_eq!(world.events("ade.too_old_let_in").await.len(), 1);
        let new = MachineInfo { os_version: Some("18.2".into()), ..info(1) };
        world.set_door(Door::Ade, minimum("refuse")).await;
        world.call(&signed(&world, &new)).await.profile();
        let ipad = MachineInfo { product: "iPad14,1".into(), ..info(1) };
        world.call(&signed(&world, &ipad)).await.profile();
    })
    .await;
}

#[tokio::test]
async fn a_door_that_is_closed_gives_nothing_out_and_uses_nothing_up() {
    story(|world| async move {
        let code = world.link(&link()).await;
        world.set_door(Door::Link, json!({ "enabled": false })).await;
        assert_eq!(world.get(&format!("/enroll/{code}")).await.status, StatusCode::FORBIDDEN);
        world.nothing(&world.post(&format!("/enroll/{code}/profile")).await, "door_closed").await;
        assert_eq!(world.uses(&code).await, 0);
        world.set_door(Door::Link, json!({ "enabled": true, "sign_in": true, "label": "walk-in" })).await;
        assert_eq!(world.post(&format!("/enroll/{code}/profile")).await.status, StatusCode::FORBIDDEN);
        let cookie = world.sign_in(&world.get(&format!("/enroll/{code}/sign-in")).await, "ada@example.org").await;
        let profile = world.ask("GET", "/enroll/signed-in", &[("cookie", &cookie)]).await.profile();
        let admitted = world.authenticate(&world.issued(&profile).await, &device(1)).await.unwrap();
        let mut tx = world.store.read().await.unwrap();
        assert_eq!(store::labels::of(&mut tx, admitted.enrollment).await.unwrap(), ["walk-in"]);
    })
    .await;
}

#[tokio::test]
async fn a_device_comes_by_the_link_door_and_comes_back() {
    twice(|world| async move {
        world
            .set_door(Door::Link, json!({ "enabled": true, "identity": acme("report_only"), "label": "by-link" }))
            .await;
        let code = world.link(&bound_to("SERIAL0001")).await;
        let profile = world.post(&format!("/enroll/{code}/profile")).await.profile();
        // A browser does not say what the device is, so the gate stays closed, and the record says so.
        let record = world.issuance_of(&profile).await;
        assert!(record.identity_reason.unwrap().contains("os_version_unknown"));
        let certificate = world.issued(&profile).await;
        let wrong = world.authenticate(&certificate, &device(2)).await.unwrap_err();
        assert!(matches!(wrong, Error::Refused(Refusal::Serial)), "{wrong}");
        let admitted = world.authenticate(&certificate, &device(1)).await.unwrap();
        assert_eq!(admitted.kind, EnrollmentKind::Device);
        world.tokens(admitted.enrollment).await;
        assert_eq!(world.enrollment(admitted.enrollment).await.door, Door::Link);
    })
    .await;
}

#[tokio::test]
async fn a_device_comes_by_automated_device_enrollment_and_comes_back() {
    twice(|world| async move {
        world.set_door(Door::Ade, json!({ "enabled": true, "identity": acme("refuse"), "label": "by-ade" })).await;
        let server = world.ade_server().await;
        world.ade_device(server, 7, Some(world.now())).await;
        let profile = world.say(7).await.profile();
        let certificate = world.certificate(text(&profile, ACME, "ClientIdentifier"));
        let admitted = world.arrive_from_acme(&certificate, &device(7)).await.unwrap();
        assert!(matches!(admitted.continues, Continues::New | Continues::Again));
        world.tokens(admitted.enrollment).await;
        let enrollment = world.enrollment(admitted.enrollment).await;
        assert_eq!((enrollment.door, enrollment.kind), (Door::Ade, EnrollmentKind::Automated));
        let mut tx = world.store.read().await.unwrap();
        assert_eq!(store::labels::of(&mut tx, admitted.enrollment).await.unwrap(), ["by-ade"]);
    })
    .await;
}

#[tokio::test]
async fn th_52_calls_of_one_serial_number_at_a_time_leave_one_challenge() {
    story(|world| async move {
        world.set_door(Door::Ade, json!({ "enabled": true, "attempts_per_hour": 3 })).await;
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        let message = signed(&world, &info(1));
        let answers = futures_util::future::join_all((0..8).map(|_| world.call(&message))).await;
        let mut open = 0;
        let good: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
        for answer in &good {
            open += usize::from(world.state_of(&answer.profile()).await == State::Open);
        }
        assert_eq!((good.len(), open), (3, 1));
    })
    .await;
}

#[tokio::test]
async fn th_53_a_link_that_is_withdrawn_takes_the_certificates_along_that_nobody_used() {
    story(|world| async move {
        let (id, code) = world.link_with_id(&link()).await;
        let certificate = world.issued(&world.post(&format!("/enroll/{code}/profile")).await.profile()).await;
        let mut tx = world.store.begin().await.unwrap();
        assert!(enroll::link::revoke(&mut tx, id, world.now()).await.unwrap());
        tx.commit().await.unwrap();
        let refused = world.authenticate(&certificate, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::NoRecord)), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn th_02_an_older_certificate_of_the_same_name_fulfils_no_newer_record() {
    story(|world| async move {
        let server = world.ade_server().await;
        world.ade_device(server, 1, Some(world.now())).await;
        let mut by_serial = acme("refuse");
        by_serial["acme"]["client_identifier"] = json!("serial");
        world.set_door(Door::Ade, json!({ "enabled": true, "identity": by_serial })).await;
        let old = world.certificate("SERIAL0001");
        world.clock.advance(Duration::from_mins(15));
        let profile = world.say(1).await.profile();
        assert_eq!(text(&profile, ACME, "ClientIdentifier"), "SERIAL0001");
        let refused = world.arrive_from_acme(&old, &device(1)).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::NoRecord)), "{refused}");
        let new = world.certificate("SERIAL0001");
        world.arrive_from_acme(&new, &device(1)).await.unwrap();
    })
    .await;
}
