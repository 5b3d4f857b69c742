//! What a writer of policies may not do: install whatever he likes without the right to send commands, say a thing twice, or write
//! more than a server can look after.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value as Json, json};

use crate::api_world::{Answer, World, story};

fn policy(change: Json) -> Json {
    let mut json = json!({"directory_url": "https://ca.example/directory", "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]]});
    change.as_object().unwrap().iter().for_each(|(k, v)| json[k] = v.clone());
    json
}

fn document(policy: &Json) -> Json {
    let mut policy = policy.clone();
    policy["name"] = json!("wifi");
    json!({ "acme_policies": [policy] })
}

fn raw(server: &str) -> Json {
    json!([{"type": "raw", "name": "dns", "payload_type": "com.apple.dnsSettings.managed",
        "keys": {"DNSSettings": {"DNSProtocol": "HTTPS", "ServerURL": server}}}])
}

#[tokio::test]
async fn who_may_not_send_commands_installs_certificates_and_no_other_payload() {
    story(|world| async move {
        let writer = world.token(&[api::Scope::PoliciesWrite]).await;
        let both = world.token(&[api::Scope::PoliciesWrite, api::Scope::CommandsWrite]).await;
        let put = async |token: &str, policy: &Json| {
            world.call(token, Method::PUT, "/api/v1/acme-policies/wifi", Some(policy.clone())).await
        };
        let apply = async |token: &str, query: &str, policy: &Json| {
            world.call(token, Method::POST, &format!("/api/v1/apply{query}"), Some(document(policy))).await
        };
        let refused = |answer: Answer| {
            assert_eq!(answer.slug(), "scope-missing");
            assert!(answer.text().contains("commands:write"), "{}", answer.text());
            answer.is(403);
        };
        let more = [
            json!({"companions": raw("https://dns.example/query")}),
            json!({"removal": {"disallowed": true}}),
            json!({"removal": {"disallowed": true}, "companions": raw("https://dns.example/query")}),
        ];
        for change in &more {
            refused(put(&writer, &policy(change.clone())).await);
            refused(apply(&writer, "", &policy(change.clone())).await);
            refused(apply(&writer, "?dry_run=true", &policy(change.clone())).await);
        }
        world.get("/api/v1/acme-policies/wifi").await.is(404);
        // Asked for before anything is told of what the configuration holds.
        refused(put(&writer, &policy(json!({"signing_identity": "corporate"}))).await);
        refused(apply(&writer, "", &policy(json!({"signing_identity": "corporate"}))).await);

        // A certificate with what opens a door by it is what policies are for.
        let wifi = json!({"companions": [{"type": "wifi", "name": "office", "ssid": "Example"}]});
        put(&writer, &policy(wifi.clone())).await.is(201);
        for change in &more {
            refused(put(&writer, &policy(change.clone())).await);
            refused(apply(&writer, "", &policy(change.clone())).await);
        }

        // Who may do both writes it; from then on the rest can be changed without, but not this.
        put(&both, &policy(more[2].clone())).await.is(200);
        put(&writer, &policy(more[2].clone())).await.is(200);
        let mut larger = policy(more[2].clone());
        larger["key_size"] = json!(384);
        apply(&writer, "", &larger).await.is(200);
        larger["companions"] = raw("https://other.example/query");
        refused(put(&writer, &larger).await);
        refused(apply(&writer, "", &larger).await);
        apply(&both, "", &larger).await.is(200);
        larger["removal"]["disallowed"] = json!(false);
        refused(put(&writer, &larger).await);
        // Less than before is no harm.
        larger["removal"]["disallowed"] = json!(true);
        larger["companions"] = json!([]);
        put(&writer, &larger).await.is(200);
    })
    .await;
}

/// A request with this body, letter by letter.
async fn send(world: &World, method: Method, path: &str, body: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", world.admin))
        .header(header::CONTENT_TYPE, "application/json");
    world.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn a_key_that_is_given_twice_is_refused_and_neither_is_taken() {
    story(|world| async move {
        let one = document(&policy(json!({}))).to_string();
        let inner = one.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let twice = format!("{{{inner},{}}}", inner.replace("wifi", "vpn"));
        assert_eq!(send(&world, Method::POST, "/api/v1/apply", &twice).await.is(422).fields(), ["acme_policies"]);
        let deep = one.replace("\"name\"", "\"key_size\":256,\"key_size\":384,\"name\"");
        let fields = send(&world, Method::POST, "/api/v1/apply", &deep).await.is(422).fields();
        assert_eq!(fields, ["acme_policies[0].key_size"]);
        assert_eq!(world.get("/api/v1/export").await.is(200).json()["acme_policies"], json!([]));

        let twice =
            |json: Json, key: &str| json.to_string().replacen('{', &format!("{{\"{key}\":\"x\",\"{key}\":\"y\","), 1);
        for (path, body, key) in [
            ("/api/v1/acme-policies/wifi", policy(json!({})), "notes"),
            ("/api/v1/label-rules/macs", json!({"families": ["Mac"]}), "notes"),
            (
                "/api/v1/certificate-authorities/step",
                json!({"kind": "step_ca", "directory_url": "https://ca.example/acme/mdm/directory"}),
                "notes",
            ),
        ] {
            let answer = send(&world, Method::PUT, path, &twice(body.clone(), key)).await.is(422);
            assert_eq!(answer.fields(), [key], "{path}");
            assert!(answer.text().contains("must be given once"), "{}", answer.text());
            world.get(path).await.is(404);
            world.put(path, body).await.is(201);
        }
        let trial = json!({ "scope": {"all": true}, "policy": policy(json!({})) }).to_string();
        let trial = trial.replace("\"subject\"", "\"notes\":\"x\",\"notes\":\"y\",\"subject\"");
        let tried = send(&world, Method::POST, "/api/v1/acme-policies/wifi/dry-run", &trial).await.is(422);
        assert_eq!(tried.fields(), ["policy.notes"]);
    })
    .await;
}

#[tokio::test]
async fn a_policy_has_a_size_and_a_server_so_many_rules() {
    story(|world| async move {
        let large = |bytes: usize| {
            policy(json!({"companions": [{"type": "raw", "name": "x", "payload_type": "com.example.x",
            "keys": {"text": "x".repeat(bytes)}}]}))
        };
        world.put("/api/v1/acme-policies/wifi", large(200 * 1024)).await.is(201);
        let refused = world.put("/api/v1/acme-policies/wifi", large(256 * 1024)).await.is(422);
        assert!(refused.text().contains("256 KiB"), "{}", refused.text());
        assert_eq!(refused.fields(), ["body"]);
        let refused = world.post("/api/v1/apply", document(&large(256 * 1024))).await.is(422);
        assert_eq!(refused.fields(), ["acme_policies.wifi.body"]);

        let rule = |n: usize| json!({"label": format!("rule-{n}"), "families": ["Mac"]});
        let rules: Vec<Json> = (0..200).map(rule).collect();
        world.post("/api/v1/apply", json!({ "label_rules": rules })).await.is(200);
        let refused = world.put("/api/v1/label-rules/rule-200", rule(200)).await.is(422);
        assert!(refused.text().contains("200"), "{}", refused.text());
        assert_eq!(refused.fields(), ["label"]);
        let refused = world.post("/api/v1/apply", json!({ "label_rules": [rule(3), rule(200)] })).await.is(422);
        assert_eq!(refused.fields(), ["label_rules.rule-200.label"]);
        // Those that are there can be changed, and one that goes makes room.
        world.put("/api/v1/label-rules/rule-7", json!({"families": ["iPhone"]})).await.is(200);
        world.delete("/api/v1/label-rules/rule-7").await.is(204);
        world.put("/api/v1/label-rules/rule-200", rule(200)).await.is(201);
    })
    .await;
}
