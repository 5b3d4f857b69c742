use store::keys::{self, Row};
use store::{Dialect, sentinel};

use super::{at, twice, word};

#[tokio::test]
async fn a_key_is_made_once_and_replaced_by_who_knows_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let row = Row {
            name: word("identity-ca"),
            certificate: b"der".to_vec(),
            chain: Vec::new(),
            key_sealed: b"sealed".to_vec(),
            not_after: at(1000).0,
            created_at: at(0).0,
        };
        assert!(keys::get(&mut tx, &row.name).await.unwrap().is_none());
        assert!(keys::insert(&mut tx, &row).await.unwrap());
        let second = Row { key_sealed: b"another".to_vec(), ..row.clone() };
        assert!(!keys::insert(&mut tx, &second).await.unwrap());
        assert_eq!(keys::get(&mut tx, &row.name).await.unwrap().as_ref(), Some(&row));

        let newer = Row { created_at: at(10).0, not_after: at(2000).0, ..second };
        assert!(!keys::replace(&mut tx, &newer, at(5)).await.unwrap(), "another server was first");
        assert!(keys::replace(&mut tx, &newer, at(0)).await.unwrap());
        assert_eq!(keys::get(&mut tx, &row.name).await.unwrap(), Some(newer));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_database_is_sealed_with_one_key() {
    mdm_tests::on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        assert!(sentinel::get(&mut tx).await.unwrap().is_none());
        sentinel::insert(&mut tx, "k1", b"sealed", at(0)).await.unwrap();
        let found = sentinel::get(&mut tx).await.unwrap().unwrap();
        assert_eq!((found.key_id.as_str(), found.sealed.as_slice()), ("k1", &b"sealed"[..]));
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        sentinel::insert(&mut tx, "k2", b"sealed", at(1)).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn only_a_database_server_has_a_clock() {
    twice(|store| async move {
        let mut tx = store.read().await.unwrap();
        let clock = sentinel::database_clock(&mut tx).await.unwrap();
        assert_eq!(clock.is_some(), tx.dialect() == Dialect::Postgres);
        assert!(clock.is_none_or(|now| now > at(-30_000_000)));
    })
    .await;
}
