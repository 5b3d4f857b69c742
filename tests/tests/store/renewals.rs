use std::time::Duration;

use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{EnrollmentId, Fingerprint, IssuanceId};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use store::identities::{self, Filter, Standing};
use store::issuance::{self, Details, Flow, NewIssuance, Purpose, State as Record};
use store::renewals::{self, Reason, Renewal, State};
use store::{Tx, commands};

use super::commands::{command, queued};
use super::{at, command_uuid, enrolled, key, twice};

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate that lives a year from `at(0)`.
fn year() -> mdm_core::certificate::Certificate {
    let mut params = CertificateParams::default();
    let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
    params.not_before = moment(at(0));
    params.not_after = moment(at(0).plus(DAY * 365));
    let pair = KeyPair::generate().unwrap();
    mdm_core::certificate::Certificate::from_der(params.self_signed(&pair).unwrap().der()).unwrap()
}

fn renewal(enrollment: EnrollmentId, identity: Fingerprint) -> Renewal {
    Renewal {
        enrollment,
        state: State::Due,
        reason: Reason::Expiry,
        identity,
        deadline: at(900),
        command: None,
        issuance: None,
        attempts: 0,
        last_error: None,
        due_at: Some(at(10)),
        created_at: at(1),
        updated_at: at(1),
    }
}

/// A record that is opened so many seconds into the story.
async fn record(tx: &mut Tx, enrollment: EnrollmentId, state: Record, seconds: i64) -> IssuanceId {
    let id = IssuanceId(key(at(seconds)));
    let new = NewIssuance {
        id,
        flow: Flow::Renewal,
        purpose: Purpose::Renewal,
        kind: EnrollmentKind::Device,
        link: None,
        enrollment: Some(enrollment),
        expected_serial: None,
        expected_udid: None,
        label: None,
        common_name: "a device",
        challenge: Some((Random::System.bytes(), at(60))),
        imported: None,
        details: Details::default(),
        created_at: at(0),
    };
    issuance::insert(tx, &new).await.unwrap();
    if state == Record::Issued {
        assert!(issuance::consume(tx, id, &[9; 32], "t", at(4)).await.unwrap());
        issuance::set_certificate(tx, id, &year()).await.unwrap();
    }
    id
}

#[tokio::test]
async fn a_renewal_is_taken_by_one_and_put_off_by_whoever_holds_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        assert!(renewals::get(&mut tx, id).await.unwrap().is_none());
        let mut row = renewal(id, Fingerprint([1; 32]));
        renewals::save(&mut tx, &row, at(1)).await.unwrap();
        assert_eq!(renewals::get(&mut tx, id).await.unwrap().as_ref(), Some(&row));

        let (one, two) = (key(at(0)), key(at(0)));
        assert!(!renewals::lease(&mut tx, at(9), at(20), one, 1000).await.unwrap().contains(&id), "it is not due");
        assert!(renewals::lease(&mut tx, at(10), at(20), one, 1000).await.unwrap().contains(&id));
        assert!(!renewals::lease(&mut tx, at(19), at(30), two, 1000).await.unwrap().contains(&id), "it is taken");
        assert!(renewals::holds(&mut tx, id, one).await.unwrap());
        assert!(renewals::lease(&mut tx, at(21), at(30), two, 1000).await.unwrap().contains(&id));
        assert!(!renewals::holds(&mut tx, id, one).await.unwrap(), "whoever stood still has lost it");
        renewals::put_off(&mut tx, id, at(40)).await.unwrap();
        assert!(!renewals::holds(&mut tx, id, two).await.unwrap());
        assert!(!renewals::lease(&mut tx, at(39), at(50), one, 1000).await.unwrap().contains(&id));

        let uuid = command_uuid();
        row.state = State::Queued;
        row.command = Some(uuid.clone());
        row.issuance = Some(record(&mut tx, id, Record::Open, 1).await);
        row.attempts = 3;
        row.last_error = Some("no_answer".to_owned());
        row.due_at = None;
        renewals::save(&mut tx, &row, at(41)).await.unwrap();
        let stored = renewals::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(stored, Renewal { updated_at: at(41), ..row });
        let counts = renewals::counts(&mut tx).await.unwrap();
        assert!(counts.iter().any(|count| count.state == "queued" && count.count > 0));

        let mut of_renewal = command(&uuid);
        of_renewal.rendering = "enrollment".to_owned();
        queued(&mut tx, &command(&command_uuid()), &[id]).await;
        queued(&mut tx, &of_renewal, &[id]).await;
        let first = commands::first_of(&mut tx, id, "enrollment", at(50)).await.unwrap().unwrap();
        assert_eq!(first.waiting.command_uuid, uuid.as_str());
        assert!(commands::first_of(&mut tx, id, "acme", at(50)).await.unwrap().is_none());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rg_23_a_renewal_that_another_server_began_is_not_begun_again() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let planned = renewal(id, Fingerprint([1; 32]));
        assert!(renewals::begin(&mut tx, &planned, at(1)).await.unwrap());
        assert_eq!(renewals::get(&mut tx, id).await.unwrap().as_ref(), Some(&planned));
        let queued = Renewal { state: State::Queued, command: Some(command_uuid()), attempts: 2, ..planned.clone() };
        renewals::save(&mut tx, &queued, at(2)).await.unwrap();
        assert!(!renewals::begin(&mut tx, &planned, at(3)).await.unwrap());
        assert_eq!(renewals::get(&mut tx, id).await.unwrap(), Some(Renewal { updated_at: at(2), ..queued }));
        let next = Renewal { created_at: at(4), updated_at: at(4), ..renewal(id, Fingerprint([2; 32])) };
        assert!(renewals::begin(&mut tx, &next, at(4)).await.unwrap(), "another identity has its own");
        assert_eq!(renewals::get(&mut tx, id).await.unwrap(), Some(next));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_09_a_revoked_identity_takes_what_was_to_renew_it_along_and_no_other_renewal() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let certificate = year();
        identities::bind(&mut tx, id, None, &certificate, at(1)).await.unwrap();
        let pin = identities::find_by_fingerprint(&mut tx, certificate.fingerprint()).await.unwrap().unwrap();
        let open = record(&mut tx, id, Record::Open, 1).await;
        let state = async |tx: &mut Tx, record| issuance::get(tx, record).await.unwrap().unwrap().state;

        renewals::save(&mut tx, &renewal(id, Fingerprint([1; 32])), at(1)).await.unwrap();
        let retired = identities::Identity { retired_at: Some(at(2)), ..pin.clone() };
        renewals::revoked(&mut tx, &retired, at(2)).await.unwrap();
        assert_eq!(state(&mut tx, open).await, Record::Open, "a newer one took its place long ago");
        renewals::revoked(&mut tx, &pin, at(3)).await.unwrap();
        assert_eq!(state(&mut tx, open).await, Record::Void);
        let row = renewals::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.state, row.due_at), (State::Due, Some(at(3))), "that of another identity begins again");
        renewals::save(&mut tx, &renewal(id, pin.fingerprint), at(4)).await.unwrap();
        renewals::revoked(&mut tx, &pin, at(5)).await.unwrap();
        assert_eq!(renewals::get(&mut tx, id).await.unwrap().unwrap().state, State::Done);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_10_what_was_to_renew_ends_with_the_enrollment_or_with_a_newer_one() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let (open, issued) = (record(&mut tx, id, Record::Open, 1).await, record(&mut tx, id, Record::Issued, 2).await);
        let newer = record(&mut tx, id, Record::Issued, 3).await;
        let found = renewals::issued_for_key(&mut tx, id, &[9; 32]).await.unwrap().unwrap();
        assert!([issued, newer].contains(&found.id));
        assert!(renewals::issued_for_key(&mut tx, id, &[8; 32]).await.unwrap().is_none());
        assert_eq!(renewals::close_older(&mut tx, id, newer, at(2)).await.unwrap(), 2);
        assert_eq!(renewals::issued_for_key(&mut tx, id, &[9; 32]).await.unwrap().unwrap().id, newer);

        renewals::save(&mut tx, &renewal(id, Fingerprint([1; 32])), at(1)).await.unwrap();
        renewals::abandon(&mut tx, id, at(3)).await.unwrap();
        let row = renewals::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.state, row.due_at), (State::Done, None));
        let mut states = Vec::new();
        for record in [open, issued, newer] {
            states.push(issuance::get(&mut tx, record).await.unwrap().unwrap().state);
        }
        assert_eq!(states, [Record::Void, Record::Revoked, Record::Revoked]);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_11_identities_near_their_end_are_found_planned_and_shown() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let certificate = year();
        let hash = certificate.fingerprint();
        identities::bind(&mut tx, id, None, &certificate, at(1)).await.unwrap();
        let end = certificate.not_after();
        let planned = async |tx: &mut Tx, now: Timestamp| {
            let found = renewals::unplanned(tx, now, now.plus(DAY * 120), 1000).await.unwrap();
            found.into_iter().any(|unplanned| unplanned.enrollment == id && unplanned.identity == hash)
        };
        assert!(!planned(&mut tx, end.minus(DAY * 121)).await, "too early");
        assert!(planned(&mut tx, end.minus(DAY * 119)).await);
        renewals::save(&mut tx, &renewal(id, hash), at(1)).await.unwrap();
        assert!(!planned(&mut tx, end.minus(DAY * 119)).await, "it has its row");

        let late = end.minus(DAY * 20);
        let shown = async |tx: &mut Tx, filter: Filter, now: Timestamp| {
            let filter = Filter { enrollment: Some(id), ..filter };
            identities::list(tx, &filter, None, now, 10).await.unwrap()
        };
        let only = Filter { stuck: true, ..Filter::default() };
        assert!(shown(&mut tx, only, end.minus(DAY * 40)).await.is_empty());
        let stuck = shown(&mut tx, only, late).await;
        assert_eq!((stuck.len(), stuck[0].renewal_state.as_deref()), (1, Some("due")));
        let before = identities::stuck(&mut tx, late).await.unwrap();
        assert!(before > 0);

        // A successor.
        let next = {
            let mut params = CertificateParams::default();
            params.not_after = time::OffsetDateTime::from_unix_timestamp(end.plus(DAY * 300).unix_seconds()).unwrap();
            let pair = KeyPair::generate().unwrap();
            mdm_core::certificate::Certificate::from_der(params.self_signed(&pair).unwrap().der()).unwrap()
        };
        identities::bind(&mut tx, id, None, &next, at(2)).await.unwrap();
        assert_eq!(identities::stuck(&mut tx, late).await.unwrap(), before, "the device may go back to the old one");
        let all = shown(&mut tx, Filter::default(), late).await;
        assert_eq!(all.len(), 2);
        let after = Some((Timestamp(all[0].not_after), hash));
        let filter = Filter { enrollment: Some(id), ..Filter::default() };
        assert_eq!(identities::list(&mut tx, &filter, after, late, 10).await.unwrap().len(), 1);
        let state = |state| Filter { state: Some(state), ..Filter::default() };
        assert_eq!(shown(&mut tx, state(Standing::Live), late).await.len(), 2);
        assert_eq!(shown(&mut tx, state(Standing::Expired), end.plus(DAY)).await.len(), 1);
        let ends = Filter { ends_before: Some(end.plus(DAY)), ..Filter::default() };
        assert_eq!(shown(&mut tx, ends, late).await.len(), 1);
        identities::revoke(&mut tx, hash, at(3)).await.unwrap();
        assert_eq!(shown(&mut tx, state(Standing::Revoked), late).await.len(), 1);
        assert_eq!(identities::stuck(&mut tx, late).await.unwrap(), before - 1);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_35_revoked_certificates_are_listed_until_their_end() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let one = record(&mut tx, id, Record::Issued, 1).await;
        let issued = issuance::get(&mut tx, one).await.unwrap().unwrap();
        let serial = issued.cert_serial.unwrap();
        let end = issued.cert_not_after.unwrap();
        let listed = async |tx: &mut Tx, now| {
            identities::revoked_serials(tx, now).await.unwrap().into_iter().any(|row| row.serial == serial)
        };
        assert!(!listed(&mut tx, at(5)).await);
        issuance::revoke(&mut tx, one, at(6)).await.unwrap();
        assert!(listed(&mut tx, at(7)).await);
        assert!(!listed(&mut tx, end).await);
        tx.commit().await.unwrap();
    })
    .await;
}
