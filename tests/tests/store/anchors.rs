use mdm_core::ids::{EnrollmentId, Fingerprint};
use store::anchors;
use store::enrollments::Entered;

use super::{authenticated, enrolled, twice};

fn fingerprint() -> Fingerprint {
    Fingerprint(mdm_core::random::Random::System.bytes())
}

#[tokio::test]
async fn enrollments_are_counted_by_the_anchors_they_hold() {
    twice(|store| async move {
        let (old, next) = (fingerprint(), fingerprint());
        let mut tx = store.begin().await.unwrap();
        let before = anchors::live(&mut tx).await.unwrap();
        let ids: [EnrollmentId; 3] = [enrolled(&mut tx).await, enrolled(&mut tx).await, enrolled(&mut tx).await];
        let fresh = authenticated(&mut tx).await;
        let url = "https://mdm.example.com/mdm";
        let hold = |list: &[Fingerprint]| anchors::write(list);
        for (id, list) in
            ids.iter().zip([hold(&[old]), hold(&[old]), hold(&[old, next])]).chain([(&fresh, hold(&[old]))])
        {
            let entered = Entered {
                door: mdm_core::enrollment::Door::Link,
                managed_apple_account: None,
                server_url: Some(url),
                anchors: Some(&list),
            };
            store::enrollments::entered(&mut tx, *id, &entered).await.unwrap();
        }
        assert_eq!(anchors::live(&mut tx).await.unwrap(), before + 4);
        let groups = anchors::groups(&mut tx).await.unwrap();
        let count = |list: &[Fingerprint]| {
            let found = groups.iter().find(|g| g.anchors.as_deref() == Some(list)).unwrap();
            assert_eq!(found.server_url.as_deref(), Some(url));
            found.enrollments
        };
        assert_eq!((count(&[old]), count(&[old, next])), (3, 1));

        // Who has not said TokenUpdate yet cannot be told to renew.
        let mut expected = vec![ids[0], ids[1]];
        expected.sort();
        assert_eq!(anchors::holders(&mut tx, Some(&[old]), None, 10).await.unwrap(), expected);
        assert_eq!(anchors::holders(&mut tx, Some(&[old]), Some(expected[0]), 10).await.unwrap(), expected[1..]);
        assert_eq!(anchors::holders(&mut tx, Some(&[old]), None, 1).await.unwrap(), expected[..1]);
        assert_eq!(anchors::holders(&mut tx, Some(&[next]), None, 10).await.unwrap(), []);
        let unknown = enrolled(&mut tx).await;
        assert!(anchors::holders(&mut tx, None, None, 1000).await.unwrap().contains(&unknown));

        // One that is to be unenrolled holds up nothing any more.
        let now = mdm_core::time::Timestamp(1);
        assert!(store::enrollments::request_unenroll(&mut tx, expected[0], Some(now)).await.unwrap());
        assert_eq!(anchors::holders(&mut tx, Some(&[old]), None, 10).await.unwrap(), expected[1..]);
        assert_eq!(anchors::live(&mut tx).await.unwrap(), before + 4, "one more, one less");
        let groups = anchors::groups(&mut tx).await.unwrap();
        let held = groups.iter().find(|g| g.anchors.as_deref() == Some(&[old])).unwrap();
        assert_eq!(held.enrollments, 2);
        tx.commit().await.unwrap();
    })
    .await;
}
