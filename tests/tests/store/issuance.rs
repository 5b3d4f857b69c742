use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{Fingerprint, IssuanceId, LinkId};
use mdm_core::random::Random;
use store::issuance::{self, Flow, NewIssuance, Purpose, State};
use store::listing::{self, Issuances};

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
        let listed =
            listing::issuance(&mut tx, &Issuances { enrollment: Some(enrollment), ..Issuances::default() }, None, 10)
                .await
                .unwrap();
        assert_eq!(listed.iter().map(|row| row.id).collect::<Vec<_>>(), [renewal.id]);
        assert!(
            listing::issuance(&mut tx, &Issuances::default(), Some(renewal.id), 1000)
                .await
                .unwrap()
                .iter()
                .all(|r| r.id.0 < renewal.id.0)
        );
        assert!(!issuance::consume(&mut tx, renewal.id, &[1; 32], "t", at(1)).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_48_a_record_for_acme_is_found_by_its_client_identifier_and_never_by_a_challenge() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let client_identifier = Random::System.bytes();
        let token = key(at(0));
        let details = issuance::Details {
            acme: Some((client_identifier, at(60))),
            identity_reason: Some("{}"),
            account_token: Some(token),
            managed_apple_account: Some("ada@example.org"),
            anchors: Some("[]"),
        };
        let record = NewIssuance { flow: Flow::Byod, challenge: None, details, ..new([0; 32]) };
        issuance::insert(&mut tx, &record).await.unwrap();
        let found = issuance::open_by_client_identifier(&mut tx, &client_identifier, at(1)).await.unwrap();
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (found.id, found.source, found.challenge_expires_at),
            (record.id, issuance::Source::Acme, Some(at(60)))
        );
        assert_eq!(
            (found.account_token, found.managed_apple_account.as_deref()),
            (Some(token), Some("ada@example.org"))
        );
        assert_eq!((found.identity_reason.as_deref(), found.anchors.as_deref()), (Some("{}"), Some("[]")));
        assert!(found.issued_at.is_none() && found.transaction_id.is_none());
        assert!(
            issuance::open_by_client_identifier(&mut tx, &client_identifier, at(60)).await.unwrap().is_empty(),
            "ended"
        );
        assert!(issuance::by_challenge(&mut tx, &client_identifier).await.unwrap().is_none());

        assert!(issuance::consume(&mut tx, record.id, &[1; 32], "acme", at(2)).await.unwrap());
        let certificate = certificate();
        issuance::set_certificate(&mut tx, record.id, &certificate).await.unwrap();
        let issued = issuance::get(&mut tx, record.id).await.unwrap().unwrap();
        assert_eq!(
            (issued.state, issued.issued_at, issued.transaction_id.as_deref()),
            (State::Issued, Some(at(2)), Some("acme"))
        );
        assert_eq!(issued.cert_not_after, Some(certificate.not_after()));
        assert!(issuance::open_by_client_identifier(&mut tx, &client_identifier, at(3)).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_52_a_newer_answer_makes_the_older_ones_void() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (serial, token) = (super::word("SERIAL"), key(at(0)));
        let client_identifier = Random::System.bytes();
        let open = |flow, details| NewIssuance {
            flow,
            challenge: None,
            expected_serial: Some(&serial),
            details,
            ..new(Random::System.bytes())
        };
        let plain = issuance::Details::default();
        let acme = issuance::Details { acme: Some((client_identifier, at(60))), ..plain };
        let of_token = issuance::Details { account_token: Some(token), ..plain };
        for record in
            [open(Flow::Ade, plain), open(Flow::Ade, plain), open(Flow::Link, acme), open(Flow::Byod, of_token)]
        {
            issuance::insert(&mut tx, &record).await.unwrap();
        }
        let issued = NewIssuance { challenge: Some((Random::System.bytes(), at(60))), ..open(Flow::Ade, plain) };
        issuance::insert(&mut tx, &issued).await.unwrap();
        assert!(issuance::consume(&mut tx, issued.id, &[1; 32], "t", at(1)).await.unwrap());
        assert_eq!(issuance::opened_for_serial(&mut tx, Flow::Ade, &serial, at(-1)).await.unwrap(), 3);
        assert_eq!(issuance::opened_for_serial(&mut tx, Flow::Ade, &serial, at(0)).await.unwrap(), 0);
        assert_eq!(issuance::void_of_serial(&mut tx, Flow::Ade, &serial).await.unwrap(), 3);
        assert_eq!(
            issuance::get(&mut tx, issued.id).await.unwrap().unwrap().state,
            State::Void,
            "issued, and never used"
        );
        assert_eq!(issuance::void_of_serial(&mut tx, Flow::Ade, &serial).await.unwrap(), 0);
        assert_eq!(
            issuance::void_client_identifier(&mut tx, &client_identifier, Purpose::Enrollment).await.unwrap(),
            1
        );
        assert_eq!(issuance::void_of_account_token(&mut tx, token).await.unwrap(), 1);
        tx.commit().await.unwrap();
    })
    .await;
}
