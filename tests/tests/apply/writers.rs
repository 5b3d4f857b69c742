//! Two who write the same thing at once: one after the other, as if the second had come later. SQLite has one writer anyway;
//! PostgreSQL has as many as come.

use std::time::Duration;

use policy::{AcmePolicy, Scope};
use serde_json::{Value as Json, json};
use store::Tx;

use crate::api_world::{Answer, World, story};

fn policy(change: &Json) -> Json {
    let mut json = json!({"name": "wifi", "certificate_authority": "step", "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]]});
    change.as_object().unwrap().iter().for_each(|(k, v)| json[k] = v.clone());
    json
}

async fn authority(world: &World) {
    let step = json!({"kind": "step_ca", "directory_url": "https://ca.example/acme/mdm/directory"});
    world.put("/api/v1/certificate-authorities/step", step).await.is(201);
}

/// Sends a request while a transaction that has written already is open, which then ends.
async fn meanwhile(tx: Tx, request: impl Future<Output = Answer>) -> Answer {
    let end = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        tx.commit().await.unwrap();
    };
    tokio::join!(request, end).0
}

#[tokio::test]
async fn two_writers_of_a_scope_leave_what_one_of_them_wrote() {
    story(|world| async move {
        authority(&world).await;
        world.put("/api/v1/acme-policies/wifi", policy(&json!({}))).await.is(201);
        let mut tx = world.store().begin().await.unwrap();
        let id = store::policies::by_name(&mut tx, "wifi").await.unwrap().unwrap().id();
        let pilot = Scope::label("pilot".parse().unwrap());
        policy::set_scope(&mut tx, id, &pilot, "first", world.clock.now()).await.unwrap();
        let path = "/api/v1/acme-policies/wifi/assignments";
        let later = json!({"labels": ["sales"], "exclude": {"labels": ["pilot"]}});
        meanwhile(tx, world.put(path, later)).await.is(202);
        let shown = world.get("/api/v1/acme-policies/wifi").await.is(200).json();
        assert_eq!(shown["scope"]["labels"], json!(["sales"]));
        assert_eq!(shown["scope"]["exclude"]["labels"], json!(["pilot"]));
    })
    .await;
}

#[tokio::test]
async fn what_was_seen_is_not_written_over_what_another_writer_is_writing() {
    story(|world| async move {
        authority(&world).await;
        world.put("/api/v1/acme-policies/wifi", policy(&json!({}))).await.is(201);
        let document = json!({ "acme_policies": [policy(&json!({"key_size": 384}))] });
        let dry = world.post("/api/v1/apply?dry_run=true", document.clone()).await.is(200).json();
        let mut tx = world.store().begin().await.unwrap();
        let id = store::policies::by_name(&mut tx, "wifi").await.unwrap().unwrap().id();
        let noted = AcmePolicy::from_value(policy(&json!({"notes": "somebody else"}))).unwrap();
        policy::revise(&mut tx, &world.shared.policy, id, &noted, "first", world.clock.now()).await.unwrap();
        let path = format!("/api/v1/apply?plan={}", dry["plan"].as_str().unwrap());
        let answer = meanwhile(tx, world.post(&path, document)).await.is(409);
        assert_eq!(answer.slug(), "conflict");
        let shown = world.get("/api/v1/acme-policies/wifi").await.is(200).json();
        assert_eq!(shown["acme_policy"]["policy"]["notes"], "somebody else");
    })
    .await;
}

#[tokio::test]
async fn a_name_that_another_writer_takes_is_taken() {
    story(|world| async move {
        authority(&world).await;
        let mut tx = world.store().begin().await.unwrap();
        let new = AcmePolicy::from_value(policy(&json!({"notes": "first"}))).unwrap();
        policy::create(&mut tx, &world.shared.policy, &new, "first", world.clock.now()).await.unwrap();
        let answer = meanwhile(tx, world.put("/api/v1/acme-policies/wifi", policy(&json!({})))).await;
        // Where the second begins once the first is through (SQLite, or the lock of the authority), it is a change.
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    })
    .await;
}

#[tokio::test]
async fn an_authority_that_a_policy_is_just_naming_is_not_deleted() {
    story(|world| async move {
        authority(&world).await;
        let mut tx = world.store().begin().await.unwrap();
        let new = AcmePolicy::from_value(policy(&json!({}))).unwrap();
        policy::create(&mut tx, &world.shared.policy, &new, "first", world.clock.now()).await.unwrap();
        meanwhile(tx, world.delete("/api/v1/certificate-authorities/step")).await.is(409);
        world.get("/api/v1/certificate-authorities/step").await.is(200);

        // The other way round: a policy finds its authority gone.
        world.delete("/api/v1/acme-policies/wifi").await.is(202);
        let mut tx = world.store().begin().await.unwrap();
        ca::delete(&mut tx, "step", "first", world.clock.now()).await.unwrap();
        let answer = meanwhile(tx, world.put("/api/v1/acme-policies/wifi", policy(&json!({})))).await.is(422);
        assert_eq!(answer.fields(), ["certificate_authority"]);
    })
    .await;
}
