use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Tx;
use store::ade::devices::{self, Filter, Outcome, Seen};
use store::ade::profiles::{self, Definition};
use store::ade::servers::{self, NewToken, Settled};
use store::ade::{self, Profile, Server};
use uuid::Uuid;

use super::{at, key, twice, word};

async fn server(tx: &mut Tx) -> Uuid {
    let id = key(at(0));
    let row = Server {
        id,
        name: word("server"),
        certificate: b"certificate".to_vec(),
        key_sealed: b"sealed".to_vec(),
        consumer_key: None,
        token_sealed: None,
        token_expires_at: None,
        token_at: None,
        account: None,
        default_profile_id: None,
        cursor: None,
        phase: "fetch".into(),
        list_began_at: None,
        synced_at: None,
        health: "no_token".into(),
        health_text: None,
        health_at: None,
        failures: 0,
        due_at: at(0).0,
        created_at: at(0).0,
    };
    servers::insert(tx, &row).await.unwrap();
    assert_eq!(servers::get(tx, id).await.unwrap().unwrap(), row);
    id
}

async fn profile(tx: &mut Tx) -> Profile {
    let row = Profile {
        id: key(at(0)),
        name: word("profile"),
        revision: 1,
        body: "{}".into(),
        created_by: "test".into(),
        created_at: at(0).0,
        updated_at: at(0).0,
    };
    profiles::insert(tx, &row).await.unwrap();
    row
}

fn seen(serial: &str, op_date: Option<Timestamp>, profile_uuid: Option<&str>) -> Seen {
    Seen {
        serial_number: serial.into(),
        model: Some("Mac mini".into()),
        op_date,
        profile_uuid: profile_uuid.map(str::to_owned),
        profile_status: Some("assigned".into()),
        ..Seen::default()
    }
}

#[tokio::test]
async fn a_server_is_leased_by_one_and_settled_by_its_holder_only() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = server(&mut tx).await;
        let consumer = word("CK");
        let token =
            NewToken { consumer_key: &consumer, token_sealed: b"token", expires_at: at(999), same_server: false };
        servers::put_token(&mut tx, id, &token, at(1)).await.unwrap();
        assert_eq!(servers::by_consumer_key(&mut tx, &consumer).await.unwrap().unwrap().id, id);
        assert!(servers::any_due(&mut tx, at(1)).await.unwrap());

        let (first, second) = (Random::System.uuid_v4(), Random::System.uuid_v4());
        let taken = servers::lease(&mut tx, first, at(1), at(60), 100).await.unwrap();
        assert!(taken.iter().any(|server| server.id == id));
        assert!(
            servers::lease(&mut tx, second, at(2), at(60), 100).await.unwrap().iter().all(|server| server.id != id)
        );
        assert!(servers::hold(&mut tx, id, first, at(70)).await.unwrap());
        assert!(!servers::hold(&mut tx, id, second, at(70)).await.unwrap());

        servers::put_cursor(&mut tx, id, Some("c1"), "sync", Some(at(3))).await.unwrap();
        servers::put_account(&mut tx, id, "{\"org_name\":\"Example\"}").await.unwrap();
        let settled = Settled {
            health: "throttled",
            health_text: Some("patience"),
            failures: 1,
            taken_until: at(60),
            due_at: at(100),
            now: at(4),
        };
        assert!(!servers::settle(&mut tx, id, second, &settled).await.unwrap());
        // What was wished while the visit went on is not lost.
        servers::due(&mut tx, id, at(5)).await.unwrap();
        assert!(servers::settle(&mut tx, id, first, &settled).await.unwrap());
        let row = servers::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.due_at, row.health.as_str(), row.failures), (at(5).0, "throttled", 1));
        assert_eq!((row.cursor.as_deref(), row.phase.as_str(), row.synced_at), (Some("c1"), "sync", Some(at(3).0)));

        assert!(servers::lease(&mut tx, second, at(6), at(66), 100).await.unwrap().iter().any(|s| s.id == id));
        let settled = Settled { taken_until: at(66), ..settled };
        assert!(servers::settle(&mut tx, id, second, &settled).await.unwrap());
        assert_eq!(servers::get(&mut tx, id).await.unwrap().unwrap().due_at, at(100).0);
        servers::all_due(&mut tx, at(7)).await.unwrap();
        assert_eq!(servers::get(&mut tx, id).await.unwrap().unwrap().due_at, at(7).0);

        // Another server of the portal: the list is read from its beginning.
        servers::put_token(&mut tx, id, &token, at(8)).await.unwrap();
        assert_eq!(servers::get(&mut tx, id).await.unwrap().unwrap().cursor, None);
        assert!(servers::delete(&mut tx, id, at(9)).await.unwrap());
        assert!(!servers::delete(&mut tx, id, at(9)).await.unwrap());
        assert!(servers::list(&mut tx).await.unwrap().iter().all(|server| server.id != id));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_profile_has_revisions_and_is_defined_once_for_each_content() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, row) = (server(&mut tx).await, profile(&mut tx).await);
        assert_eq!(profiles::by_name(&mut tx, &row.name).await.unwrap().unwrap(), row);
        profiles::revise(&mut tx, row.id, "{\"a\":1}", at(1)).await.unwrap();
        let revised = profiles::get(&mut tx, row.id).await.unwrap().unwrap();
        assert_eq!((revised.revision, revised.body.as_str()), (2, "{\"a\":1}"));
        assert!(profiles::list(&mut tx, "", 1000).await.unwrap().contains(&revised));
        assert_eq!(profiles::uses(&mut tx, row.id).await.unwrap(), 0);
        servers::set_default_profile(&mut tx, id, Some(row.id), at(1)).await.unwrap();
        assert_eq!(profiles::uses(&mut tx, row.id).await.unwrap(), 1);

        let uuid = word("uuid");
        let definition = Definition {
            server_id: id,
            profile_id: row.id,
            sha256: vec![7; 32],
            anchors: "[]".into(),
            profile_uuid: uuid.clone(),
            defined_at: at(2).0,
        };
        profiles::define(&mut tx, &definition).await.unwrap();
        profiles::define(&mut tx, &definition).await.unwrap();
        assert_eq!(profiles::defined(&mut tx, id, row.id, &[7; 32]).await.unwrap().unwrap(), definition);
        assert_eq!(profiles::defined(&mut tx, id, row.id, &[8; 32]).await.unwrap(), None);

        devices::upsert(&mut tx, id, &seen("S1", None, None), at(3)).await.unwrap();
        let given = Outcome { state: "assigned", uuid: Some(&uuid), attempts: 0, due_at: None, profile: None };
        devices::outcome(&mut tx, id, "S1", &given, at(4)).await.unwrap();
        let carried = profiles::carried(&mut tx).await.unwrap();
        assert!(carried.iter().any(|c| c.profile == row.name && c.devices == 1 && c.anchors == "[]"));
        profiles::unknown(&mut tx, id, &uuid).await.unwrap();
        assert_eq!(profiles::defined(&mut tx, id, row.id, &[7; 32]).await.unwrap(), None);
        profiles::define(&mut tx, &definition).await.unwrap();
        profiles::undefine(&mut tx, id).await.unwrap();
        assert_eq!(profiles::defined(&mut tx, id, row.id, &[7; 32]).await.unwrap(), None);
        profiles::delete(&mut tx, row.id, at(5)).await.unwrap();
        assert_eq!(profiles::by_name(&mut tx, &row.name).await.unwrap(), None);
        servers::delete(&mut tx, id, at(9)).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_69_of_two_operations_the_newer_one_wins() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = server(&mut tx).await;
        assert!(devices::upsert(&mut tx, id, &seen("S1", Some(at(10)), None), at(11)).await.unwrap());
        assert!(!devices::upsert(&mut tx, id, &seen("S1", Some(at(9)), None), at(12)).await.unwrap());
        assert!(!devices::gone(&mut tx, id, "S1", at(9), at(12)).await.unwrap());
        devices::approve(&mut tx, id, "S1", Some(at(12)), at(12)).await.unwrap();
        devices::label(&mut tx, id, "S1", Some("lab"), at(12)).await.unwrap();
        ade::lock(&mut tx, "S1").await.unwrap();
        let device = ade::device(&mut tx, "S1").await.unwrap().unwrap();
        assert_eq!((device.approved_at, device.label.as_deref()), (Some(at(12).0), Some("lab")));

        assert!(devices::gone(&mut tx, id, "S1", at(20), at(21)).await.unwrap());
        assert_eq!(ade::device(&mut tx, "S1").await.unwrap(), None);
        // A late repetition of what was before does not bring it back, the next operation does; approval does not come back.
        assert!(!devices::upsert(&mut tx, id, &seen("S1", Some(at(10)), None), at(22)).await.unwrap());
        assert!(devices::upsert(&mut tx, id, &seen("S1", Some(at(30)), None), at(31)).await.unwrap());
        let device = ade::device(&mut tx, "S1").await.unwrap().unwrap();
        assert_eq!((device.approved_at, device.label.as_deref()), (None, Some("lab")));
        // A full list without it: the row stays and counts for nothing, until Apple lists it again.
        servers::begin_list(&mut tx, id, at(31)).await.unwrap();
        assert_eq!(servers::get(&mut tx, id).await.unwrap().unwrap().list_began_at, Some(at(31).0));
        assert_eq!(devices::unlist(&mut tx, id, at(31), at(31)).await.unwrap(), 0);
        devices::approve(&mut tx, id, "S1", Some(at(31)), at(31)).await.unwrap();
        assert_eq!(devices::unlist(&mut tx, id, at(32), at(33)).await.unwrap(), 1);
        assert_eq!(ade::device(&mut tx, "S1").await.unwrap(), None);
        assert!(devices::upsert(&mut tx, id, &seen("S1", Some(at(34)), None), at(34)).await.unwrap());
        assert_eq!(ade::device(&mut tx, "S1").await.unwrap().unwrap().approved_at, None);
        devices::forget_all(&mut tx, id, at(35)).await.unwrap();
        assert_eq!(ade::device(&mut tx, "S1").await.unwrap(), None);
        assert!(devices::get(&mut tx, id, "S1").await.unwrap().unwrap().deleted_at.is_some());
        servers::delete(&mut tx, id, at(40)).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_wished_and_not_done_is_due() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, default, other) = (server(&mut tx).await, profile(&mut tx).await, profile(&mut tx).await);
        servers::set_default_profile(&mut tx, id, Some(default.id), at(0)).await.unwrap();
        for serial in ["S1", "S2", "S3"] {
            devices::upsert(&mut tx, id, &seen(serial, None, None), at(1)).await.unwrap();
        }
        devices::wish(&mut tx, id, "S2", Some(other.id), at(2)).await.unwrap();
        assert_eq!(devices::wished(&mut tx, id).await.unwrap(), [other.id]);
        // S2 is due by its wish, the others because they lack the default.
        assert_eq!(devices::mark(&mut tx, id, Some(default.id), default.id, "U1", at(3)).await.unwrap(), 2);
        assert_eq!(devices::mark(&mut tx, id, Some(default.id), other.id, "U2", at(3)).await.unwrap(), 0);
        assert_eq!(devices::due(&mut tx, id, at(3), 10).await.unwrap().len(), 3);
        assert_eq!(devices::next_due(&mut tx, id).await.unwrap(), Some(at(2).0));

        let given = Outcome { state: "assigned", uuid: Some("U1"), attempts: 0, due_at: None, profile: None };
        devices::outcome(&mut tx, id, "S1", &given, at(4)).await.unwrap();
        let throttled =
            Outcome { state: "throttled", uuid: None, attempts: 1, due_at: Some(at(100)), profile: Some(other.id) };
        devices::outcome(&mut tx, id, "S2", &throttled, at(4)).await.unwrap();
        // A wish that came meanwhile keeps the device due.
        devices::wish(&mut tx, id, "S3", Some(other.id), at(4)).await.unwrap();
        devices::outcome(&mut tx, id, "S3", &given, at(5)).await.unwrap();
        let due: Vec<String> =
            devices::due(&mut tx, id, at(5), 10).await.unwrap().into_iter().map(|d| d.serial_number).collect();
        assert_eq!(due, ["S3"]);
        devices::wish(&mut tx, id, "S2", None, at(6)).await.unwrap();
        let row = devices::get(&mut tx, id, "S2").await.unwrap().unwrap();
        assert_eq!((row.assign_due_at, row.assign_attempts), (Some(at(100).0), 1), "a throttle of Apple's is kept");
        let counts = devices::counts(&mut tx, id).await.unwrap();
        assert!(counts.iter().any(|c| c.assign_state == "throttled" && c.devices == 1));

        // Apple says later that S1 has another profile, or none: it is assigned again.
        devices::upsert(&mut tx, id, &seen("S1", Some(at(3)), None), at(7)).await.unwrap();
        assert_eq!(devices::mark(&mut tx, id, Some(default.id), default.id, "U1", at(8)).await.unwrap(), 0);
        devices::upsert(&mut tx, id, &seen("S1", Some(at(8)), Some("other")), at(9)).await.unwrap();
        assert_eq!(devices::mark(&mut tx, id, Some(default.id), default.id, "U1", at(10)).await.unwrap(), 1);
        devices::outcome(&mut tx, id, "S1", &given, at(11)).await.unwrap();

        // Nothing is wished any more: what was assigned from here is taken back.
        servers::set_default_profile(&mut tx, id, None, at(12)).await.unwrap();
        assert_eq!(devices::mark_bare(&mut tx, id, at(12)).await.unwrap(), 1);
        let bare = Outcome { state: "none", uuid: None, attempts: 0, due_at: None, profile: None };
        devices::outcome(&mut tx, id, "S1", &bare, at(13)).await.unwrap();
        assert_eq!(devices::get(&mut tx, id, "S1").await.unwrap().unwrap().assigned_uuid, None);

        let all = Filter { server: Some(id), ..Filter::default() };
        assert_eq!(devices::list(&mut tx, &all, None, 10).await.unwrap().len(), 3);
        assert_eq!(devices::list(&mut tx, &all, Some(("S1", id)), 10).await.unwrap().len(), 2);
        let state = Filter { assign_state: Some("throttled".into()), ..all.clone() };
        assert_eq!(devices::list(&mut tx, &state, None, 10).await.unwrap().len(), 1);
        let approved = Filter { approved: Some(true), profile_status: Some("assigned".into()), ..all };
        assert_eq!(devices::list(&mut tx, &approved, None, 10).await.unwrap().len(), 0);
        servers::delete(&mut tx, id, at(20)).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}
