use mdm_core::ids::{AssignmentId, AttemptId, AuthorityId, EnrollmentId, Fingerprint};
use store::attempts::{self, Delivered, NewAttempt};
use store::authorities::{self, NewCall, Webhook};
use store::{Error, Tx};

use super::policies::policy;
use super::{at, command_uuid, enrolled, key, twice, word};

async fn authority(tx: &mut Tx) -> AuthorityId {
    let id = AuthorityId(key(at(0)));
    authorities::insert(tx, id, &word("ca"), "{}", at(0)).await.unwrap();
    id
}

fn webhook(authority: AuthorityId) -> Webhook {
    Webhook {
        id: key(at(0)),
        authority_id: authority.0,
        webhook_id: word("webhook"),
        kind: "authorizing".into(),
        secret_sealed: b"sealed".to_vec(),
        last_used_at: None,
        revoked_at: None,
        created_by: "test".into(),
        created_at: at(0).0,
    }
}

/// An attempt that was delivered to this enrollment.
async fn delivered(tx: &mut Tx, authority: AuthorityId, enrollment: EnrollmentId) -> AttemptId {
    let new = NewAttempt {
        id: AttemptId(key(at(0))),
        assignment: AssignmentId(key(at(0))),
        policy: policy(tx).await,
        revision: 1,
        enrollment,
        authority: Some(authority),
        purpose: "install",
        command: command_uuid(),
    };
    attempts::insert_many(tx, std::slice::from_ref(&new), at(0)).await.unwrap();
    let what = Delivered {
        revision: 1,
        authority: Some(authority),
        mode: "device",
        client_identifier_sha256: Fingerprint::of(word("C02").as_bytes()),
        client_identifier: None,
        expectation: "{}".into(),
        expires_at: at(86_400),
    };
    assert!(attempts::delivered(tx, new.id, &what, at(1)).await.unwrap());
    new.id
}

#[tokio::test]
async fn an_authority_has_one_name_and_is_revised_until_it_is_deleted() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, name) = (AuthorityId(key(at(0))), word("ca"));
        authorities::insert(&mut tx, id, &name, "{\"a\":1}", at(0)).await.unwrap();
        assert!(authorities::revise(&mut tx, id, "{\"a\":2}", at(1)).await.unwrap());
        let found = authorities::by_name(&mut tx, &name).await.unwrap().unwrap();
        assert_eq!((found.id(), found.revision, found.body.as_str()), (id, 2, "{\"a\":2}"));
        assert_eq!((found.created_at, found.updated_at, found.deleted_at), (at(0).0, at(1).0, None));
        let listed = authorities::list(&mut tx, "", 10_000).await.unwrap();
        assert!(listed.contains(&found) && listed.is_sorted_by_key(|a| a.name.clone()));
        assert!(authorities::list(&mut tx, &name, 10_000).await.unwrap().iter().all(|a| a.name > name));
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        let taken = authorities::insert(&mut tx, AuthorityId(key(at(2))), &name, "{}", at(2)).await.unwrap_err();
        assert!(matches!(taken, Error::Duplicate(_)), "{taken}");
        drop(tx);

        let mut tx = store.begin().await.unwrap();
        let called = webhook(id);
        authorities::add_webhook(&mut tx, &called).await.unwrap();
        assert!(authorities::delete(&mut tx, id, at(3)).await.unwrap());
        assert!(!authorities::delete(&mut tx, id, at(4)).await.unwrap());
        assert!(!authorities::revise(&mut tx, id, "{}", at(4)).await.unwrap());
        assert!(authorities::by_name(&mut tx, &name).await.unwrap().is_none());
        assert_eq!(authorities::get(&mut tx, id).await.unwrap().unwrap().deleted_at, Some(at(3).0));
        let revoked = authorities::webhook(&mut tx, &called.webhook_id).await.unwrap().unwrap();
        assert_eq!(revoked.revoked_at, Some(at(3).0), "its webhooks go with it");
        authorities::insert(&mut tx, AuthorityId(key(at(5))), &name, "{}", at(5)).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_known_by_its_id_until_it_is_revoked() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, other) = (authority(&mut tx).await, authority(&mut tx).await);
        let row = webhook(id);
        authorities::add_webhook(&mut tx, &row).await.unwrap();
        assert_eq!(authorities::webhook(&mut tx, &row.webhook_id).await.unwrap().as_ref(), Some(&row));
        assert_eq!(authorities::webhooks(&mut tx, id).await.unwrap(), std::slice::from_ref(&row));
        assert_eq!(authorities::webhooks(&mut tx, other).await.unwrap(), []);
        assert!(authorities::webhook_used(&mut tx, row.id, at(5)).await.unwrap());
        assert_eq!(authorities::webhooks(&mut tx, id).await.unwrap()[0].last_used_at, Some(at(5).0));
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        let same = Webhook { id: key(at(1)), authority_id: other.0, ..row.clone() };
        assert!(matches!(authorities::add_webhook(&mut tx, &same).await.unwrap_err(), Error::Duplicate(_)));
        drop(tx);

        let mut tx = store.begin().await.unwrap();
        assert!(!authorities::revoke_webhook(&mut tx, other, row.id, at(6)).await.unwrap(), "another one's");
        assert!(authorities::revoke_webhook(&mut tx, id, row.id, at(6)).await.unwrap());
        assert!(!authorities::revoke_webhook(&mut tx, id, row.id, at(7)).await.unwrap());
        assert!(!authorities::webhook_used(&mut tx, row.id, at(8)).await.unwrap());
        assert_eq!(authorities::webhooks(&mut tx, id).await.unwrap(), []);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_45_a_call_is_answered_once_and_an_attempt_gets_one_yes_of_a_webhook() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = authority(&mut tx).await;
        let (first, second) = (webhook(id), webhook(id));
        authorities::add_webhook(&mut tx, &first).await.unwrap();
        authorities::add_webhook(&mut tx, &second).await.unwrap();
        let attempt = AttemptId(key(at(0)));
        let call =
            NewCall { webhook: first.id, body_sha256: b"one", attempt: Some(attempt), answer: "{\"allow\":true}" };
        assert_eq!(authorities::answer(&mut tx, first.id, b"one").await.unwrap(), None);
        assert!(!authorities::has_allowed(&mut tx, first.id, attempt).await.unwrap());
        authorities::answered(&mut tx, &call, at(1)).await.unwrap();
        assert_eq!(authorities::answer(&mut tx, first.id, b"one").await.unwrap().as_deref(), Some("{\"allow\":true}"));
        assert_eq!(authorities::answer(&mut tx, second.id, b"one").await.unwrap(), None);
        assert!(authorities::has_allowed(&mut tx, first.id, attempt).await.unwrap());
        assert!(!authorities::has_allowed(&mut tx, second.id, attempt).await.unwrap());
        authorities::answered(&mut tx, &NewCall { webhook: second.id, ..call }, at(2)).await.unwrap();
        let no = NewCall { body_sha256: b"two", attempt: None, answer: "{\"allow\":false}", ..call };
        authorities::answered(&mut tx, &no, at(3)).await.unwrap();
        tx.commit().await.unwrap();

        for twice in [call, NewCall { attempt: None, ..call }, NewCall { body_sha256: b"three", ..call }] {
            let mut tx = store.begin().await.unwrap();
            let error = authorities::answered(&mut tx, &twice, at(4)).await.unwrap_err();
            assert!(matches!(error, Error::Duplicate(_)), "{error}");
        }

        let mut tx = store.begin().await.unwrap();
        assert_eq!(authorities::prune_calls(&mut tx, at(3), 1).await.unwrap(), 1);
        assert_eq!(authorities::answer(&mut tx, first.id, b"one").await.unwrap(), None, "the oldest goes first");
        assert_eq!(authorities::prune_calls(&mut tx, at(3), 10).await.unwrap(), 1);
        assert!(authorities::answer(&mut tx, first.id, b"two").await.unwrap().is_some());
        assert_eq!(authorities::prune_calls(&mut tx, at(4), 10).await.unwrap(), 1);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_42_a_key_is_known_by_who_was_allowed_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, other) = (authority(&mut tx).await, authority(&mut tx).await);
        let (mine, yours) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let spki = Fingerprint::of(word("key").as_bytes()).0;
        assert_eq!(authorities::allowed(&mut tx, id, &spki).await.unwrap(), []);
        assert!(!authorities::is_key_of_another(&mut tx, &spki, yours).await.unwrap());
        let attempt = delivered(&mut tx, id, mine).await;
        assert!(attempts::authorize(&mut tx, attempt, &spki, at(2)).await.unwrap());
        assert_eq!(authorities::allowed(&mut tx, id, &spki).await.unwrap(), [attempt]);
        assert_eq!(authorities::allowed(&mut tx, other, &spki).await.unwrap(), []);
        assert!(authorities::is_key_of_another(&mut tx, &spki, yours).await.unwrap());
        assert!(!authorities::is_key_of_another(&mut tx, &spki, mine).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_42_one_transaction_at_a_time_decides_whose_a_key_is() {
    twice(|store| async move {
        let (key, other) = ([1; 32], [2; 32]);
        let mut first = store.begin().await.unwrap();
        authorities::lock_key(&mut first, &key).await.unwrap();
        let waits = async {
            let mut second = store.begin().await.unwrap();
            authorities::lock_key(&mut second, &key).await.unwrap();
            second.commit().await.unwrap();
        };
        let mut waits = Box::pin(waits);
        let brief = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(brief, &mut waits).await.is_err(), "until the first one ends");
        authorities::lock_key(&mut first, &other).await.unwrap();
        first.commit().await.unwrap();
        waits.await;
    })
    .await;
}

#[tokio::test]
async fn who_writes_an_authority_waits_for_who_writes_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, name) = (AuthorityId(key(at(0))), word("ca"));
        authorities::insert(&mut tx, id, &name, "{}", at(0)).await.unwrap();
        tx.commit().await.unwrap();
        let through = std::cell::Cell::new(false);
        let mut first = store.begin().await.unwrap();
        authorities::lock(&mut first, &name).await.unwrap();
        let end = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            authorities::delete(&mut first, id, at(1)).await.unwrap();
            through.set(true);
            first.commit().await.unwrap();
        };
        let second = async {
            let mut second = store.begin().await.unwrap();
            authorities::lock(&mut second, &name).await.unwrap();
            assert!(through.get(), "one after the other");
            assert_eq!(authorities::by_name(&mut second, &name).await.unwrap(), None);
        };
        tokio::join!(end, second);
    })
    .await;
}
