use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::ids::{AssignmentId, AttemptId, EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use store::assignments::{self, New};
use store::attempts::{self, NewAttempt};
use store::{Tx, certificates, reports};

use super::policies::policy;
use super::{at, command_uuid, enrolled, key, twice, word};

const DAY: Duration = Duration::from_secs(86_400);

/// An attempt on an enrollment of its own.
async fn attempt(tx: &mut Tx, policy: PolicyId, purpose: &'static str, when: Timestamp) -> (AttemptId, EnrollmentId) {
    let enrollment = enrolled(tx).await;
    let assignment = AssignmentId(key(at(0)));
    assignments::insert_many(tx, &[New { id: assignment, policy, enrollment, ring: 0 }], at(0)).await.unwrap();
    let id = AttemptId(key(at(0)));
    let new = NewAttempt {
        id,
        assignment,
        policy,
        revision: 1,
        enrollment,
        authority: None,
        purpose,
        command: command_uuid(),
    };
    attempts::insert_many(tx, &[new], when).await.unwrap();
    (id, enrollment)
}

/// A certificate that lives so many days from `at(0)`.
fn lives(days: u32) -> Certificate {
    let mut params = CertificateParams::new(vec![word("device")]).unwrap();
    let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
    params.not_before = moment(at(0));
    params.not_after = moment(at(0).plus(DAY * days));
    Certificate::from_der(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
}

#[tokio::test]
async fn a_report_counts_certificates_by_their_end_and_form_and_renewals_by_their_state() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        for (days, attested) in [(30, true), (30, true), (90, false)] {
            let (attempt, enrollment) = attempt(&mut tx, policy, "install", at(1)).await;
            let certificate = lives(days);
            let new = certificates::New {
                certificate: &certificate,
                enrollment,
                policy,
                attempt,
                hardware_bound: true,
                attested,
            };
            assert!(certificates::verify(&mut tx, &new, at(2)).await.unwrap());
            let mut row = assignments::find(&mut tx, policy, enrollment).await.unwrap().unwrap();
            row.renew_at = Some(at(0).plus(DAY * 20).0);
            row.state = if attested { "verified" } else { "blocked" }.to_owned();
            row.decision = Some(r#"{"notes":[{"code":"a"},{"code":"b"}]}"#.to_owned());
            assignments::save(&mut tx, &row, at(2)).await.unwrap();
        }
        let first = at(0).0 / 86_400_000;
        let days = |days: Vec<reports::Day>| days.into_iter().map(|d| (d.day - first, d.count)).collect::<Vec<_>>();
        assert_eq!(days(reports::ends(&mut tx, policy).await.unwrap()), [(30, 2), (90, 1)]);
        assert_eq!(days(reports::renewals_due(&mut tx, policy).await.unwrap()), [(20, 3)]);
        let forms = reports::forms(&mut tx, policy).await.unwrap();
        let forms: Vec<_> =
            forms.iter().map(|f| (f.key_type.as_str(), f.hardware_bound, f.attested, f.count)).collect();
        assert_eq!(forms, [("ECSECPrimeRandom 256", true, false, 1), ("ECSECPrimeRandom 256", true, true, 2)]);

        let notes = reports::notes(&mut tx, policy).await.unwrap();
        let notes: Vec<_> = notes.iter().map(|n| (n.code.as_str(), n.count)).collect();
        assert_eq!(notes, [("a", 2), ("b", 2)], "what is refused got no form");

        attempt(&mut tx, policy, "renewal", at(5)).await;
        let (failed, _) = attempt(&mut tx, policy, "renewal", at(6)).await;
        attempts::failed(&mut tx, failed, "install_failed", at(7)).await.unwrap();
        attempt(&mut tx, policy, "renewal", at(1)).await;
        let renewals = reports::renewals(&mut tx, policy, at(5)).await.unwrap();
        let renewals: Vec<_> = renewals.iter().map(|c| (c.state.as_str(), c.count)).collect();
        assert_eq!(renewals, [("failed", 1), ("queued", 1)], "one was before");
        tx.commit().await.unwrap();
    })
    .await;
}
