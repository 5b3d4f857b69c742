use mdm_core::ids::EnrollmentId;
use store::push::{self, Cert, Lease, Leased, PARKED, Settled};
use store::{IdSet, Store, Tx};
use uuid::Uuid;

use super::{at, enrolled, key, tokens, twice, word};

async fn leased(tx: &mut Tx, id: EnrollmentId, lease: Uuid, now: i64) -> Option<Leased> {
    let taken = Lease { id: lease, now: at(now), until: at(now + 60), limit: 1000 };
    push::lease(tx, taken).await.unwrap().into_iter().find(|row| row.enrollment_id == id.0)
}

async fn due_at(tx: &mut Tx, id: EnrollmentId) -> Option<i64> {
    push::intent(tx, id).await.unwrap().map(|intent| intent.due_at)
}

#[tokio::test]
async fn wishes_to_push_coalesce_until_the_device_connects() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        assert!(!push::pending(&mut tx, one).await.unwrap());
        push::due_many(&mut tx, &IdSet::new(&[one, two]), at(10)).await.unwrap();
        push::due(&mut tx, one, at(20)).await.unwrap();
        assert_eq!(due_at(&mut tx, one).await, Some(at(10).0), "the earlier wish holds");
        assert!(push::any_due(&mut tx, at(10)).await.unwrap());
        let backlog = push::backlog(&mut tx, at(10)).await.unwrap();
        assert!(backlog.due >= 2 && backlog.oldest_due_at <= Some(at(10).0));

        push::connected(&mut tx, one).await.unwrap();
        assert!(!push::pending(&mut tx, one).await.unwrap());
        assert!(push::pending(&mut tx, two).await.unwrap());
        push::not_now(&mut tx, one, at(30)).await.unwrap();
        assert_eq!(due_at(&mut tx, one).await, Some(at(30).0));
        push::connected(&mut tx, one).await.unwrap();
        push::connected(&mut tx, two).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rg_23_only_the_holder_of_a_lease_settles_it() {
    twice(|store: Store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        push::due(&mut tx, id, at(100)).await.unwrap();
        let (first, second) = (key(at(0)), key(at(0)));
        assert!(leased(&mut tx, id, first, 99).await.is_none(), "not due yet");
        let taken = leased(&mut tx, id, first, 100).await.unwrap();
        assert_eq!(taken.push_token.as_deref(), Some(tokens().push_token));
        assert!(leased(&mut tx, id, second, 159).await.is_none());
        let taken_over = leased(&mut tx, id, second, 160).await.unwrap();

        let settled = |lease| Settled {
            enrollment: id,
            lease,
            version: taken_over.version,
            due_at: at(700),
            not_before: at(0),
            attempt: 1,
            failures: 0,
            sent_at: Some(at(160)),
            outcome: "accepted",
        };
        assert!(!push::settle(&mut tx, &settled(first)).await.unwrap(), "the lease was lost");
        assert!(push::settle(&mut tx, &settled(second)).await.unwrap());
        let intent = push::intent(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((intent.due_at, intent.attempt, intent.last_outcome.as_deref()), (at(700).0, 1, Some("accepted")));

        let third = key(at(0));
        leased(&mut tx, id, third, 700).await.unwrap();
        push::discard(&mut tx, id, first).await.unwrap();
        assert!(push::pending(&mut tx, id).await.unwrap());
        push::discard(&mut tx, id, third).await.unwrap();
        assert!(!push::pending(&mut tx, id).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_newer_wish_is_not_lost_to_the_outcome_of_an_older_one() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, lease) = (enrolled(&mut tx).await, key(at(0)));
        push::due(&mut tx, id, at(100)).await.unwrap();
        let taken = leased(&mut tx, id, lease, 100).await.unwrap();
        push::due(&mut tx, id, at(101)).await.unwrap();
        let settled = Settled {
            enrollment: id,
            lease,
            version: taken.version,
            due_at: at(9000),
            not_before: at(0),
            attempt: 1,
            failures: 0,
            sent_at: Some(at(102)),
            outcome: "accepted",
        };
        assert!(push::settle(&mut tx, &settled).await.unwrap());
        let intent = push::intent(&mut tx, id).await.unwrap().unwrap();
        assert!(intent.due_at <= at(101).0 && intent.attempt == 0, "{intent:?}");
        push::connected(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rg_17_a_dead_token_waits_for_a_token_update() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, lease) = (enrolled(&mut tx).await, key(at(0)));
        let token = tokens().push_token;
        assert!(!push::dead(&mut tx, id, token, at(0), at(5)).await.unwrap(), "older than the last TokenUpdate");
        assert!(!push::dead(&mut tx, id, b"another", at(5), at(5)).await.unwrap(), "another token");
        assert!(push::dead(&mut tx, id, token, at(5), at(6)).await.unwrap());
        let row = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(row.push_dead_at, Some(at(6)));

        push::due(&mut tx, id, at(10)).await.unwrap();
        let taken = leased(&mut tx, id, lease, 10).await.unwrap();
        assert_eq!(taken.push_dead_at, Some(at(6).0));
        let parked = Settled {
            enrollment: id,
            lease,
            version: taken.version,
            due_at: PARKED,
            not_before: PARKED,
            attempt: 0,
            failures: 0,
            sent_at: None,
            outcome: "unregistered",
        };
        assert!(push::settle(&mut tx, &parked).await.unwrap());
        assert!(push::backlog(&mut tx, at(11)).await.unwrap().parked >= 1);
        push::due(&mut tx, id, at(12)).await.unwrap();
        assert_eq!(due_at(&mut tx, id).await, Some(PARKED.0), "a wish does not wake a dead token");
        push::revived(&mut tx, id, at(20)).await.unwrap();
        assert_eq!(due_at(&mut tx, id).await, Some(at(20).0));
        assert_eq!(store::enrollments::get(&mut tx, id).await.unwrap().unwrap().push_dead_at, None);
        push::connected(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_topic_stops_and_goes_on() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let topic = word("com.apple.mgmt.External");
        let cert = Cert {
            topic: topic.clone(),
            certificate: b"der".to_vec(),
            chain: Vec::new(),
            key_sealed: b"sealed".to_vec(),
            not_after: at(1000).0,
            uploaded_at: at(1).0,
            stopped_at: None,
            stopped_why: None,
        };
        push::put_cert(&mut tx, &cert).await.unwrap();
        assert!(!push::stop_topic(&mut tx, &topic, at(0).0, "Forbidden", at(2)).await.unwrap(), "another certificate");
        assert!(push::stop_topic(&mut tx, &topic, at(1).0, "Forbidden", at(2)).await.unwrap());
        let stored = |certs: Vec<Cert>| certs.into_iter().find(|c| c.topic == topic).unwrap();
        let stopped = stored(push::certs(&mut tx).await.unwrap());
        assert_eq!((stopped.stopped_at, stopped.stopped_why.as_deref()), (Some(at(2).0), Some("Forbidden")));
        push::resume_topic(&mut tx, &topic, at(1).0).await.unwrap();
        assert_eq!(stored(push::certs(&mut tx).await.unwrap()).stopped_at, None);

        assert!(push::stop_topic(&mut tx, &topic, at(1).0, "Forbidden", at(3)).await.unwrap());
        push::put_cert(&mut tx, &Cert { uploaded_at: at(4).0, not_after: at(2000).0, ..cert }).await.unwrap();
        let renewed = stored(push::certs(&mut tx).await.unwrap());
        assert_eq!((renewed.stopped_at, renewed.not_after), (None, at(2000).0));
        tx.commit().await.unwrap();
    })
    .await;
}
