//! `/api/v1/account-tokens`: what devices of account-driven enrollment show, listed and revoked by operators.

use http::Method;
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use serde_json::json;
use store::account_tokens::Row;

use crate::api_world::{START, World, story};

/// A token that a device has, bound to its enrollment.
async fn token(world: &World, account: &str, enrollment: Option<EnrollmentId>) -> String {
    world.clock.advance(std::time::Duration::from_secs(1));
    let now = world.clock.now();
    let row = Row {
        id: Random::System.uuid_v7(now),
        sha256: Random::System.bytes::<32>().to_vec(),
        refresh_sha256: None,
        code_sha256: None,
        code_expires_at: None,
        code_challenge: None,
        redirect_uri: None,
        method: "apple-as-web".to_owned(),
        mode: "byod".to_owned(),
        managed_apple_account: account.to_owned(),
        label: None,
        sign_in_id: None,
        enrollment_id: enrollment.map(|id| id.0),
        state: "live".to_owned(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: START.0,
    };
    let mut tx = world.store().begin().await.unwrap();
    store::account_tokens::insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    row.id.to_string()
}

#[tokio::test]
async fn account_tokens_are_listed_and_revoked() {
    story(async |world| {
        let enrollment = world.enroll(1).await;
        let first = token(&world, "ada@example.org", Some(enrollment)).await;
        let second = token(&world, "ada@example.org", None).await;
        let other = token(&world, "bob@example.org", None).await;

        let ids = async |query: &str| -> Vec<String> {
            let answer = world.get(&format!("/api/v1/account-tokens{query}")).await.is(200).json();
            let items = answer["items"].as_array().unwrap();
            assert!(items.iter().all(|item| item.as_object().unwrap().keys().all(|key| !key.contains("sha256"))));
            items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ids("").await, [&*other, &*second, &*first]);
        assert_eq!(ids("?managed_apple_account=ADA%40example.org").await, [&*second, &*first]);
        assert_eq!(ids(&format!("?enrollment_id={}", enrollment.0)).await, [&*first]);
        let page = world.get("/api/v1/account-tokens?limit=2").await.is(200).json();
        assert_eq!(ids(&format!("?cursor={}", page["next_cursor"].as_str().unwrap())).await, [&*first]);

        // One, twice over; and one that there never was.
        world.delete(&format!("/api/v1/account-tokens/{first}")).await.is(204);
        world.delete(&format!("/api/v1/account-tokens/{first}")).await.is(204);
        world.delete("/api/v1/account-tokens/01935000-0000-7000-8000-000000000000").await.is(404);
        let shown = world.get(&format!("/api/v1/account-tokens?enrollment_id={}", enrollment.0)).await.is(200).json();
        assert_eq!(shown["items"][0]["state"], "revoked");

        // All of one person.
        let whose = json!({ "managed_apple_account": "Ada@Example.org" });
        let done = world.post("/api/v1/account-tokens/revoke", whose.clone()).await.is(200).json();
        assert_eq!(done["revoked"], 1, "one was revoked before");
        assert_eq!(world.post("/api/v1/account-tokens/revoke", whose).await.is(200).json()["revoked"], 0);
        world.post("/api/v1/account-tokens/revoke", json!({ "managed_apple_account": " " })).await.is(422);
        let left = world.get("/api/v1/account-tokens?managed_apple_account=bob%40example.org").await.is(200).json();
        assert_eq!(left["items"][0]["state"], "live");
        let events = world.get("/api/v1/events?kind=account.").await.is(200).json();
        assert_eq!(events["items"].as_array().unwrap().len(), 2, "each deed once");

        // Reading them is not revoking them.
        let reader = world.token(&[api::Scope::EnrollmentsRead]).await;
        world.call(&reader, Method::GET, "/api/v1/account-tokens", None).await.is(200);
        world.call(&reader, Method::DELETE, &format!("/api/v1/account-tokens/{other}"), None).await.is(403);
    })
    .await;
}
