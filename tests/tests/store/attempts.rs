use mdm_core::ids::{AssignmentId, AttemptId, EnrollmentId, Fingerprint};
use store::Tx;
use store::attempts::{self, Delivered, NewAttempt};

use super::policies::policy;
use super::{at, command_uuid, enrolled, key, twice, word};

async fn queued(tx: &mut Tx, enrollment: EnrollmentId, time: i64) -> NewAttempt {
    let new = NewAttempt {
        id: AttemptId(key(at(time))),
        assignment: AssignmentId(key(at(0))),
        policy: policy(tx).await,
        revision: 1,
        enrollment,
        authority: None,
        purpose: "install",
        command: command_uuid(),
    };
    attempts::insert_many(tx, std::slice::from_ref(&new), at(10)).await.unwrap();
    new
}

fn delivery(identifier: &str) -> Delivered {
    Delivered {
        revision: 2,
        authority: None,
        mode: "one_time",
        client_identifier_sha256: Fingerprint::of(identifier.as_bytes()),
        client_identifier: None,
        expectation: "{\"key_type\":\"RSA\"}".into(),
        expires_at: at(100),
    }
}

#[tokio::test]
async fn an_attempt_goes_its_way_and_every_step_has_its_time() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let enrollment = enrolled(&mut tx).await;
        let new = queued(&mut tx, enrollment, 0).await;
        let row = attempts::get(&mut tx, new.id).await.unwrap().unwrap();
        assert_eq!((row.id(), row.state.as_str(), row.queued_at), (new.id, "queued", at(10).0));
        assert_eq!(
            (row.assignment_id, row.policy_id, row.enrollment_id),
            (new.assignment.0, new.policy.0, enrollment.0)
        );
        assert_eq!((row.revision, row.purpose.as_str(), row.authority_id), (1, "install", None));
        assert_eq!(row.command_uuid.as_deref(), Some(new.command.as_str()));

        assert_eq!(attempts::handed_out(&mut tx, &[new.assignment]).await.unwrap(), []);
        assert!(attempts::delivered(&mut tx, new.id, &delivery(&word("x")), at(11)).await.unwrap());
        assert_eq!(attempts::handed_out(&mut tx, &[new.assignment]).await.unwrap(), [(new.assignment, 2)]);
        assert!(!attempts::delivered(&mut tx, new.id, &delivery("again"), at(12)).await.unwrap(), "once");
        assert!(attempts::acknowledged(&mut tx, new.id, at(13)).await.unwrap());
        assert!(attempts::issued(&mut tx, new.id, &[3; 32], at(14)).await.unwrap());
        assert!(attempts::issued(&mut tx, new.id, &[3; 32], at(15)).await.unwrap(), "said twice");
        assert!(!attempts::issued(&mut tx, new.id, &[4; 32], at(15)).await.unwrap(), "another certificate");
        assert!(attempts::proved(&mut tx, new.id, Fingerprint([3; 32]), at(16)).await.unwrap());
        assert!(!attempts::failed(&mut tx, new.id, "late", at(17)).await.unwrap(), "it is over");
        let row = attempts::get(&mut tx, new.id).await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.mode.as_deref(), row.revision), ("proved", Some("one_time"), 2));
        assert_eq!((row.delivered_at, row.acknowledged_at), (Some(at(11).0), Some(at(13).0)));
        assert_eq!((row.issued_at, row.proved_at, row.ended_at), (Some(at(14).0), Some(at(16).0), Some(at(16).0)));
        assert_eq!(row.certificate_sha256, Some(vec![3; 32]));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_43_a_permission_is_good_for_one_key_and_for_a_time() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let enrollment = enrolled(&mut tx).await;
        let new = queued(&mut tx, enrollment, 0).await;
        let identifier = word("one-time");
        let sha256 = Fingerprint::of(identifier.as_bytes()).0;
        assert!(attempts::open_by_client_identifier(&mut tx, &sha256, at(11)).await.unwrap().is_empty());
        assert!(!attempts::authorize(&mut tx, new.id, &[1; 32], at(11)).await.unwrap(), "not handed out yet");
        attempts::delivered(&mut tx, new.id, &delivery(&identifier), at(11)).await.unwrap();
        let open = attempts::open_by_client_identifier(&mut tx, &sha256, at(12)).await.unwrap();
        assert_eq!(open.iter().map(attempts::Attempt::id).collect::<Vec<_>>(), [new.id]);
        assert!(attempts::authorize(&mut tx, new.id, &[1; 32], at(13)).await.unwrap());
        assert!(attempts::authorize(&mut tx, new.id, &[1; 32], at(14)).await.unwrap());
        assert!(!attempts::authorize(&mut tx, new.id, &[2; 32], at(14)).await.unwrap());
        let row = attempts::get(&mut tx, new.id).await.unwrap().unwrap();
        assert_eq!((row.authorized_at, row.authorized_key_sha256), (Some(at(13).0), Some(vec![1; 32])));
        assert!(!attempts::authorize(&mut tx, new.id, &[1; 32], at(100)).await.unwrap(), "its time is over");
        assert!(attempts::open_by_client_identifier(&mut tx, &sha256, at(100)).await.unwrap().is_empty());
        assert!(!format!("{open:?} {:?}", delivery(&identifier)).contains(&identifier));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_39_an_identifier_of_many_is_not_read_to_its_end() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let enrollment = enrolled(&mut tx).await;
        let identifier = word("shared");
        let mut ids = Vec::new();
        for _ in 0..attempts::MOST_OPEN + 3 {
            let new = queued(&mut tx, enrollment, 0).await;
            attempts::delivered(&mut tx, new.id, &delivery(&identifier), at(11)).await.unwrap();
            ids.push(new.id);
        }
        let sha256 = Fingerprint::of(identifier.as_bytes()).0;
        let open = attempts::open_by_client_identifier(&mut tx, &sha256, at(12)).await.unwrap();
        assert_eq!(open.len(), attempts::MOST_OPEN + 1);
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(id.0));
        assert_eq!(open.iter().map(attempts::Attempt::id).collect::<Vec<_>>(), ids[..open.len()], "newest first");
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_open_can_be_made_void() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let (a, b, c) = (queued(&mut tx, one, 1).await, queued(&mut tx, one, 2).await, queued(&mut tx, two, 3).await);
        assert!(attempts::failed(&mut tx, b.id, "install_failed", at(12)).await.unwrap());
        let assignments = [a.assignment, b.assignment];
        assert_eq!(attempts::void_open(&mut tx, &assignments, "superseded", at(13)).await.unwrap(), 1);
        let row = attempts::get(&mut tx, a.id).await.unwrap().unwrap();
        assert_eq!(
            (row.state.as_str(), row.why.as_deref(), row.ended_at),
            ("void", Some("superseded"), Some(at(13).0))
        );
        assert_eq!(attempts::void_of_enrollment(&mut tx, one, "over", at(14)).await.unwrap(), 0);
        assert_eq!(attempts::void_of_enrollment(&mut tx, two, "over", at(14)).await.unwrap(), 1);
        assert_eq!(attempts::get(&mut tx, c.id).await.unwrap().unwrap().state, "void");

        let all = attempts::of_enrollment(&mut tx, one, None, 10).await.unwrap();
        assert_eq!(all.iter().map(attempts::Attempt::id).collect::<Vec<_>>(), [b.id, a.id], "newest first");
        let rest = attempts::of_enrollment(&mut tx, one, Some(b.id), 10).await.unwrap();
        assert_eq!(rest.len(), 1);
        tx.commit().await.unwrap();
    })
    .await;
}
