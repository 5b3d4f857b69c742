//! Payloads that travel in the same profile as the identity and refer to it by its `PayloadUUID`.
//!
//! An identity alone opens no door: a Wi-Fi network or a VPN must name it, and it can only be named from within its own
//! profile (acme.md section 7). Replacing the profile replaces all of it at once.

mod check;
mod raw;
mod render;

use mdm_core::hardware::Platform;
use serde::{Deserialize, Serialize};

pub(crate) use check::check;
pub(crate) use render::Ready;
pub use render::{Device, Names, left_out, payloads, unfit};

/// The name that the identity's own payload has; no companion can take it.
pub const IDENTITY: &str = "identity";

/// A payload beside the identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Companion {
    /// A certificate that the device shall trust, or needs for its chain: `com.apple.security.root` where it is self-signed,
    /// `com.apple.security.pkcs1` where it is not.
    Certificate(CertificateCompanion),
    /// A Wi-Fi network with EAP-TLS: `com.apple.wifi.managed`.
    Wifi(WifiCompanion),
    /// An IKEv2 VPN: `com.apple.vpn.managed`.
    VpnIkev2(VpnCompanion),
    /// Any other payload, key by key.
    Raw(RawCompanion),
}

/// What every companion has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common<'a> {
    pub(crate) name: &'a str,
    pub(crate) display_name: Option<&'a str>,
    pub(crate) platforms: &'a [Platform],
    pub(crate) optional: bool,
}

/// A certificate without a private key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateCompanion {
    /// What other companions call it, and the end of its `PayloadIdentifier`: letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// `PayloadDisplayName`; the name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The operating systems that it is for; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// One certificate, PEM.
    pub certificate: String,
}

/// A Wi-Fi network that the identity opens by EAP-TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WifiCompanion {
    /// The end of its `PayloadIdentifier`: letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// `PayloadDisplayName`; the name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The operating systems that it is for; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// `SSID_STR`: 1 to 32 bytes.
    pub ssid: String,
    /// `HIDDEN_NETWORK`.
    #[serde(default)]
    pub hidden: bool,
    /// `AutoJoin`.
    #[serde(default = "yes")]
    pub auto_join: bool,
    /// `EncryptionType`: `WPA`, `WPA2`, `WPA3` or `Any`.
    #[serde(default = "default_encryption_type")]
    pub encryption_type: String,
    /// `EAPClientConfiguration.UserName`, a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// `EAPClientConfiguration.OuterIdentity`, a template. Apple demands it where `tls_minimum_version` is 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_identity: Option<String>,
    /// `EAPClientConfiguration.PayloadCertificateAnchorUUID`: certificates of this policy that may have signed the RADIUS server's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_certificates: Vec<String>,
    /// `EAPClientConfiguration.TLSTrustedServerNames`: names of the RADIUS server's certificate; `*` stands for one part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_server_names: Vec<String>,
    /// `EAPClientConfiguration.TLSMinimumVersion`: `1.0` to `1.3`.
    #[serde(default = "default_tls_minimum_version")]
    pub tls_minimum_version: String,
    /// `EAPClientConfiguration.TLSMaximumVersion`: `1.0` to `1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_maximum_version: Option<String>,
    /// `SetupModes`, macOS only: `System` joins before anyone logs in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup_modes: Vec<String>,
}

/// How an IKEv2 VPN uses the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VpnAuthentication {
    /// The machine authenticates by its certificate: `AuthenticationMethod` is `Certificate`.
    #[default]
    Certificate,
    /// EAP-TLS: `AuthenticationMethod` is `None` and `ExtendedAuthEnabled` is 1.
    EapTls,
}

/// `IKESecurityAssociationParameters` or `ChildSecurityAssociationParameters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityAssociation {
    /// `EncryptionAlgorithm`: `AES-128`, `AES-256`, `AES-128-GCM`, `AES-256-GCM` or `ChaCha20Poly1305`.
    #[serde(default = "default_encryption_algorithm")]
    pub encryption_algorithm: String,
    /// `IntegrityAlgorithm`: `SHA2-256`, `SHA2-384` or `SHA2-512`.
    #[serde(default = "default_integrity_algorithm")]
    pub integrity_algorithm: String,
    /// `DiffieHellmanGroup`: 14 to 21, 31 or 32.
    #[serde(default = "default_group")]
    pub diffie_hellman_group: u32,
    /// `LifeTimeInMinutes`: 10 to 1,440.
    #[serde(default = "default_lifetime")]
    pub lifetime_minutes: u32,
}

/// An IKEv2 VPN that the identity opens. Apple forbids VPN payloads in User Enrollment and has none on watchOS; on Apple TV they exist
/// from tvOS 17.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the payload or a switch of the companion")]
pub struct VpnCompanion {
    /// The end of its `PayloadIdentifier`: letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// `UserDefinedName` and `PayloadDisplayName`; the name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The operating systems that it is for; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// A device that Apple allows no VPN payload gets the profile without it. False: such a device is refused, with the reason.
    #[serde(default)]
    pub optional: bool,
    /// `IKEv2.RemoteAddress`: host name or IP address.
    pub remote_address: String,
    /// `IKEv2.RemoteIdentifier`.
    pub remote_identifier: String,
    /// `IKEv2.LocalIdentifier`, a template; usually what the certificate's subject or alternative name says.
    pub local_identifier: String,
    /// How the identity is used.
    #[serde(default)]
    pub authentication: VpnAuthentication,
    /// `IKEv2.ServerCertificateIssuerCommonName`. Required unless the key is RSA, since `CertificateType` is then written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate_issuer_common_name: Option<String>,
    /// `IKEv2.ServerCertificateCommonName`; a device takes `remote_identifier` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate_common_name: Option<String>,
    /// `IKEv2.OnDemandEnabled` with one rule: connect on every network.
    #[serde(default)]
    pub on_demand: bool,
    /// `IKEv2.EnablePFS`.
    #[serde(default = "yes")]
    pub perfect_forward_secrecy: bool,
    /// `IKEv2.EnableCertificateRevocationCheck`.
    #[serde(default)]
    pub certificate_revocation_check: bool,
    /// `IKEv2.IKESecurityAssociationParameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_security_association: Option<SecurityAssociation>,
    /// `IKEv2.ChildSecurityAssociationParameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_security_association: Option<SecurityAssociation>,
}

/// Any payload. Texts are templates; `{identity_uuid}` is the identity's `PayloadUUID`. Objects with one key stand for what JSON
/// cannot say: `{"$data": base64}`, `{"$date": RFC 3339}` and `{"$payload_uuid": name of another companion}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCompanion {
    /// What other companions call it, and the end of its `PayloadIdentifier`: letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// `PayloadDisplayName`; the name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The operating systems that it is for; none: all. Assay does not know where Apple allows this payload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// `PayloadType`, such as `com.apple.dnsSettings.managed`.
    pub payload_type: String,
    /// Its keys, without those that every payload has.
    #[schema(value_type = Object)]
    pub keys: serde_json::Map<String, serde_json::Value>,
}

impl Companion {
    /// Its name.
    pub fn name(&self) -> &str {
        self.common().name
    }

    pub(crate) fn common(&self) -> Common<'_> {
        let (name, display_name, platforms, optional) = match self {
            Self::Certificate(c) => (&c.name, &c.display_name, &c.platforms, false),
            Self::Wifi(c) => (&c.name, &c.display_name, &c.platforms, false),
            Self::VpnIkev2(c) => (&c.name, &c.display_name, &c.platforms, c.optional),
            Self::Raw(c) => (&c.name, &c.display_name, &c.platforms, false),
        };
        Common { name, display_name: display_name.as_deref(), platforms, optional }
    }
}

fn yes() -> bool {
    true
}

fn default_encryption_type() -> String {
    "WPA2".to_owned()
}

fn default_tls_minimum_version() -> String {
    "1.2".to_owned()
}

fn default_encryption_algorithm() -> String {
    "AES-256-GCM".to_owned()
}

fn default_integrity_algorithm() -> String {
    "SHA2-256".to_owned()
}

fn default_group() -> u32 {
    19
}

fn default_lifetime() -> u32 {
    1440
}

#[cfg(test)]
mod tests;
