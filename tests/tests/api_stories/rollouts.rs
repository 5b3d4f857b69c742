//! Rollouts and reports in the API, on both databases.

use serde_json::json;

use crate::api_world::story;

const PATH: &str = "/api/v1/acme-policies/wifi";

fn policy(rollout: &serde_json::Value) -> serde_json::Value {
    json!({
        "directory_url": "https://ca.example.com/acme/mdm/directory", "client_identifier": "{serial}",
        "subject": [[["CN", "{serial}"]]], "rollout": rollout,
    })
}

#[tokio::test]
async fn a_rollout_is_shown_paused_resumed_and_rolled_back() {
    story(async |world| {
        let plan = json!({"steps": [{"label": "pilot", "wait_minutes": 60}, {"percent": 100}]});
        world.put(PATH, policy(&plan)).await.is(201);
        let none = world.get(&format!("{PATH}/rollout")).await.is(404);
        assert!(none.text().contains("was never assigned"), "{}", none.text());
        world.post(&format!("{PATH}/rollout/pause"), json!({})).await.is(404);
        world.get("/api/v1/acme-policies/none/rollout").await.is(404);

        world.enroll(1).await;
        world.put(&format!("{PATH}/assignments"), json!({"all": true})).await.is(202);
        let shown = world.get(&format!("{PATH}/rollout")).await.is(200).json();
        assert_eq!((&shown["state"], &shown["step"], &shown["revision"]), (&json!("running"), &json!(1), &json!(1)));
        assert_eq!(shown["steps"][0]["label"], "pilot");
        assert_eq!((&shown["steps"][1]["percent"], &shown["steps"][1]["standing"]), (&json!(100), &json!("to_come")));
        assert_eq!(shown["failures_borne"], 0);
        assert_eq!(shown["history"][0]["kind"], "rollout.begun");

        let wrong = world.post(&format!("{PATH}/rollout/pause"), json!({"why": "x".repeat(501)})).await.is(422);
        assert_eq!(wrong.fields(), ["why"]);
        assert_eq!(
            world.post(&format!("{PATH}/rollout/pause"), json!({"because": ""})).await.is(422).fields(),
            ["because"]
        );
        assert_eq!(world.post(&format!("{PATH}/rollout/resume"), json!({})).await.is(409).slug(), "conflict");
        let paused = world.post(&format!("{PATH}/rollout/pause"), json!({"why": "a holiday"})).await.is(200).json();
        assert_eq!((&paused["state"], &paused["why"]), (&json!("paused"), &json!("a holiday")));
        assert_eq!(world.post(&format!("{PATH}/rollout/pause"), json!({})).await.is(409).slug(), "conflict");
        let resumed = world.post(&format!("{PATH}/rollout/resume"), json!({})).await.is(200).json();
        assert_eq!((&resumed["state"], &resumed["why"]), (&json!("running"), &json!(null)));
        let back = world.post(&format!("{PATH}/rollout/rollback"), json!({})).await.is(200).json();
        assert_eq!(back["state"], "rolled_back");
        let events = world.get("/api/v1/events?kind=rollout.").await.is(200).json();
        let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["rollout.rolled_back", "rollout.resumed", "rollout.paused", "rollout.begun"]);
        assert!(events["items"][0]["actor"].as_str().unwrap().starts_with("token:"));

        let reads = world.token(&[api::Scope::PoliciesRead]).await;
        let call = async |method, end: &str| {
            world.call(&reads, method, &format!("{PATH}/{end}"), Some(json!({}))).await.status.as_u16()
        };
        assert_eq!(call(http::Method::GET, "rollout").await, 200);
        for end in ["rollout/pause", "rollout/resume", "rollout/rollback"] {
            assert_eq!(call(http::Method::POST, end).await, 403, "{end}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_cannot_be_followed_is_refused_field_by_field() {
    story(async |world| {
        for (rollout, field) in [
            (json!({"steps": []}), "rollout.steps"),
            (json!({"steps": [{"percent": 10}]}), "rollout.steps"),
            (json!({"steps": [{"percent": 10, "label": "a"}, {"percent": 100}]}), "rollout.steps.0.percent"),
            (json!({"steps": [{"percent": 60}, {"percent": 50}, {"percent": 100}]}), "rollout.steps.1.percent"),
            (json!({"steps": [{"percent": 100}], "verified_percent": 101}), "rollout.verified_percent"),
        ] {
            assert_eq!(world.put(PATH, policy(&rollout)).await.is(422).fields(), [field], "{rollout}");
        }
        assert_eq!(world.put(PATH, policy(&json!({"waves": 3}))).await.is(422).fields(), ["rollout"]);
        world.get(PATH).await.is(404);
    })
    .await;
}

#[tokio::test]
async fn a_report_counts_a_policy_from_its_devices_to_its_certificates() {
    story(async |world| {
        world.put(PATH, policy(&json!(null))).await.is(201);
        let empty = world.get(&format!("{PATH}/report")).await.is(200).json();
        assert_eq!((&empty["total"], &empty["states"], &empty["rollout"]), (&json!(0), &json!([]), &json!(null)));
        assert_eq!(empty["authority"], "https://ca.example.com/acme/mdm/directory");
        world.enroll(1).await;
        world.enroll(2).await;
        world.put(&format!("{PATH}/assignments"), json!({"all": true})).await.is(202);
        let ctx = &world.shared.policy;
        while policy::reconcile::run_once(world.store(), ctx, world.clock.now(), 100).await.unwrap() > 0 {}
        let report = world.get(&format!("{PATH}/report")).await.is(200).json();
        assert_eq!((&report["total"], &report["policy"], &report["revision"]), (&json!(2), &json!("wifi"), &json!(1)));
        let states = report["states"].as_array().unwrap();
        assert_eq!(states.iter().map(|s| s["count"].as_i64().unwrap()).sum::<i64>(), 2);
        assert!(states.iter().all(|s| s["state"].is_string() && s["silicon"].is_string()), "{report}");
        world.get("/api/v1/acme-policies/none/report").await.is(404);
    })
    .await;
}

#[tokio::test]
async fn who_is_the_victim_of_a_deadlock_is_run_again() {
    story(async |world| {
        if world.shared.store.dialect() == store::Dialect::Sqlite {
            return;
        }
        world.put(PATH, policy(&json!({"steps": [{"percent": 100}]}))).await.is(201);
        let device = world.enroll(1).await;
        world.put(&format!("{PATH}/assignments"), json!({"all": true})).await.is(202);
        let store = &world.shared.store;
        let now = world.clock.now();
        let mut tx = store.begin().await.unwrap();
        let id = store::policies::by_name(&mut tx, "wifi").await.unwrap().unwrap().id();
        let assignment = mdm_core::ids::AssignmentId(device.0);
        let new = store::assignments::New { id: assignment, policy: id, enrollment: device, ring: 0 };
        store::assignments::insert_many(&mut tx, &[new], now).await.unwrap();
        tx.commit().await.unwrap();

        // The deletion holds the policy and waits for the assignment; who holds that goes on to the policy.
        let mut tx = store.begin().await.unwrap();
        store::assignments::due(&mut tx, assignment, now).await.unwrap();
        let other = async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            store::scopes::begin_walk(&mut tx, id, now).await.unwrap();
            tx.commit().await.unwrap();
        };
        let (deleted, ()) = tokio::join!(world.delete(PATH), other);
        deleted.is(202);
    })
    .await;
}
