//! The payloads that travel with an identity and refer to it by its `PayloadUUID`, as the device looks at them.
//!
//! Sources: Apple, "WiFi" (`com.apple.wifi.managed`), "VPN" (`com.apple.vpn.managed`), "CertificateRoot"
//! (`com.apple.security.root`). As with [`crate::acme`], what Apple's pages forbid is an error.

use crate::acme;
use crate::hardware::{Family, Version};
use crate::plist::Value;
use crate::profile::{Payload, Profile, Refusal, Situation};

/// EAP-TLS among `AcceptEAPTypes`.
const EAP_TLS: i64 = 13;
/// All `AcceptEAPTypes`.
const EAP_TYPES: [i64; 7] = [EAP_TLS, 17, 18, 21, 23, 25, 43];
/// Payloads that bring a certificate without a key.
const CERTIFICATES: [&str; 3] = ["com.apple.security.root", "com.apple.security.pem", "com.apple.security.pkcs1"];
/// Payloads that bring an identity.
const IDENTITIES: [&str; 3] = [acme::PAYLOAD_TYPE, "com.apple.security.scep", "com.apple.security.pkcs12"];

/// Checks all references of a profile, and what Wi-Fi and VPN demand; gives the certificates that it brings, DER.
pub fn check(profile: &Profile, device: &Situation) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut certificates = Vec::new();
    for payload in &profile.payloads {
        references(payload, &payload.keys, profile)?;
        match payload.kind.as_str() {
            "com.apple.wifi.managed" => wifi(payload)?,
            "com.apple.vpn.managed" => {
                if let Some(why) = no_vpn(device) {
                    return Err(refuse(payload, "PayloadType", why));
                }
                vpn(payload)?;
            }
            kind if CERTIFICATES.contains(&kind) => certificates.push(certificate(payload)?),
            _ => {}
        }
    }
    Ok(certificates)
}

fn refuse(payload: &Payload, key: &str, why: &str) -> Refusal {
    Refusal::new(4001, &format!("{}: {key}: {why}", payload.kind))
}

/// `PayloadCertificateUUID` names an identity of the same profile, `PayloadCertificateAnchorUUID` certificates of it; also
/// in the dictionaries within the payload.
fn references(payload: &Payload, keys: &Value, profile: &Profile) -> Result<(), Refusal> {
    let names = |uuid: &Value, kinds: &[&str]| {
        let uuid = uuid.as_str().unwrap_or_default();
        profile.payloads.iter().any(|other| other.uuid == uuid && kinds.contains(&other.kind.as_str()))
    };
    for (key, value) in keys.entries() {
        match key.as_str() {
            "PayloadCertificateUUID" if !names(value, &IDENTITIES) => {
                return Err(refuse(payload, key, "names no identity of this profile"));
            }
            "PayloadCertificateAnchorUUID" => {
                let anchors = value.as_array().ok_or_else(|| refuse(payload, key, "an array is required"))?;
                if !anchors.iter().all(|anchor| names(anchor, &CERTIFICATES)) {
                    return Err(refuse(payload, key, "names no certificate of this profile"));
                }
            }
            _ => references(payload, value, profile)?,
        }
    }
    Ok(())
}

fn certificate(payload: &Payload) -> Result<Vec<u8>, Refusal> {
    let wrong = |why: &str| refuse(payload, "PayloadContent", why);
    let data = payload.keys.get("PayloadContent").and_then(Value::as_data).ok_or_else(|| wrong("data is required"))?;
    let read = openssl::x509::X509::from_der(data).or_else(|_| openssl::x509::X509::from_pem(data));
    read.and_then(|certificate| certificate.to_der()).map_err(|_| wrong("a certificate is required"))
}

fn one_of(payload: &Payload, keys: &Value, key: &str, values: &[&str]) -> Result<(), Refusal> {
    match keys.get(key) {
        None => Ok(()),
        Some(Value::String(text)) if values.contains(&text.as_str()) => Ok(()),
        Some(_) => Err(refuse(payload, key, "not one of its values")),
    }
}

fn wifi(payload: &Payload) -> Result<(), Refusal> {
    let keys = &payload.keys;
    let network = ["SSID_STR", "DomainName"].iter().any(|key| keys.text(key).is_some_and(|text| !text.is_empty()));
    if !network {
        return Err(refuse(payload, "SSID_STR", "a network is required"));
    }
    one_of(payload, keys, "EncryptionType", &["WEP", "WPA", "WPA2", "WPA3", "Any", "None"])?;
    let Some(eap) = keys.get("EAPClientConfiguration") else {
        return match keys.get("PayloadCertificateUUID") {
            Some(_) => Err(refuse(payload, "EAPClientConfiguration", "required for a client certificate")),
            None => Ok(()),
        };
    };
    if keys.text("EncryptionType") == Some("None") {
        return Err(refuse(payload, "EncryptionType", "an open network has no EAP"));
    }
    let types = eap.get("AcceptEAPTypes").and_then(Value::as_array).unwrap_or_default();
    let types: Vec<i64> = types.iter().filter_map(Value::as_integer).collect();
    if types.is_empty() || !types.iter().all(|kind| EAP_TYPES.contains(kind)) {
        return Err(refuse(payload, "AcceptEAPTypes", "known EAP types are required"));
    }
    one_of(payload, eap, "TLSMinimumVersion", &["1.0", "1.1", "1.2", "1.3"])?;
    one_of(payload, eap, "TLSMaximumVersion", &["1.0", "1.1", "1.2", "1.3"])?;
    if types.contains(&EAP_TLS) && keys.get("PayloadCertificateUUID").is_none() {
        return Err(refuse(payload, "PayloadCertificateUUID", "EAP-TLS needs an identity"));
    }
    Ok(())
}

/// Why the system takes no VPN payload.
fn no_vpn(device: &Situation) -> Option<&'static str> {
    match device.family {
        _ if device.user_enrollment => Some("forbidden in User Enrollment"),
        Family::Watch => Some("not known to watchOS"),
        Family::AppleTv if device.os < Version::new(17, 0) => Some("known to tvOS from 17.0"),
        _ => None,
    }
}

fn vpn(payload: &Payload) -> Result<(), Refusal> {
    let keys = &payload.keys;
    let required = |dict: &Value, key: &str| match dict.text(key) {
        Some(text) if !text.is_empty() => Ok(()),
        _ => Err(refuse(payload, key, "a string is required")),
    };
    required(keys, "VPNType")?;
    required(keys, "UserDefinedName")?;
    one_of(payload, keys, "VPNType", &["VPN", "L2TP", "IPSec", "IKEv2", "AlwaysOn", "TransparentProxy"])?;
    if keys.text("VPNType") != Some("IKEv2") {
        return Ok(());
    }
    let Some(ike) = keys.get("IKEv2") else { return Err(refuse(payload, "IKEv2", "a dict is required")) };
    for key in ["RemoteAddress", "LocalIdentifier", "RemoteIdentifier", "AuthenticationMethod"] {
        required(ike, key)?;
    }
    one_of(payload, ike, "AuthenticationMethod", &["None", "SharedSecret", "Certificate"])?;
    one_of(payload, ike, "CertificateType", &["RSA", "ECDSA256", "ECDSA384", "ECDSA521", "RSA-PSS", "Ed25519"])?;
    let extended =
        ike.get("ExtendedAuthEnabled").is_some_and(|on| matches!(on, Value::Integer(1) | Value::Boolean(true)));
    if ike.text("AuthenticationMethod") == Some("None") && !extended {
        return Err(refuse(payload, "AuthenticationMethod", "None needs ExtendedAuthEnabled"));
    }
    if ike.text("AuthenticationMethod") == Some("Certificate") {
        required(ike, "PayloadCertificateUUID")?;
    }
    if ike.get("CertificateType").is_some() {
        required(ike, "ServerCertificateIssuerCommonName")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware;
    use crate::plist::Writer;

    fn uuid(number: u8) -> String {
        format!("00000000-0000-4000-8000-0000000000{number:02}")
    }

    fn payload(kind: &str, number: u8) -> Writer {
        Writer::new()
            .string("PayloadType", kind)
            .integer("PayloadVersion", 1)
            .string("PayloadIdentifier", &format!("{kind}.{number}"))
            .string("PayloadUUID", &uuid(number))
    }

    fn identity() -> Writer {
        payload(acme::PAYLOAD_TYPE, 2)
            .string("DirectoryURL", "https://ca.example/acme")
            .string("ClientIdentifier", "abc")
            .string("KeyType", "ECSECPrimeRandom")
            .integer("KeySize", 256)
            .boolean("HardwareBound", true)
            .raw("Subject", "<array><array><array><string>CN</string><string>a</string></array></array></array>")
    }

    fn checked(companion: Writer) -> Result<Profile, Refusal> {
        checked_on(companion, &Situation::new(hardware::find("iPhone17,2").unwrap(), "18.1"))
    }

    fn checked_on(companion: Writer, device: &Situation) -> Result<Profile, Refusal> {
        let root = crate::authority::Authority::new("Root").unwrap().pem().unwrap();
        let root = openssl::x509::X509::from_pem(root.as_bytes()).unwrap().to_der().unwrap();
        let root = payload("com.apple.security.root", 4).data("PayloadContent", &root);
        let profile = Writer::new()
            .string("PayloadType", "Configuration")
            .integer("PayloadVersion", 1)
            .string("PayloadIdentifier", "x")
            .string("PayloadUUID", &uuid(1))
            .dicts("PayloadContent", &[root, identity(), companion])
            .document();
        crate::profile::check(&profile, device)
    }

    fn wifi(uuid: Option<String>, eap: &str) -> Writer {
        payload("com.apple.wifi.managed", 3)
            .string("SSID_STR", "Office")
            .string("EncryptionType", "WPA3")
            .maybe("PayloadCertificateUUID", uuid.as_deref())
            .raw("EAPClientConfiguration", &format!("<dict><key>AcceptEAPTypes</key><array>{eap}</array></dict>"))
    }

    fn vpn(change: &[(&str, &str)]) -> Writer {
        let uuid = uuid(2);
        let mut ike = vec![
            ("RemoteAddress", "vpn.example"),
            ("LocalIdentifier", "a"),
            ("RemoteIdentifier", "vpn.example"),
            ("AuthenticationMethod", "Certificate"),
            ("PayloadCertificateUUID", uuid.as_str()),
        ];
        for (key, value) in change {
            ike.retain(|(known, _)| known != key);
            ike.extend((!value.is_empty()).then_some((*key, *value)));
        }
        let ike = ike.iter().fold(Writer::new(), |writer, (key, value)| writer.string(key, value));
        payload("com.apple.vpn.managed", 3)
            .string("VPNType", "IKEv2")
            .string("UserDefinedName", "Office")
            .dict("IKEv2", &ike)
    }

    #[test]
    fn companions_that_refer_to_the_identity_are_taken() {
        let profile = checked(wifi(Some(uuid(2)), "<integer>13</integer>")).unwrap();
        assert_eq!(profile.certificates.len(), 1);
        checked(vpn(&[])).unwrap();
        let typed = [("CertificateType", "ECDSA256"), ("ServerCertificateIssuerCommonName", "Root")];
        checked(vpn(&typed)).unwrap();
    }

    #[test]
    fn a_vpn_is_taken_only_where_there_is_one() {
        let on = |product: &str, os: &str| Situation::new(hardware::find(product).unwrap(), os);
        let own = Situation { user_enrollment: true, ..on("iPhone17,2", "18.1") };
        for (device, taken) in [
            (own, false),
            (on("Watch7,3", "11.0"), false),
            (on("AppleTV14,1", "16.6"), false),
            (on("AppleTV14,1", "17.0"), true),
        ] {
            assert_eq!(checked_on(vpn(&[]), &device).is_ok(), taken, "{device:?}");
            checked_on(wifi(Some(uuid(2)), "<integer>13</integer>"), &device).unwrap();
        }
    }

    #[test]
    fn companions_that_refer_to_nothing_are_refused_by_the_name_of_their_key() {
        for (companion, key) in [
            (wifi(Some(uuid(9)), "<integer>13</integer>"), "PayloadCertificateUUID"),
            // A root is no identity.
            (wifi(Some(uuid(4)), "<integer>13</integer>"), "PayloadCertificateUUID"),
            (wifi(None, "<integer>13</integer>"), "PayloadCertificateUUID"),
            (wifi(Some(uuid(2)), "<integer>12</integer>"), "AcceptEAPTypes"),
            (vpn(&[("PayloadCertificateUUID", "")]), "PayloadCertificateUUID"),
            (vpn(&[("PayloadCertificateUUID", "x")]), "PayloadCertificateUUID"),
            (vpn(&[("RemoteIdentifier", "")]), "RemoteIdentifier"),
            (vpn(&[("AuthenticationMethod", "None")]), "AuthenticationMethod"),
            (vpn(&[("CertificateType", "ECDSA256")]), "ServerCertificateIssuerCommonName"),
            (payload("com.apple.security.root", 3), "PayloadContent"),
        ] {
            let text = checked(companion).unwrap_err().text;
            assert!(text.contains(&format!(": {key}: ")), "{key}: {text}");
        }
    }
}
