use serde_json::json;

use mdm_core::profile::acme::KeyKind;

use super::*;
use crate::gate::Wish;

fn policy() -> Json {
    json!({
        "name": "wifi", "directory_url": "https://ca.example.com/acme/mdm/directory",
        "client_identifier": "{serial}", "subject": [[["O", "Example"]], [["CN", "{serial}"]]],
    })
}

fn wrong(change: Json) -> Vec<String> {
    let mut json = policy();
    for (k, v) in change.as_object().unwrap() {
        json[k] = v.clone();
    }
    match AcmePolicy::from_value(json) {
        Ok(_) => vec![],
        Err(e) => e.0.into_iter().map(|e| e.field).collect(),
    }
}

#[test]
fn the_defaults_ask_for_the_strongest_form_and_promise_nothing_of_the_ca() {
    let policy = AcmePolicy::from_value(policy()).unwrap();
    assert_eq!(policy.ask().attest, Wish::WhenSupported);
    assert_eq!(policy.ask().hardware_bound, Wish::WhenSupported);
    assert_eq!(policy.ask().key, KeyKind::EcsecPrimeRandom(256));
    assert!(!policy.ask().ca_accepts_unattested && !policy.ask().user_channel_hardware_bound);
    assert_eq!(policy.display_name(), "wifi");
    let again = AcmePolicy::from_json(&serde_json::to_string(policy.document()).unwrap()).unwrap();
    assert_eq!(again, policy);
}

#[test]
fn th_39_a_client_identifier_is_unique_for_each_device() {
    for shared in ["corp", "{device_name}", "{product_name}", "{model}-{os_version}", "{user_short_name}", "{{serial}}"]
    {
        assert_eq!(wrong(json!({"client_identifier": shared})), ["client_identifier"], "{shared}");
    }
    for one in
        ["{serial}", "mac-{udid}", "{provisioning_udid}", "{enrollment_id}", "{random}", "{device_name}-{random}"]
    {
        assert_eq!(wrong(json!({"client_identifier": one})), Vec::<String>::new(), "{one}");
    }
}

#[test]
fn every_wrong_field_is_named() {
    assert_eq!(wrong(json!({})), Vec::<String>::new());
    for (change, field) in [
        (json!({"name": "../x"}), "name"),
        (json!({"directory_url": "http://ca.example.com"}), "directory_url"),
        (json!({"directory_url": 7}), "directory_url"),
        (json!({"client_identifier": ""}), "client_identifier"),
        (json!({"client_identifier": "{serialnumber}"}), "client_identifier"),
        (json!({"key_type": "EC"}), "key_type"),
        (json!({"key_size": 512}), "key_size"),
        (json!({"key_size": "256"}), "key_size"),
        (json!({"key_size": 521}), "hardware_bound"),
        (json!({"key_type": "RSA", "key_size": 2048}), "hardware_bound"),
        (json!({"hardware_bound": "yes"}), "hardware_bound"),
        (json!({"hardware_bound": "never"}), "attest"),
        (json!({"attest": "never"}), "attest"),
        (json!({"subject": []}), "subject"),
        (json!({"subject": [[["CN", "{serial"]]]}), "subject"),
        (json!({"subject": [[["C", "{serial}"]]]}), "subject"),
        (json!({"subject": [[["CN"]]]}), "subject"),
        (json!({"subject": "CN=x"}), "subject"),
        (json!({"subject_alt_name": {"dNSName": ""}}), "subject_alt_name.dNSName"),
        (json!({"subject_alt_name": {"dNSName": ["a", "b"]}}), "subject_alt_name"),
        (json!({"subject_alt_name": {"iPAddress": "10.0.0.1"}}), "subject_alt_name"),
        (json!({"usage_flags": 2}), "usage_flags"),
        (json!({"extended_key_usage": ["clientAuth"]}), "extended_key_usage"),
        (json!({"key_is_extractable": true}), "key_is_extractable"),
        (json!({"channel": "computer"}), "channel"),
        (json!({"display_name": " "}), "display_name"),
        (json!({"colour": "red"}), "colour"),
        (json!({"certificate_authority": "step"}), "directory_url"),
        (json!({"issuers": ["no"]}), "issuers[0]"),
        (json!({"platforms": ["iOS", "iOS"]}), "platforms"),
        (json!({"platforms": ["ios"]}), "platforms"),
        (json!({"platforms": ["iOS"], "channel": "user"}), "channel"),
        (json!({"platforms": ["iOS"], "allow_all_apps_access": true}), "platforms"),
        (json!({"removal": {"disallowed": "yes"}}), "removal"),
        (json!({"removal": {"when_unassigned": "forget"}}), "removal"),
        (json!({"renew_at_percent": 5}), "renew_at_percent"),
        (json!({"renew_at_percent": 91}), "renew_at_percent"),
        (json!({"signing_identity": "a b"}), "signing_identity"),
        (json!({"rollout": {"steps": []}}), "rollout.steps"),
        (json!({"client_identifier": "{identity_uuid}"}), "client_identifier"),
        (json!({"subject": [[["CN", "{identity_uuid}"]]]}), "subject"),
        (json!({"subject_alt_name": {"dNSName": "{identity_uuid}.x"}}), "subject_alt_name.dNSName"),
    ] {
        assert_eq!(wrong(change.clone()), [field], "{change}");
    }
    assert!(AcmePolicy::from_json("[]").is_err());
    assert!(AcmePolicy::from_json("{").is_err());
    let missing = AcmePolicy::from_json("{}").unwrap_err().0.into_iter().map(|e| e.field).collect::<Vec<_>>();
    assert_eq!(missing, ["client_identifier", "directory_url", "name", "subject"]);
}

#[test]
fn policies_without_hardware_can_be_written() {
    let rsa = json!({"key_type": "RSA", "key_size": 2048, "hardware_bound": "never", "attest": "never", "ca_accepts_unattested": true, "key_is_extractable": true});
    assert_eq!(wrong(rsa), Vec::<String>::new());
}

#[test]
fn an_error_tells_what_would_be_right() {
    let error = AcmePolicy::from_json(&policy().to_string().replace("wifi", "wi fi")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "name must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or a digit"
    );
}

#[test]
fn what_a_named_authority_tells_is_not_told_again() {
    let named = |change: Json| {
        let mut json = policy();
        json.as_object_mut().unwrap().remove("directory_url");
        json["certificate_authority"] = json!("step");
        change.as_object().unwrap().iter().for_each(|(k, v)| json[k] = v.clone());
        AcmePolicy::from_value(json).map_err(|e| e.0.into_iter().map(|e| e.field).collect::<Vec<_>>())
    };
    assert!(named(json!({})).is_ok());
    // Only the authority knows whether it serves devices without an attestation.
    assert!(named(json!({"attest": "never", "hardware_bound": "never"})).is_ok());
    for (change, field) in [
        (json!({"ca_accepts_unattested": true}), "ca_accepts_unattested"),
        (json!({"certificate_authority": "../x"}), "certificate_authority"),
        (json!({"issuers": [include_str!("../../tests/data/root.pem")]}), "issuers"),
    ] {
        assert_eq!(named(change.clone()).unwrap_err(), [field], "{change}");
    }
}

#[test]
fn a_policy_of_the_former_program_reads_as_it_did_and_writes_the_same() {
    let text = r#"{"name":"wifi","notes":"","channel":"device","directory_url":"https://ca.example.com/d","client_identifier":"{serial}","key_type":"ECSECPrimeRandom","key_size":256,"hardware_bound":"when_supported","attest":"when_supported","subject":[[["CN","{serial}"]]],"subject_alt_name":{},"extended_key_usage":[],"key_is_extractable":false,"allow_all_apps_access":false,"ca_accepts_unattested":false,"user_channel_hardware_bound":false}"#;
    let read = AcmePolicy::from_json(text).unwrap();
    assert!(read.is_for(None) && read.document().removal.is_default() && read.companions().is_empty());
    let written = serde_json::to_string(read.document()).unwrap();
    assert_eq!(
        written,
        text.replace(
            "\"user_channel_hardware_bound\":false}",
            "\"user_channel_hardware_bound\":false,\"renew_at_percent\":66}"
        )
    );
}

#[test]
fn a_policy_for_some_operating_systems_is_not_for_a_device_that_nobody_knows() {
    let mut json = policy();
    json["platforms"] = json!(["iOS", "iPadOS"]);
    let policy = AcmePolicy::from_value(json).unwrap();
    assert!(policy.is_for(Some(Platform::Ipados)));
    assert!(!policy.is_for(Some(Platform::Macos)) && !policy.is_for(None));
}
