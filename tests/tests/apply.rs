//! Policies and all that they name as one document: what changes is shown first, written as a whole or not at all, and the same
//! document again changes nothing. Through the API on both databases, and through the subcommands against a running server.

#[cfg(test)]
#[expect(dead_code, reason = "the other stories of the operator edge use the rest")]
mod api_world;
#[path = "apply/care.rs"]
mod care;
#[cfg(test)]
#[expect(dead_code, reason = "the stories of trust use the rest")]
mod trust_world;
#[path = "apply/writers.rs"]
mod writers;

use std::cell::RefCell;

use api_world::{World, story};
use assay::cli::apply::{Outcome, apply};
use assay::cli::client::Client;
use assay::cli::explain::{Who, explain};
use assay::cli::file::{self, Format};
use http::Method;
use mdm_tests::Backend;
use serde_json::{Value as Json, json};
use simulator::http::Trust;

fn document() -> Json {
    json!({
        "certificate_authorities": [{"name": "step", "kind": "step_ca", "directory_url": "https://ca.example/acme/mdm/directory"}],
        "label_rules": [{"label": "phones", "families": ["iPhone"]}],
        "acme_policies": [{"name": "wifi", "certificate_authority": "step", "client_identifier": "{serial}",
            "subject": [[["CN", "{serial}"]]], "platforms": ["iOS", "macOS"],
            "companions": [{"type": "wifi", "name": "office", "ssid": "Example"}],
            "removal": {"disallowed": true}, "scope": {"labels": ["phones"]}}],
    })
}

fn done(answer: &Json) -> Vec<&str> {
    answer["changes"].as_array().unwrap().iter().map(|c| c["done"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_a_document_changes_is_shown_then_written_and_then_nothing_is_left() {
    story(|world| async move {
        world.enroll(1).await;
        let dry = world.post("/api/v1/apply?dry_run=true", document()).await.is(200).json();
        assert_eq!((done(&dry), &dry["dry_run"]), (vec!["create"; 3], &json!(true)));
        world.get("/api/v1/acme-policies/wifi").await.is(404);
        world.get("/api/v1/certificate-authorities/step").await.is(404);

        let path = format!("/api/v1/apply?plan={}", dry["plan"].as_str().unwrap());
        let written = world.post(&path, document()).await.is(200).json();
        assert_eq!((&written["plan"], &written["dry_run"]), (&dry["plan"], &json!(false)));
        let findings = written["changes"][2]["findings"].as_array().unwrap();
        assert!(findings.iter().any(|f| f["outcome"] == "open") && findings.iter().any(|f| f["outcome"] == "closed"));
        let shown = world.get("/api/v1/acme-policies/wifi").await.is(200).json();
        assert_eq!(shown["acme_policy"]["policy"]["companions"][0]["ssid"], "Example");
        assert_eq!(shown["scope"]["labels"], json!(["phones"]));

        let again = world.post("/api/v1/apply", document()).await.is(200).json();
        assert_eq!(done(&again), ["nothing"; 3]);
        let exported = world.get("/api/v1/export").await.is(200).json();
        let back = world.post("/api/v1/apply", exported.clone()).await.is(200).json();
        assert_eq!(done(&back), ["nothing"; 3]);
        let shown = world.get("/api/v1/acme-policies/wifi").await.is(200).json();
        assert_eq!(shown["acme_policy"]["revision"], 1, "nothing was written");
        assert_eq!(world.get("/api/v1/export?policies=wifi").await.is(200).json(), exported);
        world.get("/api/v1/export?policies=nobody").await.is(404);
    })
    .await;
}

#[tokio::test]
async fn only_what_differs_is_written_and_each_revision_tells_what_it_changed() {
    story(|world| async move {
        world.post("/api/v1/apply", document()).await.is(200);
        let mut changed = document();
        changed["acme_policies"][0]["key_size"] = json!(384);
        changed["acme_policies"][0]["companions"][0]["ssid"] = json!("Example 2");
        changed["acme_policies"][0]["scope"] = json!({"all": true, "exclude": {"labels": ["lab"]}});
        let answer = world.post("/api/v1/apply", changed.clone()).await.is(200).json();
        assert_eq!(done(&answer), ["nothing", "nothing", "change"]);
        let fields: Vec<&str> = answer["changes"][2]["differences"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["field"].as_str().unwrap())
            .collect();
        assert_eq!(fields, ["companions.office.ssid", "key_size", "scope.all", "scope.exclude", "scope.labels"]);

        // Without a scope in the document, the stored one stays.
        changed["acme_policies"][0].as_object_mut().unwrap().remove("scope");
        let answer = world.post("/api/v1/apply", changed).await.is(200).json();
        assert_eq!(done(&answer), ["nothing"; 3]);

        let revisions = world.get("/api/v1/acme-policies/wifi/revisions").await.is(200).json();
        let items = revisions["items"].as_array().unwrap();
        let told: Vec<_> = items
            .iter()
            .map(|r| {
                (
                    r["revision"].as_i64().unwrap(),
                    r["current"].as_bool().unwrap(),
                    r["differences"].as_array().unwrap().len(),
                )
            })
            .collect();
        assert_eq!(told, [(2, true, 2), (1, false, 0)]);
        let first = world.get("/api/v1/acme-policies/wifi/revisions?limit=1").await.is(200).json();
        assert_eq!(first["items"][0], items[0]);
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = world.get(&format!("/api/v1/acme-policies/wifi/revisions?limit=1&cursor={cursor}")).await.is(200);
        assert_eq!(second.json()["items"][0], items[1]);
    })
    .await;
}

#[tokio::test]
async fn all_of_a_document_is_written_or_nothing_of_it() {
    story(|world| async move {
        let with = |change: Json| {
            let mut json = document();
            change.as_object().unwrap().iter().for_each(|(k, v)| json["acme_policies"][0][k] = v.clone());
            json
        };
        for (change, fields) in [
            (json!({"key_size": 512}), vec!["acme_policies[0].key_size"]),
            (json!({"client_identifier": "{serialnumber}"}), vec!["acme_policies[0].client_identifier"]),
            (json!({"scope": {"everybody": true}}), vec!["acme_policies[0].scope"]),
            (
                json!({"companions": [{"type": "wifi", "name": "x", "ssid": ""}]}),
                vec!["acme_policies[0].companions[0].ssid"],
            ),
            (json!({"certificate_authority": "other"}), vec!["acme_policies.wifi.certificate_authority"]),
            (
                json!({"client_identifier": "{random}"}),
                vec!["acme_policies.wifi.client_identifier", "acme_policies.wifi.subject"],
            ),
            (json!({"signing_identity": "corporate"}), vec!["acme_policies.wifi.signing_identity"]),
        ] {
            let refused = world.post("/api/v1/apply", with(change.clone())).await.is(422);
            assert_eq!(refused.fields(), fields, "{change}");
        }
        // Each field is right, and yet nobody could: the attestation that step-ca wants is off on the user channel.
        let nobody = with(json!({"channel": "user"}));
        let refused = world.post("/api/v1/apply", nobody).await.is(422);
        assert_eq!(refused.slug(), "policy-not-honourable");
        assert!(refused.text().contains("user_channel_hardware_bound_off"), "{}", refused.text());
        assert_eq!(world.get("/api/v1/export").await.is(200).json()["certificate_authorities"], json!([]));

        // What changed after the dry run is not overwritten unseen.
        let dry = world.post("/api/v1/apply?dry_run=true", document()).await.is(200).json();
        world.post("/api/v1/apply", with(json!({"notes": "somebody else"}))).await.is(200);
        let path = format!("/api/v1/apply?plan={}", dry["plan"].as_str().unwrap());
        assert_eq!(world.post(&path, document()).await.is(409).slug(), "conflict");
        let shown = world.get("/api/v1/acme-policies/wifi").await.is(200).json();
        assert_eq!(shown["acme_policy"]["policy"]["notes"], "somebody else");

        let reader = world.token(&[api::Scope::PoliciesRead]).await;
        let refused = world.call(&reader, Method::POST, "/api/v1/apply?dry_run=true", Some(document())).await;
        assert_eq!(refused.is(403).slug(), "scope-missing");
        world.call(&reader, Method::GET, "/api/v1/export", None).await.is(200);
    })
    .await;
}

#[tokio::test]
async fn a_policy_says_when_it_is_written_what_it_comes_to_on_each_kind_of_device() {
    story(|world: World| async move {
        let policy = json!({"directory_url": "https://ca.example/directory", "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]]});
        let written = world.put("/api/v1/acme-policies/wifi", policy.clone()).await.is(201).json();
        let findings = written["findings"].as_array().unwrap();
        let codes: Vec<&str> = findings.iter().filter_map(|f| f["reason"]["code"].as_str()).collect();
        for code in ["attest_ignored_by_silicon", "virtual_machine", "template_not_in_user_enrollment"] {
            assert!(codes.contains(&code), "{code}: {codes:?}");
        }
        // A variable that exists and that no device of the policy could fill.
        let mut nobody = policy.clone();
        nobody["platforms"] = json!(["iOS"]);
        nobody["subject"] = json!([[["CN", "{user_short_name}"]]]);
        let refused = world.put("/api/v1/acme-policies/phones", nobody).await.is(422);
        assert_eq!(refused.slug(), "policy-not-honourable");
        assert!(refused.text().contains("template_value_missing"));
        world.get("/api/v1/acme-policies/phones").await.is(404);
        let mut unknown = policy;
        unknown["client_identifier"] = json!("{asset_tag}");
        assert_eq!(world.put("/api/v1/acme-policies/tags", unknown).await.is(422).fields(), ["client_identifier"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subcommands_show_write_export_and_explain_over_https() {
    let world = trust_world::World::new(Backend::Sqlite).await;
    let anchors = RefCell::new(Vec::new());
    let server = world
        .start_with(&world.config_without_files(), |ca| {
            anchors.borrow_mut().extend(ca.iter().map(|ca| ca.der().to_vec()));
            Trust::only(&anchors.borrow())
        })
        .await;
    let anchors = anchors.into_inner();
    let wanted =
        json!({"name": "cli", "scopes": ["policies:write", "commands:write", "policies:read", "enrollments:read"]});
    let token =
        server.operator.post("/api/v1/api-tokens", &wanted).await.unwrap()["token"].as_str().unwrap().to_owned();
    let url = format!("https://localhost:{}", server.running.operator.port()).parse().unwrap();
    let client = Client::new(&url, &token, anchors.clone()).unwrap();
    let device = server.enroll(&Trust::only(&anchors)).await;

    let toml = file::write(document(), Format::Toml).unwrap();
    let document = file::parse(&toml, Format::Toml).unwrap();
    let told = RefCell::new(String::new());
    let tell = |text: &str| told.borrow_mut().push_str(text);
    let said_no = apply(&client, &document, tell, |_| Ok(false)).await.unwrap();
    assert_eq!(said_no, Outcome::Declined);
    for line in
        ["+ certificate authority step", "+ label rule phones", "+ acme policy wifi", "3 new, 0 changed, 0 as they are"]
    {
        assert!(told.borrow().lines().any(|l| l == line), "{line}: {}", told.borrow());
    }
    assert!(client.get("/api/v1/acme-policies/wifi").await.is_err(), "nothing was written");
    assert_eq!(apply(&client, &document, tell, |_| Ok(true)).await.unwrap(), Outcome::Written);
    let nobody_is_asked = |_: &str| -> anyhow::Result<bool> { panic!("nothing changes") };
    assert_eq!(apply(&client, &document, tell, nobody_is_asked).await.unwrap(), Outcome::Nothing);

    let exported = file::write(client.get("/api/v1/export").await.unwrap(), Format::Toml).unwrap();
    let back = file::parse(&exported, Format::Toml).unwrap();
    assert_eq!(apply(&client, &back, tell, nobody_is_asked).await.unwrap(), Outcome::Nothing);

    // The device is an iPhone: the rule of the label finds it by itself.
    trust_world::until("the label is on", async || {
        explain(&client, "wifi", &Who::Everybody).await.unwrap().starts_with("wifi: 1 enrollments in the scope")
    })
    .await;
    let serial = device.record.serial_number.clone();
    let why = explain(&client, "wifi", &Who::Serial(serial)).await.unwrap();
    assert!(why.contains("device: iPhone17,2") && why.contains("enrollment: device, device channel"), "{why}");
    let nobody = explain(&client, "wifi", &Who::Serial("NOBODY".into())).await.unwrap_err();
    assert_eq!(nobody.to_string(), "no device with this serial is enrolled");
    let unknown = Who::Enrollment("01935000-0000-7000-8000-000000000000".into());
    let unknown = explain(&client, "wifi", &unknown).await.unwrap_err();
    assert!(unknown.to_string().contains("there is no enrollment"), "{unknown}");

    let mut wrong = document.clone();
    wrong["acme_policies"][0]["attest"] = json!("perhaps");
    let refused = apply(&client, &wrong, tell, |_| Ok(true)).await.unwrap_err().to_string();
    assert!(refused.contains("acme_policies[0].attest"), "{refused}");
    let stranger = Client::new(&url, &format!("{token}x"), anchors).unwrap().get("/api/v1/export").await.unwrap_err();
    assert!(!stranger.to_string().contains(&token), "{stranger}");
    server.stop().await;
}

/// The TOML that a page shows.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_documents_that_are_shown_are_right() {
    let example = include_str!("../../deploy/policies.example.toml");
    let page = include_str!("../../docs/policies.md");
    let shown = blocks(page);
    assert!(shown.len() >= 2);
    for text in shown.into_iter().chain([example]) {
        let json = file::parse(text, Format::Toml).unwrap();
        let bundle = policy::Bundle::from_value(json).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(!bundle.policies.is_empty());
    }
    // Every key of a policy has its line.
    let description: Json = serde_json::from_str(&api::openapi()).unwrap();
    let keys = description["components"]["schemas"]["PolicyDocument"]["properties"].as_object().unwrap();
    for key in keys.keys().filter(|key| !["subject_alt_name", "removal"].contains(&key.as_str())) {
        assert!(page.contains(&format!("| `{key}`")), "docs/policies.md has no line for {key}");
    }
    for companion in ["CertificateCompanion", "WifiCompanion", "VpnCompanion", "RawCompanion"] {
        for key in description["components"]["schemas"][companion]["properties"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{key}`")), "docs/policies.md does not name {key} of {companion}");
        }
    }
}
