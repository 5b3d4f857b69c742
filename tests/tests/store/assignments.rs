use std::collections::HashSet;

use mdm_core::ids::{AssignmentId, EnrollmentId, PolicyId};
use store::assignments::{self, Assignment, New};
use store::{IdSet, Store, Tx};

use super::policies::policy;
use super::{at, command_uuid, enrolled, key, twice};

async fn assigned(tx: &mut Tx, policy: PolicyId, enrollment: EnrollmentId) -> AssignmentId {
    let id = AssignmentId(key(at(0)));
    let new = New { id, policy, enrollment, ring: 2 };
    assert_eq!(assignments::insert_many(tx, &[new], at(1)).await.unwrap(), 1);
    id
}

#[tokio::test]
async fn an_assignment_keeps_what_was_decided() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (policy, enrollment) = (policy(&mut tx).await, enrolled(&mut tx).await);
        let id = assigned(&mut tx, policy, enrollment).await;
        let again = New { id: AssignmentId(key(at(2))), policy, enrollment, ring: 0 };
        assert_eq!(assignments::insert_many(&mut tx, &[again], at(2)).await.unwrap(), 0, "it is on it already");
        let row = assignments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.revision, row.due_at), ("assigned", 0, Some(at(1).0)));
        assert_eq!((row.ring, row.attempt_id, row.renew_at), (2, None, None));

        let command = command_uuid();
        let decided = Assignment {
            revision: 1,
            state: "installing".to_owned(),
            reason: Some("supported".to_owned()),
            decision: Some("{}".to_owned()),
            command_uuid: Some(command.as_str().to_owned()),
            attempts: 2,
            profile_sent: true,
            due_at: None,
            silicon: Some("supported".to_owned()),
            attempt_id: Some(key(at(2))),
            certificate_sha256: Some(vec![0xAB; 32]),
            not_after: Some(at(900).0),
            renew_at: Some(at(600).0),
            certificate_revision: Some(1),
            certificate_form: Some("{\"attest\":\"true\"}".to_owned()),
            proof_tries: 3,
            updated_at: at(3).0,
            ..row
        };
        assignments::save(&mut tx, &decided, at(3)).await.unwrap();
        assert_eq!(assignments::find(&mut tx, policy, enrollment).await.unwrap().as_ref(), Some(&decided));
        let waits = assignments::by_command(&mut tx, enrollment, &command).await.unwrap();
        assert_eq!(waits.as_ref(), Some(&decided));
        let other = enrolled(&mut tx).await;
        assert!(assignments::by_command(&mut tx, other, &command).await.unwrap().is_none());

        assert_eq!(assignments::of_enrollment(&mut tx, enrollment).await.unwrap(), [decided]);
        assignments::delete_many(&mut tx, &[id]).await.unwrap();
        assert!(assignments::get(&mut tx, id).await.unwrap().is_none());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_policy_knows_its_assignments() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        let mut ids = Vec::new();
        let mut enrollments = HashSet::new();
        for _ in 0..3 {
            let enrollment = enrolled(&mut tx).await;
            enrollments.insert(enrollment);
            ids.push(assigned(&mut tx, policy, enrollment).await);
        }
        ids.sort();
        let page = assignments::of_policy(&mut tx, policy, Some(ids[0]), 5).await.unwrap();
        assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[1].0, ids[2].0]);
        let rest = assignments::of_policy(&mut tx, policy, None, 5).await.unwrap();
        let on: HashSet<_> = rest.iter().map(|row| EnrollmentId(row.enrollment_id)).collect();
        assert_eq!(on, enrollments);

        let blocked = Assignment { state: "blocked".to_owned(), reason: Some("unknown".to_owned()), ..page[0].clone() };
        assignments::save(&mut tx, &blocked, at(2)).await.unwrap();
        let counts = assignments::counts(&mut tx, policy).await.unwrap();
        let counts: Vec<_> = counts.iter().map(|c| (c.state.as_str(), c.reason.as_deref(), c.count)).collect();
        assert_eq!(counts, [("assigned", None, 2), ("blocked", Some("unknown"), 1)]);

        assert_eq!(assignments::due_policy(&mut tx, policy, at(9)).await.unwrap(), 3);
        let one = EnrollmentId(page[0].enrollment_id);
        assert_eq!(assignments::delete_of_enrollment(&mut tx, one).await.unwrap(), 1);
        assert_eq!(assignments::delete_of_enrollment(&mut tx, one).await.unwrap(), 0);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn many_are_read_under_the_locks_of_their_enrollments_and_written_at_once() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        let (mut ids, mut enrollments) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let enrollment = enrolled(&mut tx).await;
            ids.push(assigned(&mut tx, policy, enrollment).await);
            enrollments.push(enrollment);
        }
        ids.sort();
        let gone = AssignmentId(key(at(0)));
        let asked = [ids[2], ids[0], gone];
        let read = assignments::lock_many(&mut tx, &IdSet::new(&enrollments), &asked).await.unwrap();
        assert_eq!(read.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[0].0, ids[2].0]);
        let read = assignments::hold(&mut tx, read).await.unwrap();
        let changed: Vec<_> = read
            .into_iter()
            .map(|row| Assignment {
                state: "held".to_owned(),
                due_at: None,
                reason: Some("it's \"held\"".to_owned()),
                ..row
            })
            .collect();
        assignments::save_many(&mut tx, &changed, at(5)).await.unwrap();
        for row in changed {
            let read = assignments::get(&mut tx, AssignmentId(row.id)).await.unwrap().unwrap();
            assert_eq!(read, Assignment { updated_at: at(5).0, ..row });
        }
        let other = assignments::get(&mut tx, ids[1]).await.unwrap().unwrap();
        assert_eq!((other.state.as_str(), other.due_at), ("assigned", Some(at(1).0)));
        assignments::delete_many(&mut tx, &ids).await.unwrap();
        assert!(assignments::of_policy(&mut tx, policy, None, 5).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_makes_an_assignment_due_while_it_is_decided_comes_after_the_decision() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (policy, enrollment) = (policy(&mut tx).await, enrolled(&mut tx).await);
        let id = assigned(&mut tx, policy, enrollment).await;
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        let read = assignments::lock_many(&mut tx, &IdSet::new(&[enrollment]), &[id]).await.unwrap();
        let read = assignments::hold(&mut tx, read).await.unwrap();
        let other = store.clone();
        let mut revision = tokio::spawn(async move {
            let mut tx = other.begin().await.unwrap();
            assignments::due_policy(&mut tx, policy, at(50)).await.unwrap();
            tx.commit().await.unwrap();
        });
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut revision).await;
        assert!(early.is_err(), "it waits");
        let decided: Vec<_> = read.into_iter().map(|a| Assignment { due_at: None, ..a }).collect();
        assignments::save_many(&mut tx, &decided, at(40)).await.unwrap();
        tx.commit().await.unwrap();
        revision.await.unwrap();
        let mut tx = store.read().await.unwrap();
        let now = assignments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(now.due_at, Some(at(50).0), "the change is looked at, and not lost");
    })
    .await;
}

#[tokio::test]
async fn what_is_decided_about_is_as_it_is_under_the_lock_and_not_as_it_was_read() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (policy, enrollment) = (policy(&mut tx).await, enrolled(&mut tx).await);
        let id = assigned(&mut tx, policy, enrollment).await;
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        store::rollouts::unsort(&mut tx, policy, 7).await.unwrap();
        let other = store.clone();
        let decides = tokio::spawn(async move {
            let mut tx = other.begin().await.unwrap();
            let read = assignments::lock_many(&mut tx, &IdSet::new(&[enrollment]), &[id]).await.unwrap();
            assignments::hold(&mut tx, read).await.unwrap().into_iter().next().unwrap().ring
        });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        tx.commit().await.unwrap();
        assert_eq!(decides.await.unwrap(), 7);
    })
    .await;
}

#[tokio::test]
async fn what_is_under_way_names_its_revision_and_what_was_given_up_can_be_tried_again() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        let mut rows = Vec::new();
        for (state, reason, revision) in [
            ("installing", None, 4),
            ("installed", None, 2),
            ("installed", None, 2),
            ("verified", None, 1),
            ("failed", Some("given_up"), 3),
            ("failed", Some("install_failed"), 3),
        ] {
            let enrollment = enrolled(&mut tx).await;
            let id = assigned(&mut tx, policy, enrollment).await;
            let mut row = assignments::get(&mut tx, id).await.unwrap().unwrap();
            (row.state, row.reason, row.revision) = (state.to_owned(), reason.map(str::to_owned), revision);
            (row.attempts, row.due_at) = (8, None);
            assignments::save(&mut tx, &row, at(2)).await.unwrap();
            rows.push(id);
        }
        assert_eq!(assignments::revisions_under_way(&mut tx, policy).await.unwrap(), [2, 4]);
        assert_eq!(assignments::retry_given_up(&mut tx, policy, at(9)).await.unwrap(), 1);
        for (id, expected) in [(rows[4], (1, Some(at(9).0))), (rows[5], (8, None))] {
            let row = assignments::get(&mut tx, id).await.unwrap().unwrap();
            assert_eq!((row.attempts, row.due_at), expected);
        }
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_leased_assignment_is_given_to_nobody_else() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (policy, enrollment) = (policy(&mut tx).await, enrolled(&mut tx).await);
        let id = assigned(&mut tx, policy, enrollment).await;
        assignments::due(&mut tx, id, at(100)).await.unwrap();
        let mine = |rows: Vec<assignments::Leased>| rows.into_iter().any(|row| row.id == id.0);
        let (first, second) = (key(at(0)), key(at(0)));
        assert!(!mine(assignments::lease(&mut tx, at(99), at(160), first, 1000).await.unwrap()), "not due yet");
        assert!(mine(assignments::lease(&mut tx, at(100), at(160), first, 1000).await.unwrap()));
        assert!(!mine(assignments::lease(&mut tx, at(159), at(220), second, 1000).await.unwrap()), "taken");
        assert!(mine(assignments::lease(&mut tx, at(160), at(220), second, 1000).await.unwrap()), "the lease is over");
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn two_claimers_never_share_a_row() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        for _ in 0..60 {
            let enrollment = enrolled(&mut tx).await;
            assigned(&mut tx, policy, enrollment).await;
        }
        tx.commit().await.unwrap();
        let claimers = (0..4).map(|_| tokio::spawn(claim_all(store.clone())));
        let mut taken = HashSet::new();
        for claimer in claimers.collect::<Vec<_>>() {
            for id in claimer.await.unwrap() {
                assert!(taken.insert(id), "{id} was given to two");
            }
        }
        assert!(taken.len() >= 60);
    })
    .await;
}

async fn claim_all(store: Store) -> Vec<uuid::Uuid> {
    let mut mine = Vec::new();
    loop {
        let lease = key(at(0));
        let taken = store::retry(|| async {
            let mut tx = store.begin().await?;
            let taken = assignments::lease(&mut tx, at(1), at(60), lease, 7).await?;
            tx.commit().await?;
            Ok::<_, store::Error>(taken)
        })
        .await
        .unwrap();
        if taken.is_empty() {
            return mine;
        }
        mine.extend(taken.into_iter().map(|row| row.id));
    }
}
