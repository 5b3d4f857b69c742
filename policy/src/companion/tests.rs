use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::{OsVersion, Platform};
use mdm_core::plist::{Dictionary, Value};
use mdm_core::profile::{Payload, uuid_text};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::*;
use crate::acme::{AcmePolicy, Unfit};
use crate::reason::ReasonCode;
use crate::template::{Values, Variable};

/// A self-signed certificate, and one that it signed.
fn certificates() -> (String, String) {
    let root = include_str!("../../tests/data/root.pem").to_owned();
    let intermediate = include_str!("../../tests/data/intermediate.pem").to_owned();
    (root, intermediate)
}

fn with(companions: Json) -> Json {
    json!({
        "name": "wifi", "directory_url": "https://ca.example.com/acme/mdm/directory",
        "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]], "companions": companions,
    })
}

fn wrong(companions: Json) -> Vec<String> {
    match AcmePolicy::from_value(with(companions)) {
        Ok(_) => vec![],
        Err(e) => e.0.into_iter().map(|e| e.field).collect(),
    }
}

fn all() -> Json {
    let (root, intermediate) = certificates();
    json!([
        {"type": "certificate", "name": "root", "certificate": root},
        {"type": "certificate", "name": "issuing", "certificate": intermediate},
        {"type": "wifi", "name": "office", "display_name": "Office", "ssid": "Example", "user_name": "host/{serial}",
         "trusted_certificates": ["root"], "trusted_server_names": ["radius.example.org"], "setup_modes": ["System"]},
        {"type": "vpn_ikev2", "name": "vpn", "remote_address": "vpn.example.org", "remote_identifier": "vpn.example.org",
         "local_identifier": "{serial}", "server_certificate_issuer_common_name": "Example CA", "on_demand": true},
        {"type": "raw", "name": "dns", "payload_type": "com.apple.dnsSettings.managed",
         "keys": {"DNSSettings": {"DNSProtocol": "TLS", "ServerName": "{serial}.dns.example.org", "PayloadCertificateUUID": "{identity_uuid}",
             "Anchor": {"$payload_uuid": "root"}, "Blob": {"$data": "AQI="}, "Until": {"$date": "2027-01-01T00:00:00Z"}, "Port": 853, "Share": 0.5}}},
    ])
}

fn device(platform: Platform, os: (u16, u16), kind: EnrollmentKind) -> Device {
    Device { platform: Some(platform), os_version: Some(OsVersion::new(os.0, os.1)), kind, channel: Channel::Device }
}

fn uuid_of(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    Uuid::from_bytes(bytes)
}

fn render(companions: Json, device: Device, serial: Option<&str>) -> Result<Vec<Payload>, Unfit> {
    let policy = AcmePolicy::from_value(with(companions)).unwrap();
    let mut values = Values::default();
    values.set(Variable::Serial, serial);
    payloads(&policy, &device, &values, &Names { identifier: "org.example.p", uuid_of: &uuid_of })
}

fn text<'a>(keys: &'a Dictionary, key: &str) -> &'a str {
    keys.get(key).and_then(Value::as_string).unwrap()
}

#[test]
fn companions_refer_to_the_identity_and_to_each_other_by_payload_uuid() {
    let mac = device(Platform::Macos, (14, 0), EnrollmentKind::Device);
    let payloads = render(all(), mac, Some("C02")).unwrap();
    let types: Vec<&str> = payloads.iter().map(|p| p.payload_type.as_str()).collect();
    assert_eq!(
        types,
        [
            "com.apple.security.root",
            "com.apple.security.pkcs1",
            "com.apple.wifi.managed",
            "com.apple.vpn.managed",
            "com.apple.dnsSettings.managed"
        ]
    );
    let identity = uuid_text(uuid_of(IDENTITY));
    let [root, _, wifi, vpn, dns] = payloads.as_slice() else { panic!() };
    assert_eq!((root.identifier.as_str(), root.uuid), ("org.example.p.root", uuid_of("root")));
    assert_eq!(text(&wifi.keys, "PayloadCertificateUUID"), identity);
    let eap = wifi.keys.get("EAPClientConfiguration").and_then(Value::as_dictionary).unwrap();
    assert_eq!(text(eap, "UserName"), "host/C02");
    let anchors = eap.get("PayloadCertificateAnchorUUID").and_then(Value::as_array).unwrap();
    assert_eq!(anchors.first().and_then(Value::as_string), Some(uuid_text(uuid_of("root")).as_str()));
    assert!(wifi.keys.get("SetupModes").is_some());
    let ikev2 = vpn.keys.get("IKEv2").and_then(Value::as_dictionary).unwrap();
    assert_eq!(text(ikev2, "PayloadCertificateUUID"), identity);
    assert_eq!(text(ikev2, "CertificateType"), "ECDSA256");
    assert_eq!(text(ikev2, "AuthenticationMethod"), "Certificate");
    let dns = dns.keys.get("DNSSettings").and_then(Value::as_dictionary).unwrap();
    assert_eq!(text(dns, "PayloadCertificateUUID"), identity);
    assert_eq!(text(dns, "Anchor"), uuid_text(uuid_of("root")));
    assert_eq!(text(dns, "ServerName"), "C02.dns.example.org");
    assert_eq!(dns.get("Blob").and_then(Value::as_data), Some(&[1, 2][..]));
    assert_eq!(dns.get("Until").and_then(Value::as_date).unwrap().to_xml_format(), "2027-01-01T00:00:00Z");
    assert_eq!(dns.get("Port").and_then(Value::as_signed_integer), Some(853));
    assert_eq!(dns.get("Share").and_then(Value::as_real), Some(0.5));
}

#[test]
fn a_companion_that_apple_forbids_refuses_the_device_or_is_left_out() {
    let vpn = |optional: bool, platforms: Json| {
        json!([{"type": "vpn_ikev2", "name": "vpn", "remote_address": "v", "remote_identifier": "v", "local_identifier": "x",
                "server_certificate_issuer_common_name": "CA", "optional": optional, "platforms": platforms}])
    };
    for (device, allowed) in [
        (device(Platform::Ios, (16, 0), EnrollmentKind::Device), true),
        (device(Platform::Ios, (16, 0), EnrollmentKind::User), false),
        (device(Platform::Macos, (13, 1), EnrollmentKind::User), false),
        (device(Platform::Tvos, (16, 5), EnrollmentKind::Automated), false),
        (device(Platform::Tvos, (17, 0), EnrollmentKind::Automated), true),
        (device(Platform::Watchos, (10, 0), EnrollmentKind::Device), false),
        (device(Platform::Visionos, (1, 1), EnrollmentKind::Device), true),
    ] {
        let refused = render(vpn(false, json!([])), device, None).map_err(|e| e.reason);
        assert_eq!(refused.is_ok(), allowed, "{device:?}");
        assert!(allowed || refused == Err(ReasonCode::CompanionNotSupported));
        let optional = render(vpn(true, json!([])), device, None).unwrap();
        assert_eq!(optional.len(), usize::from(allowed));
        let policy = AcmePolicy::from_value(with(vpn(true, json!([])))).unwrap();
        assert_eq!(left_out(&policy, &device), !allowed);
    }
    let watch = device(Platform::Watchos, (10, 0), EnrollmentKind::Device);
    assert_eq!(render(vpn(false, json!(["iOS", "macOS"])), watch, None).unwrap(), []);
}

#[test]
fn a_value_that_the_device_has_not_told_is_named_with_its_companion() {
    let refused = render(all(), device(Platform::Ios, (17, 0), EnrollmentKind::Device), None).unwrap_err();
    assert_eq!(refused.reason, ReasonCode::TemplateValueMissing);
    assert_eq!(refused.detail, "office: this device has no value for {serial}");
    let mut wifi = all();
    wifi.as_array_mut().unwrap().truncate(3);
    let refused = render(wifi, device(Platform::Ios, (17, 0), EnrollmentKind::User), None).unwrap_err();
    assert_eq!(refused.reason, ReasonCode::TemplateNotInUserEnrollment);
}

#[test]
fn setup_modes_are_written_for_macs_only() {
    let payloads = render(all(), device(Platform::Ipados, (17, 0), EnrollmentKind::Device), Some("X")).unwrap();
    let wifi = payloads.iter().find(|p| p.payload_type == "com.apple.wifi.managed").unwrap();
    assert!(wifi.keys.get("SetupModes").is_none());
}

#[test]
fn every_wrong_field_of_a_companion_is_named() {
    let (root, _) = certificates();
    let wifi = |change: Json| {
        let mut json = json!({"type": "wifi", "name": "office", "ssid": "Example"});
        change.as_object().unwrap().iter().for_each(|(k, v)| json[k] = v.clone());
        json!([json])
    };
    let vpn = |change: Json| {
        let mut json = json!({"type": "vpn_ikev2", "name": "vpn", "remote_address": "v", "remote_identifier": "v", "local_identifier": "x",
            "server_certificate_issuer_common_name": "CA"});
        change.as_object().unwrap().iter().for_each(|(k, v)| json[k] = v.clone());
        json!([json])
    };
    let raw = |payload_type: &str, keys: Json| json!([{"type": "raw", "name": "x", "payload_type": payload_type, "keys": keys}]);
    assert_eq!(wrong(all()), Vec::<String>::new());
    for (companions, field) in [
        (json!([{"type": "smb"}]), "companions"),
        (wifi(json!({"colour": "red"})), "companions"),
        (wifi(json!({"name": "identity"})), "companions[0].name"),
        (wifi(json!({"name": "a b"})), "companions[0].name"),
        (wifi(json!({"ssid": ""})), "companions[0].ssid"),
        (wifi(json!({"ssid": "x".repeat(33)})), "companions[0].ssid"),
        (wifi(json!({"encryption_type": "WEP"})), "companions[0].encryption_type"),
        (wifi(json!({"trusted_certificates": ["root"]})), "companions[0].trusted_certificates"),
        (wifi(json!({"tls_minimum_version": "1.4"})), "companions[0].tls_minimum_version"),
        (
            wifi(json!({"tls_minimum_version": "1.2", "tls_maximum_version": "1.1"})),
            "companions[0].tls_maximum_version",
        ),
        (wifi(json!({"tls_minimum_version": "1.3", "tls_maximum_version": "1.3"})), "companions[0].outer_identity"),
        (wifi(json!({"setup_modes": ["User"]})), "companions[0].setup_modes"),
        (wifi(json!({"user_name": "{nobody}"})), "companions[0].user_name"),
        (vpn(json!({"local_identifier": ""})), "companions[0].local_identifier"),
        (
            vpn(json!({"server_certificate_issuer_common_name": null})),
            "companions[0].server_certificate_issuer_common_name",
        ),
        (
            vpn(json!({"ike_security_association": {"diffie_hellman_group": 2}})),
            "companions[0].ike_security_association.diffie_hellman_group",
        ),
        (
            vpn(json!({"child_security_association": {"encryption_algorithm": "3DES"}})),
            "companions[0].child_security_association.encryption_algorithm",
        ),
        (raw("com.apple.mdm", json!({})), "companions[0].payload_type"),
        (raw("com.apple.security.pkcs12", json!({})), "companions[0].payload_type"),
        (raw("com.apple.profileRemovalPassword", json!({})), "companions[0].payload_type"),
        (raw("mdm", json!({})), "companions[0].payload_type"),
        (raw("com.example.x", json!({"PayloadUUID": "x"})), "companions[0].keys.PayloadUUID"),
        (raw("com.example.x", json!({"a": {"b": [1, null]}})), "companions[0].keys.a.b[1]"),
        (raw("com.example.x", json!({"a": "{nobody}"})), "companions[0].keys.a"),
        (raw("com.example.x", json!({"a": {"$data": "%"}})), "companions[0].keys.a"),
        (raw("com.example.x", json!({"a": {"$date": "soon"}})), "companions[0].keys.a"),
        (raw("com.example.x", json!({"a": {"$payload_uuid": "nobody"}})), "companions[0].keys"),
        (raw("com.example.x", json!({"a": {"$what": "x"}})), "companions[0].keys.a"),
        (json!([{"type": "certificate", "name": "r", "certificate": "no"}]), "companions[0].certificate"),
        (
            json!([{"type": "certificate", "name": "r", "certificate": format!("{root}{root}")}]),
            "companions[0].certificate",
        ),
    ] {
        assert_eq!(wrong(companions.clone()), [field], "{companions}");
    }
    let twice = json!([wifi(json!({}))[0], wifi(json!({}))[0]]);
    assert_eq!(wrong(twice), ["companions[1].name"]);
    let elsewhere = json!([
        {"type": "certificate", "name": "root", "certificate": root, "platforms": ["iOS"]},
        {"type": "wifi", "name": "office", "ssid": "Example", "trusted_certificates": ["root"]},
    ]);
    assert_eq!(wrong(elsewhere), ["companions[1].trusted_certificates"], "macs would have a dangling reference");
}

#[test]
fn th_64_a_secret_among_raw_keys_is_refused_at_any_depth() {
    let raw = |keys: Json| json!([{"type": "raw", "name": "x", "payload_type": "com.example.x", "keys": keys}]);
    for (keys, at) in [
        (json!({"Password": "hunter2"}), "Password"),
        (json!({"VPN": {"SharedSecret": {"$data": "AQI="}}}), "VPN.SharedSecret"),
        (json!({"a": [{"RemovalPassword": "x"}]}), "a[0].RemovalPassword"),
        (json!({"PayloadCertificatePassword": "x"}), "PayloadCertificatePassword"),
        (json!({"ProxyPassword": "{serial}"}), "ProxyPassword"),
        (json!({"IncomingPassword": "x"}), "IncomingPassword"),
        (json!({"VendorConfig": {"psk_passphrase": "x"}}), "VendorConfig.psk_passphrase"),
        (json!({"clientSecret": ["x"]}), "clientSecret"),
        (json!({"PrivateKey": "x"}), "PrivateKey"),
        (json!({"note": "-----BEGIN RSA PRIVATE KEY-----"}), "note"),
    ] {
        let invalid = AcmePolicy::from_value(with(raw(keys))).unwrap_err();
        assert_eq!(invalid.0[0].field, format!("companions[0].keys.{at}"));
        assert!(invalid.0[0].expected.contains("nothing in a policy is secret"), "{invalid}");
        assert!(!invalid.to_string().contains("hunter2"));
    }
    // What only speaks of passwords is a switch.
    let switches = json!({"OneTimeUserPassword": true, "allowPasswordSharing": false, "SharedSecretLength": 8, "PasswordURL": "https://x"});
    assert_eq!(wrong(raw(switches)), Vec::<String>::new());
}

fn any_keys() -> impl Strategy<Value = Json> {
    let text = prop_oneof!["[a-z{}$]{0,6}", Just("{identity_uuid}".to_owned()), Just("{serial}".to_owned())];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f32>().prop_map(Json::from),
        text.prop_map(Json::from),
        Just(json!({"$data": "AQI="})),
        Just(json!({"$payload_uuid": "identity"})),
        Just(Json::Null),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[A-Za-z$]{1,4}", inner, 0..4).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

proptest! {
    /// Whatever is accepted becomes a payload that a device can read, with the identity's UUID in the place of its name.
    #[test]
    fn any_raw_keys_are_refused_or_become_a_payload(keys in prop::collection::btree_map("[A-Za-z]{1,8}", any_keys(), 0..4)) {
        let keys: serde_json::Map<String, Json> = keys.into_iter().collect();
        let companion = json!([{"type": "raw", "name": "x", "payload_type": "com.example.x", "keys": keys}]);
        if let Ok(policy) = AcmePolicy::from_value(with(companion)) {
            let mut values = Values::default();
            values.set(Variable::Serial, Some("C02"));
            let mac = device(Platform::Macos, (14, 0), EnrollmentKind::Device);
            match payloads(&policy, &mac, &values, &Names { identifier: "p", uuid_of: &uuid_of }) {
                Ok(payloads) => {
                    let written = mdm_core::plist::encode(&Value::Dictionary(payloads[0].keys.clone()));
                    let read = mdm_core::plist::decode_dictionary(&written, mdm_core::plist::Limits::API).unwrap();
                    prop_assert_eq!(read.len(), keys.len());
                    let text = String::from_utf8(written).unwrap();
                    let left = ["{identity_uuid}", "{serial}"].iter().any(|variable| text.contains(variable));
                    prop_assert!(!left, "{}", text);
                }
                Err(unfit) => prop_assert_eq!(unfit.reason, ReasonCode::TemplateValueMissing),
            }
        }
    }
}
