use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use store::Tx;
use store::attestations::{self, New};

use super::{at, command_uuid, enrolled, key, twice, word};

fn verdict(enrollment: EnrollmentId, fresh_as_of: Option<Timestamp>, chain: &[u8]) -> New<'_> {
    New {
        id: key(at(0)),
        enrollment,
        source: "device_information",
        verdict: "accepted",
        identity: "matches",
        fresh_as_of,
        body: "{}",
        chain_sha256: Fingerprint::of(chain),
        chain: Some(chain),
    }
}

#[tokio::test]
async fn a_nonce_is_known_by_whom_it_was_sent_to_and_keeps_its_first_time() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, other) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let (first, second) = (word("first").into_bytes(), word("second").into_bytes());
        let (command, again) = (command_uuid(), command_uuid());
        assert_eq!(attestations::last_nonce(&mut tx, id).await.unwrap(), None);
        assert_eq!(attestations::nonce(&mut tx, &first).await.unwrap(), None);
        attestations::send(&mut tx, id, &first, &command, at(1)).await.unwrap();
        let sent = attestations::last_nonce(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((sent.nonce.as_slice(), sent.enrollment_id, sent.sent_at), (first.as_slice(), id.0, at(1).0));
        attestations::send_again(&mut tx, &first, &again).await.unwrap();
        let sent = attestations::nonce(&mut tx, &first).await.unwrap().unwrap();
        assert_eq!((sent.command_uuid.as_str(), sent.sent_at), (again.as_str(), at(1).0));
        attestations::send(&mut tx, id, &second, &command, at(2)).await.unwrap();
        assert_eq!(attestations::last_nonce(&mut tx, id).await.unwrap().unwrap().nonce, second);
        let all = attestations::nonces(&mut tx, id, 10).await.unwrap();
        assert_eq!(all.iter().map(|n| n.nonce.clone()).collect::<Vec<_>>(), [second.clone(), first.clone()]);
        assert_eq!(attestations::nonces(&mut tx, id, 1).await.unwrap().len(), 1);
        assert_eq!(attestations::last_nonce(&mut tx, other).await.unwrap(), None);
        assert_eq!(forgotten(&mut tx, at(2)).await, 1);
        assert_eq!(attestations::nonce(&mut tx, &first).await.unwrap(), None);
        assert!(attestations::nonce(&mut tx, &second).await.unwrap().is_some());
        assert_eq!(forgotten(&mut tx, at(3)).await, 1);
        tx.commit().await.unwrap();
    })
    .await;
}

async fn forgotten(tx: &mut Tx, before: Timestamp) -> u64 {
    attestations::forget_nonces(tx, before, 10).await.unwrap()
}

#[tokio::test]
async fn th_49_a_verdict_outlives_its_certificates() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        assert_eq!(attestations::latest(&mut tx, id, "device_information").await.unwrap(), None);
        attestations::insert(&mut tx, &verdict(id, Some(at(1)), b"first"), at(2)).await.unwrap();
        let refused = New { verdict: "expired", ..verdict(id, None, b"second") };
        attestations::insert(&mut tx, &refused, at(3)).await.unwrap();
        let acme = New { source: "acme", ..verdict(id, Some(at(9)), b"third") };
        attestations::insert(&mut tx, &acme, at(4)).await.unwrap();
        let latest = attestations::latest(&mut tx, id, "device_information").await.unwrap().unwrap();
        assert_eq!((latest.verdict.as_str(), latest.chain.as_deref()), ("expired", Some(&b"second"[..])));
        assert_eq!(attestations::latest(&mut tx, id, "acme").await.unwrap().unwrap().fresh_as_of, Some(at(9).0));
        assert_eq!(attestations::answered_at(&mut tx, id, at(1)).await.unwrap(), Some(at(2)));
        for other in [at(2), at(9)] {
            assert_eq!(attestations::answered_at(&mut tx, id, other).await.unwrap(), None);
        }
        let page = attestations::list(&mut tx, id, None, 2).await.unwrap();
        let rest = attestations::list(&mut tx, id, Some(page[1].id), 2).await.unwrap();
        assert_eq!((page.len(), rest.len()), (2, 1));

        assert_eq!(attestations::forget_chains(&mut tx, at(2), 10).await.unwrap(), 0);
        assert_eq!(
            attestations::forget_chains(&mut tx, at(4), 1).await.unwrap(),
            1,
            "so many at most, the oldest first"
        );
        assert_eq!(attestations::forget_chains(&mut tx, at(4), 10).await.unwrap(), 1);
        let all = attestations::list(&mut tx, id, None, 10).await.unwrap();
        assert_eq!(all.iter().filter(|row| row.chain.is_some()).count(), 1);
        assert_eq!(all.iter().filter(|row| row.chain_sha256 == Fingerprint::of(b"first").0).count(), 1);
        assert_eq!(attestations::forget_verdicts(&mut tx, at(3), 10).await.unwrap(), 1);
        assert_eq!(attestations::forget_verdicts(&mut tx, at(10), 10).await.unwrap(), 2);
        assert!(attestations::list(&mut tx, id, None, 10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}
