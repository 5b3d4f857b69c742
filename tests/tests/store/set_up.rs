use mdm_core::enrollment::{Door, EnrollmentKind, EnrollmentState};
use mdm_core::ids::EnrollmentId;
use store::commands::Command;
use store::enrollments::{self, Entered, Tokens};
use store::set_up::{self, Queue};

use super::commands::{command, queued};
use super::{at, command_uuid, enrolled, key, tokens, twice};

async fn queued_for(tx: &mut store::Tx, request_type: &str, id: EnrollmentId) {
    let uuid = command_uuid();
    queued(tx, &Command { request_type: request_type.to_owned(), ..command(&uuid) }, &[id]).await;
}

const IDLE: Queue = Queue { commands: false, policies: false, released: false };

#[tokio::test]
async fn a_device_is_due_when_its_time_is_over_or_nothing_is_left() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let waits = Tokens { awaiting_configuration: true, unlock_token_sealed: Some(b"unlock"), ..tokens() };
        enrollments::token_update(&mut tx, id, EnrollmentState::Enrolled { since: at(2) }, &waits, at(2))
            .await
            .unwrap();
        assert_eq!(enrollments::unlock_token(&mut tx, id).await.unwrap().as_deref(), Some(&b"unlock"[..]));
        let is_due = async |tx: &mut store::Tx, now| set_up::due(tx, at(now), 10_000).await.unwrap().contains(&id);
        assert!(!is_due(&mut tx, 1000).await, "no time was set");
        set_up::until(&mut tx, id, at(100), None).await.unwrap();
        assert!(is_due(&mut tx, 10).await, "nothing is in the way");
        assert_eq!(set_up::queue(&mut tx, id, "DeviceConfigured").await.unwrap(), IDLE);

        queued_for(&mut tx, "ProfileList", id).await;
        assert!(!is_due(&mut tx, 10).await);
        assert!(is_due(&mut tx, 100).await, "its time is over");
        assert_eq!(set_up::queue(&mut tx, id, "DeviceConfigured").await.unwrap(), Queue { commands: true, ..IDLE });
        queued_for(&mut tx, "DeviceConfigured", id).await;
        let both = Queue { commands: true, released: true, ..IDLE };
        assert_eq!(set_up::queue(&mut tx, id, "DeviceConfigured").await.unwrap(), both);
        store::commands::clear(&mut tx, id, "test", at(3)).await.unwrap();

        set_up::until(&mut tx, id, at(200), Some(at(100))).await.unwrap();
        set_up::until(&mut tx, id, at(300), Some(at(200))).await.unwrap();
        let held = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((held.set_up_until, held.set_up_done_at), (Some(at(300)), Some(at(100))));
        assert!(!is_due(&mut tx, 250).await, "it was told");
        set_up::over(&mut tx, id).await.unwrap();
        let over = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert!(!over.awaiting_configuration && over.set_up_until.is_none() && over.set_up_done_at.is_some());
        assert!(!is_due(&mut tx, 1000).await);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_enrollment_knows_its_door_and_its_users_inherit_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let entered = Entered {
            door: Door::Adde,
            managed_apple_account: Some("ada@example.com"),
            server_url: Some("https://mdm.example.com/mdm"),
            anchors: Some("[]"),
        };
        enrollments::entered(&mut tx, id, &entered).await.unwrap();
        let user = EnrollmentId(key(at(5)));
        let name = mdm_core::enrollment::UserKey::UserId("11111111-2222-3333-4444-555555555555".parse().unwrap());
        enrollments::insert_user(&mut tx, user, id, EnrollmentKind::Device, &name, at(5)).await.unwrap();
        for id in [id, user] {
            let row = enrollments::get(&mut tx, id).await.unwrap().unwrap();
            assert_eq!((row.door, row.managed_apple_account.as_deref()), (Door::Adde, Some("ada@example.com")));
        }
        let row = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.server_url.as_deref(), row.anchors.as_deref()), (entered.server_url, entered.anchors));
        tx.commit().await.unwrap();
    })
    .await;
}
