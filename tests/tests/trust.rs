//! How devices come to trust the server, through the real server and simulated devices: the three kinds of certificate, what
//! Apple Configurator asks for, pins, and a change of the CA that loses nobody.

mod trust_world;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_tests::{Backend, both};
use serde_json::Value;
use simulator::device::ChannelId;
use simulator::http::{Answer, Trust};
use trust_world::{Ca, Server, World, self_signed, until};

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    let kind = answer.headers.get("content-type").unwrap().to_str().unwrap();
    assert_eq!(kind, "application/json; charset=UTF8");
    serde_json::from_slice(&answer.body).unwrap()
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The plain profile that a fresh link gives.
async fn profile(server: &Server, trust: &Trust) -> String {
    let link = server.link().await;
    let path = link.strip_prefix(&server.url).unwrap().to_owned();
    text(&server.get(trust, &format!("{path}/profile")).await)
}

async fn readiness(server: &Server) -> Value {
    let answer = simulator::http::Client::new(&Trust::public(), None)
        .unwrap()
        .get(&format!("{}/readyz?verbose", server.health))
        .await
        .unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_public_ca_nothing_is_given_and_nothing_is_pinned() {
    let world = World::new(Backend::Sqlite).await;
    let ca = Ca::new("Stands in for a public CA");
    world.put_certificate(ca.server());
    let mut config = world.config("");
    config.trust.add_public_root(ca.certificate.clone());
    let server = world.start(&config, &ca.trust()).await;

    assert_eq!(server.errors().await, [""; 0]);
    let trust = server.trust().await;
    assert_eq!((&trust["server_certificate"], &trust["verification"]), (&"public".into(), &"always".into()));
    assert_eq!((&trust["pinned"], &trust["anchors"]), (&false.into(), &Value::Array(Vec::new())));

    let asked = json(&server.get(&ca.trust(), "MDMServiceConfig").await);
    assert_eq!(asked["dep_enrollment_url"], format!("{}ade/enroll", server.url));
    assert_eq!(asked.get("trust_profile_url"), None);
    let anchors = asked["dep_anchor_certs_url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
    assert_eq!(json(&server.get(&ca.trust(), &anchors).await), Value::Array(Vec::new()));
    assert_eq!(server.get(&ca.trust(), "trust").await.status, 404);
    assert_eq!(server.get(&ca.trust(), "trust/profile").await.status, 404);

    let profile = profile(&server, &ca.trust()).await;
    assert!(profile.contains("com.apple.mdm") && !profile.contains("com.apple.security.root"));
    assert!(!profile.contains("Pinning"));
    let mut device = server.enroll(&ca.trust()).await;
    device.session(ChannelId::DEVICE).await.unwrap();
    assert_eq!(server.errors().await, [""; 0]);
    server.stop().await;

    // Files that do not fit do not keep enrolled devices out: what was served last is served on.
    let key = std::fs::read(world.file("key.pem")).unwrap();
    std::fs::write(world.file("key.pem"), Ca::new("Another").server().1).unwrap();
    let server = world.start(&config, &ca.trust()).await;
    until("E2", async || server.errors().await == ["E2"]).await;
    device.session(ChannelId::DEVICE).await.unwrap();
    std::fs::write(world.file("key.pem"), key).unwrap();
    until("the files are right", async || server.errors().await.is_empty()).await;
    server.stop().await;

    // The same chain without the root that stands in: the declaration is wrong.
    let server = world.start(&world.config(""), &ca.trust()).await;
    assert!(server.errors().await.contains(&"E2".to_owned()));
    assert!(readiness(&server).await["trust"].as_array().unwrap().iter().any(|f| f["code"] == "E2"));
    server.stop().await;
    world.place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_private_ca_its_root_is_given_and_pinned() {
    let world = World::new(Backend::Sqlite).await;
    let ca = Ca::new("Example root");
    world.put_certificate(ca.server());
    let root = world.put_root("root.pem", &ca);
    let lines = format!("server_certificate = \"private-ca\"\nanchors = [{root}]\npin_revocation_required = true");
    let server = world.start(&world.config(&lines), &ca.trust()).await;
    assert_eq!(server.errors().await, [""; 0]);
    assert_eq!(server.trust().await["verification"], "anchored-first-contact");

    // What Configurator asks for.
    let asked = json(&server.get(&ca.trust(), "MDMServiceConfig").await);
    assert_eq!(asked["trust_profile_url"], format!("{}trust/profile", server.url));
    let anchors = asked["dep_anchor_certs_url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
    let anchors = json(&server.get(&ca.trust(), &anchors).await);
    assert_eq!(anchors, Value::Array(vec![STANDARD.encode(ca.certificate.der()).into()]));

    // The page for people, and the profile on it, which has nothing but the root.
    let page = text(&server.get(&ca.trust(), "trust").await);
    let fingerprint = ca.certificate.fingerprint().0.map(|byte| format!("{byte:02X}")).join(" ");
    assert!(
        page.contains(&fingerprint)
            && page.contains("Certificate Trust Settings")
            && !page.contains("class=\"banner\"")
    );
    let answer = server.get(&ca.trust(), "trust/profile").await;
    assert_eq!(answer.headers.get("content-type").unwrap(), "application/x-apple-aspen-config");
    let given = text(&answer);
    let kinds: Vec<&str> =
        given.match_indices("com.apple.").map(|(at, _)| given[at..].split('<').next().unwrap()).collect();
    assert_eq!(kinds, ["com.apple.security.root"]);

    // The enrollment profile pins both URLs to it, and a device that knows nothing else works with it.
    let profile = profile(&server, &ca.trust()).await;
    for key in
        ["ServerURLPinningCertificateUUIDs", "CheckInURLPinningCertificateUUIDs", "PinningRevocationCheckRequired"]
    {
        assert!(profile.contains(key), "{key}");
    }
    let mut device = server.enroll(&ca.trust()).await;
    device.session(ChannelId::DEVICE).await.unwrap();
    let devices = &server.trust().await["devices"];
    assert_eq!((&devices["live"], &devices["unknown"]), (&1.into(), &0.into()));
    server.stop().await;
    world.place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_pilot_says_so_and_stays_small() {
    let world = World::new(Backend::Sqlite).await;
    let pair = self_signed();
    let own = mdm_core::certificate::Certificate::from_pem(&pair.0).unwrap();
    world.put_certificate(pair);
    let trust = Trust::only(&[own.der().to_vec()]);
    let config = world.config("server_certificate = \"self-signed\"\npilot = true");
    let server = world.start(&config, &trust).await;
    assert_eq!(server.errors().await, [""; 0]);
    assert!(server.codes().await.contains(&"W5".to_owned()));
    let page = text(&server.get(&trust, "trust").await);
    assert!(page.contains("class=\"banner\"") && page.contains("A trial"));
    let anchors = json(&server.get(&trust, "trust/anchors").await);
    assert_eq!(anchors, Value::Array(vec![STANDARD.encode(own.der()).into()]));

    // Nobody is asked for a password where nobody vouches for the server.
    let well_known = ".well-known/com.apple.remotemanagement?user-identifier=ada@example.org&model-family=Mac";
    let refused = server.get(&trust, well_known).await;
    assert!(refused.status >= 400 && !text(&refused).contains("Servers"), "{}", text(&refused));

    let mut device = server.enroll(&trust).await;
    device.session(ChannelId::DEVICE).await.unwrap();
    server.stop().await;

    // It is full.
    let store = world.store().await;
    let mut tx = store.begin().await.unwrap();
    for _ in 1..enroll::trust::PILOT_DEVICES {
        let id = mdm_core::ids::EnrollmentId(Random::System.uuid_v4());
        let key = mdm_core::enrollment::DeviceKey::Udid(Random::System.uuid_v4().to_string().parse().unwrap());
        let new = store::enrollments::NewDevice { id, kind: mdm_core::enrollment::EnrollmentKind::Device, key: &key };
        store::enrollments::insert_device(&mut tx, &new, mdm_core::time::Timestamp(1)).await.unwrap();
    }
    tx.commit().await.unwrap();
    store.close().await;
    drop(store);
    let server = world.start(&config, &trust).await;
    let link = server.link().await;
    let path = link.strip_prefix(&server.url).unwrap().to_owned();
    let refused = server.get(&trust, &format!("{path}/profile")).await;
    assert_eq!(refused.status, 403);
    assert!(!text(&refused).contains("com.apple.mdm"));
    let events = server.operator.all("/api/v1/events").await.unwrap();
    assert!(events.iter().any(|event| event.to_string().contains("pilot_full")));
    // Who is enrolled goes on.
    device.session(ChannelId::DEVICE).await.unwrap();
    server.stop().await;
    world.place.remove().await;
}

/// The lines of `[trust]` for a CA and, perhaps, the one that takes over.
fn lines(now: &str, next: Option<&str>) -> String {
    let next = next.map(|next| format!("next_anchors = [{next}]\n")).unwrap_or_default();
    format!("server_certificate = \"private-ca\"\nanchors = [{now}]\n{next}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_changed_and_no_device_is_lost() {
    for backend in both() {
        let world = World::new(backend).await;
        let mut old = Ca::new("Root 0");
        let mut old_file = world.put_root("root-0.pem", &old);
        let mut devices = Vec::new();
        world.put_certificate(old.server());
        let mut server = world.start(&world.config(&lines(&old_file, None)), &old.trust()).await;
        for round in 1..=2 {
            devices.push(server.enroll(&old.trust()).await);
            server.stop().await;

            // The next root is staged: who enrolls now holds it, the others get a new profile.
            let next = Ca::new(&format!("Root {round}"));
            let next_file = world.put_root(&format!("root-{round}.pem"), &next);
            let staged = world.config(&lines(&old_file, Some(&next_file)));
            server = world.start(&staged, &old.trust()).await;
            let held = i64::try_from(devices.len()).unwrap();
            assert_eq!(server.holders().await, (0, held), "{backend}");
            devices.push(server.enroll(&old.trust()).await);
            assert_eq!(server.holders().await, (1, held + 1), "{backend}");

            // Too early: the server keeps the old certificate, says so, and does so over a restart.
            world.put_certificate(next.server());
            until("E7", async || server.errors().await == ["E7"]).await;
            assert!(server.is_trusted_by(&old).await && !server.is_trusted_by(&next).await, "{backend}");
            server.stop().await;
            server = world.start(&staged, &old.trust()).await;
            assert_eq!(server.errors().await, ["E7"], "{backend}");
            assert!(server.is_trusted_by(&old).await && !server.is_trusted_by(&next).await, "{backend}");

            // Their new profiles are due within a day; the administrator does not wait. With the last one the certificate
            // changes.
            for enrollment in server.operator.all("/api/v1/enrollments").await.unwrap() {
                let renew = format!("/api/v1/enrollments/{}/renewal", enrollment["id"].as_str().unwrap());
                server.operator.post(&renew, &Value::Null).await.unwrap();
            }
            until("all hold the next root", async || {
                for device in &mut devices {
                    let _ = device.session(ChannelId::DEVICE).await;
                }
                server.is_trusted_by(&next).await
            })
            .await;
            assert!(!server.is_trusted_by(&old).await, "{backend}");
            for device in &mut devices {
                device.session(ChannelId::DEVICE).await.unwrap_or_else(|e| panic!("{backend}, round {round}: {e}"));
            }
            server.stop().await;

            // The next one is the current one now.
            (old, old_file) = (next, next_file);
            server = world.start(&world.config(&lines(&old_file, None)), &old.trust()).await;
            assert_eq!(server.errors().await, [""; 0], "{backend}");
            for device in &mut devices {
                device.session(ChannelId::DEVICE).await.unwrap_or_else(|e| panic!("{backend}, round {round}: {e}"));
            }
        }
        // By force it goes at once, and the devices are lost: their pins do not let them in.
        server.stop().await;
        let stranger = Ca::new("Stranger");
        let stranger_file = world.put_root("stranger.pem", &stranger);
        world.put_certificate(stranger.server());
        let forced = format!("{}force_switch = true\n", lines(&stranger_file, None));
        let server = world.start(&world.config(&forced), &stranger.trust()).await;
        assert_eq!(server.errors().await, ["E7"], "{backend}");
        assert!(server.is_trusted_by(&stranger).await, "{backend}");
        for device in &mut devices {
            device.session(ChannelId::DEVICE).await.unwrap_err();
        }
        server.stop().await;
        world.place.remove().await;
    }
}

/// The administrator forgets to stage the CA (N1): from a CA of the organization's own, or of the server's making, straight to a
/// public one. The fleet holds the old CA, so the old chain is served on, over restarts, though no setting names it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_holds_a_private_ca_is_not_cut_off_by_a_public_certificate() {
    for own in [true, false] {
        let world = World::new(Backend::Sqlite).await;
        let (root, public) = (Ca::new("Example root"), Ca::new("Stands in for a public CA"));
        world.put_certificate(root.server());
        let file = world.put_root("root.pem", &root);
        let config = if own { world.config_without_files() } else { world.config(&lines(&file, None)) };
        let mut held = Vec::new();
        let server = world
            .start_with(&config, |anchors| {
                held = anchors.iter().map(|anchor| anchor.der().to_vec()).collect();
                Trust::only(&held)
            })
            .await;
        let trust = Trust::only(&held);
        let mut device = server.enroll(&trust).await;
        device.session(ChannelId::DEVICE).await.unwrap();
        server.stop().await;

        let mut config = world.config("");
        config.trust.add_public_root(public.certificate.clone());
        if !own {
            // The settings first: what is served is the same, and its root is not named any more.
            let server = world.start(&config, &trust).await;
            assert_eq!(server.errors().await, ["E2"]);
            device.session(ChannelId::DEVICE).await.unwrap();
            server.stop().await;
        }
        world.put_certificate(public.server());
        for _ in 0..2 {
            let server = world.start(&config, &trust).await;
            assert!(server.errors().await.contains(&"E7".to_owned()), "own: {own}");
            assert!(!server.is_trusted_by(&public).await, "own: {own}");
            device.session(ChannelId::DEVICE).await.unwrap();
            // Who comes now accepts what is served.
            server.enroll(&trust).await.session(ChannelId::DEVICE).await.unwrap();
            server.stop().await;
        }
        config.trust.force_switch = true;
        let server = world.start(&config, &public.trust()).await;
        assert_eq!(server.errors().await, ["E7"], "own: {own}");
        assert!(server.is_trusted_by(&public).await, "own: {own}");
        server.stop().await;
        world.place.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rg_19_one_odd_device_does_not_keep_the_next_root_from_the_others() {
    let world = World::new(Backend::Sqlite).await;
    let (old, next) = (Ca::new("Root 0"), Ca::new("Root 1"));
    world.put_certificate(old.server());
    let (old_file, next_file) = (world.put_root("root-0.pem", &old), world.put_root("root-1.pem", &next));
    let server = world.start(&world.config(&lines(&old_file, None)), &old.trust()).await;
    for _ in 0..3 {
        server.enroll(&old.trust()).await;
    }
    let mut ids: Vec<EnrollmentId> = Vec::new();
    for enrollment in server.operator.all("/api/v1/enrollments").await.unwrap() {
        ids.push(EnrollmentId(enrollment["id"].as_str().unwrap().parse().unwrap()));
    }
    ids.sort();
    let odd = ids[1];
    server.operator.post(&format!("/api/v1/enrollments/{}/renewal", odd.0), &Value::Null).await.unwrap();
    server.stop().await;
    world.spoil("UPDATE renewal SET cert_sha256 = $1, due_at = NULL WHERE enrollment_id = $2", odd).await;

    let server = world.start(&world.config(&lines(&old_file, Some(&next_file))), &old.trust()).await;
    // The pass at the start comes to all of them.
    let asked = "SELECT COUNT(*) FROM renewal WHERE reason = 'anchors'";
    until("the others are asked", async || world.count(asked).await == 2).await;
    server.stop().await;
    world.place.remove().await;
}
