//! Proof on both databases: a CertificateList against what was delivered, what is written of it, the trace that it leaves, the
//! alarms at the end, and what is deleted after its time.

mod proof_world;

use std::time::Duration;

use mdm_tests::on_both;
use policy::proof::Proof;
use policy::reason::ReasonCode;
use policy::renew::{WORRY_LONGEST, renew_at};
use store::certificates::State;

use crate::proof_world::{Ca, DAY, Issue, START, World};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_certificate_that_the_list_shows_is_proved_and_written_down() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let attempt = w.deliver().await;
        let certificate = ca.issue(Issue::of(&w.serial, w.now()));
        let stranger = Ca::new().issue(Issue::of("another", w.now()));
        let proof = w.prove(&attempt, &ca, &[&stranger, &certificate]).await;
        let sha256 = certificate.fingerprint();
        let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
        assert_eq!(proof, Proof::Proved { sha256, not_before, not_after });
        let row = w.certificate(sha256).await.unwrap();
        assert_eq!((row.state.as_str(), row.attempt_id), ("verified", attempt.id));
        assert_eq!((row.certificate, row.serial_number), (certificate.der().to_vec(), certificate.serial_hex()));
        assert!(row.hardware_bound && row.attested);
        assert_eq!(w.prove(&attempt, &ca, &[&certificate]).await, proof, "the same list again proves the same");
        assert!(w.certificate(stranger.fingerprint()).await.is_none(), "what is nobody's is not written down");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_written_where_nothing_is_proved() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let attempt = w.deliver().await;
        let cases = [
            (Issue::of("another", w.now()), ReasonCode::CertificateNamesDiffer),
            (
                Issue { from: w.now().minus(MINUTE * 6), ..Issue::of(&w.serial, w.now()) },
                ReasonCode::CertificateNotFresh,
            ),
            (Issue { p384: true, ..Issue::of(&w.serial, w.now()) }, ReasonCode::CertificateKeyDiffers),
        ];
        for (issue, expected) in cases {
            let certificate = ca.issue(issue);
            let Proof::Missing { reason, detail } = w.prove(&attempt, &ca, &[&certificate]).await else {
                panic!("{expected} was proved")
            };
            assert_eq!(reason, expected, "{detail}");
            assert!(w.certificate(certificate.fingerprint()).await.is_none());
        }
        let certificate = ca.issue(Issue::of(&w.serial, w.now()));
        let missing = |proof| match proof {
            Proof::Missing { reason, .. } => reason,
            Proof::Proved { .. } => panic!("proved"),
        };
        assert_eq!(missing(w.prove(&attempt, &ca, &[]).await), ReasonCode::CertificateNotListed);
        assert_eq!(missing(w.prove(&attempt, &Ca::new(), &[&certificate]).await), ReasonCode::CertificateIssuerUnknown);
        assert_eq!(missing(w.prove_without_issuers(&attempt, &[&certificate]).await), ReasonCode::IssuersUnknown);
        let no_key = w.prove_as(&attempt, &ca, &[&certificate], false).await;
        assert_eq!(missing(no_key), ReasonCode::CertificateNotListed, "a certificate without its key is no identity");
        assert_eq!(
            missing(w.prove_bytes(&attempt, &ca, &[0x30, 0x03, 2, 1, 0]).await),
            ReasonCode::CertificateNotListed
        );
    })
    .await;
}

#[tokio::test]
async fn th_42_a_key_that_was_certified_to_one_device_proves_nothing_on_another() {
    on_both(|store| async move {
        let ca = Ca::new();
        let (mut one, mut other) = (World::new(store.clone()).await, World::new(store).await);
        other.serial.clone_from(&one.serial);
        let certificate = ca.issue(Issue::of(&one.serial, START));
        let first = one.deliver().await;
        assert!(matches!(one.prove(&first, &ca, &[&certificate]).await, Proof::Proved { .. }));
        let second = other.deliver().await;
        let Proof::Missing { reason, .. } = other.prove(&second, &ca, &[&certificate]).await else { panic!("proved") };
        assert_eq!(reason, ReasonCode::CertificateOfAnother);
        let again = ca.issue_for_same_key(&certificate, Issue::of(&one.serial, START));
        let Proof::Missing { reason, .. } = other.prove(&second, &ca, &[&again]).await else { panic!("proved") };
        assert_eq!(reason, ReasonCode::CertificateOfAnother, "another certificate of the same key");
        assert_eq!(one.certificate(certificate.fingerprint()).await.unwrap().attempt_id, first.id);
    })
    .await;
}

#[tokio::test]
async fn the_old_certificate_is_replaced_by_the_new_one_and_not_before() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let attempt = w.deliver().await;
        let old = ca.issue(Issue::of(&w.serial, w.now()));
        assert!(matches!(w.prove(&attempt, &ca, &[&old]).await, Proof::Proved { .. }));
        w.verified(&attempt, &old).await;

        w.wait(DAY * 20);
        let renewal = w.deliver().await;
        let Proof::Missing { reason, .. } = w.prove(&renewal, &ca, &[&old]).await else { panic!("the old one proves it") };
        assert_eq!(reason, ReasonCode::CertificateNotListed);
        assert_eq!(w.certificate(old.fingerprint()).await.unwrap().state, "verified", "it is the one until the new is seen");

        let new = ca.issue(Issue::of(&w.serial, w.now()));
        assert!(matches!(w.prove(&renewal, &ca, &[&old, &new]).await, Proof::Proved { sha256, .. } if sha256 == new.fingerprint()));
        let row = w.certificate(old.fingerprint()).await.unwrap();
        assert_eq!((row.state.as_str(), row.replaced_at), ("replaced", Some(w.now().0)));
        assert_eq!(w.certificate(new.fingerprint()).await.unwrap().state, "verified");
    })
    .await;
}

#[tokio::test]
async fn what_the_authority_said_narrows_it_to_one_key() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let attempt = w.deliver().await;
        let right = ca.issue(Issue { from: w.now().minus(DAY), ..Issue::of("as the template has it", w.now()) });
        let wrong = ca.issue(Issue::of(&w.serial, w.now()));
        w.authorize(&attempt, right.subject_key().spki_sha256).await;
        let attempt = w.attempt(&attempt).await;
        assert!(matches!(w.prove(&attempt, &ca, &[&wrong, &right]).await, Proof::Proved { sha256, .. } if sha256 == right.fingerprint()));
        let Proof::Missing { reason, .. } = w.prove(&attempt, &ca, &[&wrong]).await else { panic!("proved") };
        assert_eq!(reason, ReasonCode::CertificateKeyDiffers);

        // An authority that shows the certificate itself needs no issuer here.
        let shown = w.deliver().await;
        let certificate = Ca::new().issue(Issue::of(&w.serial, w.now()));
        w.issued(&shown, certificate.fingerprint()).await;
        let shown = w.attempt(&shown).await;
        assert!(matches!(w.prove_without_issuers(&shown, &[&certificate]).await, Proof::Proved { .. }));
    })
    .await;
}

#[tokio::test]
async fn a_path_through_an_intermediate_of_the_list_is_followed() {
    on_both(|store| async move {
        let (mut w, root) = (World::new(store).await, Ca::new());
        let between = root.intermediate();
        let attempt = w.deliver().await;
        let certificate = between.issue(Issue::of(&w.serial, w.now()));
        let Proof::Missing { reason, .. } = w.prove(&attempt, &root, &[&certificate]).await else { panic!("proved") };
        assert_eq!(reason, ReasonCode::CertificateIssuerUnknown);
        assert!(matches!(
            w.prove_with(&attempt, &root, &[&certificate], &between.certificate).await,
            Proof::Proved { .. }
        ));
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_shown_any_more_is_gone_and_said_so() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let attempt = w.deliver().await;
        let certificate = ca.issue(Issue::of(&w.serial, w.now()));
        w.prove(&attempt, &ca, &[&certificate]).await;
        w.wait(DAY);
        assert_eq!(w.seen(&[&certificate]).await, []);
        assert_eq!(w.certificate(certificate.fingerprint()).await.unwrap().seen_at, Some(w.now().0));
        assert_eq!(w.seen(&[]).await, [w.policy]);
        assert_eq!(w.certificate(certificate.fingerprint()).await.unwrap().state, State::Gone.as_str());
        assert_eq!(w.seen(&[]).await, [], "once");
        let trace = w.trace(&attempt).await.unwrap();
        assert!(trace.steps.iter().any(|step| step.what == "certificate.gone"));
    })
    .await;
}

#[tokio::test]
async fn a_trace_is_one_line_from_the_decision_to_the_end() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        w.pushed().await;
        let attempt = w.deliver().await;
        let certificate = ca.issue(Issue::of(&w.serial, w.now()));
        w.authorize(&attempt, certificate.subject_key().spki_sha256).await;
        w.wait(MINUTE);
        w.acknowledge(&attempt).await;
        let attempt = w.attempt(&attempt).await;
        w.prove(&attempt, &ca, &[&certificate]).await;
        w.verified(&attempt, &certificate).await;

        let trace = w.trace(&attempt).await.unwrap();
        let words: Vec<&str> = trace.steps.iter().map(|step| step.what.as_str()).collect();
        let expected =
            ["pushed", "decided", "delivered", "authorized", "acknowledged", "verified", "renewal_due", "ends"];
        assert_eq!(words, expected);
        assert_eq!(trace.steps.iter().filter(|step| step.planned).count(), 2, "the renewal and the end lie ahead");
        assert_eq!((trace.state.as_str(), trace.previous, trace.next), ("proved", None, None));
        assert_eq!(trace.certificate_sha256, Some(certificate.fingerprint().to_string()));
        let json = serde_json::to_string(&trace).unwrap();
        assert!(!json.contains(w.random()), "no one-time ClientIdentifier");

        let renewal = w.deliver().await;
        assert_eq!(w.trace(&attempt).await.unwrap().next, Some(renewal.id));
        assert_eq!(w.trace(&renewal).await.unwrap().previous, Some(attempt.id));
    })
    .await;
}

#[tokio::test]
async fn an_end_without_a_renewal_is_an_event_a_warning_and_once_only() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let attempt = w.deliver().await;
        let certificate = ca.issue(Issue { days: 90, ..Issue::of(&w.serial, w.now()) });
        w.prove(&attempt, &ca, &[&certificate]).await;
        w.verified(&attempt, &certificate).await;
        assert_eq!((w.sound().await, w.warnings().await.len()), (0, 0));

        w.wait(certificate.not_after().since(w.now()).saturating_sub(DAY * 6));
        assert!(WORRY_LONGEST > DAY * 6);
        assert_eq!(w.sound().await, 1);
        assert_eq!(w.sound().await, 0, "said once");
        assert!(w.warnings().await[0].contains("1 certificates of ACME policies end soon"));
        w.wait(DAY * 6);
        assert_eq!(w.sound().await, 1);
        assert!(w.warnings().await[0].contains("have ended"));
        let words: Vec<String> = w.trace(&attempt).await.unwrap().steps.into_iter().map(|step| step.what).collect();
        assert!(words.contains(&"certificate.ends_soon".to_owned()) && words.contains(&"certificate.ended".to_owned()));
        policy::alarm::report(&w.store, w.now()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_past_is_deleted_after_its_time_and_what_is_in_use_is_not() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let first = w.deliver().await;
        let old = ca.issue(Issue { days: 1, ..Issue::of(&w.serial, w.now()) });
        w.prove(&first, &ca, &[&old]).await;
        w.verified(&first, &old).await;
        let lost = w.deliver().await;
        w.fail(&lost).await;
        let second = w.deliver().await;
        let new = ca.issue(Issue { days: 1, ..Issue::of(&w.serial, w.now()) });
        w.prove(&second, &ca, &[&new]).await;
        w.verified(&second, &new).await;

        w.wait(DAY * 30);
        assert_eq!(policy::retention::prune(&w.store, DAY * 60, w.now()).await.unwrap(), 0);
        w.wait(DAY * 60);
        let pruned = policy::retention::prune(&w.store, DAY * 60, w.now()).await.unwrap();
        assert_eq!(pruned, 3, "the replaced certificate, its attempt, and the one that failed");
        assert!(w.trace(&first).await.is_none() && w.trace(&lost).await.is_none());
        assert!(w.trace(&second).await.is_some());
        assert!(w.certificate(new.fingerprint()).await.is_some(), "ended, and in use all the same");
    })
    .await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_is_a_fault_of_ours_and_proves_nothing() {
    on_both(|store| async move {
        let (mut w, ca) = (World::new(store).await, Ca::new());
        let mut attempt = w.deliver().await;
        let certificate = ca.issue(Issue::of(&w.serial, w.now()));
        for broken in [None, Some("{}".to_owned())] {
            attempt.expectation = broken;
            let error = w.try_prove(&attempt, &ca, &[&certificate]).await.unwrap_err();
            assert!(error.needs_human(), "{error}");
        }
        assert!(w.certificate(certificate.fingerprint()).await.is_none());
    })
    .await;
}

#[test]
fn a_renewal_is_due_before_the_alarm() {
    let end = START.plus(DAY * 365);
    for n in 0..100 {
        let id = mdm_core::ids::EnrollmentId(uuid::Uuid::from_u128(n));
        let at = renew_at(id, START, end, 90);
        assert_eq!(policy::renew::alarm(end, DAY * 365, at), None);
    }
}
