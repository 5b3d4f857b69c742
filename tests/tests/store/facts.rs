use store::{IdSet, facts};

use super::{at, enrolled, twice};

#[tokio::test]
async fn facts_are_written_over_and_forgotten() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, other) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        assert_eq!(facts::get(&mut tx, id).await.unwrap(), None);
        facts::put(&mut tx, id, r#"{"a":1}"#, at(1)).await.unwrap();
        facts::put(&mut tx, id, r#"{"a":2}"#, at(2)).await.unwrap();
        facts::put(&mut tx, other, "{}", at(2)).await.unwrap();
        assert_eq!(facts::get(&mut tx, id).await.unwrap().as_deref(), Some(r#"{"a":2}"#));
        facts::delete(&mut tx, id).await.unwrap();
        assert_eq!(facts::get(&mut tx, id).await.unwrap(), None);
        assert!(facts::get(&mut tx, other).await.unwrap().is_some());
        let of_both = facts::of_many(&mut tx, &IdSet::new(&[id, other])).await.unwrap();
        assert_eq!(of_both, [facts::Document { enrollment_id: other.0, body: "{}".to_owned() }]);
        tx.commit().await.unwrap();
    })
    .await;
}
