//! One trace for each attempt, as the machine itself leaves it: from the decision to the end of the certificate.

use mdm_core::ids::AttemptId;
use mdm_core::plist::Dictionary;
use mdm_core::report::Status;
use mdm_core::time::Timestamp;
use mdm_tests::on_both;
use policy::trace::Trace;
use serde_json::json;
use uuid::Uuid;

use super::device::phone;
use super::world::{DAY, HOUR, World, state};

async fn trace(w: &World, id: Uuid) -> Trace {
    let mut tx = w.store.read().await.unwrap();
    policy::trace::of(&mut tx, AttemptId(id), w.now()).await.unwrap().expect("an attempt")
}

fn words(trace: &Trace) -> Vec<&str> {
    trace.steps.iter().map(|step| step.what.as_str()).collect()
}

/// The words of the line in this order, others in between.
fn in_order(trace: &Trace, expected: &[&str]) {
    let all = words(trace);
    let mut rest = all.iter();
    for word in expected {
        assert!(rest.any(|there| there == word), "{word} is not in its place: {all:?}");
    }
}

#[tokio::test]
async fn a_trace_tells_not_now_and_all_that_follows() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"client_identifier": "{random}"})).await;
        let id = w.enroll(phone(1)).await;
        let sent = w.answer(id, phone(1)).await.unwrap();
        w.clock.advance(HOUR);
        w.poll(id, Status::NotNow, Some(&sent), Dictionary::new()).await;
        w.clock.advance(HOUR);
        w.session(id, phone(1)).await;
        assert_eq!(w.state(policy, id).await, state("verified", None));
        let attempt = w.attempts(id).await.remove(0);
        let told = trace(&w, attempt.id).await;
        let expected = ["decided", "queued", "delivered", "not_now", "acknowledged", "verified", "renewal_due", "ends"];
        in_order(&told, &expected);
        let planned: Vec<_> = told.steps.iter().filter(|s| s.planned).map(|s| s.what.as_str()).collect();
        assert_eq!(planned, ["renewal_due", "ends"]);
        assert_eq!((told.state.as_str(), told.purpose.as_str(), told.revision), ("proved", "install", 1));
        assert_eq!(told.client_identifier.as_deref(), Some("one_time"));
        let line = serde_json::to_string(&told).unwrap();
        assert!(!line.contains(&sent.client_identifier()), "no permission in it");
        assert!(told.steps.iter().any(|step| step.what == "assignment.verified"), "its events are in it");
    })
    .await;
}

#[tokio::test]
async fn a_failure_its_retry_and_the_renewal_lead_to_one_another() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let id = w.enroll(phone(1)).await;
        let sent = w.answer(id, phone(1)).await.unwrap();
        w.refuse(id, &sent).await;
        w.clock.advance(HOUR);
        w.reconcile().await;
        w.session(id, phone(1)).await;
        let renew_at = Timestamp(w.assignment(policy, id).await.unwrap().renew_at.unwrap());
        w.clock.advance(renew_at.since(w.now()));
        w.reconcile().await;
        w.session(id, phone(1)).await;

        let ids: Vec<Uuid> = w.attempts(id).await.iter().map(|a| a.id).collect();
        let [failed, second, renewal] = [trace(&w, ids[0]).await, trace(&w, ids[1]).await, trace(&w, ids[2]).await];
        in_order(&failed, &["decided", "delivered", "error", "failed"]);
        let error = failed.steps.iter().find(|step| step.what == "error").unwrap();
        assert!(error.data.to_string().contains("4001"), "the device's own ErrorChain: {}", error.data);
        assert_eq!((failed.previous, failed.next, second.previous), (None, Some(ids[1]), Some(ids[0])));
        in_order(&second, &["decided", "delivered", "acknowledged", "verified", "replaced", "ends"]);
        assert!(!words(&second).contains(&"renewal_due"), "it is renewed already");
        assert_eq!((second.next, renewal.purpose.as_str()), (Some(ids[2]), "renewal"));
        in_order(&renewal, &["decided", "delivered", "acknowledged", "verified", "renewal_due", "ends"]);
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_is_taken_away_leaves_no_alarm_behind() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let id = w.enroll(phone(1)).await;
        w.session(id, phone(1)).await;
        let certificate = w.assignment(policy, id).await.unwrap();
        w.scope(policy, super::world::nobody()).await;
        while w.reconcile().await > 0 {}
        w.session(id, phone(1)).await;
        assert!(w.assignment(policy, id).await.is_none());
        w.clock.advance(Timestamp(certificate.not_after.unwrap()).since(w.now()) + DAY);
        assert_eq!(policy::alarm::sound(&w.store, w.now(), 100).await.unwrap(), 0);
        let mut tx = w.store.read().await.unwrap();
        assert_eq!(policy::alarm::warnings(&mut tx, w.now()).await.unwrap(), [""; 0]);
        let live = store::certificates::of_enrollment(&mut tx, id).await.unwrap();
        assert_eq!(live, [], "it is with nobody");
    })
    .await;
}

#[tokio::test]
async fn two_policies_that_ask_one_authority_for_the_same_names_each_find_their_own() {
    on_both(|store| async move {
        let w = World::new(store);
        let wifi = w.policy_for_all(json!({})).await;
        let vpn = w.policy_for_all(json!({"name": "vpn"})).await;
        let id = w.enroll(phone(1)).await;
        w.session(id, phone(1)).await;
        let mut certificates = Vec::new();
        for policy in [wifi, vpn] {
            let a = w.assignment(policy, id).await.unwrap();
            assert_eq!((a.state.as_str(), a.reason), ("verified", None));
            certificates.push(a.certificate_sha256.unwrap());
        }
        certificates.dedup();
        assert_eq!(certificates.len(), 2);
    })
    .await;
}
