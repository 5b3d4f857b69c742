//! `/api/v1/enrollments/{id}/attestations`: what operators read of attestations.

use std::time::Duration;

use mdm_core::ids::Fingerprint;
use mdm_core::random::Random;
use serde_json::{Value as Json, json};
use store::attestations::{self, New};

use crate::UNKNOWN;
use crate::api_world::story;

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn attestations_are_shown_with_whose_they_are_and_how_fresh_and_without_their_certificates() {
    story(async |world| {
        let id = world.enroll(1).await;
        let path = format!("/api/v1/enrollments/{}/attestations", id.0);
        assert_eq!(world.get(&path).await.is(200).json(), json!({"items": []}));

        let now = world.clock.now();
        let values = json!({"serial_number_attested": true, "udid_attested": false, "os_version": "17.5"});
        let (body, chain) = (values.to_string(), b"the certificates of SERIAL1".as_slice());
        let mut tx = world.store().begin().await.unwrap();
        let command = Random::System.uuid_v4().to_string().parse().unwrap();
        attestations::send(&mut tx, id, &[7; 32], &command, now).await.unwrap();
        for (n, (verdict, identity, fresh_as_of)) in
            [("accepted", "matches", Some(now)), ("serial_mismatch", "mismatch", None)].into_iter().enumerate()
        {
            let at = now.plus(Duration::from_secs(n as u64));
            let new = New {
                id: Random::System.uuid_v7(at),
                enrollment: id,
                source: "device_information",
                verdict,
                identity,
                fresh_as_of,
                body: if n == 0 { &body } else { "{}" },
                chain_sha256: Fingerprint::of(chain),
                chain: (n == 0).then_some(chain),
            };
            attestations::insert(&mut tx, &new, at).await.unwrap();
        }
        tx.commit().await.unwrap();

        let shown = world.get(&path).await.is(200);
        assert!(!shown.text().contains("SERIAL1"), "th_49: {}", shown.text());
        let shown = shown.json();
        assert_eq!(shown["nonce_sent_at"], json!(now.to_rfc3339()));
        let next = mdm_core::time::Timestamp::from_rfc3339(shown["next_nonce_from"].as_str().unwrap()).unwrap();
        assert!(next >= now.plus(DAY * 7) && next <= now.plus(DAY * 15 / 2), "{next}");
        let [refused, accepted] = shown["items"].as_array().unwrap().as_slice() else { panic!("{shown}") };
        assert_eq!((&refused["verdict"], &refused["identity"]), (&json!("serial_mismatch"), &json!("mismatch")));
        assert_eq!((&refused["fresh_as_of"], &refused["chain_kept"]), (&Json::Null, &json!(false)));
        assert_eq!((&accepted["identity"], &accepted["fresh_as_of"]), (&json!("matches"), &json!(now.to_rfc3339())));
        assert_eq!((&accepted["values"], &accepted["chain_kept"]), (&values, &json!(true)));

        let page = world.get(&format!("{path}?limit=1")).await.is(200).json();
        let rest = format!("{path}?cursor={}", page["next_cursor"].as_str().unwrap());
        assert_eq!(world.get(&rest).await.is(200).json()["items"], json!([accepted]));
        world.get(&format!("{path}?limit=0")).await.is(422);
        world.get(&format!("/api/v1/enrollments/{UNKNOWN}/attestations")).await.is(404);
    })
    .await;
}
