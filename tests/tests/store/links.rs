use mdm_core::ids::LinkId;
use mdm_core::random::Random;
use store::Tx;
use store::links::{self, Row};

use super::{at, key, twice};

fn row() -> Row {
    Row {
        id: key(at(0)),
        kind: "device".to_owned(),
        note: "for Anna".to_owned(),
        expected_serial: None,
        expected_udid: None,
        managed_apple_account: None,
        label: Some("lab".to_owned()),
        sign_in: true,
        max_uses: 2,
        uses: 0,
        expires_at: at(60).0,
        revoked_at: None,
        created_by: "test".to_owned(),
        created_at: at(0).0,
    }
}

pub(crate) async fn link(tx: &mut Tx) -> LinkId {
    let row = row();
    links::insert(tx, &row, Random::System.bytes()).await.unwrap();
    LinkId(row.id)
}

#[tokio::test]
async fn a_link_is_used_as_often_as_it_says() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (row, code) = (row(), Random::System.bytes());
        let id = LinkId(row.id);
        links::insert(&mut tx, &row, code).await.unwrap();
        assert_eq!(links::find(&mut tx, code).await.unwrap().as_ref(), Some(&row));
        assert!(links::find(&mut tx, Random::System.bytes()).await.unwrap().is_none());

        links::lock(&mut tx, id).await.unwrap();
        assert!(links::take_use(&mut tx, id, at(1)).await.unwrap());
        assert!(!links::take_use(&mut tx, id, at(60)).await.unwrap(), "it has ended");
        assert!(links::take_use(&mut tx, id, at(2)).await.unwrap());
        assert!(!links::take_use(&mut tx, id, at(3)).await.unwrap(), "it is used up");
        assert_eq!(links::get(&mut tx, id).await.unwrap().unwrap().uses, 2);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_link_is_of_no_use() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = link(&mut tx).await;
        assert!(links::revoke(&mut tx, id, at(1)).await.unwrap());
        assert!(!links::revoke(&mut tx, id, at(2)).await.unwrap());
        assert!(!links::take_use(&mut tx, id, at(3)).await.unwrap());
        assert_eq!(links::get(&mut tx, id).await.unwrap().unwrap().revoked_at, Some(at(1).0));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn links_are_listed_newest_first() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let mut made = Vec::new();
        for n in 0..3 {
            let row = Row { id: key(at(100 + n)), ..row() };
            links::insert(&mut tx, &row, Random::System.bytes()).await.unwrap();
            made.push(row.id);
        }
        let listed: Vec<_> = links::list(&mut tx, None, 1000)
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.id)
            .filter(|id| made.contains(id))
            .collect();
        assert_eq!(listed, made.iter().rev().copied().collect::<Vec<_>>());
        let older = links::list(&mut tx, Some(LinkId(made[1])), 1000).await.unwrap();
        assert!(older.iter().any(|row| row.id == made[0]) && older.iter().all(|row| row.id < made[1]));
        assert_eq!(links::list(&mut tx, None, 1).await.unwrap().len(), 1);
        tx.commit().await.unwrap();
    })
    .await;
}
