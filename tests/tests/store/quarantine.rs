use std::time::Duration;

use mdm_core::enrollment::DeviceKey;
use mdm_core::ids::Fingerprint;
use store::quarantine::{self, New};

use super::{at, authenticated, certificate, key, twice, udid};

fn new<'a>(certificate: (&'a [u8], Fingerprint), device: &'a DeviceKey) -> New<'a> {
    New {
        id: key(at(0)),
        certificate,
        device,
        serial_number: Some("SERIAL1"),
        product_name: Some("iPhone17,2"),
        os_version: Some("26.1"),
        reason: "device_already_enrolled",
        enrollment: None,
        issuance: None,
    }
}

#[tokio::test]
async fn a_claim_is_kept_once_and_decided_on() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let enrollment = authenticated(&mut tx).await;
        let (certificate, device) = (certificate(), udid());
        let fingerprint = certificate.fingerprint();
        let claim = New { enrollment: Some(enrollment), ..new((certificate.der(), fingerprint), &device) };
        let before = quarantine::waiting(&mut tx).await.unwrap();
        assert!(!quarantine::seen_again(&mut tx, fingerprint, at(0)).await.unwrap());
        assert!(quarantine::insert(&mut tx, &claim, at(0)).await.unwrap());
        assert!(!quarantine::insert(&mut tx, &New { id: key(at(1)), ..claim }, at(1)).await.unwrap());
        assert!(quarantine::seen_again(&mut tx, fingerprint, at(2)).await.unwrap());
        assert_eq!(quarantine::waiting(&mut tx).await.unwrap(), before + 1);
        let row = quarantine::of_certificate(&mut tx, fingerprint).await.unwrap().unwrap();
        assert_eq!(quarantine::get(&mut tx, row.id).await.unwrap().as_ref(), Some(&row));
        assert_eq!((row.times, row.first_at, row.last_at), (2, at(0).0, at(2).0));
        assert_eq!((row.state.as_str(), row.enrollment_id), ("waiting", Some(enrollment.0)));
        let id = row.id;

        assert!(quarantine::approvals(&mut tx, &device, at(3)).await.unwrap().is_empty());
        assert!(quarantine::approve(&mut tx, id, "token:a", at(100), at(3)).await.unwrap());
        assert!(
            quarantine::approve(&mut tx, id, "token:a", at(90), at(4)).await.unwrap(),
            "once more, with another end"
        );
        let approvals = quarantine::approvals(&mut tx, &device, at(89)).await.unwrap();
        assert_eq!(approvals.iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
        assert!(quarantine::approvals(&mut tx, &device, at(90)).await.unwrap().is_empty());
        let other = DeviceKey::EnrollmentId(key(at(0)).to_string().parse().unwrap());
        assert!(quarantine::approvals(&mut tx, &other, at(50)).await.unwrap().is_empty());
        assert!(quarantine::mark_used(&mut tx, id, enrollment).await.unwrap());
        assert!(!quarantine::mark_used(&mut tx, id, enrollment).await.unwrap());
        assert!(!quarantine::approve(&mut tx, id, "token:a", at(100), at(5)).await.unwrap());
        assert!(!quarantine::refuse(&mut tx, id, "token:a", at(5)).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_waits_is_listed_refused_and_forgotten() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let device = udid();
        let mut ids = Vec::new();
        for n in 0..3 {
            let certificate = certificate();
            let claim = New { id: key(at(n)), ..new((certificate.der(), certificate.fingerprint()), &device) };
            assert!(quarantine::insert(&mut tx, &claim, at(-1000 + n)).await.unwrap());
            ids.push(claim.id);
        }
        ids.sort_unstable();
        assert!(quarantine::refuse(&mut tx, ids[0], "token:a", at(5)).await.unwrap());
        assert!(quarantine::refuse(&mut tx, ids[0], "token:a", at(6)).await.unwrap());
        assert!(!quarantine::approve(&mut tx, ids[0], "token:a", at(100), at(7)).await.unwrap(), "for good");
        let of = |rows: Vec<quarantine::Row>| {
            rows.into_iter().map(|row| row.id).filter(|id| ids.contains(id)).collect::<Vec<_>>()
        };
        assert_eq!(of(quarantine::list(&mut tx, None, None, 1000).await.unwrap()), [ids[2], ids[1], ids[0]]);
        assert_eq!(of(quarantine::list(&mut tx, Some("waiting"), None, 1000).await.unwrap()), [ids[2], ids[1]]);
        assert_eq!(of(quarantine::list(&mut tx, Some("waiting"), Some(ids[2]), 1).await.unwrap()), [ids[1]]);
        let since = at(-1000).plus(Duration::from_secs(2));
        assert!(quarantine::forget(&mut tx, since).await.unwrap() >= 1);
        assert!(quarantine::get(&mut tx, ids[0]).await.unwrap().is_some(), "what was decided stays");
        quarantine::forget(&mut tx, at(0)).await.unwrap();
        assert!(of(quarantine::list(&mut tx, Some("waiting"), None, 1000).await.unwrap()).is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}
