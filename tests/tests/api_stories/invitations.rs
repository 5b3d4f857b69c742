//! Invitations in the API, on both databases.

use serde_json::json;

use crate::api_world::story;

const PATH: &str = "/api/v1/invitations";
const UNKNOWN: &str = "00000000-0000-7000-8000-000000000000";

#[tokio::test]
async fn a_code_is_shown_once_and_its_invitation_revoked() {
    story(async |world| {
        let wanted = json!({
            "managed_apple_account": "ada@Example.org", "mode": "byod", "note": "Ada's phone", "label": "pilot", "max_uses": 2,
        });
        let made = world.post(PATH, wanted).await.is(201).json();
        let code = made["code"].as_str().unwrap();
        assert_eq!(code.len(), 19);
        let shown = &made["invitation"];
        assert_eq!(shown["managed_apple_account"], "ada@example.org");
        assert_eq!((&shown["standing"], &shown["uses"], &shown["max_uses"]), (&json!("ready"), &json!(0), &json!(2)));
        let listed = world.get(PATH).await.is(200);
        assert!(!listed.text().contains(code));
        assert_eq!(listed.json()["items"][0], *shown);
        let one = format!("{PATH}/{}", shown["id"].as_str().unwrap());
        assert_eq!(world.get(&one).await.is(200).json(), *shown);
        world.delete(&one).await.is(204);
        world.delete(&one).await.is(204);
        assert_eq!(world.get(&one).await.is(200).json()["standing"], "revoked");
        let events = world.get("/api/v1/events?kind=invitation.").await.is(200);
        assert_eq!(events.json()["items"].as_array().unwrap().len(), 2, "revoked once");
        assert!(!events.text().contains(code));
        for missing in [UNKNOWN, "x"] {
            let status = world.get(&format!("{PATH}/{missing}")).await.status.as_u16();
            assert!(matches!(status, 404 | 422), "{status}");
        }
        world.delete(&format!("{PATH}/{UNKNOWN}")).await.is(404);
    })
    .await;
}

#[tokio::test]
async fn what_an_invitation_may_not_be_is_refused_by_its_field() {
    story(async |world| {
        for (body, field) in [
            (json!({ "mode": "byod" }), "managed_apple_account"),
            (json!({ "managed_apple_account": "ada", "mode": "byod" }), "managed_apple_account"),
            (json!({ "managed_apple_account": "ada@example.org" }), "mode"),
            (json!({ "managed_apple_account": "ada@example.org", "mode": "link" }), "mode"),
            (json!({ "managed_apple_account": "ada@example.org", "mode": "adde", "max_uses": 0 }), "max_uses"),
            (
                json!({ "managed_apple_account": "ada@example.org", "mode": "adde", "ttl_seconds": 2_592_001 }),
                "ttl_seconds",
            ),
            (json!({ "managed_apple_account": "ada@example.org", "mode": "adde", "code": "A" }), "code"),
        ] {
            assert_eq!(world.post(PATH, body.clone()).await.is(422).fields(), [field], "{body}");
        }
        assert_eq!(world.get(PATH).await.json()["items"], json!([]));
    })
    .await;
}
