//! The doors, and links that ask for a sign-in.

use serde_json::json;

use crate::api_world::story;

const ADE: &str = "/api/v1/enrollment-doors/ade";

#[tokio::test]
async fn a_door_is_shown_and_set_as_a_whole() {
    story(async |world| {
        let doors = world.get("/api/v1/enrollment-doors").await.is(200).json();
        let enabled = |n: usize| (doors[n]["name"].clone(), doors[n]["settings"]["enabled"].clone());
        assert_eq!((enabled(0), enabled(1)), ((json!("link"), json!(true)), (json!("ade"), json!(false))));
        assert_eq!((&doors[2]["name"], &doors[3]["name"]), (&json!("byod"), &json!("adde")));
        assert_eq!(doors[1]["revision"], 0);

        let acme = json!({ "directory_url": "https://ca.example.org/acme", "client_identifier": "serial" });
        let wish = json!({ "enabled": true, "require": "attestation", "label": "company",
            "identity": { "prefer": "acme", "acme": acme },
            "minimum_os": { "iOS": { "os_version": "18.1" } } });
        let set = world.put(ADE, wish).await.is(200).json();
        assert_eq!((&set["revision"], &set["settings"]["label"]), (&json!(1), &json!("company")));
        assert_eq!(set["settings"]["identity"]["otherwise"], "refuse");
        assert_eq!(world.get(ADE).await.is(200).json(), set);
        let events = world.get("/api/v1/events?kind=door.set").await.is(200).json();
        assert_eq!(events["items"][0]["data"]["settings"], set["settings"]);
        // What is left out has its default again.
        let set = world.put(ADE, json!({})).await.is(200).json();
        assert_eq!((&set["settings"]["enabled"], &set["settings"]["require"]), (&json!(false), &json!("approval")));
        assert_eq!(set["revision"], 2);
        world.get("/api/v1/enrollment-doors/import").await.is(404);
    })
    .await;
}

#[tokio::test]
async fn each_wrong_field_of_a_door_is_named_and_nothing_changes() {
    story(async |world| {
        for (door, wish, fields) in [
            ("ade", json!({ "enable": true }), vec!["enable"]),
            ("ade", json!({ "require": "serial" }), vec!["require"]),
            (
                "ade",
                json!({ "attempts_per_hour": 0, "set_up_minutes": 2000 }),
                vec!["attempts_per_hour", "set_up_minutes"],
            ),
            ("ade", json!({ "identity": { "prefer": "acme" } }), vec!["identity.acme"]),
            (
                "ade",
                json!({ "identity": { "acme": { "directory_url": "http://a.b", "key_size": 100 } } }),
                vec!["identity.acme.directory_url", "identity.acme.key_size"],
            ),
            ("ade", json!({ "identity": { "acme": {} } }), vec!["identity.acme.directory_url"]),
            ("byod", json!({ "sign_in": true, "account": { "scope": "" } }), vec!["sign_in", "account.scope"]),
            ("link", json!({ "account": { "client_id": "x" } }), vec!["account"]),
        ] {
            let answer = world.put(&format!("/api/v1/enrollment-doors/{door}"), wish.clone()).await.is(422);
            assert_eq!(answer.fields(), fields, "{wish}");
        }
        assert_eq!(world.get(ADE).await.is(200).json()["revision"], 0);
        let link = json!({ "sign_in": true });
        let made = world.post("/api/v1/enrollment-links", link).await.is(201).json();
        assert_eq!(made["enrollment_link"]["sign_in"], true);
    })
    .await;
}
