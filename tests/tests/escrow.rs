//! What devices hand over and what the server keeps sealed: unlock tokens, bootstrap tokens, keys; and changing the key that seals
//! them (TH-10, TH-64, TH-66). On both databases, each story twice.

#[cfg(test)]
#[expect(dead_code, reason = "the other stories of the device's door use the rest")]
mod checkin_world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use assay::keys::Rotation;
use assay::seal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use checkin_world::{Device, Proof, World, story};
use commands::{Lane, New, Rendering};
use http::StatusCode;
use mdm_core::command::{ClearPasscode, Command};
use mdm_core::crypto::seal::Sealer;
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Store;
use store::sealed::{self, PLACES};

const BAD: StatusCode = StatusCode::BAD_REQUEST;

fn token_update(device: &Device, unlock_token: Option<&str>) -> String {
    let token = unlock_token.map(|t| format!("<key>UnlockToken</key><data>{}</data>", STANDARD.encode(t)));
    device.token_update_with("ZmFrZVRva2Vu", &token.unwrap_or_default())
}

fn set_bootstrap_token(device: &Device, token: &str) -> String {
    let data = STANDARD.encode(token);
    device.message("SetBootstrapToken", &format!("<key>BootstrapToken</key><data>{data}</data>"))
}

async fn bootstrap_token(world: &World, device: &Device) -> String {
    world.check_in(Proof::Signed(device), &device.message("GetBootstrapToken", "")).await.body
}

/// `ClearPasscode` as the API enqueues it.
async fn clear_passcode(world: &World, id: EnrollmentId) -> String {
    let uuid = Random::System.uuid_v4().to_string();
    let envelope = Command::from(ClearPasscode).envelope(uuid.parse().unwrap());
    let new = New {
        uuid: envelope.uuid.clone(),
        request_type: &envelope.request_type,
        rendering: Rendering::Unlock,
        body: &envelope.body,
        lane: Lane::Urgent,
        coalescing_key: None,
        ttl: None,
        created_by: "test",
        push: true,
    };
    let mut tx = world.store.begin().await.unwrap();
    commands::enqueue(&mut tx, &world.policy.commands, &new, &[id], world.now()).await.unwrap();
    tx.commit().await.unwrap();
    uuid
}

#[tokio::test]
async fn th_64_the_unlock_token_stays_and_goes_out_with_clear_passcode_only() {
    story(|world| async move {
        for n in [1, 2] {
            let (device, id) = world.enrolled(n).await;
            // A device that has given no token cannot be unlocked, and holds up nothing.
            let refused = clear_passcode(&world, id).await;
            world.enqueue(id, &format!("after-{n}")).await;
            assert!(world.idle(&device).await.body.contains(&format!("after-{n}")));
            world.acknowledge(&device, &format!("after-{n}")).await;
            let target = target(&world, id, &refused).await;
            assert_eq!(target.state, "refused");

            let secret = format!("unlock-{n}");
            assert!(world.check_in(Proof::Signed(&device), &token_update(&device, Some(&secret))).await.is_empty());
            assert!(world.check_in(Proof::Signed(&device), &token_update(&device, None)).await.is_empty());
            let uuid = clear_passcode(&world, id).await;
            let sent = world.idle(&device).await;
            assert!(sent.body.contains(&STANDARD.encode(&secret)), "one that is absent clears nothing: {}", sent.body);
            // It changes before the device answers: what goes out again is what the device has now.
            let newer = format!("newer-{n}");
            assert!(world.check_in(Proof::Signed(&device), &token_update(&device, Some(&newer))).await.is_empty());
            assert!(world.idle(&device).await.body.contains(&STANDARD.encode(&newer)));
            assert!(world.acknowledge(&device, &uuid).await.is_empty());
            let stored = self::target(&world, id, &uuid).await;
            assert!(stored.result_sealed.is_some());
        }
        nothing_is_readable(&world.store, &["unlock-1", "unlock-2", "newer-1", "newer-2"]).await;
    })
    .await;
}

async fn target(world: &World, id: EnrollmentId, uuid: &str) -> store::commands::Target {
    let mut tx = world.store.read().await.unwrap();
    store::commands::target(&mut tx, id, &uuid.parse().unwrap()).await.unwrap().unwrap()
}

/// No sealed place of the database holds one of these.
async fn nothing_is_readable(store: &Store, secrets: &[&str]) {
    let mut tx = store.read().await.unwrap();
    for place in PLACES {
        for value in sealed::sealed_otherwise(&mut tx, place, &[0; 4], 10_000).await.unwrap() {
            for secret in secrets {
                let found = value.sealed.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "{}", value.context);
            }
        }
    }
}

#[tokio::test]
async fn th_10_a_bootstrap_token_goes_back_along_its_lineage_only() {
    story(|world| async move {
        for n in [1, 2] {
            let (device, id) = world.enrolled(n).await;
            let secret = STANDARD.encode(format!("boot-{n}"));
            let set = set_bootstrap_token(&device, &format!("boot-{n}"));
            assert!(world.check_in(Proof::Signed(&device), &set).await.is_empty(), "from any system (Q19)");
            assert!(bootstrap_token(&world, &device).await.contains(&secret));
            let renewed = world.renewed(&device, id).await;
            assert!(bootstrap_token(&world, &renewed).await.contains(&secret), "the renewed identity goes on with it");
            assert!(world.check_in(Proof::Signed(&renewed), &renewed.token_update()).await.is_empty());
            assert_eq!(bootstrap_token(&world, &device).await, "", "the former one has no claim to it any more");

            // Wiped and enrolled anew: the secret stays in the archive.
            assert!(world.check_in(Proof::Signed(&renewed), &renewed.check_out()).await.is_empty());
            assert_eq!(bootstrap_token(&world, &renewed).await, "");
            let anew = world.again(&device).await;
            assert!(world.check_in(Proof::Signed(&anew), &anew.authenticate()).await.is_empty());
            assert!(!bootstrap_token(&world, &anew).await.contains(&secret));
            assert!(world.check_in(Proof::Signed(&anew), &anew.token_update()).await.is_empty());
            assert!(!bootstrap_token(&world, &anew).await.contains(&secret));
            let mut tx = world.store.read().await.unwrap();
            let archived = store::enrollments::archived_escrow(&mut tx, id).await.unwrap();
            drop(tx);
            assert_eq!(
                archived.iter().map(|a| (a.generation, a.kind.as_str())).collect::<Vec<_>>(),
                [(1, "bootstrap_token")]
            );

            // Its own new one, and an empty one that takes it back.
            assert!(world.check_in(Proof::Signed(&anew), &set_bootstrap_token(&anew, "fresh")).await.is_empty());
            assert!(bootstrap_token(&world, &anew).await.contains(&STANDARD.encode("fresh")));
            world.later(1);
            assert!(world.check_in(Proof::Signed(&anew), &anew.message("SetBootstrapToken", "")).await.is_empty());
            assert!(!bootstrap_token(&world, &anew).await.contains(&STANDARD.encode("fresh")));
            let stranger = world.device(500 + n).await;
            let as_device = Device { udid: device.udid.clone(), ..stranger };
            let answer = world.check_in(Proof::Signed(&as_device), &as_device.message("GetBootstrapToken", "")).await;
            assert_eq!((answer.status, answer.body.as_str()), (BAD, ""));
        }
        nothing_is_readable(&world.store, &["boot-1", "boot-2", "fresh"]).await;
    })
    .await;
}

/// Every column of the schema that holds ciphertext: all that end in `_sealed`, and two that are named otherwise.
#[test]
fn th_66_the_list_of_sealed_places_is_that_of_the_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/sqlite");
    let mut found: BTreeSet<String> = ["seal_sentinel.sealed".to_owned(), "escrow_archive.sealed".to_owned()].into();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut table = String::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["CREATE", "TABLE", name, ..] => (*name).clone_into(&mut table),
                ["ALTER", "TABLE", name, "ADD", "COLUMN", column, ..] if column.ends_with("_sealed") => {
                    found.insert(format!("{name}.{column}"));
                }
                [column, "BLOB" | "BLOB,", ..] if column.ends_with("_sealed") => {
                    found.insert(format!("{table}.{column}"));
                }
                _ => {}
            }
        }
    }
    let listed: BTreeSet<String> = PLACES.iter().map(ToString::to_string).collect();
    assert_eq!(listed, found, "store/src/sealed.rs lists every place, or assay keys rotate would leave it behind");
}

const NOW: Timestamp = Timestamp(1_795_320_000_000);

/// A value in every place that the list knows, and the texts inside.
async fn fill(store: &Store, sealer: &Sealer) {
    let (random, id, other) = (Random::System, Random::System.uuid_v7(NOW), Random::System.uuid_v7(NOW));
    let word = other.simple().to_string();
    let sealed = |context: String| sealer.seal(&context, context.as_bytes(), &random);
    let mut tx = store.begin().await.unwrap();
    let enrollment = EnrollmentId(id);
    let key = mdm_core::enrollment::DeviceKey::Udid(other.to_string().parse().unwrap());
    let new =
        store::enrollments::NewDevice { id: enrollment, kind: mdm_core::enrollment::EnrollmentKind::Device, key: &key };
    store::enrollments::insert_device(&mut tx, &new, NOW).await.unwrap();
    let state = mdm_core::enrollment::EnrollmentState::Enrolled { since: NOW };
    let tokens = store::enrollments::Tokens {
        topic: "com.apple.mgmt.External.test",
        push_token: b"fakeToken",
        push_magic: "magic",
        signed_at: None,
        awaiting_configuration: false,
        unlock_token_sealed: Some(&sealed(format!("enrollment.unlock_token_sealed:{id}"))),
        raw_sealed: &sealed(format!("enrollment.token_update_sealed:{id}")),
        user_short_name: None,
        user_long_name: None,
    };
    store::enrollments::token_update(&mut tx, enrollment, state, &tokens, NOW).await.unwrap();
    let bootstrap = sealed(format!("enrollment.bootstrap_token_sealed:{id}"));
    store::enrollments::set_bootstrap_token(&mut tx, enrollment, Some(&bootstrap), None).await.unwrap();
    let archive = [random.uuid_v7(NOW), random.uuid_v7(NOW)];
    store::enrollments::archive_escrow(&mut tx, enrollment, archive, NOW).await.unwrap();
    let row = store::keys::Row {
        name: word.clone(),
        certificate: Vec::new(),
        chain: Vec::new(),
        key_sealed: sealed(format!("sealed_key.key_sealed:{word}")),
        not_after: 0,
        created_at: 0,
    };
    assert!(store::keys::insert(&mut tx, &row).await.unwrap());
    let row = store::network_users::Row {
        short_name: word.clone(),
        digest_sealed: sealed(format!("network_user.digest_sealed:{word}")),
        created_by: "test".into(),
        created_at: 0,
    };
    store::network_users::put(&mut tx, &row).await.unwrap();
    let ctx = commands::Context { sealer: sealer.clone(), random: random.clone(), stall: commands::Stall::default() };
    let envelope = Command::from(ClearPasscode).envelope(word.parse().unwrap());
    let new = New {
        uuid: envelope.uuid.clone(),
        request_type: &envelope.request_type,
        rendering: Rendering::Unlock,
        body: &envelope.body,
        lane: Lane::Normal,
        coalescing_key: None,
        ttl: None,
        created_by: "test",
        push: false,
    };
    commands::enqueue(&mut tx, &ctx, &new, &[enrollment], NOW).await.unwrap();
    let picked = commands::next(&mut tx, &ctx, enrollment, mdm_core::report::Status::Idle, NOW).await.unwrap().unwrap();
    commands::rendered(&mut tx, &ctx, &picked, b"rendered", NOW).await.unwrap();
    tx.commit().await.unwrap();
}

/// How many values this key opens; every one that is there must be among them.
async fn opened(store: &Store, sealer: &Sealer) -> usize {
    let mut tx = store.read().await.unwrap();
    let mut count = 0;
    for place in PLACES {
        for value in sealed::sealed_otherwise(&mut tx, place, &[0; 4], 10_000).await.unwrap() {
            sealer.open(&value.context, &value.sealed).unwrap_or_else(|e| panic!("{}: {e}", value.context));
            count += 1;
        }
    }
    count
}

fn with(file: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}.{end}", file.display()))
}

#[tokio::test]
async fn th_66_the_key_is_changed_everywhere_or_nowhere() {
    mdm_tests::on_both(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seal.key");
        for round in 1..=2 {
            let old = seal::open(&store, &file, &Random::System, NOW).await.unwrap();
            fill(&store, &old).await;
            let values = opened(&store, &old).await;
            assert!(values >= 9 * round, "{values}");

            let rotation = Rotation { file: &file, new_key_file: None, old_key_files: &[] };
            let done = rotation.run(&store, &Random::System).await.unwrap();
            assert_eq!((done.values, done.old.as_str()), (values, old.key_id().as_str()));
            let new = seal::open(&store, &file, &Random::System, NOW).await.unwrap();
            assert_eq!(new.key_id(), done.new);
            assert_ne!(new.key_id(), old.key_id());
            assert_eq!(opened(&store, &new).await, values);
            assert!(done.kept.exists() && !with(&file, "new").exists());

            // It was broken off at its end: the database has the new key, the file the old one. The next start ends it.
            std::fs::rename(&file, with(&file, "new")).unwrap();
            std::fs::copy(&done.kept, &file).unwrap();
            assert_eq!(seal::open(&store, &file, &Random::System, NOW).await.unwrap().key_id(), new.key_id());
            assert!(!with(&file, "new").exists());
            // Even where the old file is gone already.
            std::fs::rename(&file, with(&file, "new")).unwrap();
            assert_eq!(seal::open(&store, &file, &Random::System, NOW).await.unwrap().key_id(), new.key_id());

            // It was broken off at its beginning: a new key lies beside, and the old one is good. Run again, it takes that one.
            std::fs::copy(&done.kept, with(&file, "new")).unwrap();
            assert_eq!(seal::open(&store, &file, &Random::System, NOW).await.unwrap().key_id(), new.key_id());
            let back = rotation.run(&store, &Random::System).await.unwrap();
            assert_eq!(back.new, old.key_id());
            assert_eq!(opened(&store, &old).await, values);

            // With a key of the operator's own; the one in use is refused.
            let own = folder.path().join(format!("own-{round}"));
            seal_file(&own, round);
            let given = Rotation { new_key_file: Some(&own), ..rotation };
            let done = given.run(&store, &Random::System).await.unwrap();
            assert_eq!(opened(&store, &seal::open(&store, &file, &Random::System, NOW).await.unwrap()).await, values);
            let same = given.run(&store, &Random::System).await.unwrap_err().to_string();
            assert!(same.contains("the old one"), "{same}");

            // The wrong key changes nothing and is named.
            let right = std::fs::read(&file).unwrap();
            seal_file(&file, 77);
            let wrong = format!("{:#}", rotation.run(&store, &Random::System).await.unwrap_err());
            assert!(wrong.contains(&done.new), "{wrong}");
            std::fs::write(&file, right).unwrap();
            let last = seal::open(&store, &file, &Random::System, NOW).await.unwrap();
            assert_eq!(opened(&store, &last).await, values);
        }
    })
    .await;
}

#[tokio::test]
async fn th_66_a_value_that_does_not_open_stops_the_rotation_before_anything_is_changed() {
    mdm_tests::on_both(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seal.key");
        let old = seal::open(&store, &file, &Random::System, NOW).await.unwrap();
        fill(&store, &old).await;
        // A server that was not stopped sealed with another key.
        let stray = folder.path().join("stray");
        seal_file(&stray, 5);
        let other = Sealer::new(&[5; 32]);
        fill(&store, &other).await;
        let rotation = Rotation { file: &file, new_key_file: None, old_key_files: &[] };
        for _ in 0..2 {
            let error = format!("{:#}", rotation.run(&store, &Random::System).await.unwrap_err());
            assert!(error.contains(&other.key_id()) && error.contains("nothing was changed"), "{error}");
            assert_eq!(seal::open(&store, &file, &Random::System, NOW).await.unwrap().key_id(), old.key_id());
        }
        let strays = [stray];
        let helped = Rotation { old_key_files: &strays, ..rotation };
        helped.run(&store, &Random::System).await.unwrap();
        let new = seal::open(&store, &file, &Random::System, NOW).await.unwrap();
        assert!(opened(&store, &new).await > 0);
    })
    .await;
}

/// A key file with this byte, over and over.
fn seal_file(path: &Path, byte: usize) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("{byte:02x}").repeat(32)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
