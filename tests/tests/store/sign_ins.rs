use mdm_core::random::Random;
use store::Tx;
use store::sign_ins::{self, Row, SignedIn};

use super::invitations::invitation;
use super::{at, key, twice};

pub(crate) async fn sign_in(tx: &mut Tx) -> Row {
    let row = Row {
        id: key(at(0)),
        purpose: "byod".to_owned(),
        subject_of: "{}".to_owned(),
        state_sha256: Random::System.bytes::<32>().to_vec(),
        browser_sha256: Random::System.bytes::<32>().to_vec(),
        secrets_sealed: b"sealed".to_vec(),
        attempts: 0,
        expires_at: at(60).0,
        signed_in_at: None,
        person: None,
        label: None,
        invitation_id: None,
        finished_at: None,
        created_at: at(0).0,
    };
    sign_ins::insert(tx, &row).await.unwrap();
    row
}

#[tokio::test]
async fn a_state_is_replaced_once() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let row = sign_in(&mut tx).await;
        assert_eq!(sign_ins::get(&mut tx, row.id).await.unwrap().as_ref(), Some(&row));
        let state: [u8; 32] = Random::System.bytes();
        assert!(sign_ins::find(&mut tx, state).await.unwrap().is_none());
        assert!(sign_ins::replace_state(&mut tx, row.id, &row.state_sha256, state, b"new").await.unwrap());
        let other = Random::System.bytes();
        assert!(!sign_ins::replace_state(&mut tx, row.id, &row.state_sha256, other, b"newer").await.unwrap());
        let found = sign_ins::find(&mut tx, state).await.unwrap().unwrap();
        assert_eq!((found.id, found.secrets_sealed.as_slice()), (row.id, b"new".as_slice()));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_person_signs_in_and_it_is_finished_once() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let row = sign_in(&mut tx).await;
        assert!(sign_ins::attempt(&mut tx, row.id, 2, at(1)).await.unwrap());
        assert!(sign_ins::attempt(&mut tx, row.id, 2, at(1)).await.unwrap());
        assert!(!sign_ins::attempt(&mut tx, row.id, 2, at(1)).await.unwrap(), "no more tries");
        assert!(!sign_ins::attempt(&mut tx, row.id, 9, at(60)).await.unwrap(), "its time is over");
        assert!(!sign_ins::finish(&mut tx, row.id, at(2)).await.unwrap(), "nobody has signed in");
        let who = SignedIn { person: "ada@example.org", label: Some("lab"), invitation: None };
        assert!(!sign_ins::signed_in(&mut tx, row.id, &who, at(60)).await.unwrap(), "its time is over");
        assert!(sign_ins::signed_in(&mut tx, row.id, &who, at(2)).await.unwrap());
        assert!(!sign_ins::signed_in(&mut tx, row.id, &who, at(3)).await.unwrap());
        assert!(!sign_ins::attempt(&mut tx, row.id, 9, at(3)).await.unwrap());
        assert!(!sign_ins::finish(&mut tx, row.id, at(60)).await.unwrap(), "its time is over");
        assert!(sign_ins::finish(&mut tx, row.id, at(4)).await.unwrap());
        assert!(!sign_ins::finish(&mut tx, row.id, at(5)).await.unwrap());
        let row = sign_ins::get(&mut tx, row.id).await.unwrap().unwrap();
        assert_eq!((row.person.as_deref(), row.label.as_deref()), (Some("ada@example.org"), Some("lab")));
        assert_eq!((row.signed_in_at, row.finished_at), (Some(at(2).0), Some(at(4).0)));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_came_of_an_invitation_ends_with_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (row, invitation) = (sign_in(&mut tx).await, invitation(&mut tx).await);
        let who = SignedIn { person: "ada@example.org", label: None, invitation: Some(invitation) };
        assert!(sign_ins::signed_in(&mut tx, row.id, &who, at(2)).await.unwrap());
        assert_eq!(sign_ins::end_of_invitation(&mut tx, invitation, at(3)).await.unwrap(), 1);
        assert_eq!(sign_ins::end_of_invitation(&mut tx, invitation, at(3)).await.unwrap(), 0);
        assert!(!sign_ins::finish(&mut tx, row.id, at(4)).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn ended_sign_ins_are_deleted_later() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let row = sign_in(&mut tx).await;
        sign_ins::delete_ended(&mut tx, at(60), 1000).await.unwrap();
        assert!(sign_ins::get(&mut tx, row.id).await.unwrap().is_some());
        assert!(sign_ins::delete_ended(&mut tx, at(61), 1000).await.unwrap() >= 1);
        assert!(sign_ins::get(&mut tx, row.id).await.unwrap().is_none());
        tx.commit().await.unwrap();
    })
    .await;
}
