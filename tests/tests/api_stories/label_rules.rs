//! Scopes that leave out, and labels with a rule, in the API, on both databases.

use serde_json::json;

use crate::api_world::story;

const PATH: &str = "/api/v1/label-rules";

#[tokio::test]
async fn a_rule_is_written_shown_and_deleted() {
    story(async |world| {
        assert_eq!(world.get(PATH).await.is(200).json(), json!([]));
        world.get(&format!("{PATH}/macs")).await.is(404);
        world.delete(&format!("{PATH}/macs")).await.is(404);
        let rule = json!({"families": ["Mac"], "os": [{"platform": "macOS", "at_least": "14"}], "notes": "for Wi-Fi"});
        let made = world.put(&format!("{PATH}/macs"), rule.clone()).await.is(201).json();
        assert_eq!(made["label_rule"]["os"], json!([{"platform": "macOS", "at_least": "14.0"}]));
        assert_eq!(
            (&made["revision"], &made["in_progress"], &made["enrollments"]),
            (&json!(1), &json!(true), &json!(0))
        );
        let again = world.put(&format!("{PATH}/macs"), rule).await.is(200).json();
        assert_eq!(again["revision"], 1, "the same again changes nothing");
        let other = json!({"label": "macs", "silicon": ["supported"], "kinds": ["automated"], "doors": ["ade"]});
        let revised = world.put(&format!("{PATH}/macs"), other.clone()).await.is(200).json();
        assert_eq!((&revised["revision"], &revised["label_rule"]), (&json!(2), &other));
        assert_eq!(world.get(PATH).await.is(200).json(), json!([revised]));
        assert_eq!(world.get(&format!("{PATH}/macs")).await.is(200).json(), revised);
        world.delete(&format!("{PATH}/macs")).await.is(204);
        assert_eq!(world.get(PATH).await.is(200).json(), json!([]));
        let events = world.get("/api/v1/events?kind=label_rule.").await.is(200).json();
        assert_eq!(events["items"].as_array().unwrap().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_a_rule_may_not_say_is_refused_by_its_field() {
    story(async |world| {
        for (body, field) in [
            (json!({}), "label"),
            (json!({"label": "other", "families": ["Mac"]}), "label"),
            (json!({"family": ["Mac"]}), "family"),
            (json!({"families": ["Newton"]}), "families[0]"),
            (json!({"silicon": ["good"]}), "silicon[0]"),
            (json!({"os": [{"platform": "macOS", "at_least": "big sur"}]}), "os[0].at_least"),
            (json!({"os": [{"platform": "macOS", "at_least": "15", "below": "14"}]}), "os.0.below"),
            (json!({"product_names": ["*15"]}), "product_names"),
            (json!({"serial_numbers": [""]}), "serial_numbers"),
            (json!([]), "body"),
        ] {
            let refused = world.put(&format!("{PATH}/macs"), body.clone()).await;
            assert_eq!(refused.is(422).fields(), [field], "{body}");
        }
        let refused = world.put(&format!("{PATH}/a%20b"), json!({"families": ["Mac"]})).await;
        assert_eq!(refused.is(422).fields(), ["label"]);
        assert_eq!(world.get(PATH).await.is(200).json(), json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_label_with_a_rule_is_not_touched_by_hand() {
    story(async |world| {
        let id = world.enroll(1).await;
        let of_device = format!("/api/v1/enrollments/{id}/labels/macs");
        world.put(&of_device, json!({})).await.is(204);
        world.put(&format!("{PATH}/macs"), json!({"families": ["Mac"]})).await.is(201);
        for refused in [
            world.put(&of_device, json!({})).await,
            world.delete(&of_device).await,
            world.post("/api/v1/enrollment-links", json!({"label": "macs"})).await,
            world
                .post(
                    "/api/v1/invitations",
                    json!({"managed_apple_account": "ada@example.org", "mode": "byod", "label": "macs"}),
                )
                .await,
            world.put("/api/v1/enrollment-doors/link", json!({"label": "macs"})).await,
            world.post("/api/v1/ade-devices/label", json!({"serial_numbers": ["C02"], "label": "macs"})).await,
        ] {
            let refused = refused.is(409);
            assert_eq!(refused.slug(), "conflict");
            assert!(refused.text().contains("macs follows from its rule"), "{}", refused.text());
        }
        world.delete(&format!("{PATH}/macs")).await.is(204);
        world.delete(&of_device).await.is(204);
    })
    .await;
}

#[tokio::test]
async fn a_scope_takes_in_and_leaves_out() {
    story(async |world| {
        let (one, two) = (world.enroll(1).await, world.enroll(2).await);
        let policy = json!({
            "directory_url": "https://ca.example.com/acme/directory", "client_identifier": "{serial}",
            "subject": [[["CN", "{serial}"]]],
        });
        world.put("/api/v1/acme-policies/wifi", policy).await.is(201);
        let scope_path = "/api/v1/acme-policies/wifi/assignments";
        for (scope, field) in [
            (json!({}), "labels"),
            (json!({"exclude": {"labels": ["a"]}}), "labels"),
            (json!({"labels": ["a"], "exclude": {"labels": ["a"]}}), "exclude.labels"),
            (json!({"all": true, "exclude": {"label": ["a"]}}), "exclude.label"),
            (json!({"enrollment_ids": ["00000000-0000-7000-8000-000000000000"]}), "enrollment_ids"),
        ] {
            assert_eq!(world.put(scope_path, scope.clone()).await.is(422).fields(), [field], "{scope}");
        }
        let scope = json!({"all": true, "labels": [], "enrollment_ids": [], "exclude": {"labels": ["lab"], "enrollment_ids": [two]}});
        let change = world.put(scope_path, scope.clone()).await.is(202).json();
        assert_eq!(change, json!({"targets": 1, "assigned": 1, "leaving": 0}));
        assert_eq!(world.get("/api/v1/acme-policies/wifi").await.is(200).json()["scope"], scope);
        let tried = world.post("/api/v1/acme-policies/wifi/dry-run", json!({})).await.is(200).json();
        assert_eq!(tried["total"], 1);
        assert_eq!(tried["counts"][0]["examples"], json!([one]));
        let tried = json!({"scope": {"enrollment_ids": [one, two]}});
        let tried = world.post("/api/v1/acme-policies/wifi/dry-run", tried).await.is(200).json();
        assert_eq!(tried["total"], 2, "another scope, without its being stored");
        let wrong = json!({"scope": {"labels": ["a"], "exclude": {"labels": ["a"]}}});
        let wrong = world.post("/api/v1/acme-policies/wifi/dry-run", wrong).await;
        assert_eq!(wrong.is(422).fields(), ["scope.exclude.labels"]);
        let nowhere = json!({"policy": {"certificate_authority": "nowhere", "client_identifier": "{serial}",
            "subject": [[["CN", "{serial}"]]]}});
        let refused = world.post("/api/v1/acme-policies/wifi/dry-run", nowhere).await;
        assert_eq!(refused.is(422).fields(), ["certificate_authority"]);
        for (query, status) in
            [("state=blocked", 200), ("reason=virtual_machine&state=blocked", 200), ("state=odd", 422), ("reason=odd", 422)]
        {
            world.get(&format!("{scope_path}?{query}")).await.is(status);
        }
        let change = world.delete(scope_path).await.is(202).json();
        assert_eq!(change["targets"], 0);
    })
    .await;
}
