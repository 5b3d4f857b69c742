//! Which device it is: that was settled when it enrolled, and no later word of its own changes it.

use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::EnrollmentId;
use mdm_core::plist::{Dictionary, Value};
use mdm_core::report::Status;
use mdm_tests::on_both;
use policy::facts::FactName;
use serde_json::{Value as Json, json};
use store::events::Filter;

use super::device::{Device, device, text};
use super::world::{DAY, HOUR, World};

/// The answers of a device that gives itself these names.
fn claiming(device: Device, claims: &[(&str, &str)]) -> Dictionary {
    let mut body = device.answers();
    if let Some(Value::Dictionary(responses)) = body.get_mut("QueryResponses") {
        for (key, value) in claims {
            responses.insert((*key).into(), (*value).into());
        }
    }
    body
}

async fn known(w: &World, id: EnrollmentId, name: FactName) -> Option<String> {
    let mut tx = w.store.read().await.unwrap();
    let enrollment = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
    policy::facts_of(&mut tx, &enrollment).await.unwrap().text(name).map(str::to_owned)
}

/// What was told of claims that differ, oldest first.
async fn told(w: &World, id: EnrollmentId) -> Vec<Json> {
    let mut tx = w.store.read().await.unwrap();
    let filter = Filter { enrollment: Some(id), kind: Some("facts.identity_differs".to_owned()) };
    let events = store::events::since(&mut tx, &filter, 0, 100).await.unwrap();
    events.iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect()
}

#[tokio::test]
async fn th_39_a_device_stays_who_it_enrolled_as_whatever_it_says_later() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let mac = device(1, "Mac14,2", "14.6");
        let udid = "00008110-0000000000000001";
        let id = w.enroll(mac).await;
        let lie = claiming(
            mac,
            &[("SerialNumber", "VICTIM"), ("UDID", "00008110-00000000000000FF"), ("ProvisioningUDID", "P1")],
        );
        let asked = w.idle(id).await.unwrap();
        let sent = w.poll(id, Status::Acknowledged, Some(&asked), lie.clone()).await.expect("the profile");
        assert_eq!(text(&sent.acme().1, "ClientIdentifier"), "SERIAL1");
        for (name, expected) in
            [(FactName::SerialNumber, "SERIAL1"), (FactName::Udid, udid), (FactName::ProvisioningUdid, "P1")]
        {
            assert_eq!(known(&w, id, name).await.as_deref(), Some(expected));
        }
        assert_eq!(told(&w, id).await, [json!({"facts": ["serial_number", "udid"]})]);

        // It is told once; and what only DeviceInformation says stays what it said first.
        let list = w.install(id, &sent).await.expect("asked for the certificate");
        w.show_certificates(id, &list).await;
        w.clock.advance(DAY + HOUR);
        w.revise(policy, json!({"display_name": "Wi-Fi"})).await;
        w.reconcile().await;
        let asked = w.idle(id).await.unwrap();
        let lie = claiming(mac, &[("SerialNumber", "VICTIM"), ("ProvisioningUDID", "P2")]);
        w.poll(id, Status::Acknowledged, Some(&asked), lie).await;
        assert_eq!(known(&w, id, FactName::ProvisioningUdid).await.as_deref(), Some("P1"));
        assert_eq!(told(&w, id).await[1..], [json!({"facts": ["provisioning_udid"]})]);
    })
    .await;
}

#[tokio::test]
async fn th_39_a_user_channel_teaches_nothing_about_which_device_it_is() {
    on_both(|store| async move {
        let w = World::new(store);
        w.policy_for_all(json!({
            "channel": "user", "client_identifier": "{random}", "subject": [[["CN", "{serial}"]]], "ca_accepts_unattested": true,
        })).await;
        let mac = device(1, "Mac14,2", "14.6");
        let id = w.enroll(mac).await;
        let user = w.enroll_user(id, EnrollmentKind::Device, 1).await;
        let asked = w.idle(user).await.expect("asked what it is");
        let lie = claiming(mac, &[("SerialNumber", "VICTIM"), ("UDID", "V"), ("ProvisioningUDID", "P9")]);
        let sent = w.poll(user, Status::Acknowledged, Some(&asked), lie).await.expect("the profile");
        assert_eq!(sent.request_type, "InstallProfile");
        assert_eq!(known(&w, user, FactName::SerialNumber).await.as_deref(), Some("SERIAL1"));
        assert_eq!(known(&w, user, FactName::ProvisioningUdid).await, None);
        assert!(told(&w, user).await.is_empty());
    })
    .await;
}
