//! Where Apple's pages, its schema and the forms of other products contradict each other (C1 to C12 of the notes in docs/policies.md), the
//! side that was taken. C8, the freshness of an attestation, is with the verifier.

use crate::AcmePolicy;
use crate::decision::{Decision, Target, decision};
use crate::facts::{FactName, FactValue, Facts, Source};
use crate::reason::ReasonCode;
use crate::template::{Values, Variable};
use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::plist::{Dictionary, Value};
use mdm_core::profile::acme::Attest;
use mdm_core::time::Timestamp;
use serde_json::{Value as Json, json};

fn policy(change: Json) -> Result<AcmePolicy, crate::InvalidPolicy> {
    let mut json = json!({
        "name": "wifi", "directory_url": "https://ca.example.com/directory",
        "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]],
    });
    change.as_object().unwrap().iter().for_each(|(key, value)| json[key] = value.clone());
    AcmePolicy::from_value(json)
}

/// The decision and, where there is one, the payload as it would be written.
fn on(change: Json, product: &str, os: &str) -> (Decision, Option<Dictionary>) {
    let policy = policy(change).unwrap();
    let at = Timestamp(1);
    let mut facts = Facts { asked_at: Some(at), ..Facts::default() };
    for (name, text) in [(FactName::ProductName, product), (FactName::OsVersion, os), (FactName::SerialNumber, "C02")] {
        facts.learn(name, FactValue::Text(text.into()), Source::DeviceInformation, at);
    }
    let mut values = Values::default();
    values.set(Variable::Serial, Some("C02"));
    let document = policy.document();
    let authority =
        ca::Authority::bare(document.directory_url.as_deref().unwrap(), document.ca_accepts_unattested, vec![]);
    let target =
        Target { kind: EnrollmentKind::Device, channel: Channel::Device, facts: &facts, values: &values, now: at };
    let (decision, payload) = decision(&policy, &authority, &target);
    let keys = payload.map(|p| p.payload("id".into(), uuid::Uuid::nil(), None).keys);
    (decision, keys)
}

fn flag(keys: &Dictionary, key: &str) -> Option<bool> {
    keys.get(key).and_then(Value::as_boolean)
}

fn weak() -> Json {
    json!({"ca_accepts_unattested": true})
}

#[test]
fn c1_key_is_extractable_means_what_it_says_and_is_written_on_every_mac() {
    let (_, keys) = on(weak(), "Mac14,2", "14.0");
    assert_eq!(flag(&keys.unwrap(), "KeyIsExtractable"), Some(false), "said, since Apple's default is true");
    let asked = json!({"ca_accepts_unattested": true, "hardware_bound": "never", "attest": "never", "key_is_extractable": true});
    let (_, keys) = on(asked, "Mac14,2", "14.0");
    assert_eq!(flag(&keys.unwrap(), "KeyIsExtractable"), Some(true));
    assert!(policy(json!({"key_is_extractable": true})).is_err(), "a key in the Secure Enclave cannot leave it");
}

#[test]
fn c2_a_mac_needs_macos_13_1_and_not_11() {
    for (os, open) in [("11.0", false), ("13.0.1", false), ("13.1", true)] {
        let (decision, keys) = on(weak(), "Mac14,2", os);
        assert_eq!(keys.is_some(), open, "{os}");
        let code = decision.reason.map(|r| r.code);
        assert!(open || code == Some(ReasonCode::PayloadNeedsNewerOs), "{os}: {code:?}");
    }
}

#[test]
fn c3_before_macos_14_both_keys_are_written_as_false_and_elsewhere_attest_is_left_out() {
    let (_, keys) = on(weak(), "Mac14,2", "13.6");
    let keys = keys.unwrap();
    assert_eq!((flag(&keys, "HardwareBound"), flag(&keys, "Attest")), (Some(false), Some(false)));
    let none = json!({"ca_accepts_unattested": true, "attest": "never"});
    let (_, keys) = on(none, "iPhone15,2", "17.0");
    let keys = keys.unwrap();
    assert_eq!((flag(&keys, "HardwareBound"), flag(&keys, "Attest")), (Some(true), None));
}

#[test]
fn c4_an_ipad_attests_from_16_1_and_an_iphone_from_16_0() {
    for (product, os, attest) in [("iPhone15,2", "16.0", true), ("iPad13,1", "16.0", false), ("iPad13,1", "16.1", true)]
    {
        let (decision, keys) = on(weak(), product, os);
        let keys = keys.unwrap();
        assert_eq!(flag(&keys, "Attest") == Some(true), attest, "{product} {os}");
        assert_eq!(decision.form.unwrap().attest == Attest::True, attest);
    }
}

#[test]
fn c5_the_payloads_own_table_of_chips_counts() {
    // T1 and earlier must be false; T2 is ignored; an Apple TV attests by its chip as an iPhone does.
    for (product, os, bound, attest) in [
        ("MacBookPro14,3", "13.6", Some(false), Some(false)),
        ("MacBookPro16,1", "15.0", Some(true), Some(false)),
        ("Mac14,2", "15.0", Some(true), Some(true)),
        ("AppleTV14,1", "17.0", Some(true), Some(true)),
        ("AppleTV6,2", "17.0", Some(true), Some(false)),
    ] {
        let (_, keys) = on(weak(), product, os);
        let keys = keys.unwrap();
        assert_eq!((flag(&keys, "HardwareBound"), flag(&keys, "Attest")), (bound, attest), "{product}");
    }
}

#[test]
fn c6_hardware_bound_is_true_from_macos_14_as_the_payload_says_and_not_false_as_the_asset_says() {
    assert_eq!(flag(&on(weak(), "Mac14,2", "14.0").1.unwrap(), "HardwareBound"), Some(true));
}

#[test]
fn c7_p_192_is_allowed_and_never_picked() {
    let asked = json!({"key_size": 192, "hardware_bound": "never", "attest": "never", "ca_accepts_unattested": true});
    let (_, keys) = on(asked, "Mac14,2", "14.0");
    assert_eq!(keys.unwrap().get("KeySize").and_then(Value::as_signed_integer), Some(192));
    let (_, keys) = on(json!({}), "Mac14,2", "14.0");
    assert_eq!(keys.unwrap().get("KeySize").and_then(Value::as_signed_integer), Some(256));
}

#[test]
fn c9_what_one_form_requires_and_the_other_does_not_is_always_written() {
    let (_, keys) = on(json!({}), "iPhone15,2", "17.0");
    let keys = keys.unwrap();
    for key in ["DirectoryURL", "ClientIdentifier", "KeySize", "KeyType", "HardwareBound", "Subject"] {
        assert!(keys.get(key).is_some(), "{key}");
    }
    let names =
        json!({"subject_alt_name": {"dNSName": "{serial}.example.com", "ntPrincipalName": "{serial}@example.com"}});
    let (_, keys) = on(names, "iPhone15,2", "17.0");
    let keys = keys.unwrap();
    let names = keys.get("SubjectAltName").and_then(Value::as_dictionary).unwrap();
    assert_eq!(names.get("dNSName").and_then(Value::as_string), Some("C02.example.com"), "a string, no array");
}

#[test]
fn c10_the_device_renews_nothing_so_the_server_does() {
    let default = policy(json!({})).unwrap();
    assert_eq!(default.document().renew_at_percent, 66);
    let enrollment = mdm_core::ids::EnrollmentId(uuid::Uuid::from_u128(7));
    let day = 86_400_000;
    let at = crate::renew::renew_at(enrollment, Timestamp(0), Timestamp(90 * day), 66);
    assert!(at > Timestamp(50 * day) && at < Timestamp(80 * day), "{at:?}");
    let (_, keys) = on(json!({}), "iPhone15,2", "17.0");
    assert!(keys.unwrap().keys().all(|key| !key.contains("Renew")));
}

#[test]
fn c11_the_two_keys_of_the_mac_are_on_no_other_payload() {
    let asked = json!({"allow_all_apps_access": true});
    let (decision, keys) = on(asked.clone(), "iPhone15,2", "17.0");
    let keys = keys.unwrap();
    assert!(keys.get("AllowAllAppsAccess").is_none() && keys.get("KeyIsExtractable").is_none());
    assert!(decision.notes.iter().any(|n| n.code == ReasonCode::MacOnlyKeysLeftOut));
    let (_, keys) = on(asked, "Mac14,2", "14.0");
    assert_eq!(flag(&keys.unwrap(), "AllowAllAppsAccess"), Some(true));
    assert!(policy(json!({"allow_all_apps_access": true, "platforms": ["iOS"]})).is_err());
}

#[test]
fn c12_attest_needs_hardware_bound_and_that_needs_macos_14_on_t2_or_apple_silicon() {
    assert!(policy(json!({"hardware_bound": "never"})).is_err());
    for (product, os, code) in [
        ("Mac14,2", "13.6", ReasonCode::HardwareBoundNeedsMacos14),
        ("iMac18,1", "13.6", ReasonCode::HardwareBoundNeedsT2OrAppleSilicon),
    ] {
        let (decision, keys) = on(json!({"hardware_bound": "required"}), product, os);
        assert!(keys.is_none());
        assert_eq!(decision.reason.map(|r| r.code), Some(code), "{product} {os}");
    }
}
