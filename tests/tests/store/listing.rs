use std::collections::BTreeMap;

use mdm_core::enrollment::{Channel, DeviceKey, EnrollmentKind, UserKey};
use mdm_core::ids::{EnrollmentId, Label};
use store::commands::Command;
use store::enrollments::{Claims, NewDevice};
use store::listing::{self, Commands, Enrollments};

use super::commands::{command, queued};
use super::{at, command_uuid, enrolled, key, twice, udid, word};

#[tokio::test]
async fn enrollments_are_found_by_any_mix_of_filters() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (device_key, serial) = (udid(), word("S")[..12].to_owned());
        let device = EnrollmentId(key(at(0)));
        let new = NewDevice { id: device, kind: EnrollmentKind::Device, key: &device_key };
        store::enrollments::insert_device(&mut tx, &new, at(0)).await.unwrap();
        let claims = Claims { serial_number: Some(&serial), product_name: Some("iPhone17,1"), ..Claims::default() };
        store::enrollments::authenticated(&mut tx, device, false, &claims, at(5)).await.unwrap();
        let user = EnrollmentId(key(at(1)));
        let anna = UserKey::SharedIpad("anna".parse().unwrap());
        store::enrollments::insert_user(&mut tx, user, device, EnrollmentKind::Device, &anna, at(1)).await.unwrap();
        let label: Label = word("list").parse().unwrap();
        store::labels::put(&mut tx, device, &label).await.unwrap();

        let of_device = Enrollments { serial_number: Some(serial), ..Enrollments::default() };
        let DeviceKey::Udid(device_udid) = &device_key else { unreachable!() };
        let cases = [
            (of_device.clone(), vec![user, device]),
            (Enrollments { udid: Some(device_udid.as_str().to_owned()), ..Enrollments::default() }, vec![user, device]),
            (Enrollments { channel: Some(Channel::User), ..of_device.clone() }, vec![user]),
            (Enrollments { kind: Some(EnrollmentKind::User), ..of_device.clone() }, vec![]),
            (Enrollments { state: Some("authenticated".to_owned()), ..of_device.clone() }, vec![user, device]),
            (Enrollments { state: Some("enrolled".to_owned()), ..of_device.clone() }, vec![]),
            (Enrollments { label: Some(label), ..Enrollments::default() }, vec![device]),
            (Enrollments { product_name: Some("iPhone".to_owned()), ..of_device.clone() }, vec![device]),
            (Enrollments { product_name: Some("iPad".to_owned()), ..of_device.clone() }, vec![]),
            (Enrollments { last_seen_after: Some(at(4)), ..of_device.clone() }, vec![device]),
            (Enrollments { last_seen_before: Some(at(4)), ..of_device.clone() }, vec![user]),
        ];
        for (filter, expected) in cases {
            let found = listing::enrollments(&mut tx, &filter, None, 10).await.unwrap();
            assert_eq!(found.iter().map(|e| e.id).collect::<Vec<_>>(), expected, "{filter:?}");
        }
        let older = listing::enrollments(&mut tx, &of_device, Some(user), 10).await.unwrap();
        assert_eq!(older.iter().map(|e| e.id).collect::<Vec<_>>(), [device]);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn commands_are_found_and_counted() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let (first, second) = (command_uuid(), command_uuid());
        let request_type = word("Test");
        let of = |uuid, created_at| Command { request_type: request_type.clone(), created_at, ..command(uuid) };
        queued(&mut tx, &of(&first, at(10).0), &[one, two]).await;
        queued(&mut tx, &of(&second, at(20).0), &[two]).await;
        assert_eq!(store::commands::clear(&mut tx, one, "test", at(21)).await.unwrap(), 1);

        let ours = Commands { request_type: Some(request_type.clone()), ..Commands::default() };
        let cases = [
            (ours.clone(), vec![&second, &first]),
            (Commands { enrollment: Some(one), ..ours.clone() }, vec![&first]),
            (Commands { state: Some("cancelled".to_owned()), ..ours.clone() }, vec![&first]),
            (Commands { enrollment: Some(two), state: Some("cancelled".to_owned()), ..ours.clone() }, vec![]),
        ];
        for (filter, expected) in cases {
            let found = listing::commands(&mut tx, &filter, None, 10).await.unwrap();
            let expected: Vec<_> = expected.iter().map(|uuid| uuid.as_str()).collect();
            assert_eq!(found.iter().map(|c| c.uuid.as_str()).collect::<Vec<_>>(), expected, "{filter:?}");
        }
        let next = listing::commands(&mut tx, &ours, Some((at(20), second.clone())), 10).await.unwrap();
        assert_eq!(next.iter().map(|c| c.uuid.as_str()).collect::<Vec<_>>(), [first.as_str()]);

        let uuids = [first.as_str(), second.as_str()];
        let counts = listing::counts(&mut tx, &uuids, None).await.unwrap();
        let counts: BTreeMap<_, _> =
            counts.iter().map(|c| ((c.command_uuid.as_str(), c.state.as_str()), c.targets)).collect();
        let expected = [((uuids[0], "cancelled"), 1), ((uuids[0], "queued"), 1), ((uuids[1], "queued"), 1)];
        assert_eq!(counts, BTreeMap::from(expected));
        assert_eq!(listing::counts(&mut tx, &uuids, Some(one)).await.unwrap().len(), 1);

        let waiting = listing::waiting(&mut tx, two, None, 10).await.unwrap();
        assert_eq!(waiting.iter().map(|w| w.command_uuid.as_str()).collect::<Vec<_>>(), uuids);
        assert_eq!(listing::waiting(&mut tx, two, Some(waiting[0].seq), 10).await.unwrap().len(), 1);
        assert!(listing::waiting(&mut tx, one, None, 10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}
