//! What is sent to Apple, held against stored texts; and what is refused.

use std::time::Duration;

use super::*;

const ANCHOR: &str = include_str!("../../tests/anchor.pem");

fn settings(anchors: bool) -> Settings {
    Settings {
        base_url: crate::BASE_URL.parse().unwrap(),
        protocol_version: crate::PROTOCOL_VERSION,
        every: Duration::from_secs(600),
        url: "https://mdm.example.com/ade/enroll".parse().unwrap(),
        web_url: "https://mdm.example.com/ade/web".parse().unwrap(),
        anchors: if anchors { vec![Certificate::from_pem(ANCHOR).unwrap()] } else { Vec::new() },
    }
}

fn full() -> Definition {
    Definition {
        profile_name: "Staff".into(),
        web_sign_in: true,
        org_magic: Some("example-mdm".into()),
        department: Some("IT".into()),
        support_phone_number: Some("+1 555 0100".into()),
        support_email_address: Some("it@example.com".into()),
        supervising_host_certs: vec![STANDARD.encode(Certificate::from_pem(ANCHOR).unwrap().der())],
        allow_pairing: Some(false),
        is_supervised: Some(true),
        is_mandatory: Some(true),
        is_mdm_removable: Some(false),
        is_multi_user: Some(true),
        await_device_configured: Some(true),
        auto_advance_setup: Some(false),
        language: Some("en".into()),
        region: Some("US".into()),
        skip_setup_items: vec!["AppleID".into(), "Siri".into()],
        do_not_use_profile_from_backup: Some(true),
        is_return_to_service: Some(false),
    }
}

/// Panics unless `written` is what `tests/golden/<name>.json` holds. `GOLDEN=write` stores it instead.
fn same(name: &str, written: &serde_json::Value) {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") {
        std::fs::write(&path, serde_json::to_string_pretty(written).unwrap() + "\n").unwrap();
        return;
    }
    let stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written, &stored, "{name} is written differently");
}

#[test]
fn every_key_is_written_as_apple_has_it() {
    full().check().unwrap();
    same("profile_full", &encode(&full(), &settings(true)).body);
}

#[test]
fn what_is_left_out_is_not_sent_and_a_public_certificate_needs_no_anchor() {
    let plain = Definition { profile_name: "Plain".into(), ..Definition::default() };
    plain.check().unwrap();
    let encoded = encode(&plain, &settings(false));
    same("profile_plain", &encoded.body);
    assert_eq!(encoded.anchors, "[]");
}

#[test]
fn a_change_of_the_anchors_is_another_profile() {
    let (with, without) = (encode(&full(), &settings(true)), encode(&full(), &settings(false)));
    assert_ne!(with.sha256, without.sha256);
    assert_eq!(with, encode(&full(), &settings(true)));
    assert_eq!(with.anchors, anchor_list(&[Certificate::from_pem(ANCHOR).unwrap().fingerprint()]));
}

#[test]
fn an_operator_cannot_write_what_speaks_of_the_server() {
    for key in ["url", "configuration_web_url", "anchor_certs", "devices"] {
        let body = format!(r#"{{"profile_name":"x","{key}":[]}}"#);
        let refused = serde_json::from_str::<Definition>(&body).unwrap_err().to_string();
        assert!(refused.contains("unknown field"), "{refused}");
    }
}

#[test]
fn each_wrong_key_is_named() {
    let wrong = Definition {
        profile_name: " ".into(),
        support_email_address: Some("nobody".into()),
        supervising_host_certs: vec!["AAAA".into()],
        is_mdm_removable: Some(false),
        is_multi_user: Some(true),
        auto_advance_setup: Some(true),
        web_sign_in: true,
        language: Some("English".into()),
        region: Some("us".into()),
        skip_setup_items: vec!["Apple ID".into(), "Siri".into(), "Siri".into()],
        ..Definition::default()
    };
    let fields: Vec<String> = wrong.check().unwrap_err().0.into_iter().map(|e| e.field).collect();
    let expected = [
        "profile_name",
        "support_email_address",
        "supervising_host_certs[0]",
        "is_mdm_removable",
        "is_multi_user",
        "supervising_host_certs",
        "auto_advance_setup",
        "language",
        "region",
        "skip_setup_items[0]",
        "skip_setup_items[2]",
    ];
    assert_eq!(fields, expected);
    assert!(Definition { language: Some("zh-Hant".into()), ..full() }.check().is_ok());
}
