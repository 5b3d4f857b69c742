use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mdm_tests::{Backend, Database};
use store::{Dialect, Error, Settings, Store, Wake};

use super::{at, authenticated, twice};

#[tokio::test]
async fn what_is_not_committed_did_not_happen() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let given_up = authenticated(&mut tx).await;
        tx.rollback().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let dropped = authenticated(&mut tx).await;
        drop(tx);
        let mut tx = store.begin().await.unwrap();
        let kept = authenticated(&mut tx).await;
        tx.commit().await.unwrap();

        let mut tx = store.read().await.unwrap();
        for (id, there) in [(given_up, false), (dropped, false), (kept, true)] {
            assert_eq!(store::enrollments::get(&mut tx, id).await.unwrap().is_some(), there);
        }
        store.ping().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_loop_is_woken_by_a_commit_and_by_nothing_less() {
    twice(|store| async move {
        let soon = Duration::from_millis(50);
        let mut tx = store.begin().await.unwrap();
        tx.wake(Wake::Push);
        tx.rollback().await.unwrap();
        assert!(tokio::time::timeout(soon, store.woken(Wake::Push)).await.is_err());

        let mut tx = store.begin().await.unwrap();
        tx.wake(Wake::Push);
        assert!(tokio::time::timeout(soon, store.woken(Wake::Push)).await.is_err());
        tx.commit().await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), store.woken(Wake::Push)).await.unwrap();
        assert!(tokio::time::timeout(soon, store.woken(Wake::Reconcile)).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_message_in_the_way_of_another_is_run_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let busy = || Error::Busy(sqlx::Error::PoolTimedOut);
    let done = store::retry(|| {
        let tries = Arc::clone(&tries);
        async move { if tries.fetch_add(1, Ordering::SeqCst) < 2 { Err(busy()) } else { Ok(()) } }
    });
    done.await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 3);

    tries.store(0, Ordering::SeqCst);
    let failed: Result<(), Error> = store::retry(|| {
        tries.fetch_add(1, Ordering::SeqCst);
        async { Err(Error::Corrupt("a test")) }
    })
    .await;
    failed.unwrap_err();
    assert_eq!(tries.load(Ordering::SeqCst), 1, "an error that would come again is given back at once");
}

#[tokio::test]
async fn a_database_is_opened_again_with_what_is_in_it() {
    for backend in mdm_tests::both() {
        let database = Database::new(backend).await;
        let mut tx = database.store.begin().await.unwrap();
        assert_eq!(tx.dialect() == Dialect::Postgres, backend == Backend::Postgres);
        let id = authenticated(&mut tx).await;
        tx.commit().await.unwrap();
        database.store.close().await;

        // All clones must be gone before SQLite lets another server in.
        let Database { store, place, .. } = database;
        drop(store);
        let again = Store::open_existing(&Settings::new(place.url.as_str())).await.unwrap().unwrap();
        let mut tx = again.read().await.unwrap();
        assert_eq!(store::enrollments::get(&mut tx, id).await.unwrap().unwrap().created_at, at(0));
        drop(tx);
        again.close().await;
        place.remove().await;
    }
}
