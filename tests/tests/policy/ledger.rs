//! The ledger: what a ClientIdentifier is a permission for, and for how long (TH-43).

use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::plist::Dictionary;
use mdm_core::report::Status;
use mdm_tests::on_both;
use serde_json::{Value as Json, json};
use store::attempts::{self, Attempt};

use super::device::{Device, phone, text};
use super::world::{DAY, HOUR, World, nobody, state, states};

fn one_time() -> Json {
    json!({"client_identifier": "{random}", "subject": [[["O", "Example"]], [["CN", "{random}"]]]})
}

/// A personal device: it tells nobody who it is.
fn personal(n: u64) -> Device {
    Device { kind: EnrollmentKind::User, ..phone(n) }
}

/// The attempts that this ClientIdentifier is a permission of now.
async fn open(w: &World, identifier: &str) -> Vec<Attempt> {
    let mut tx = w.store.read().await.unwrap();
    attempts::open_by_client_identifier(&mut tx, &Fingerprint::of(identifier.as_bytes()).0, w.now()).await.unwrap()
}

async fn authorize(w: &World, attempt: &Attempt, key: &[u8; 32]) -> bool {
    let mut tx = w.store.begin().await.unwrap();
    let yes = attempts::authorize(&mut tx, attempt.id(), key, w.now()).await.unwrap();
    tx.commit().await.unwrap();
    yes
}

#[tokio::test]
async fn th_43_a_one_time_client_identifier_is_for_one_delivery_to_one_enrollment() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(one_time()).await;
        let (a, b) = (w.enroll(personal(1)).await, w.enroll(personal(2)).await);
        let (to_a, to_b) = (w.answer(a, personal(1)).await.unwrap(), w.answer(b, personal(2)).await.unwrap());
        let (mine, other) = (to_a.client_identifier(), to_b.client_identifier());
        assert!(mine.len() >= 43 && mine != other, "256 bits each: {mine} {other}");
        let found = open(&w, &mine).await;
        assert_eq!(found.len(), 1);
        let attempt = &found[0];
        assert_eq!(EnrollmentId(attempt.enrollment_id), a);
        assert_eq!((attempt.mode.as_deref(), attempt.client_identifier.as_deref()), (Some("one_time"), None));
        assert_eq!((attempt.policy_id, attempt.revision, attempt.purpose.as_str()), (policy.0, 1, "install"));
        assert_eq!(attempt.expires_at, Some(w.now().plus(DAY).0));

        assert!(authorize(&w, attempt, &[1; 32]).await);
        assert!(authorize(&w, attempt, &[1; 32]).await, "the same key again: the authority asks twice");
        assert!(!authorize(&w, attempt, &[2; 32]).await, "used up");

        // It failed; the next delivery has another one.
        w.refuse(a, &to_a).await;
        assert!(open(&w, &mine).await.is_empty());
        w.clock.advance(HOUR);
        assert_eq!(w.reconcile().await, 1);
        let again = w.idle(a).await.unwrap().client_identifier();
        assert_ne!(again, mine);
        assert_eq!(states(&w.attempts(a).await), ["failed", "delivered"]);
        w.clock.advance(DAY);
        assert!(open(&w, &again).await.is_empty(), "a day is over");
        assert!(open(&w, &other).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn th_43_nothing_that_is_stored_or_shown_gives_a_one_time_client_identifier_away() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(one_time()).await;
        let id = w.enroll(personal(1)).await;
        let sent = w.answer(id, personal(1)).await.unwrap();
        let identifier = sent.client_identifier();
        let a = w.assignment(policy, id).await.unwrap();
        let attempt = w.attempts(id).await.remove(0);
        for shown in [
            format!("{a:?} {attempt:?}"),
            a.decision.unwrap(),
            attempt.expectation.clone().unwrap(),
            format!("{:?} {:?}", attempt.client_identifier, attempt.why),
        ] {
            assert!(!shown.contains(&identifier), "{shown}");
        }
        let mut tx = w.store.read().await.unwrap();
        for event in store::events::since(&mut tx, &store::events::Filter::default(), 0, 1000).await.unwrap() {
            assert!(!event.data.contains(&identifier) && !event.summary.contains(&identifier));
        }
    })
    .await;
}

#[tokio::test]
async fn a_serial_number_is_bound_to_the_attempt_and_no_secret() {
    on_both(|store| async move {
        let w = World::new(store);
        w.policy_for_all(json!({})).await;
        let id = w.enroll(phone(1)).await;
        let sent = w.answer(id, phone(1)).await.unwrap();
        let found = open(&w, "SERIAL1").await;
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].mode.as_deref(), found[0].client_identifier.as_deref()),
            (Some("device"), Some("SERIAL1"))
        );
        assert_eq!(found[0].command_uuid.as_deref(), Some(sent.uuid.as_str()));
        let asked = w.install(id, &sent).await.unwrap();
        assert_eq!(open(&w, "SERIAL1").await.len(), 1, "until it is proved the authority may still ask");
        w.show_certificates(id, &asked).await;
        assert!(open(&w, "SERIAL1").await.is_empty());
        let proved = w.attempts(id).await;
        assert_eq!(states(&proved), ["proved"]);
        assert!(proved[0].certificate_sha256.is_some() && proved[0].proved_at == Some(w.now().0));
    })
    .await;
}

#[tokio::test]
async fn a_permission_is_void_when_something_else_is_decided() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(one_time()).await;
        let id = w.enroll(personal(1)).await;
        let first = w.answer(id, personal(1)).await.unwrap().client_identifier();
        let mut changed = one_time();
        changed["usage_flags"] = 1.into();
        w.revise(policy, changed).await;
        w.clock.advance(HOUR);
        assert_eq!(w.reconcile().await, 1);
        assert!(open(&w, &first).await.is_empty(), "superseded");
        assert_eq!(states(&w.attempts(id).await), ["void", "queued"]);
        let second = w.idle(id).await.unwrap().client_identifier();
        assert_eq!(open(&w, &second).await.len(), 1);
        w.scope(policy, nobody()).await;
        w.reconcile().await;
        assert!(open(&w, &second).await.is_empty(), "taken out of the scope");
        assert_eq!(states(&w.attempts(id).await), ["void", "void"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_put_off_for_longer_than_the_permission_lasts_is_made_anew() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(one_time()).await;
        let id = w.enroll(personal(1)).await;
        let first = w.answer(id, personal(1)).await.unwrap();
        assert!(w.poll(id, Status::NotNow, Some(&first), Dictionary::new()).await.is_none());
        w.clock.advance(HOUR * 20);
        let same = w.idle(id).await.unwrap();
        assert_eq!((same.uuid.as_str(), &same.bytes), (first.uuid.as_str(), &first.bytes), "while it lasts");
        assert!(w.poll(id, Status::NotNow, Some(&same), Dictionary::new()).await.is_none());
        // Somebody else has asked the device what it is meanwhile, so that only the permission is too old.
        let mut tx = w.store.begin().await.unwrap();
        let mut facts = store::facts::get(&mut tx, id).await.unwrap().unwrap().parse::<Json>().unwrap();
        w.clock.advance(HOUR * 5);
        facts["asked_at"] = serde_json::to_value(w.now()).unwrap();
        store::facts::put(&mut tx, id, &facts.to_string(), w.now()).await.unwrap();
        tx.commit().await.unwrap();
        let anew = w.idle(id).await.unwrap();
        assert_eq!(anew.uuid.as_str(), first.uuid.as_str(), "the same command");
        assert_ne!(anew.client_identifier(), first.client_identifier());
        assert_eq!(states(&w.attempts(id).await), ["void", "delivered"]);
        assert_eq!(text(&anew.acme().0, "PayloadUUID"), text(&first.acme().0, "PayloadUUID"));
        assert_eq!(w.state(policy, id).await, state("installing", None));
    })
    .await;
}

#[tokio::test]
async fn an_enrollment_that_ends_takes_its_permissions_with_it() {
    on_both(|store| async move {
        let w = World::new(store);
        w.policy_for_all(one_time()).await;
        let id = w.enroll(personal(1)).await;
        let identifier = w.answer(id, personal(1)).await.unwrap().client_identifier();
        let mut tx = w.store.begin().await.unwrap();
        policy::unenrolled(&mut tx, id, w.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(open(&w, &identifier).await.is_empty());
    })
    .await;
}
