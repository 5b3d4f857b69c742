use store::sealed::{self, PLACES};
use store::{keys, sentinel};

use super::{at, word};

#[tokio::test]
async fn every_place_is_read_and_written_anew() {
    mdm_tests::on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        sealed::lock(&mut tx).await.unwrap();
        for place in PLACES {
            assert!(sealed::sealed_otherwise(&mut tx, place, b"none", 10).await.unwrap().is_empty(), "{place}");
        }
        sentinel::insert(&mut tx, "k1", b"key1sentinel", at(0)).await.unwrap();
        let name = word("key");
        let row = keys::Row {
            name: name.clone(),
            certificate: Vec::new(),
            chain: Vec::new(),
            key_sealed: b"key1secret".to_vec(),
            not_after: 0,
            created_at: 0,
        };
        assert!(keys::insert(&mut tx, &row).await.unwrap());
        let mut found = Vec::new();
        for place in PLACES {
            assert!(sealed::sealed_otherwise(&mut tx, place, b"key1", 10).await.unwrap().is_empty(), "{place}");
            for value in sealed::sealed_otherwise(&mut tx, place, b"key2", 10).await.unwrap() {
                sealed::reseal(&mut tx, place, &value, b"key2anew").await.unwrap();
                found.push(value.context.clone());
            }
            assert!(sealed::sealed_otherwise(&mut tx, place, b"key2", 10).await.unwrap().is_empty(), "{place}");
        }
        assert_eq!(found, ["seal_sentinel.sealed:1".to_owned(), format!("sealed_key.key_sealed:{name}")]);
        sentinel::named(&mut tx, "k2").await.unwrap();
        let named = sentinel::get(&mut tx).await.unwrap().unwrap();
        assert_eq!((named.key_id.as_str(), named.sealed.as_slice()), ("k2", &b"key2anew"[..]));
        assert_eq!(keys::get(&mut tx, &name).await.unwrap().unwrap().key_sealed, b"key2anew");
        tx.commit().await.unwrap();
        assert!(sealed::others_connected(&mut store.read().await.unwrap()).await.unwrap() >= 0);
    })
    .await;
}
