//! A device that claims to be one that is enrolled: refused, kept for an operator, approved or refused by one. The enrollment
//! that is there goes on (TH-02). On both databases, each story twice.

#[cfg(test)]
#[expect(dead_code, reason = "the stories of the operator edge use the rest")]
mod api_world;
#[cfg(test)]
#[expect(dead_code, reason = "the other stories of the device's door use the rest")]
mod checkin_world;

use std::time::Duration;

use checkin_world::{Device, Proof, World, p256, story};
use http::StatusCode;
use issuer::issuance::{OpenIssuance, Purpose};
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{EnrollmentId, IssuanceId, LinkId};
use mdm_core::random::Random;
use serde_json::{Value as Json, json};
use store::issuance::Flow;
use store::links::Row;

const BAD: StatusCode = StatusCode::BAD_REQUEST;

/// The operator's side on the same database.
async fn operator(world: &World) -> api_world::World {
    api_world::World::new(world.store.clone()).await
}

async fn link(world: &World, max_uses: i64) -> LinkId {
    let row = Row {
        id: Random::System.uuid_v7(world.now()),
        kind: "device".to_owned(),
        note: String::new(),
        expected_serial: None,
        expected_udid: None,
        managed_apple_account: None,
        label: None,
        sign_in: false,
        max_uses,
        uses: 0,
        expires_at: world.now().plus(Duration::from_hours(100)).0,
        revoked_at: None,
        created_by: "test".to_owned(),
        created_at: world.now().0,
    };
    let mut tx = world.store.begin().await.unwrap();
    store::links::insert(&mut tx, &row, Random::System.bytes()).await.unwrap();
    tx.commit().await.unwrap();
    LinkId(row.id)
}

/// The same device with an identity that this link gave it.
async fn by_link(world: &World, device: &Device, link: LinkId) -> Device {
    let key = p256();
    let wanted = OpenIssuance {
        flow: Flow::Link,
        purpose: Purpose::Enrollment,
        kind: EnrollmentKind::Device,
        enrollment_id: None,
        link_id: Some(link),
        expected_serial: None,
        expected_udid: None,
        label: None,
        ttl: Duration::from_mins(10),
        details: store::issuance::Details::default(),
    };
    world.later(1);
    let mut tx = world.store.begin().await.unwrap();
    let (id, _): (IssuanceId, _) =
        issuer::issuance::open(&mut tx, &Random::System, world.now(), &wanted).await.unwrap();
    let certificate = world.certificate(&key);
    assert!(store::issuance::consume(&mut tx, id, &[1; 32], "t", world.now()).await.unwrap());
    store::issuance::set_certificate(&mut tx, id, &certificate).await.unwrap();
    tx.commit().await.unwrap();
    Device { key, certificate, ..device.clone() }
}

async fn authenticate(world: &World, device: &Device) -> StatusCode {
    world.check_in(Proof::Signed(device), &device.authenticate()).await.status
}

/// What waits for an operator because of this device.
async fn waiting(operator: &api_world::World, device: &Device) -> Vec<Json> {
    let page = operator.get("/api/v1/quarantine?state=waiting").await.is(200).json();
    let of = |item: &&Json| item["udid"] == device.udid.as_str();
    page["items"].as_array().unwrap().iter().filter(of).cloned().collect()
}

fn path(item: &Json, verb: &str) -> String {
    format!("/api/v1/quarantine/{}{verb}", item["id"].as_str().unwrap())
}

async fn bootstrap_token(world: &World, device: &Device) -> String {
    world.check_in(Proof::Signed(device), &device.message("GetBootstrapToken", "")).await.body
}

/// An enrolled device with a command on its queue and a bootstrap token.
async fn victim(world: &World, n: u32) -> (Device, EnrollmentId, String) {
    let (device, id) = world.enrolled(n).await;
    let waits = format!("waits-{n}");
    world.enqueue(id, &waits).await;
    let token = device.message("SetBootstrapToken", "<key>BootstrapToken</key><data>c2VjcmV0</data>");
    assert!(world.check_in(Proof::Signed(&device), &token).await.is_empty());
    (device, id, waits)
}

#[tokio::test]
async fn th_02_a_claim_waits_for_an_operator_and_is_admitted_by_his_word_once() {
    story(|world| async move {
        let operator = operator(&world).await;
        for n in [1, 2] {
            let (device, id, waits) = victim(&world, n).await;
            let before = world.enrollment(id).await;
            let link = link(&world, 1).await;
            let claim = by_link(&world, &device, link).await;
            assert_eq!(authenticate(&world, &claim).await, BAD);
            let other =
                Device { udid: format!("00008110-{:016X}", 900 + n), serial: device.serial.clone(), ..claim.clone() };
            assert_eq!(authenticate(&world, &other).await, BAD);
            let found = waiting(&operator, &device).await;
            assert_eq!(found.len(), 1, "one certificate is one entry: {found:?}");
            let item = &found[0];
            assert_eq!((item["reason"].as_str(), item["times"].as_i64()), (Some("device_already_enrolled"), Some(2)));
            assert_eq!(item["enrollment_id"], id.0.to_string());
            assert_eq!(item["serial_number"], device.serial.as_str(), "the claim stays as it was first seen");
            assert!(item["issuance_id"].is_string() && item["certificate_sha256"].is_string());
            assert_eq!(operator.get(&path(item, "")).await.is(200).json(), *item);
            assert_eq!(world.enrollment(id).await, before, "the enrollment goes on");
            assert!(world.idle(&device).await.body.contains(&waits));

            let approved = operator.post(&path(item, "/approve"), json!(null)).await.is(200).json();
            assert_eq!(approved["state"], "approved");
            assert_eq!(approved["decided_by"], "token:test");
            assert!(world.idle(&device).await.body.contains(&waits), "an approval changes nothing by itself");
            // The device had to fetch a new profile, and with it came a new certificate.
            let elsewhere = world.again(&device).await;
            assert_eq!(authenticate(&world, &elsewhere).await, BAD, "another link is another origin");
            let newer = by_link(&world, &device, link).await;
            let liar = Device { serial: "ANOTHER1".into(), ..newer.clone() };
            assert_eq!(authenticate(&world, &liar).await, BAD, "the serial number is part of what was approved");
            assert_eq!(authenticate(&world, &newer).await, StatusCode::OK);
            assert!(world.check_in(Proof::Signed(&newer), &newer.token_update()).await.is_empty());
            let now = world.enrollment(id).await;
            assert_eq!((now.id, now.generation), (id, 2));
            assert_eq!(world.waiting(id).await, 0, "what waited for the old enrollment is not for the new one");
            assert!(!bootstrap_token(&world, &newer).await.contains("c2VjcmV0"), "nor is its secret (TH-10)");
            assert_eq!(world.idle(&device).await.status, BAD);
            let shown = operator.get(&path(item, "")).await.is(200).json();
            assert_eq!((&shown["state"], &shown["enrollment_id"]), (&json!("used"), &json!(id.0.to_string())));
            let detail = operator.get(&format!("/api/v1/enrollments/{}", id.0)).await.is(200).json();
            let newest = &detail["identities"][0];
            assert_eq!((&newest["state"], &newest["source"]), (&json!("live"), &json!("scep")), "{detail}");
            assert_eq!(detail["identities"][1]["state"], "retired");
            assert_eq!(detail["enrollment"]["door"], "link");
            assert_eq!(detail["escrow"]["archived"], 1);
            let path_of = format!("/api/v1/issuance?enrollment_id={}&state=used&flow=link&source=scep", id.0);
            let records = operator.get(&path_of).await.is(200).json();
            assert_eq!(records["items"].as_array().unwrap().len(), 2, "{records}");
            assert_eq!(operator.get("/api/v1/issuance?flow=door").await.is(422).fields(), ["flow"]);
            for verb in ["/approve", "/refuse"] {
                assert_eq!(operator.post(&path(item, verb), json!(null)).await.is(409).slug(), "conflict");
            }
            let third = by_link(&world, &device, link).await;
            assert_eq!(authenticate(&world, &third).await, BAD, "it was good once");
        }
        for kind in ["quarantine.approved", "quarantine.used"] {
            assert_eq!(world.events(kind).await, 2, "{kind}");
        }
        operator.get(&format!("/api/v1/quarantine/{}", Random::System.uuid_v4())).await.is(404);
        assert_eq!(operator.get("/api/v1/quarantine?state=open").await.is(422).fields(), ["state"]);
    })
    .await;
}

#[tokio::test]
async fn th_02_an_approval_by_a_link_for_many_covers_the_certificate_that_was_seen() {
    story(|world| async move {
        let operator = operator(&world).await;
        for n in [1, 2] {
            let (device, id, waits) = victim(&world, n).await;
            let link = link(&world, 100).await;
            let claim = by_link(&world, &device, link).await;
            assert_eq!(authenticate(&world, &claim).await, BAD);
            let item = waiting(&operator, &device).await.remove(0);
            operator.post(&path(&item, "/approve"), json!(null)).await.is(200);
            // Whoever else has the link knows the serial number and the UDID: they are written on the box.
            let eve = by_link(&world, &device, link).await;
            assert_eq!(authenticate(&world, &eve).await, BAD);
            assert!(world.idle(&device).await.body.contains(&waits));
            assert_eq!(authenticate(&world, &claim).await, StatusCode::OK);
            assert_eq!(world.enrollment(id).await.generation, 2);
        }
    })
    .await;
}

/// The same device with an identity of the ACME server, for a record that this link opened.
async fn by_acme(world: &World, device: &Device, link: LinkId) -> Device {
    let key = p256();
    let name = Random::System.token();
    let wanted = OpenIssuance {
        flow: Flow::Link,
        purpose: Purpose::Enrollment,
        kind: EnrollmentKind::Device,
        enrollment_id: None,
        link_id: Some(link),
        expected_serial: None,
        expected_udid: None,
        label: None,
        ttl: Duration::from_mins(10),
        details: store::issuance::Details::default(),
    };
    world.later(1);
    let mut tx = world.store.begin().await.unwrap();
    store::issuance::void_of_link(&mut tx, link).await.unwrap();
    issuer::issuance::open_acme(&mut tx, &Random::System, world.now(), &wanted, &name).await.unwrap();
    tx.commit().await.unwrap();
    let certificate = world.named_certificate(&key, &name);
    Device { key, certificate, ..device.clone() }
}

#[tokio::test]
async fn th_02_an_approved_acme_device_comes_back_with_a_new_certificate_and_a_refused_one_does_not() {
    story(|mut world| async move {
        let operator = operator(&world).await;
        let issuers = vec![world.ca.fingerprint()];
        world.settings(checkin::Settings { external_issuers: issuers, ..checkin::Settings::default() });
        let settings = json!({
            "enabled": true,
            "identity": { "prefer": "acme", "acme": { "directory_url": "https://acme.example.org/directory" } },
        });
        let settings: enroll::door::Settings = serde_json::from_value(settings).unwrap();
        let mut tx = world.store.begin().await.unwrap();
        enroll::door::store(&mut tx, mdm_core::enrollment::Door::Link, &settings, "test", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        for n in [1, 2] {
            let (device, id, waits) = victim(&world, n).await;
            let link_of_one = link(&world, 1).await;
            let claim = by_acme(&world, &device, link_of_one).await;
            assert_eq!(authenticate(&world, &claim).await, BAD);
            let item = waiting(&operator, &device).await.remove(0);
            assert!(item["issuance_id"].is_string(), "by which link it came: {item}");
            operator.post(&path(&item, "/approve"), json!(null)).await.is(200);
            let elsewhere = by_acme(&world, &device, link(&world, 1).await).await;
            assert_eq!(authenticate(&world, &elsewhere).await, BAD, "another link is another origin");
            let newer = by_acme(&world, &device, link_of_one).await;
            assert!(world.idle(&device).await.body.contains(&waits));
            assert_eq!(authenticate(&world, &newer).await, StatusCode::OK);
            assert_eq!(world.enrollment(id).await.generation, 2);

            let eve = by_acme(&world, &device, link(&world, 1).await).await;
            assert_eq!(authenticate(&world, &eve).await, BAD);
            let found = waiting(&operator, &device).await;
            let of_eve = eve.certificate.fingerprint().to_string();
            let item = found.iter().find(|item| item["certificate_sha256"] == of_eve.as_str()).unwrap();
            operator.post(&path(item, "/refuse"), json!(null)).await.is(200);
            let free = Device { udid: format!("00008110-{:016X}", 800 + n), serial: format!("FREE{n}"), ..eve.clone() };
            for refused in [&eve, &free] {
                assert_eq!(authenticate(&world, refused).await, BAD, "refused for good");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn th_02_an_approval_ends_after_a_day() {
    story(|world| async move {
        let mut operator = operator(&world).await;
        for n in [1, 2] {
            let (device, id, waits) = victim(&world, n).await;
            let claim = by_link(&world, &device, link(&world, 1).await).await;
            assert_eq!(authenticate(&world, &claim).await, BAD);
            let item = waiting(&operator, &device).await.remove(0);
            // The two sides have clocks of their own.
            operator.clock.advance(world.now().since(operator.clock.now()));
            operator.post(&path(&item, "/approve"), json!(null)).await.is(200);
            world.later(24 * 3600);
            assert_eq!(authenticate(&world, &claim).await, BAD);
            assert!(world.idle(&device).await.body.contains(&waits));
            assert_eq!(world.enrollment(id).await.generation, 1);
            operator.clock.advance(Duration::from_secs(24 * 3600));
            operator.admin = operator.token(&[api::Scope::Admin]).await;
            operator.post(&path(&item, "/approve"), json!(null)).await.is(200);
            assert_eq!(authenticate(&world, &claim).await, StatusCode::OK, "the same certificate is good too");
        }
    })
    .await;
}

#[tokio::test]
async fn th_02_a_refused_device_is_refused_for_good() {
    story(|world| async move {
        let operator = operator(&world).await;
        for n in [1, 2] {
            let (device, id, waits) = victim(&world, n).await;
            let claim = by_link(&world, &device, link(&world, 1).await).await;
            assert_eq!(authenticate(&world, &claim).await, BAD);
            let item = waiting(&operator, &device).await.remove(0);
            for _ in 0..2 {
                let refused = operator.post(&path(&item, "/refuse"), json!(null)).await.is(200).json();
                assert_eq!(
                    (&refused["quarantined"]["state"], &refused["certificate_revoked"]),
                    (&json!("refused"), &json!(true))
                );
            }
            operator.post(&path(&item, "/approve"), json!(null)).await.is(409);
            let free =
                Device { udid: format!("00008110-{:016X}", 800 + n), serial: format!("FREE{n}"), ..claim.clone() };
            for revoked in [&claim, &free] {
                assert_eq!(authenticate(&world, revoked).await, BAD);
            }
            assert!(waiting(&operator, &device).await.is_empty(), "nobody is asked again");
            assert!(world.idle(&device).await.body.contains(&waits));
            assert_eq!(world.enrollment(id).await.generation, 1);

            // The identity of one enrolled device claims to be another: refusing that must not cut off the device that holds it.
            let (holder, _) = world.enrolled(n + 10).await;
            let as_victim = Device { udid: device.udid.clone(), serial: device.serial.clone(), ..holder.clone() };
            assert_eq!(authenticate(&world, &as_victim).await, BAD);
            let item = waiting(&operator, &device).await.remove(0);
            assert_eq!(item["reason"], "certificate_of_other_device");
            let refused = operator.post(&path(&item, "/refuse"), json!(null)).await.is(200).json();
            assert_eq!(refused["certificate_revoked"], false);
            assert!(world.idle(&holder).await.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn th_02_the_quarantine_cannot_be_filled() {
    story(|world| async move {
        let operator = operator(&world).await;
        for n in [1, 2] {
            let (device, _, _) = victim(&world, n).await;
            for _ in 0..24 {
                let claim = world.again(&device).await;
                assert_eq!(authenticate(&world, &claim).await, BAD);
            }
            assert_eq!(waiting(&operator, &device).await.len(), 20, "so many from one address in an hour");
            world.later(3600);
        }
        let page = operator.get("/api/v1/quarantine?limit=15").await.is(200).json();
        assert_eq!(page["items"].as_array().unwrap().len(), 15);
        let next = page["next_cursor"].as_str().unwrap();
        let rest = operator.get(&format!("/api/v1/quarantine?limit=500&cursor={next}")).await.is(200).json();
        assert_eq!(rest["items"].as_array().unwrap().len(), 25);
        assert!(rest["next_cursor"].is_null());
    })
    .await;
}
