use mdm_core::enrollment::Door;
use store::doors;

use super::{at, twice};

#[tokio::test]
async fn a_door_has_the_settings_that_were_put_last() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let before = doors::get(&mut tx, Door::Ade).await.unwrap().map_or(0, |row| row.revision);
        doors::put(&mut tx, Door::Ade, "{}", "ada", at(1)).await.unwrap();
        doors::put(&mut tx, Door::Ade, r#"{"enabled":true}"#, "bob", at(2)).await.unwrap();
        let row = doors::get(&mut tx, Door::Ade).await.unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.revision, row.updated_at), ("ade", before + 2, at(2).0));
        assert_eq!((row.body.as_str(), row.updated_by.as_str()), (r#"{"enabled":true}"#, "bob"));
        assert!(doors::get(&mut tx, Door::Adde).await.unwrap().is_none());
        tx.commit().await.unwrap();
    })
    .await;
}
