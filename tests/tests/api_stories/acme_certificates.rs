//! `/api/v1/acme-certificates` and `/api/v1/acme-traces`: what operators read of certificates and of the attempts behind them.

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::ids::{AssignmentId, AttemptId, EnrollmentId, PolicyId};
use mdm_core::random::Random;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;
use store::assignments;
use store::attempts::{self, NewAttempt};
use store::certificates::{self, New};
use store::policies::NewRevision;

use crate::UNKNOWN;
use crate::api_world::{World, story};

const DAY: Duration = Duration::from_hours(24);

/// A verified certificate of a policy on an enrollment, and the attempt that it came by.
async fn certificate(world: &World, policy: &str, enrollment: EnrollmentId, days: u32) -> (Certificate, AttemptId) {
    let now = world.clock.now();
    let moment = |at: mdm_core::time::Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "C02XX");
    (params.not_before, params.not_after) = (moment(now), moment(now.plus(DAY * days)));
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let certificate = Certificate::from_der(made.der()).unwrap();
    let id = || Random::System.uuid_v7(now);
    let mut tx = world.store().begin().await.unwrap();
    let policy_id = if let Some(row) = store::policies::by_name(&mut tx, policy).await.unwrap() {
        row.id()
    } else {
        let policy_id = PolicyId(id());
        let revision = NewRevision { name: policy, body: "{}", payload_uuid: id(), created_by: "test" };
        store::policies::insert(&mut tx, policy_id, &revision, now).await.unwrap();
        policy_id
    };
    let assignment = AssignmentId(id());
    let new = assignments::New { id: assignment, policy: policy_id, enrollment, ring: 0 };
    assignments::insert_many(&mut tx, &[new], now).await.unwrap();
    let attempt = NewAttempt {
        id: AttemptId(id()),
        assignment,
        policy: policy_id,
        revision: 1,
        enrollment,
        authority: None,
        purpose: "install",
        command: Random::System.uuid_v4().to_string().parse().unwrap(),
    };
    let trace = attempt.id;
    attempts::insert_many(&mut tx, &[attempt], now).await.unwrap();
    let new = New {
        enrollment,
        policy: policy_id,
        attempt: trace,
        certificate: &certificate,
        hardware_bound: true,
        attested: true,
    };
    assert!(certificates::verify(&mut tx, &new, now).await.unwrap());
    assert!(attempts::proved(&mut tx, trace, certificate.fingerprint(), now).await.unwrap());
    tx.commit().await.unwrap();
    (certificate, trace)
}

#[tokio::test]
async fn certificates_are_listed_by_policy_enrollment_state_and_end() {
    story(async |world| {
        let (one, two) = (world.enroll(1).await, world.enroll(2).await);
        let (late, _) = certificate(&world, "wifi", one, 90).await;
        let (soon, _) = certificate(&world, "wifi", two, 5).await;
        let (other, trace) = certificate(&world, "vpn", one, 30).await;
        let prints = async |query: &str| -> Vec<String> {
            let answer = world.get(&format!("/api/v1/acme-certificates{query}")).await.is(200).json();
            let print = |item: &serde_json::Value| item["certificate_sha256"].as_str().unwrap().to_owned();
            answer["items"].as_array().unwrap().iter().map(print).collect()
        };
        let print = |certificate: &Certificate| certificate.fingerprint().to_string();
        assert_eq!(prints("").await, [print(&soon), print(&other), print(&late)], "the soonest end first");
        assert_eq!(prints("?policy=wifi").await, [print(&soon), print(&late)]);
        assert_eq!(prints(&format!("?policy=wifi&enrollment_id={}", one.0)).await, [print(&late)]);
        assert_eq!(prints("?ends_within_days=29&state=verified").await, [print(&soon)]);
        assert_eq!(prints("?state=gone").await, [""; 0]);
        let page = world.get("/api/v1/acme-certificates?limit=2").await.is(200).json();
        assert_eq!(prints(&format!("?cursor={}", page["next_cursor"].as_str().unwrap())).await, [print(&late)]);
        let shown = &page["items"][1];
        assert_eq!((&shown["policy"], &shown["trace_id"]), (&json!("vpn"), &json!(trace.0)));
        assert_eq!((&shown["subject"], &shown["key_type"]), (&json!("CN=C02XX"), &json!("ECSECPrimeRandom 256")));
        assert_eq!((&shown["state"], &shown["assignment_state"]), (&json!("verified"), &json!("assigned")));

        for (query, field) in [
            ("state=lost", "state"),
            ("ends_within_days=4000", "ends_within_days"),
            ("limit=0", "limit"),
            ("cursor=abc", "cursor"),
            ("color=red", "color"),
        ] {
            let answer = world.get(&format!("/api/v1/acme-certificates?{query}")).await.is(422);
            assert!(answer.text().contains(field), "{query}: {}", answer.text());
        }
        world.get("/api/v1/acme-certificates?policy=none").await.is(404);

        let one = world.get(&format!("/api/v1/acme-certificates/{}", print(&other))).await.is(200).json();
        assert_eq!((&one["pem"], &one["policy"]), (&json!(other.to_pem()), &json!("vpn")));
        world.get(&format!("/api/v1/acme-certificates/{}", "0".repeat(64))).await.is(404);
        world.get("/api/v1/acme-certificates/abc").await.is(422);
    })
    .await;
}

#[tokio::test]
async fn a_trace_is_shown_by_its_id_and_found_by_its_enrollment() {
    story(async |world| {
        let enrollment = world.enroll(1).await;
        let (certificate, trace) = certificate(&world, "wifi", enrollment, 30).await;
        let shown = world.get(&format!("/api/v1/acme-traces/{}", trace.0)).await.is(200).json();
        assert_eq!((&shown["policy"], &shown["state"]), (&json!("wifi"), &json!("proved")));
        assert_eq!(shown["certificate_sha256"], certificate.fingerprint().to_string());
        let words: Vec<&str> = shown["steps"].as_array().unwrap().iter().map(|s| s["what"].as_str().unwrap()).collect();
        assert_eq!(words, ["decided", "verified", "ends"]);
        assert_eq!(shown["steps"][2]["planned"], true);
        let list = world.get(&format!("/api/v1/acme-traces?enrollment_id={}", enrollment.0)).await.is(200).json();
        assert_eq!((&list["items"][0]["trace_id"], &list["items"][0]["purpose"]), (&json!(trace.0), &json!("install")));
        world.get(&format!("/api/v1/acme-traces/{UNKNOWN}")).await.is(404);
        world.get("/api/v1/acme-traces/nonsense").await.is(422);
        world.get("/api/v1/acme-traces").await.is(422);

        let token = world.token(&[api::Scope::EnrollmentsRead]).await;
        let path = format!("/api/v1/acme-traces/{}", trace.0);
        world.call(&token, http::Method::GET, &path, None).await.is(403);
    })
    .await;
}
