use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{Fingerprint, IssuanceId, LinkId};
use mdm_core::random::Random;
use store::issuance::{self, Flow, NewIssuance, Purpose, State};
use store::listing;

use super::{at, certificate, enrolled, key, twice};

fn new(challenge: [u8; 32]) -> NewIssuance<'static> {
    NewIssuance {
        id: IssuanceId(key(at(0))),
        flow: Flow::Link,
        purpose: Purpose::Enrollment,
        kind: EnrollmentKind::Device,
        link: None,
        enrollment: None,
        expected_serial: Some("C02X"),
        expected_udid: None,
        label: None,
        common_name: "a device",
        challenge: Some((challenge, at(60))),
        imported: None,
        details: issuance::Details::default(),
        created_at: at(0),
    }
}

#[tokio::test]
async fn th_28_a_challenge_is_spent_once() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let challenge = Random::System.bytes();
        let record = new(challenge);
        issuance::insert(&mut tx, &record).await.unwrap();
        let found = issuance::by_challenge(&mut tx, &challenge).await.unwrap().unwrap();
        assert_eq!((found.id, found.state), (record.id, State::Open));
        assert_eq!(found.expected_serial.as_deref(), Some("C02X"));
        assert!(issuance::by_challenge(&mut tx, &Random::System.bytes()).await.unwrap().is_none());

        let late = at(61);
        assert!(!issuance::consume(&mut tx, record.id, &[1; 32], "t", late).await.unwrap(), "it had ended");
        assert!(issuance::consume(&mut tx, record.id, &[1; 32], "t", at(30)).await.unwrap());
        assert!(!issuance::consume(&mut tx, record.id, &[1; 32], "t", at(31)).await.unwrap(), "it was spent");

        let certificate = certificate();
        issuance::set_certificate(&mut tx, record.id, &certificate).await.unwrap();
        let found = issuance::by_certificate(&mut tx, certificate.fingerprint()).await.unwrap().unwrap();
        assert_eq!((found.id, found.state), (record.id, State::Issued));
        assert_eq!(found.certificate.as_deref(), Some(certificate.der()));

        let enrollment = enrolled(&mut tx).await;
        assert!(issuance::mark_used(&mut tx, record.id, enrollment, at(32)).await.unwrap());
        assert!(!issuance::mark_used(&mut tx, record.id, enrollment, at(33)).await.unwrap());
        assert!(issuance::revoke(&mut tx, record.id, at(34)).await.unwrap());
        assert!(!issuance::revoke(&mut tx, record.id, at(35)).await.unwrap());
        let found = issuance::get(&mut tx, record.id).await.unwrap().unwrap();
        assert_eq!((found.state, found.enrollment), (State::Revoked, Some(enrollment)));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_imported_certificate_is_issued_from_the_start() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let fingerprint = Fingerprint(Random::System.bytes());
        let record = NewIssuance { flow: Flow::Import, challenge: None, imported: Some(fingerprint), ..new([0; 32]) };
        issuance::insert(&mut tx, &record).await.unwrap();
        let found = issuance::by_certificate(&mut tx, fingerprint).await.unwrap().unwrap();
        assert_eq!((found.flow, found.state, found.challenge_expires_at), (Flow::Import, State::Issued, None));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn open_records_end_with_their_link_and_with_a_newer_renewal() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let link = super::links::link(&mut tx).await;
        let enrollment = enrolled(&mut tx).await;
        for _ in 0..2 {
            let of_link = NewIssuance { link: Some(link), ..new(Random::System.bytes()) };
            issuance::insert(&mut tx, &of_link).await.unwrap();
        }
        let renewal = NewIssuance {
            flow: Flow::Renewal,
            purpose: Purpose::Renewal,
            enrollment: Some(enrollment),
            ..new(Random::System.bytes())
        };
        issuance::insert(&mut tx, &renewal).await.unwrap();

        let newest = store::links::newest_issuance(&mut tx, link).await.unwrap().unwrap();
        assert_eq!((newest.state.as_str(), newest.first_at), ("open", at(0)));
        assert!(store::links::newest_issuance(&mut tx, LinkId(key(at(0)))).await.unwrap().is_none());

        assert_eq!(issuance::void_of_link(&mut tx, link).await.unwrap(), 2);
        assert_eq!(issuance::void_of_link(&mut tx, link).await.unwrap(), 0);
        assert_eq!(issuance::void_renewals(&mut tx, enrollment).await.unwrap(), 1);
        let found = issuance::get(&mut tx, renewal.id).await.unwrap().unwrap();
        assert_eq!(found.state, State::Void);
        let listed = listing::issuance(&mut tx, Some(enrollment), None, 10).await.unwrap();
        assert_eq!(listed.iter().map(|row| row.id).collect::<Vec<_>>(), [renewal.id.0]);
        assert!(
            listing::issuance(&mut tx, None, Some(renewal.id), 1000).await.unwrap().iter().all(|r| r.id < renewal.id.0)
        );
        assert!(!issuance::consume(&mut tx, renewal.id, &[1; 32], "t", at(1)).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}
