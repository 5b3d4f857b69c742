//! The Wi-Fi payload (`com.apple.wifi.managed`) for networks that a certificate opens: EAP-TLS.
//!
//! Source: Apple, "WiFi" (`com.apple.wifi.managed.yaml`). The identity and the anchors are payloads of the same profile and
//! are named by their `PayloadUUID`.

use uuid::Uuid;

use super::{Payload, uuid_text};
use crate::plist::{Dictionary, Value};

/// `AcceptEAPTypes`: EAP-TLS.
const EAP_TLS: i64 = 13;

/// A network with EAP-TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WifiEapTls {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`.
    pub uuid: Uuid,
    /// `PayloadDisplayName`.
    pub display_name: String,
    /// `SSID_STR`.
    pub ssid: String,
    /// `HIDDEN_NETWORK`.
    pub hidden: bool,
    /// `AutoJoin`.
    pub auto_join: bool,
    /// `EncryptionType`.
    pub encryption_type: String,
    /// `PayloadCertificateUUID`: the payload of the identity.
    pub identity: Uuid,
    /// `EAPClientConfiguration.UserName`.
    pub user_name: Option<String>,
    /// `EAPClientConfiguration.OuterIdentity`.
    pub outer_identity: Option<String>,
    /// `EAPClientConfiguration.PayloadCertificateAnchorUUID`.
    pub anchors: Vec<Uuid>,
    /// `EAPClientConfiguration.TLSTrustedServerNames`.
    pub server_names: Vec<String>,
    /// `EAPClientConfiguration.TLSMinimumVersion`.
    pub tls_minimum_version: String,
    /// `EAPClientConfiguration.TLSMaximumVersion`.
    pub tls_maximum_version: Option<String>,
    /// `SetupModes`: macOS only; none leaves the key out.
    pub setup_modes: Vec<String>,
}

impl From<WifiEapTls> for Payload {
    fn from(wifi: WifiEapTls) -> Self {
        let strings = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::from).collect());
        let mut eap = Dictionary::new();
        eap.insert("AcceptEAPTypes".into(), Value::Array(vec![EAP_TLS.into()]));
        // The device shows its certificate; without it EAP-TLS would let anybody in ("zero-factor authentication").
        eap.insert("TLSCertificateIsRequired".into(), true.into());
        for (key, text) in [("UserName", wifi.user_name), ("OuterIdentity", wifi.outer_identity)] {
            if let Some(text) = text {
                eap.insert(key.into(), text.into());
            }
        }
        if !wifi.anchors.is_empty() {
            let anchors = wifi.anchors.iter().map(|uuid| uuid_text(*uuid).into()).collect();
            eap.insert("PayloadCertificateAnchorUUID".into(), Value::Array(anchors));
        }
        if !wifi.server_names.is_empty() {
            eap.insert("TLSTrustedServerNames".into(), strings(wifi.server_names));
        }
        eap.insert("TLSMinimumVersion".into(), wifi.tls_minimum_version.into());
        if let Some(version) = wifi.tls_maximum_version {
            eap.insert("TLSMaximumVersion".into(), version.into());
        }
        let mut keys = Dictionary::new();
        keys.insert("SSID_STR".into(), wifi.ssid.into());
        keys.insert("HIDDEN_NETWORK".into(), wifi.hidden.into());
        keys.insert("AutoJoin".into(), wifi.auto_join.into());
        keys.insert("EncryptionType".into(), wifi.encryption_type.into());
        keys.insert("PayloadCertificateUUID".into(), uuid_text(wifi.identity).into());
        keys.insert("EAPClientConfiguration".into(), Value::Dictionary(eap));
        if !wifi.setup_modes.is_empty() {
            keys.insert("SetupModes".into(), strings(wifi.setup_modes));
        }
        Self {
            payload_type: "com.apple.wifi.managed".into(),
            identifier: wifi.identifier,
            uuid: wifi.uuid,
            display_name: Some(wifi.display_name),
            keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::profile::{Profile, Scope};

    fn id(n: u8) -> Uuid {
        Uuid::from_bytes([n; 16])
    }

    fn office() -> WifiEapTls {
        WifiEapTls {
            identifier: "org.example.mdm.office".into(),
            uuid: id(0xA1),
            display_name: "Office".into(),
            ssid: "Example & Co".into(),
            hidden: false,
            auto_join: true,
            encryption_type: "WPA2".into(),
            identity: id(0xB2),
            user_name: Some("host/C02".into()),
            outer_identity: Some("anonymous".into()),
            anchors: vec![id(0xC3), id(0xD4)],
            server_names: vec!["radius.example.org".into(), "*.radius.example.org".into()],
            tls_minimum_version: "1.2".into(),
            tls_maximum_version: Some("1.3".into()),
            setup_modes: vec!["System".into()],
        }
    }

    fn written(wifi: WifiEapTls) -> Vec<u8> {
        let profile = Profile {
            identifier: "org.example.mdm".into(),
            uuid: id(0xE5),
            display_name: "Wi-Fi".into(),
            organization: None,
            description: None,
            scope: Some(Scope::System),
            removal_disallowed: true,
            payloads: vec![wifi.into()],
        };
        profile.encode()
    }

    #[test]
    fn a_network_with_every_key_is_written_as_stored() {
        golden::same("profile_wifi", &written(office()));
    }

    #[test]
    fn what_is_not_given_is_left_out() {
        let bare = WifiEapTls {
            user_name: None,
            outer_identity: None,
            anchors: vec![],
            server_names: vec![],
            tls_maximum_version: None,
            setup_modes: vec![],
            ..office()
        };
        golden::same("profile_wifi_bare", &written(bare));
    }
}
