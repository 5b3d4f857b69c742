use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, UnenrolledWhy, UserKey};
use mdm_core::ids::EnrollmentId;
use store::enrollments::{self, Claims, NewDevice, Tokens};
use store::{Error, IdSet};

use super::{at, authenticated, certificate, enrolled, key, tokens, twice, udid, word};

#[tokio::test]
async fn a_device_comes_and_goes_and_comes_back() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (device, serial) = (udid(), word("C02"));
        let id = EnrollmentId(key(at(0)));
        let new = NewDevice { id, kind: EnrollmentKind::Device, key: &device };
        enrollments::insert_device(&mut tx, &new, at(0)).await.unwrap();
        let claims = Claims {
            topic: "com.apple.mgmt.External.a",
            serial_number: Some(&serial),
            product_name: Some("iPhone17,1"),
            os_version: Some("18.1"),
            raw: b"<plist/>",
            ..Claims::default()
        };
        enrollments::authenticated(&mut tx, id, false, &claims, at(1)).await.unwrap();
        enrollments::lock(&mut tx, id).await.unwrap();
        enrollments::lock_many(&mut tx, &IdSet::new(&[id])).await.unwrap();
        let row = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(row.state, EnrollmentState::Authenticated { at: at(1) });
        assert_eq!((row.generation, row.serial_number.as_deref()), (1, Some(serial.as_str())));
        assert_eq!(row.device_key.as_ref(), Some(&device));
        assert_eq!(enrollments::live_device(&mut tx, &device).await.unwrap().unwrap().id, id);
        for sent in [serial.clone(), serial.to_uppercase(), serial.to_lowercase()] {
            let live = enrollments::live_serial(&mut tx, &sent).await.unwrap();
            assert!(live.is_none_or(|live| live.id == id));
        }
        assert_eq!(enrollments::live_serial(&mut tx, &serial).await.unwrap().unwrap().id, id);

        let state = EnrollmentState::Enrolled { since: at(2) };
        let first = Tokens { unlock_token_sealed: Some(b"unlock"), awaiting_configuration: true, ..tokens() };
        enrollments::token_update(&mut tx, id, state, &first, at(2)).await.unwrap();
        // A later TokenUpdate without an UnlockToken keeps the one that is there.
        enrollments::token_update(&mut tx, id, state, &tokens(), at(3)).await.unwrap();
        let row = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.enrolled_at, row.token_at), (Some(at(2)), Some(at(3))));
        assert!(!row.awaiting_configuration);

        // A repeated Authenticate of a renewal says what is new, and leaves the rest.
        let renewed = Claims { os_version: Some("18.2"), raw: b"<plist/>", ..Claims::default() };
        enrollments::claimed(&mut tx, id, &renewed, at(4)).await.unwrap();
        let row = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.os_version.as_deref(), row.product_name.as_deref()), (Some("18.2"), Some("iPhone17,1")));
        assert_eq!(row.state, state);

        enrollments::set_bootstrap_token(&mut tx, id, Some(b"bootstrap"), Some(at(5))).await.unwrap();
        let (sealed, signed) = enrollments::bootstrap_token(&mut tx, id).await.unwrap();
        assert_eq!((sealed.as_deref(), signed), (Some(&b"bootstrap"[..]), Some(at(5))));

        assert!(enrollments::request_unenroll(&mut tx, id, Some(at(6))).await.unwrap());
        assert!(!enrollments::request_unenroll(&mut tx, EnrollmentId(key(at(0))), None).await.unwrap());
        let over = EnrollmentState::Unenrolled { at: at(7), why: UnenrolledWhy::CheckOut };
        enrollments::end(&mut tx, id, over).await.unwrap();
        assert!(enrollments::live_device(&mut tx, &device).await.unwrap().is_none());
        assert!(enrollments::live_serial(&mut tx, &serial).await.unwrap().is_none());
        assert_eq!(enrollments::newest_device(&mut tx, &device).await.unwrap().unwrap().state, over);

        // It comes back: the next generation, with nothing of the old one but an archive.
        enrollments::archive_escrow(&mut tx, id, [key(at(8)), key(at(8))], at(8)).await.unwrap();
        enrollments::authenticated(&mut tx, id, true, &claims, at(8)).await.unwrap();
        let row = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((row.generation, row.unenroll_requested_at, row.token_at), (2, None, None));
        assert_eq!(enrollments::bootstrap_token(&mut tx, id).await.unwrap(), (None, None));
        let archived = enrollments::archived_escrow(&mut tx, id).await.unwrap();
        let archived: Vec<_> = archived.iter().map(|a| (a.generation, a.kind.as_str(), a.sealed.as_slice())).collect();
        assert_eq!(archived, [(1, "bootstrap_token", &b"bootstrap"[..]), (1, "unlock_token", &b"unlock"[..])]);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn users_belong_to_their_device() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (device, other) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let keys = [
            UserKey::UserId("564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60".parse().unwrap()),
            UserKey::SharedIpad("anna".parse().unwrap()),
        ];
        for user in &keys {
            let id = EnrollmentId(key(at(1)));
            enrollments::insert_user(&mut tx, id, device, EnrollmentKind::Device, user, at(1)).await.unwrap();
            let row = enrollments::live_user(&mut tx, device, user).await.unwrap().unwrap();
            assert_eq!((row.id, row.parent, row.user_key.as_ref()), (id, Some(device), Some(user)));
            assert!(enrollments::live_user(&mut tx, other, user).await.unwrap().is_none());
        }
        assert_eq!(enrollments::users_of(&mut tx, device).await.unwrap().len(), 2);
        assert!(enrollments::users_of(&mut tx, other).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn th_04_a_device_is_live_once_and_its_two_kinds_of_key_are_apart() {
    twice(|store| async move {
        let text = uuid::Uuid::from_u128(mdm_core::random::Random::System.below(u64::MAX).into()).to_string();
        let by_udid = DeviceKey::Udid(text.parse().unwrap());
        let by_enrollment_id = DeviceKey::EnrollmentId(text.parse().unwrap());
        let mut tx = store.begin().await.unwrap();
        for (device, kind) in [(&by_udid, EnrollmentKind::Device), (&by_enrollment_id, EnrollmentKind::User)] {
            let new = NewDevice { id: EnrollmentId(key(at(0))), kind, key: device };
            enrollments::insert_device(&mut tx, &new, at(0)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let again = NewDevice { id: EnrollmentId(key(at(1))), kind: EnrollmentKind::Device, key: &by_udid };
        let refused = enrollments::insert_device(&mut tx, &again, at(1)).await.unwrap_err();
        assert!(matches!(refused, Error::Duplicate(_)), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn one_glance_tells_who_speaks_and_whether_anything_waits() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let device = enrolled(&mut tx).await;
        let user = UserKey::UserId("564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60".parse().unwrap());
        let shared = UserKey::SharedIpad("anna".parse().unwrap());
        let mut users = Vec::new();
        for who in [&user, &shared] {
            let id = EnrollmentId(key(at(1)));
            enrollments::insert_user(&mut tx, id, device, EnrollmentKind::Device, who, at(1)).await.unwrap();
            users.push(id);
        }
        let certificate = certificate();
        let hash = certificate.fingerprint();
        assert!(enrollments::glance(&mut tx, hash, None).await.unwrap().is_none());
        assert!(store::identities::bind(&mut tx, device, None, &certificate, at(2)).await.unwrap());

        let seen = enrollments::glance(&mut tx, hash, None).await.unwrap().unwrap();
        assert_eq!((seen.id, seen.device_id, seen.has_work), (device, device, false));
        assert_eq!((seen.retired, seen.revoked, seen.unenroll_requested), (false, false, false));
        assert!(!seen.supersedes);
        for (who, id) in [&user, &shared].into_iter().zip(&users) {
            let seen = enrollments::glance(&mut tx, hash, Some(who)).await.unwrap().unwrap();
            assert_eq!((seen.id, seen.device_id), (*id, device));
        }
        store::push::due(&mut tx, device, at(3)).await.unwrap();
        assert!(enrollments::glance(&mut tx, hash, None).await.unwrap().unwrap().has_work);
        assert!(!enrollments::glance(&mut tx, hash, Some(&user)).await.unwrap().unwrap().has_work);
        let newer = super::certificate();
        assert!(store::identities::bind(&mut tx, device, None, &newer, at(4)).await.unwrap());
        assert!(!enrollments::glance(&mut tx, hash, None).await.unwrap().unwrap().supersedes);
        let seen = enrollments::glance(&mut tx, newer.fingerprint(), Some(&user)).await.unwrap().unwrap();
        assert!(seen.supersedes && seen.has_work);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn last_seen_never_goes_back() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (enrolled(&mut tx).await, authenticated(&mut tx).await);
        enrollments::touch(&mut tx, &[(one, at(10)), (two, at(11))]).await.unwrap();
        enrollments::touch(&mut tx, &[(one, at(5)), (two, at(12))]).await.unwrap();
        assert_eq!(enrollments::get(&mut tx, one).await.unwrap().unwrap().last_seen_at, Some(at(10)));
        assert_eq!(enrollments::get(&mut tx, two).await.unwrap().unwrap().last_seen_at, Some(at(12)));
        let over = EnrollmentState::Unenrolled { at: at(13), why: UnenrolledWhy::Removed };
        enrollments::set_state(&mut tx, two, over).await.unwrap();
        assert_eq!(enrollments::get(&mut tx, two).await.unwrap().unwrap().state, over);
        tx.commit().await.unwrap();
    })
    .await;
}
