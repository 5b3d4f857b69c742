use store::identities;

use super::{at, certificate, enrolled, twice};

#[tokio::test]
async fn th_06_a_certificate_is_pinned_to_one_enrollment_only() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let certificate = certificate();
        assert!(identities::bind(&mut tx, one, None, &certificate, at(1)).await.unwrap());
        assert!(!identities::bind(&mut tx, two, None, &certificate, at(2)).await.unwrap());
        assert!(!identities::bind(&mut tx, one, None, &certificate, at(2)).await.unwrap());
        let found = identities::find_by_fingerprint(&mut tx, certificate.fingerprint()).await.unwrap().unwrap();
        assert_eq!((found.enrollment, found.pinned_at), (one, at(1)));
        assert_eq!(found.certificate, certificate.der());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_newer_identity_retires_the_older_ones() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let all = [certificate(), certificate(), certificate()];
        for (n, certificate) in (1..).zip(&all) {
            identities::bind(&mut tx, id, None, certificate, at(n)).await.unwrap();
        }
        let newest_first: Vec<_> =
            identities::of(&mut tx, id).await.unwrap().into_iter().map(|identity| identity.pinned_at).collect();
        assert_eq!(newest_first, [at(3), at(2), at(1)]);

        // An old message that is sent again puts out what came before it, never what came after.
        let second = identities::find_by_fingerprint(&mut tx, all[1].fingerprint()).await.unwrap().unwrap();
        assert_eq!(identities::retire_earlier(&mut tx, &second, at(4)).await.unwrap(), 1);
        let third = identities::find_by_fingerprint(&mut tx, all[2].fingerprint()).await.unwrap().unwrap();
        assert!(third.is_live());

        assert_eq!(identities::retire_others(&mut tx, id, Some(all[2].fingerprint()), at(5)).await.unwrap(), 1);
        assert_eq!(identities::retire_others(&mut tx, id, None, at(6)).await.unwrap(), 1);
        assert!(identities::of(&mut tx, id).await.unwrap().iter().all(|identity| !identity.is_live()));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_identity_is_not_renewed() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let certificate = certificate();
        let hash = certificate.fingerprint();
        identities::bind(&mut tx, id, None, &certificate, at(1)).await.unwrap();
        let ends = certificate.not_after();
        let expiring = |rows: Vec<identities::Identity>| rows.iter().any(|identity| identity.fingerprint == hash);
        let later = ends.plus(std::time::Duration::from_secs(1));
        assert!(expiring(identities::expiring(&mut tx, later, 1000).await.unwrap()));
        assert!(!expiring(identities::expiring(&mut tx, ends, 1000).await.unwrap()));
        assert!(identities::revoke(&mut tx, hash, at(2)).await.unwrap());
        assert!(!identities::revoke(&mut tx, hash, at(3)).await.unwrap());
        assert!(!expiring(identities::expiring(&mut tx, later, 1000).await.unwrap()));
        tx.commit().await.unwrap();
    })
    .await;
}
