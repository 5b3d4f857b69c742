use mdm_core::random::Random;
use store::Tx;
use store::invitations::{self, Row};
use uuid::Uuid;

use super::{at, key, twice};

pub(crate) fn row() -> Row {
    Row {
        id: key(at(0)),
        managed_apple_account: "ada@example.org".to_owned(),
        mode: "byod".to_owned(),
        note: "pilot".to_owned(),
        label: Some("lab".to_owned()),
        max_uses: 2,
        uses: 0,
        expires_at: at(60).0,
        revoked_at: None,
        created_by: "test".to_owned(),
        created_at: at(0).0,
    }
}

pub(crate) async fn invitation(tx: &mut Tx) -> Uuid {
    let row = row();
    invitations::insert(tx, &row, Random::System.bytes()).await.unwrap();
    row.id
}

#[tokio::test]
async fn an_invitation_is_used_as_often_as_it_says() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (row, code) = (row(), Random::System.bytes());
        invitations::insert(&mut tx, &row, code).await.unwrap();
        assert_eq!(invitations::find(&mut tx, code).await.unwrap().as_ref(), Some(&row));
        assert!(invitations::find(&mut tx, Random::System.bytes()).await.unwrap().is_none());
        invitations::lock(&mut tx, row.id).await.unwrap();
        assert!(invitations::take_use(&mut tx, row.id, at(1)).await.unwrap());
        assert!(!invitations::take_use(&mut tx, row.id, at(60)).await.unwrap(), "it has ended");
        assert!(invitations::take_use(&mut tx, row.id, at(2)).await.unwrap());
        assert!(!invitations::take_use(&mut tx, row.id, at(3)).await.unwrap(), "it is used up");
        assert_eq!(invitations::get(&mut tx, row.id).await.unwrap().unwrap().uses, 2);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_invitation_is_of_no_use() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = invitation(&mut tx).await;
        assert!(invitations::revoke(&mut tx, id, at(1)).await.unwrap());
        assert!(!invitations::revoke(&mut tx, id, at(2)).await.unwrap());
        assert!(!invitations::take_use(&mut tx, id, at(3)).await.unwrap());
        assert_eq!(invitations::get(&mut tx, id).await.unwrap().unwrap().revoked_at, Some(at(1).0));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn invitations_are_listed_newest_first() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let mut made = Vec::new();
        for n in 0..3 {
            let row = Row { id: key(at(100 + n)), ..row() };
            invitations::insert(&mut tx, &row, Random::System.bytes()).await.unwrap();
            made.push(row.id);
        }
        let all = invitations::list(&mut tx, None, 1000).await.unwrap();
        let listed: Vec<_> = all.into_iter().map(|row| row.id).filter(|id| made.contains(id)).collect();
        assert_eq!(listed, made.iter().rev().copied().collect::<Vec<_>>());
        let older = invitations::list(&mut tx, Some(made[1]), 1000).await.unwrap();
        assert!(older.iter().any(|row| row.id == made[0]) && older.iter().all(|row| row.id < made[1]));
        tx.commit().await.unwrap();
    })
    .await;
}
