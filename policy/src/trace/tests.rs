use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

fn attempt() -> Attempt {
    Attempt {
        id: Uuid::from_u128(1),
        assignment_id: Uuid::from_u128(2),
        policy_id: Uuid::from_u128(3),
        revision: 4,
        enrollment_id: Uuid::from_u128(5),
        authority_id: None,
        purpose: "install".into(),
        state: "queued".into(),
        command_uuid: Some("C".into()),
        mode: None,
        client_identifier_sha256: None,
        client_identifier: None,
        expectation: None,
        expires_at: None,
        queued_at: NOW,
        pushed_at: None,
        delivered_at: None,
        acknowledged_at: None,
        authorized_at: None,
        authorized_key_sha256: None,
        issued_at: None,
        certificate_sha256: None,
        proved_at: None,
        ended_at: None,
        why: None,
    }
}

fn command(state: &str) -> Target {
    Target {
        enrollment_id: Uuid::from_u128(5),
        seq: 1,
        command_uuid: "C".into(),
        request_type: "InstallProfile".into(),
        lane: 1,
        state: state.into(),
        why: None,
        queued_at: NOW,
        first_sent_at: None,
        sent_at: None,
        deliveries: 0,
        not_now_at: None,
        not_now_times: 0,
        finished_at: None,
        error_chain: None,
        result_sealed: None,
        extra_reports: 0,
        expires_at: None,
    }
}

fn certificate() -> AcmeCertificate {
    AcmeCertificate {
        sha256: vec![0xAB; 32],
        enrollment_id: Uuid::from_u128(5),
        policy_id: Uuid::from_u128(3),
        attempt_id: Uuid::from_u128(1),
        certificate: vec![],
        serial_number: "01".into(),
        issuer: "CN=Example CA".into(),
        subject: "CN=C02XX".into(),
        key_type: "ECSECPrimeRandom 256".into(),
        key_sha256: vec![7; 32],
        hardware_bound: true,
        attested: true,
        not_before: NOW,
        not_after: NOW + 100 * HOUR,
        state: "verified".into(),
        reported_at: None,
        verified_at: Some(NOW + 6 * HOUR),
        seen_at: Some(NOW + 6 * HOUR),
        replaced_at: None,
    }
}

fn rows(attempt: Attempt, command: Target) -> Rows {
    Rows { attempt, command: Some(command), assignment: None, certificates: vec![], events: vec![], pushed_at: None }
}

fn words(rows: &Rows, at: i64) -> Vec<String> {
    time_line(rows, Timestamp(at)).into_iter().map(|step| step.what).collect()
}

#[test]
fn a_trace_leads_from_the_policy_to_the_end_of_the_certificate() {
    let attempt = Attempt {
        state: "proved".into(),
        mode: Some("one_time".into()),
        delivered_at: Some(NOW + 2 * HOUR),
        authorized_at: Some(NOW + 3 * HOUR),
        issued_at: Some(NOW + 4 * HOUR),
        acknowledged_at: Some(NOW + 5 * HOUR),
        ..attempt()
    };
    let (first_sent_at, sent_at) = (Some(NOW + 2 * HOUR), Some(NOW + 4 * HOUR + 1));
    let not_now = Some(NOW + 2 * HOUR + 1);
    let command = Target { first_sent_at, sent_at, not_now_at: not_now, not_now_times: 2, ..command("acknowledged") };
    let pushed = Rows { pushed_at: Some(NOW + HOUR), certificates: vec![certificate()], ..rows(attempt, command) };
    let line = time_line(&pushed, Timestamp(NOW + 7 * HOUR));
    let expected = [
        "decided",
        "queued",
        "pushed",
        "delivered",
        "not_now",
        "authorized",
        "issued",
        "delivered_again",
        "acknowledged",
        "verified",
        "ends",
    ];
    assert_eq!(line.iter().map(|step| step.what.as_str()).collect::<Vec<_>>(), expected);
    assert_eq!(line.iter().map(|step| step.planned).filter(|planned| *planned).count(), 1, "the end lies ahead");
    assert_eq!(line[4].data["times"], 2);
    assert_eq!(line[9].data["serial_number"], "01");
    let later = time_line(&pushed, Timestamp(NOW + 100 * HOUR));
    assert!(later.iter().all(|step| !step.planned));
}

#[test]
fn an_error_chain_and_a_failure_are_in_the_line() {
    let attempt =
        Attempt { state: "failed".into(), ended_at: Some(NOW + 3), why: Some("install_failed".into()), ..attempt() };
    let chain = Some("[{\"code\":4001}]".to_owned());
    let command = Target { finished_at: Some(NOW + 2), error_chain: chain, ..command("error") };
    let rows = rows(attempt, command);
    assert_eq!(words(&rows, NOW), ["decided", "queued", "error", "failed"]);
    let line = time_line(&rows, Timestamp(NOW));
    assert_eq!(line[2].data["error_chain"][0]["code"], 4001);
    assert_eq!(line[3].data["why"], "install_failed");
}

#[test]
fn every_other_end_of_a_command_has_its_word() {
    for word in ["command_format_error", "cancelled", "expired", "stalled", "refused"] {
        let ended = Target { finished_at: Some(NOW + 1), ..command(word) };
        assert_eq!(words(&rows(attempt(), ended), NOW).last().unwrap(), word);
    }
    for word in ["queued", "sent", "not_now", "acknowledged"] {
        let waits = Target { finished_at: Some(NOW + 1), ..command(word) };
        assert_eq!(words(&rows(attempt(), waits), NOW), ["decided", "queued"]);
    }
}

#[test]
fn events_stand_in_the_line_without_repeating_the_trace() {
    let event = store::events::Row {
        id: 1,
        at: NOW + 1,
        kind: "assignment.verified".into(),
        enrollment_id: None,
        command_uuid: None,
        actor: "device".into(),
        summary: "seen".into(),
        data: json!({ "trace": Uuid::from_u128(1), "policy": "wifi" }).to_string(),
    };
    let rows = Rows { events: vec![event], ..rows(attempt(), command("queued")) };
    let line = time_line(&rows, Timestamp(NOW));
    assert_eq!((line[2].what.as_str(), &line[2].data), ("assignment.verified", &json!({ "policy": "wifi" })));
}

#[test]
fn what_was_rendered_is_told_and_no_identifier() {
    let expectation = json!({
        "client_identifier_sha256": "ab", "names_device": false, "key_type": "RSA", "key_size": 2048,
        "hardware_bound": false, "attested": false, "subject": [],
    });
    let attempt = Attempt {
        delivered_at: Some(NOW + 1),
        expires_at: Some(NOW + 24 * HOUR),
        mode: Some("one_time".into()),
        client_identifier_sha256: Some(vec![0xAB]),
        expectation: Some(expectation.to_string()),
        ..attempt()
    };
    let line = time_line(&rows(attempt, command("sent")), Timestamp(NOW));
    let delivered = &line[2].data;
    assert_eq!((&delivered["key_type"], &delivered["attest"]), (&json!("RSA"), &json!(false)));
    assert_eq!(delivered["permission_ends"], Timestamp(NOW + 24 * HOUR).to_string());
    assert!(!serde_json::to_string(&line).unwrap().contains("sha256\":\"ab"));
}

proptest! {
    #[test]
    fn a_line_is_in_order_and_only_the_future_is_planned(times in prop::collection::vec(prop::option::of(0i64..1000), 8), now in 0i64..1000) {
        let at = |n: usize| times[n].map(|t| NOW + t);
        let attempt = Attempt {
            state: "void".into(),
            delivered_at: at(0),
            authorized_at: at(1),
            issued_at: at(2),
            acknowledged_at: at(3),
            ended_at: at(4),
            ..attempt()
        };
        let command = Target { finished_at: at(5), not_now_at: at(6), ..command("cancelled") };
        let rows = Rows { pushed_at: at(7), ..rows(attempt, command) };
        let line = time_line(&rows, Timestamp(NOW + now));
        prop_assert!(line.is_sorted_by_key(|step| step.at));
        prop_assert!(line.iter().all(|step| step.planned == (step.at.0 > NOW + now)));
        prop_assert_eq!(line.len(), 2 + times.iter().flatten().count());
    }
}
