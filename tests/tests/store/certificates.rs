use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::ids::{AssignmentId, AttemptId, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::time::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use store::assignments::{self, Assignment};
use store::attempts::{self, NewAttempt};
use store::certificates::{self, AcmeCertificate, Filter, New, State};
use store::{Tx, traces};

use super::policies::policy;
use super::{at, command_uuid, enrolled, key, twice, word};

const DAY: i64 = 86_400;
const WORRY: Duration = Duration::from_secs(30 * 24 * 3600);

/// A certificate that lives between these seconds of the story.
fn lives(from: i64, until: i64) -> Certificate {
    let moment = |seconds| time::OffsetDateTime::from_unix_timestamp(at(seconds).unix_seconds()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, word("device"));
    (params.not_before, params.not_after) = (moment(from), moment(until));
    let pair = KeyPair::generate().unwrap();
    Certificate::from_der(params.self_signed(&pair).unwrap().der()).unwrap()
}

/// A policy on an enrollment, with a first attempt.
struct Case {
    policy: PolicyId,
    enrollment: EnrollmentId,
    assignment: AssignmentId,
    attempt: AttemptId,
}

impl Case {
    async fn new(tx: &mut Tx) -> Self {
        let (policy, enrollment) = (policy(tx).await, enrolled(tx).await);
        let assignment = AssignmentId(key(at(0)));
        let new = assignments::New { id: assignment, policy, enrollment, ring: 0 };
        assignments::insert_many(tx, &[new], at(0)).await.unwrap();
        let mut case = Self { policy, enrollment, assignment, attempt: AttemptId(key(at(0))) };
        case.attempt = case.attempt(tx, at(1)).await;
        case
    }

    async fn attempt(&self, tx: &mut Tx, now: Timestamp) -> AttemptId {
        let id = AttemptId(key(now));
        let new = NewAttempt {
            id,
            assignment: self.assignment,
            policy: self.policy,
            revision: 1,
            enrollment: self.enrollment,
            authority: None,
            purpose: "install",
            command: command_uuid(),
        };
        attempts::insert_many(tx, &[new], now).await.unwrap();
        id
    }

    fn new_row<'a>(&self, certificate: &'a Certificate) -> New<'a> {
        New {
            enrollment: self.enrollment,
            policy: self.policy,
            attempt: self.attempt,
            certificate,
            hardware_bound: true,
            attested: false,
        }
    }

    /// The assignment is verified with this certificate.
    async fn uses(&self, tx: &mut Tx, certificate: &Certificate) {
        let row = assignments::get(tx, self.assignment).await.unwrap().unwrap();
        let verified = Assignment {
            state: "verified".into(),
            attempt_id: Some(self.attempt.0),
            certificate_sha256: Some(certificate.fingerprint().0.to_vec()),
            not_after: Some(certificate.not_after().0),
            renew_at: Some(at(7).0),
            reason: Some("install_failed".into()),
            ..row
        };
        assignments::save(tx, &verified, at(2)).await.unwrap();
    }
}

async fn get(tx: &mut Tx, certificate: &Certificate) -> AcmeCertificate {
    certificates::get(tx, certificate.fingerprint()).await.unwrap().expect("it is there")
}

#[tokio::test]
async fn a_certificate_is_reported_verified_and_replaced() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let case = Case::new(&mut tx).await;
        let first = lives(0, DAY);
        assert!(certificates::report(&mut tx, &case.new_row(&first), at(2)).await.unwrap());
        assert!(!certificates::report(&mut tx, &case.new_row(&first), at(3)).await.unwrap());
        let row = get(&mut tx, &first).await;
        assert_eq!((row.state.as_str(), row.reported_at, row.verified_at), ("reported", Some(at(2).0), None));
        assert_eq!((row.subject, row.key_type.as_str()), (first.subject(), "ECSECPrimeRandom 256"));
        assert_eq!((row.hardware_bound, row.attested, row.certificate), (true, false, first.der().to_vec()));

        assert!(certificates::verify(&mut tx, &case.new_row(&first), at(4)).await.unwrap());
        assert!(certificates::verify(&mut tx, &case.new_row(&first), at(5)).await.unwrap());
        let row = get(&mut tx, &first).await;
        assert_eq!((row.state.as_str(), row.verified_at, row.seen_at), ("verified", Some(at(4).0), Some(at(5).0)));
        certificates::seen(&mut tx, first.fingerprint(), at(6)).await.unwrap();
        assert_eq!(get(&mut tx, &first).await.seen_at, Some(at(6).0));

        let second = lives(0, DAY);
        assert!(certificates::verify(&mut tx, &case.new_row(&second), at(8)).await.unwrap());
        let replaced = certificates::replace(&mut tx, case.enrollment, case.policy, second.fingerprint(), at(8));
        assert_eq!(replaced.await.unwrap(), 1);
        let row = get(&mut tx, &first).await;
        assert_eq!((row.state.as_str(), row.replaced_at), ("replaced", Some(at(8).0)));
        let of_attempt = certificates::of_attempt(&mut tx, case.attempt).await.unwrap();
        assert_eq!(of_attempt.len(), 2);
        let live = certificates::of_enrollment(&mut tx, case.enrollment).await.unwrap();
        assert_eq!(live.iter().map(|c| c.sha256.clone()).collect::<Vec<_>>(), [second.fingerprint().0.to_vec()]);

        assert!(certificates::gone(&mut tx, second.fingerprint()).await.unwrap());
        assert!(!certificates::gone(&mut tx, second.fingerprint()).await.unwrap());
        let counts = certificates::counts(&mut tx).await.unwrap();
        assert!(counts.iter().any(|c| c.state == "gone" && c.count >= 1));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_42_a_certificate_stays_with_the_attempt_that_it_came_by() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, other) = (Case::new(&mut tx).await, Case::new(&mut tx).await);
        let certificate = lives(0, DAY);
        assert!(certificates::verify(&mut tx, &one.new_row(&certificate), at(2)).await.unwrap());
        assert!(!certificates::verify(&mut tx, &other.new_row(&certificate), at(3)).await.unwrap());
        let later = Case { attempt: one.attempt(&mut tx, at(4)).await, ..one };
        assert!(!certificates::verify(&mut tx, &later.new_row(&certificate), at(5)).await.unwrap());
        assert_eq!(get(&mut tx, &certificate).await.attempt_id, one.attempt.0);

        assert_eq!(certificates::forsake(&mut tx, one.enrollment, Some(other.policy)).await.unwrap(), 0);
        assert_eq!(certificates::forsake(&mut tx, one.enrollment, Some(one.policy)).await.unwrap(), 1);
        assert_eq!(certificates::forsake(&mut tx, one.enrollment, None).await.unwrap(), 0);
        assert_eq!(get(&mut tx, &certificate).await.state, "gone");
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn certificates_are_listed_by_their_end() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let case = Case::new(&mut tx).await;
        let (late, soon) = (lives(0, 9 * DAY), lives(0, 2 * DAY));
        for certificate in [&late, &soon] {
            certificates::verify(&mut tx, &case.new_row(certificate), at(2)).await.unwrap();
        }
        case.uses(&mut tx, &soon).await;
        let mine = Filter { enrollment: Some(case.enrollment), policy: Some(case.policy), ..Filter::default() };
        let rows = certificates::list(&mut tx, &mine, None, 10).await.unwrap();
        let prints: Vec<_> = rows.iter().map(|row| row.sha256.clone()).collect();
        assert_eq!(prints, [soon.fingerprint().0.to_vec(), late.fingerprint().0.to_vec()]);
        assert_eq!((rows[0].renew_at, rows[1].renew_at), (Some(at(7).0), None), "the one in use only");
        assert_eq!((rows[0].assignment_state.as_deref(), rows[0].revision), (Some("verified"), 1));
        let one = certificates::listed(&mut tx, late.fingerprint()).await.unwrap();
        assert_eq!(one.as_ref(), rows.last());
        assert_eq!(certificates::listed(&mut tx, Fingerprint([7; 32])).await.unwrap(), None);
        let after = Some((soon.not_after(), soon.fingerprint()));
        assert_eq!(certificates::list(&mut tx, &mine, after, 10).await.unwrap(), rows[1..]);
        let ends = Filter { ends_before: Some(at(3 * DAY)), ..mine };
        assert_eq!(certificates::list(&mut tx, &ends, None, 10).await.unwrap(), rows[..1]);
        let none = Filter { state: Some(State::Replaced), ..mine };
        assert_eq!(certificates::list(&mut tx, &none, None, 10).await.unwrap(), []);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_end_is_said_once_before_it_and_once_after_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let case = Case::new(&mut tx).await;
        let certificate = lives(0, 15 * DAY);
        certificates::verify(&mut tx, &case.new_row(&certificate), at(2)).await.unwrap();
        case.uses(&mut tx, &certificate).await;
        let before = certificates::ends(&mut tx, WORRY, at(13 * DAY)).await.unwrap();
        let now = at(14 * DAY);
        let ends = certificates::ends(&mut tx, WORRY, now).await.unwrap();
        assert_eq!((ends.soon - before.soon, ends.ended - before.ended), (1, 0));
        let mine =
            |rows: Vec<certificates::Alarmed>| rows.into_iter().find(|row| row.enrollment_id == case.enrollment.0);
        let said = mine(certificates::unsaid(&mut tx, WORRY, now, 1000).await.unwrap()).unwrap();
        assert_eq!((said.attempt_id, said.not_after), (case.attempt.0, certificate.not_after().0));
        assert_eq!((said.renewal_id, said.reason.as_deref()), (None, Some("install_failed")));
        assert!(certificates::alarmed(&mut tx, certificate.fingerprint(), "ends_soon").await.unwrap());
        assert!(!certificates::alarmed(&mut tx, certificate.fingerprint(), "ends_soon").await.unwrap());
        assert_eq!(mine(certificates::unsaid(&mut tx, WORRY, now, 1000).await.unwrap()), None);
        let over = at(15 * DAY);
        assert!(mine(certificates::unsaid(&mut tx, WORRY, over, 1000).await.unwrap()).is_some());
        assert!(certificates::alarmed(&mut tx, certificate.fingerprint(), "ended").await.unwrap());
        assert_eq!(mine(certificates::unsaid(&mut tx, WORRY, over, 1000).await.unwrap()), None);
        assignments::delete_many(&mut tx, &[case.assignment]).await.unwrap();
        let without = certificates::ends(&mut tx, WORRY, now).await.unwrap();
        assert_eq!(without.soon, before.soon, "a policy that is off the device worries nobody");
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_in_use_is_never_pruned() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let case = Case::new(&mut tx).await;
        let (old, used) = (lives(-2 * DAY, -DAY), lives(-2 * DAY, -DAY));
        certificates::verify(&mut tx, &case.new_row(&old), at(2)).await.unwrap();
        certificates::gone(&mut tx, old.fingerprint()).await.unwrap();
        let next = Case { attempt: case.attempt(&mut tx, at(3)).await, ..case };
        certificates::verify(&mut tx, &next.new_row(&used), at(4)).await.unwrap();
        next.uses(&mut tx, &used).await;
        for attempt in [case.attempt, next.attempt] {
            assert!(attempts::proved(&mut tx, attempt, Fingerprint([1; 32]), at(5)).await.unwrap());
        }
        assert_eq!(certificates::prune_attempts(&mut tx, at(DAY), 1000).await.unwrap(), 0, "they have certificates");
        assert_eq!(certificates::prune_certificates(&mut tx, at(0), 1000).await.unwrap(), 1);
        assert!(certificates::get(&mut tx, old.fingerprint()).await.unwrap().is_none());
        get(&mut tx, &used).await;
        assert_eq!(certificates::prune_attempts(&mut tx, at(5), 1000).await.unwrap(), 0, "not long ago enough");
        assert_eq!(certificates::prune_attempts(&mut tx, at(6), 1000).await.unwrap(), 1);
        assert!(attempts::get(&mut tx, case.attempt).await.unwrap().is_none());
        assert!(attempts::get(&mut tx, next.attempt).await.unwrap().is_some());
        // The next telling finds nothing of this one to prune.
        assignments::delete_many(&mut tx, &[case.assignment]).await.unwrap();
        certificates::forsake(&mut tx, case.enrollment, None).await.unwrap();
        certificates::prune_certificates(&mut tx, at(0), 1000).await.unwrap();
        certificates::prune_attempts(&mut tx, at(6), 1000).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_trace_finds_its_events_and_its_neighbours() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let case = Case::new(&mut tx).await;
        let second = case.attempt(&mut tx, at(2)).await;
        let third = case.attempt(&mut tx, at(3)).await;
        let of = async |tx: &mut Tx, id| traces::neighbours(tx, case.assignment, id).await.unwrap();
        assert_eq!(of(&mut tx, case.attempt).await, (None, Some(second)));
        assert_eq!(of(&mut tx, second).await, (Some(case.attempt), Some(third)));
        assert_eq!(of(&mut tx, third).await, (Some(second), None));
        for (seconds, trace) in [(5, second.0), (4, second.0), (6, third.0)] {
            let data = serde_json::json!({ "policy": "wifi", "trace": trace, "revision": 1 });
            let event = store::events::NewEvent {
                at: at(seconds),
                kind: "assignment.installed",
                enrollment: Some(case.enrollment),
                command: None,
                actor: "server",
                summary: "installed",
                data: &data,
            };
            store::events::record(&mut tx, &event).await.unwrap();
        }
        let found = traces::events(&mut tx, case.enrollment, second, 10).await.unwrap();
        assert_eq!(found.iter().map(|row| row.at).collect::<Vec<_>>(), [at(5).0, at(4).0], "as they were written");
        let other = enrolled(&mut tx).await;
        assert!(traces::events(&mut tx, other, second, 10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}
