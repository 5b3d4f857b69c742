//! Setup Assistant (`AwaitingConfiguration`), user channels of Macs and Shared iPads, and what User Enrollment forbids. On both
//! databases, each story twice.

#[cfg(test)]
#[expect(dead_code, reason = "the stories of the operator edge use the rest")]
mod api_world;
#[cfg(test)]
#[expect(dead_code, reason = "the other stories of the device's door use the rest")]
mod checkin_world;

use std::time::Duration;

use checkin_world::{Answer, Device, Proof, USER, World, story};
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, UserKey};
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::random::Random;
use policy::{AcmePolicy, Scope};
use serde_json::{Value as Json, json};
use store::enrollments::{Enrollment, NewDevice};

const WAITS: &str = "<key>AwaitingConfiguration</key><true/>";
const HALF_AN_HOUR: u64 = 30 * 60;

/// Authenticate and TokenUpdate of a device that waits in Setup Assistant.
async fn held(world: &World, n: u32) -> (Device, EnrollmentId) {
    let device = world.device(n).await;
    assert!(world.check_in(Proof::Signed(&device), &device.authenticate()).await.is_empty());
    assert!(world.check_in(Proof::Signed(&device), &device.token_update_with("ZmFrZVRva2Vu", WAITS)).await.is_empty());
    let id = world.live(&device).await.unwrap().id;
    (device, id)
}

/// The loop of the server.
async fn look(world: &World) {
    checkin::set_up::run_once(&world.store, &world.policy.commands, world.now(), 100).await.unwrap();
}

/// `RequestType` and `CommandUUID` of an answer.
fn command(answer: &Answer) -> Option<(String, String)> {
    let of = |key: &str| {
        let rest = answer.body.split(&format!("<key>{key}</key>")).nth(1)?;
        Some(rest.split("<string>").nth(1)?.split("</string>").next()?.to_owned())
    };
    Some((of("RequestType")?, of("CommandUUID")?))
}

fn expect(answer: &Answer, request_type: &str) -> String {
    let (found, uuid) = command(answer).unwrap_or_else(|| panic!("no command: {answer:?}"));
    assert_eq!(found, request_type);
    uuid
}

/// A policy for all that every device can honour.
async fn policy_for_all(world: &World) {
    let json = json!({
        "name": "wifi", "directory_url": "https://ca.example.com/acme/directory",
        "client_identifier": "{serial}", "subject": [[["O", "Example"]], [["CN", "{serial}"]]],
    });
    let mut tx = world.store.begin().await.unwrap();
    let new = AcmePolicy::from_value(json).unwrap();
    let id = policy::create(&mut tx, &world.policy, &new, "test", world.now()).await.unwrap();
    policy::set_scope(&mut tx, id, &Scope::everybody(), "test", world.now()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn cancel(world: &World, id: EnrollmentId, uuid: &str) {
    let mut tx = world.store.begin().await.unwrap();
    let uuid: CommandUuid = uuid.parse().unwrap();
    commands::cancel(&mut tx, id, &uuid, "test", world.now()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_device_with_nothing_assigned_is_let_go_on_at_once() {
    story(|world| async move {
        for n in [1, 2] {
            let (device, id) = held(&world, n).await;
            let waits = world.enrollment(id).await;
            assert!(waits.awaiting_configuration && waits.set_up_until.is_some() && waits.set_up_done_at.is_some());
            look(&world).await;
            assert_eq!(world.waiting(id).await, 1, "told once");
            let uuid = expect(&world.idle(&device).await, "DeviceConfigured");
            assert!(world.acknowledge(&device, &uuid).await.is_empty());
            let done = world.enrollment(id).await;
            assert!(!done.awaiting_configuration && done.set_up_until.is_none() && done.set_up_done_at.is_some());
            assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
            world.later(24 * 3600);
            look(&world).await;
            assert_eq!(world.waiting(id).await, 0);
        }
        assert_eq!(world.events("enrollment.set_up_released").await, 2);
    })
    .await;
}

#[tokio::test]
async fn it_is_let_go_on_last_when_its_policies_and_commands_are_done() {
    story(|world| async move {
        policy_for_all(&world).await;
        for n in [1, 2] {
            let (device, id) = held(&world, n).await;
            world.enqueue(id, &format!("first-{n}")).await;
            look(&world).await;
            let mut seen = Vec::new();
            let mut answer = world.idle(&device).await;
            while let Some((request_type, uuid)) = command(&answer) {
                seen.push(request_type.clone());
                let extra = if request_type == "DeviceInformation" {
                    "<key>QueryResponses</key><dict><key>ProductName</key><string>iPhone17,2</string>\
                     <key>OSVersion</key><string>26.1</string></dict>"
                } else {
                    ""
                };
                let report = format!("{}{extra}", device.status("Acknowledged", &uuid));
                answer = world.report(Proof::Signed(&device), &report).await;
                assert!(seen.len() < 10, "{seen:?}");
            }
            assert_eq!(seen.last().map(String::as_str), Some("DeviceConfigured"), "{seen:?}");
            assert_eq!(seen.iter().filter(|kind| *kind == "DeviceConfigured").count(), 1);
            assert!(
                seen.contains(&"InstallProfile".to_owned()) && seen.contains(&"ProfileList".to_owned()),
                "{seen:?}"
            );
            assert!(!world.enrollment(id).await.awaiting_configuration);
        }
    })
    .await;
}

#[tokio::test]
async fn no_device_is_left_waiting() {
    story(|world| async move {
        policy_for_all(&world).await;
        for n in [1, 2] {
            // It puts off whatever it is sent, and never gets done.
            let (device, id) = held(&world, n).await;
            let (_, uuid) = command(&world.idle(&device).await).unwrap();
            assert!(world.report(Proof::Signed(&device), &device.status("NotNow", &uuid)).await.is_empty());
            world.later(HALF_AN_HOUR - 60);
            look(&world).await;
            assert!(world.enrollment(id).await.set_up_done_at.is_none(), "there is time yet");
            world.later(60);
            look(&world).await;
            let told = expect(&world.idle(&device).await, "DeviceConfigured");
            // It fails: not at once again, but again.
            let failed = device.status("Error", &told);
            let then = world.report(Proof::Signed(&device), &failed).await;
            assert_ne!(command(&then).map(|(kind, _)| kind).as_deref(), Some("DeviceConfigured"));
            world.later(5 * 60);
            look(&world).await;
            let again = expect(&world.idle(&device).await, "DeviceConfigured");
            assert_ne!(again, told);
            // An operator takes it back by mistake.
            cancel(&world, id, &again).await;
            world.later(24 * 3600);
            look(&world).await;
            let last = expect(&world.idle(&device).await, "DeviceConfigured");
            world.acknowledge(&device, &last).await;
            assert!(!world.enrollment(id).await.awaiting_configuration);
            // It says so itself, too, and leaves in between.
            assert!(world.check_in(Proof::Signed(&device), &device.check_out()).await.is_empty());
            look(&world).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_device_that_says_that_it_is_through_is_believed() {
    story(|world| async move {
        policy_for_all(&world).await;
        for n in [1, 2] {
            let (device, id) = held(&world, n).await;
            assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
            let through = world.enrollment(id).await;
            assert!(!through.awaiting_configuration && through.set_up_until.is_none());
            world.later(24 * 3600);
            look(&world).await;
            assert!(world.enrollment(id).await.set_up_done_at.is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn users_of_a_shared_ipad_are_told_on_their_own_channel() {
    story(|world| async move {
        for n in [1, 2] {
            let (device, id) = world.enrolled(n).await;
            let user = |name: &str| {
                format!(
                    "<key>UserID</key><string>FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF</string>\
                     <key>UserShortName</key><string>{name}</string>"
                )
            };
            for name in ["ada@example.com", "eve@example.com"] {
                let update = device.token_update_with("dXNlclRva2Vu", &format!("{}{WAITS}", user(name)));
                assert!(world.check_in(Proof::Signed(&device), &update).await.is_empty());
                let mut tx = world.store.read().await.unwrap();
                let key = UserKey::SharedIpad(name.parse().unwrap());
                let enrollment = store::enrollments::live_user(&mut tx, id, &key).await.unwrap().unwrap();
                drop(tx);
                assert_eq!(enrollment.kind, EnrollmentKind::SharedIpad);
                assert_eq!(enrollment.door, world.enrollment(id).await.door, "by the door of its device");
                let idle = format!("{}{}", device.idle(), user(name));
                let uuid = expect(&world.report(Proof::Signed(&device), &idle).await, "UserConfigured");
                let done = format!("{}{}", device.status("Acknowledged", &uuid), user(name));
                assert!(world.report(Proof::Signed(&device), &done).await.is_empty());
                assert!(!world.enrollment(enrollment.id).await.awaiting_configuration);
            }
            assert_eq!(world.waiting(id).await, 0, "nothing of it on the device channel");
            assert!(world.idle(&device).await.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_channel_of_a_mac_in_setup_assistant_puts_off_until_the_session_ends() {
    story(|world| async move {
        for n in [1, 2] {
            let (device, id) = world.enrolled(n).await;
            let user = format!("<key>UserID</key><string>{USER}</string>");
            let update = device.token_update_with("dXNlclRva2Vu", &user);
            assert!(world.check_in(Proof::Signed(&device), &update).await.is_empty());
            let channel = world.user(id).await.unwrap();
            let uuid = format!("user-{n}");
            world.enqueue(channel.id, &uuid).await;
            let report = |status: &str, uuid: Option<&str>| match uuid {
                Some(uuid) => format!("{}{user}", device.status(status, uuid)),
                None => format!("{}{user}", device.idle()),
            };
            let idle = world.report(Proof::Signed(&device), &report("Idle", None)).await;
            assert!(idle.body.contains(&uuid));
            let put_off = world.report(Proof::Signed(&device), &report("NotNow", Some(&uuid))).await;
            assert!(put_off.is_empty(), "the empty answer is what ends its Setup Assistant");
            let again = world.report(Proof::Signed(&device), &report("Idle", None)).await;
            assert!(again.body.contains(&uuid));
            assert!(world.report(Proof::Signed(&device), &report("Acknowledged", Some(&uuid))).await.is_empty());
            assert!(world.idle(&device).await.is_empty(), "what is for one channel is on no other");
        }
    })
    .await;
}

/// A device of User Enrollment.
async fn user_enrolled(operator: &api_world::World) -> Enrollment {
    let now = operator.clock.now();
    let id = EnrollmentId(Random::System.uuid_v7(now));
    let key = DeviceKey::EnrollmentId(Random::System.uuid_v4().to_string().parse().unwrap());
    let mut tx = operator.store().begin().await.unwrap();
    let new = NewDevice { id, kind: EnrollmentKind::User, key: &key };
    store::enrollments::insert_device(&mut tx, &new, now).await.unwrap();
    store::enrollments::set_state(&mut tx, id, EnrollmentState::Enrolled { since: now }).await.unwrap();
    let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    enrollment
}

fn raw(request_type: &str) -> Json {
    use base64::Engine;
    let uuid = Random::System.uuid_v4().to_string();
    let plist = base64::engine::general_purpose::STANDARD.encode(api_world::plist(&uuid, request_type));
    json!({ "type": "raw", "plist": plist })
}

#[tokio::test]
async fn what_user_enrollment_forbids_is_refused_at_once() {
    mdm_tests::on_both(|store| async move {
        let operator = api_world::World::new(store).await;
        for n in [1, 2] {
            let person = user_enrolled(&operator).await.id;
            let device = operator.enroll(n).await;
            let send = async |command: Json, ids: &[EnrollmentId]| {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                operator
                    .post("/api/v1/commands", json!({ "command": command, "targets": { "enrollment_ids": ids } }))
                    .await
            };
            for forbidden in [
                raw("EraseDevice"),
                raw("ClearPasscode"),
                raw("DeviceConfigured"),
                raw("RestartDevice"),
                json!({ "type": "clear_passcode" }),
                json!({ "type": "device_information", "queries": ["ProductName", "SerialNumber"] }),
                json!({ "type": "device_information", "queries": ["UDID"] }),
            ] {
                let refused = send(forbidden.clone(), &[person]).await.is(422);
                assert!(refused.text().contains("User Enrollment forbids"), "{forbidden}: {}", refused.text());
            }
            for allowed in [
                json!({ "type": "device_information" }),
                json!({ "type": "security_info" }),
                json!({ "type": "profile_list", "managed_only": true }),
                raw("DeviceLock"),
            ] {
                send(allowed, &[person]).await.is(201);
            }
            send(json!({ "type": "clear_passcode" }), &[device]).await.is(201);
            // With others beside it, those are sent it.
            let both = send(raw("RestartDevice"), &[device, person]).await.is(201).json();
            let outcomes: Vec<_> = both["targets"].as_array().unwrap().iter().map(|t| t["outcome"].clone()).collect();
            assert_eq!(outcomes, ["queued", "not_allowed"]);
            let wrong = send(json!({ "type": "device_configured" }), &[device]).await.is(422);
            assert!(wrong.text().contains("Automated Device Enrollment"));
            send(json!({ "type": "user_configured" }), &[device]).await.is(422);
            operator.clock.advance(Duration::from_secs(60));
        }
    })
    .await;
}
