//! Certificate authorities and their webhooks by the API, and what they mean for policies, on both databases.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::api_world::{World, story};

const STEP: &str = "/api/v1/certificate-authorities/step";

fn step_ca() -> Json {
    json!({"kind": "step_ca", "directory_url": "https://ca.example.com/acme/mdm/directory"})
}

fn policy(change: &Json) -> Json {
    let mut json =
        json!({"certificate_authority": "step", "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]]});
    for (key, value) in change.as_object().unwrap() {
        json[key] = value.clone();
    }
    json
}

fn ca_pem() -> String {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

async fn events(world: &World, kind: &str) -> usize {
    world.get(&format!("/api/v1/events?kind={kind}")).await.is(200).json()["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn an_authority_is_written_shown_changed_and_deleted() {
    story(|world| async move {
        let made = world.put(STEP, step_ca()).await.is(201).json();
        assert_eq!((&made["name"], &made["revision"]), (&json!("step"), &json!(1)));
        assert_eq!(made["webhook_url"], "https://mdm.example.com/webhook/step-ca/step");
        assert_eq!(made["certificate_authority"]["accepts_unattested"], false);
        assert_eq!(world.put(STEP, step_ca()).await.is(200).json()["revision"], 1, "the same again changes nothing");
        let mut changed = step_ca();
        changed["issuers"] = json!([ca_pem()]);
        assert_eq!(world.put(STEP, changed).await.is(200).json()["revision"], 2);
        let generic =
            json!({"kind": "generic", "directory_url": "https://acme.example.com/", "accepts_unattested": true});
        let made = world.put("/api/v1/certificate-authorities/other", generic).await.is(201).json();
        assert_eq!(made["webhook_url"], "https://mdm.example.com/webhook/acme/other");
        let listed = world.get("/api/v1/certificate-authorities").await.is(200).json();
        let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|a| a["name"].clone()).collect();
        assert_eq!(names, ["other", "step"]);
        assert!(world.get("/api/v1/certificate-authorities?limit=1").await.is(200).json()["next_cursor"].is_string());

        world.put("/api/v1/acme-policies/wifi", policy(&json!({}))).await.is(201);
        assert_eq!(world.get(STEP).await.is(200).json()["acme_policies"], json!(["wifi"]));
        assert_eq!(world.delete(STEP).await.is(409).slug(), "conflict");
        world.delete("/api/v1/acme-policies/wifi").await.is(202);
        world.delete(STEP).await.is(204);
        assert_eq!(world.get(STEP).await.is(404).slug(), "not-found");
        assert_eq!(world.delete(STEP).await.is(404).slug(), "not-found");
        assert_eq!(events(&world, "authority.").await, 4);
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_an_authority_is_named_by_its_field() {
    story(|world| async move {
        for (change, fields) in [
            (json!({"directory_url": "http://ca.example.com"}), vec!["directory_url"]),
            (json!({"directory_url": null}), vec!["directory_url"]),
            (json!({"kind": "ejbca"}), vec!["kind"]),
            (json!({"name": "other"}), vec!["name"]),
            (json!({"colour": "red"}), vec!["colour"]),
            (
                json!({"accepts_unattested": true, "identifier": "any", "issuers": ["x"]}),
                vec!["accepts_unattested", "issuers"],
            ),
        ] {
            let mut body = step_ca();
            for (key, value) in change.as_object().unwrap() {
                body[key] = value.clone();
            }
            assert_eq!(world.put(STEP, body).await.is(422).fields(), fields, "{change}");
        }
        assert_eq!(world.put(STEP, json!([])).await.is(422).fields(), ["body"]);
        let spaced = world.put("/api/v1/certificate-authorities/a%20b", step_ca()).await.is(422).fields();
        assert_eq!(spaced, ["name"]);
        assert_eq!(events(&world, "authority.").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_its_authority_would_refuse_on_every_device_is_not_taken() {
    story(|world| async move {
        let put = async |change: Json| world.put("/api/v1/acme-policies/wifi", policy(&change)).await;
        assert_eq!(put(json!({})).await.is(422).fields(), ["certificate_authority"], "it does not exist");
        world.put(STEP, step_ca()).await.is(201);
        let one_time = json!({"client_identifier": "{random}", "subject": [[["O", "Example"]]]});
        assert_eq!(put(one_time.clone()).await.is(422).fields(), ["client_identifier"]);
        assert_eq!(put(json!({"subject": [[["CN", "{device_name}"]]]})).await.is(422).fields(), ["subject"]);
        assert!(put(json!({"attest": "never"})).await.is(422).fields().contains(&"attest".to_owned()));
        put(json!({})).await.is(201);
        assert_eq!(put(one_time).await.is(422).fields(), ["client_identifier"]);
        assert_eq!(world.get("/api/v1/acme-policies/wifi").await.is(200).json()["acme_policy"]["revision"], 1);
    })
    .await;
}

#[tokio::test]
async fn the_gate_and_the_dry_run_know_what_the_authority_refuses() {
    story(|world| async move {
        world.put(STEP, step_ca()).await.is(201);
        let id = world.enroll(7).await;
        world.put("/api/v1/acme-policies/wifi", policy(&json!({}))).await.is(201);
        let decision = async || {
            let path = format!("/api/v1/enrollments/{id}/acme-decision?policy=wifi");
            world.get(&path).await.is(200).json()
        };
        assert_eq!(decision().await["outcome"], "open");
        // Nothing of the device matches; the linter has let it through, because another device could.
        let udid = json!({"client_identifier": "{provisioning_udid}", "subject": [[["O", "Example"]]]});
        world.put("/api/v1/acme-policies/wifi", policy(&udid)).await.is(200);
        assert_eq!(decision().await["reason"]["code"], "template_value_missing");
        // The authority was another kind of CA, and now is a step-ca.
        let generic = json!({"kind": "generic", "directory_url": "https://ca.example.com/acme/mdm/directory"});
        world.put(STEP, generic).await.is(200);
        let one_time = json!({"client_identifier": "{random}", "subject": [[["O", "Example"]]]});
        world.put("/api/v1/acme-policies/wifi", policy(&one_time)).await.is(200);
        assert_eq!(decision().await["outcome"], "open");
        world.put(STEP, step_ca()).await.is(200);
        let refused = decision().await;
        assert_eq!(refused["reason"]["code"], "ca_identifier_not_attested");
        assert_eq!(refused["demand"], "certificate_authority");
        assert!(refused["reason"]["remedy"].as_str().unwrap().contains("{serial}"));
    })
    .await;
}

#[tokio::test]
async fn a_webhook_keeps_its_secret() {
    story(|world| async move {
        let webhooks = format!("{STEP}/webhooks");
        let secret = STANDARD.encode([9; 64]);
        let printed =
            json!({"kind": "authorizing", "webhook_id": "7d3c64dc-ec0e-4a0f-a489-241650554bd7", "secret": secret});
        assert_eq!(world.post(&webhooks, printed.clone()).await.is(404).slug(), "not-found");
        world.put(STEP, step_ca()).await.is(201);
        let added = world.post(&webhooks, printed.clone()).await.is(201);
        assert!(!added.text().contains(&secret), "what was brought along is not shown");
        let added = added.json();
        assert_eq!(added["webhook"]["webhook_id"], "7d3c64dc-ec0e-4a0f-a489-241650554bd7");
        assert_eq!(world.post(&webhooks, printed).await.is(409).slug(), "conflict");
        world.clock.advance(std::time::Duration::from_millis(1));
        let made = world.post(&webhooks, json!({"kind": "enriching"})).await.is(201).json();
        let made_secret = made["secret"].as_str().unwrap().to_owned();
        assert_eq!(STANDARD.decode(&made_secret).unwrap().len(), 32);

        for (body, fields) in [
            (json!({"kind": "generic"}), vec!["kind"]),
            (json!({"kind": "notifying"}), vec!["kind"]),
            (json!({"kind": "enriching", "secret": "c2hvcnQ="}), vec!["secret"]),
            (json!({"kind": "enriching", "webhook_id": "a b"}), vec!["webhook_id"]),
        ] {
            let refused = world.post(&webhooks, body.clone()).await.is(422);
            assert!(!refused.text().contains("c2hvcnQ="));
            assert_eq!(refused.fields(), fields, "{body}");
        }

        let shown = world.get(STEP).await.is(200);
        let all = world.get("/api/v1/events").await.is(200).text() + &shown.text();
        assert!(!all.contains(&secret) && !all.contains(&made_secret), "no secret anywhere");
        let shown = shown.json();
        let kinds: Vec<_> = shown["webhooks"].as_array().unwrap().iter().map(|w| w["kind"].clone()).collect();
        assert_eq!(kinds, ["authorizing", "enriching"]);
        let mut tx = world.store().read().await.unwrap();
        let row = store::authorities::webhook(&mut tx, "7d3c64dc-ec0e-4a0f-a489-241650554bd7").await.unwrap().unwrap();
        drop(tx);
        assert!(!row.secret_sealed.windows(64).any(|part| part == [9; 64]), "sealed");
        assert!(!format!("{row:?}").contains("sealed"));

        let one = format!("{webhooks}/{}", added["webhook"]["id"].as_str().unwrap());
        world.delete(&one).await.is(204);
        assert_eq!(world.delete(&one).await.is(404).slug(), "not-found");
        assert_eq!(world.get(STEP).await.is(200).json()["webhooks"].as_array().unwrap().len(), 1);
        assert_eq!(events(&world, "authority.webhook").await, 0, "kinds are whole words");
        assert_eq!(events(&world, "authority.webhook_added").await, 2);
        assert_eq!(events(&world, "authority.webhook_revoked").await, 1);
    })
    .await;
}

#[tokio::test]
async fn who_may_only_read_policies_cannot_add_a_webhook() {
    story(|world| async move {
        world.put(STEP, step_ca()).await.is(201);
        let reader = world.token(&[api::Scope::PoliciesRead]).await;
        world.call(&reader, http::Method::GET, STEP, None).await.is(200);
        let body = Some(json!({"kind": "enriching"}));
        let refused = world.call(&reader, http::Method::POST, &format!("{STEP}/webhooks"), body).await;
        assert_eq!(refused.is(403).slug(), "scope-missing");
        world.call(&reader, http::Method::PUT, STEP, Some(step_ca())).await.is(403);
        world.call(&reader, http::Method::DELETE, STEP, None).await.is(403);
    })
    .await;
}
