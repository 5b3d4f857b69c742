use mdm_core::ids::TokenId;
use mdm_core::random::Random;
use store::tokens::{self, Row};

use super::{at, key, twice, word};

fn row(seconds: i64) -> Row {
    Row {
        id: key(at(seconds)),
        name: word("ci"),
        sha256: Random::System.bytes::<32>().to_vec(),
        scopes: "commands:read commands:write".to_owned(),
        expires_at: at(1000).0,
        last_used_at: None,
        revoked_at: None,
        created_by: "test".to_owned(),
        created_at: at(seconds).0,
    }
}

#[tokio::test]
async fn a_token_is_used_and_revoked() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let row = row(0);
        let id = TokenId(row.id);
        tokens::insert(&mut tx, &row).await.unwrap();
        tokens::used(&mut tx, id, at(10)).await.unwrap();
        tokens::used(&mut tx, id, at(5)).await.unwrap();
        assert!(tokens::revoke(&mut tx, id, at(20)).await.unwrap());
        assert!(!tokens::revoke(&mut tx, id, at(21)).await.unwrap());
        let found = tokens::find(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((found.last_used_at, found.revoked_at), (Some(at(10).0), Some(at(20).0)));
        assert_eq!((found.sha256, found.scopes), (row.sha256, row.scopes));
        assert!(tokens::find(&mut tx, TokenId(key(at(0)))).await.unwrap().is_none());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn tokens_are_listed_oldest_first() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let made: Vec<Row> = (100..103).map(row).collect();
        for row in &made {
            tokens::insert(&mut tx, row).await.unwrap();
        }
        let ids: Vec<_> = made.iter().map(|row| row.id).collect();
        let listed = tokens::list(&mut tx, None, 1000).await.unwrap();
        let listed: Vec<_> = listed.iter().map(|row| row.id).filter(|id| ids.contains(id)).collect();
        assert_eq!(listed, ids);
        let next = tokens::list(&mut tx, Some(TokenId(ids[1])), 1000).await.unwrap();
        assert!(next.iter().any(|row| row.id == ids[2]) && next.iter().all(|row| row.id > ids[1]));
        tx.commit().await.unwrap();
    })
    .await;
}
