//! What a lock keeps away, and what not. SQLite has one writer: there the first half of each story waits for nobody.

use std::time::Duration;

use mdm_core::ids::{AssignmentId, EnrollmentId, PolicyId};
use store::assignments::{self, New};
use store::{Dialect, IdSet, Store, commands, enrollments, scopes};

use super::policies::policy;
use super::{at, command_uuid, enrolled, key, twice};

async fn assign(store: &Store, policy: PolicyId, enrollment: EnrollmentId) -> AssignmentId {
    let id = AssignmentId(key(at(0)));
    let mut tx = store.begin().await.unwrap();
    assignments::insert_many(&mut tx, &[New { id, policy, enrollment, ring: 0 }], at(1)).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// What is done at once, or `None` where it waits.
async fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(500), work).await.ok()
}

#[tokio::test]
async fn rows_that_refer_to_a_locked_one_are_written_meanwhile() {
    twice(|store| async move {
        if store.dialect() == Dialect::Sqlite {
            return;
        }
        let mut tx = store.begin().await.unwrap();
        let (one, two, three, four) =
            (enrolled(&mut tx).await, enrolled(&mut tx).await, enrolled(&mut tx).await, enrolled(&mut tx).await);
        let policy = policy(&mut tx).await;
        scopes::begin_walk(&mut tx, policy, at(2)).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        assert_eq!(scopes::next_walk(&mut tx, at(2)).await.unwrap().unwrap().id, policy.0);
        enrollments::lock(&mut tx, one).await.unwrap();
        enrollments::lock_many(&mut tx, &IdSet::new(&[three, two])).await.unwrap();
        commands::lock_candidates(&mut tx, &IdSet::new(&[four]), &command_uuid()).await.unwrap();
        for enrollment in [one, two, three, four] {
            at_once(assign(&store, policy, enrollment)).await.expect("the keys of both stay");
            let locked = async {
                let mut tx = store.begin().await.unwrap();
                enrollments::lock(&mut tx, enrollment).await.unwrap();
            };
            assert!(at_once(locked).await.is_none(), "the lock is one");
        }
        let id = assignments::find(&mut tx, policy, two).await.unwrap().unwrap().id;
        assignments::lock_many(&mut tx, &IdSet::new(&[two]), &[AssignmentId(id)]).await.unwrap();
        scopes::walked(&mut tx, policy, None).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_walk_has_its_turn_while_rows_of_its_policy_are_written() {
    twice(|store| async move {
        if store.dialect() == Dialect::Sqlite {
            return;
        }
        let mut tx = store.begin().await.unwrap();
        let (policy, enrollment) = (policy(&mut tx).await, enrolled(&mut tx).await);
        scopes::begin_walk(&mut tx, policy, at(2)).await.unwrap();
        tx.commit().await.unwrap();

        let mut session = store.begin().await.unwrap();
        let new = New { id: AssignmentId(key(at(0))), policy, enrollment, ring: 0 };
        assignments::insert_many(&mut session, &[new], at(3)).await.unwrap();
        let mut walk = store.begin().await.unwrap();
        let turn = scopes::next_walk(&mut walk, at(3)).await.unwrap();
        assert_eq!(turn.expect("it is not passed over").id, policy.0);
        let mut other = store.begin().await.unwrap();
        assert!(scopes::next_walk(&mut other, at(3)).await.unwrap().is_none(), "and nobody else has it");
        other.rollback().await.unwrap();
        scopes::walked(&mut walk, policy, None).await.unwrap();
        walk.commit().await.unwrap();
        session.commit().await.unwrap();
    })
    .await;
}
