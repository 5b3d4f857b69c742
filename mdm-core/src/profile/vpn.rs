//! The VPN payload (`com.apple.vpn.managed`) of the type IKEv2, opened by a certificate.
//!
//! Source: Apple, "VPN" (`com.apple.vpn.managed.yaml`), dictionary `IKEv2`. Integers stand where Apple's page has integers that
//! mean yes and no.

use uuid::Uuid;

use super::{Payload, uuid_text};
use crate::plist::{Dictionary, Value};

/// How the certificate is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// IKEv2 machine authentication.
    Certificate,
    /// EAP-TLS only.
    EapTls,
}

/// `IKESecurityAssociationParameters` and `ChildSecurityAssociationParameters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityAssociation {
    /// `EncryptionAlgorithm`.
    pub encryption: String,
    /// `IntegrityAlgorithm`.
    pub integrity: String,
    /// `DiffieHellmanGroup`.
    pub group: u32,
    /// `LifeTimeInMinutes`.
    pub lifetime_minutes: u32,
}

impl From<SecurityAssociation> for Value {
    fn from(association: SecurityAssociation) -> Self {
        let mut out = Dictionary::new();
        out.insert("EncryptionAlgorithm".into(), association.encryption.into());
        out.insert("IntegrityAlgorithm".into(), association.integrity.into());
        out.insert("DiffieHellmanGroup".into(), association.group.into());
        out.insert("LifeTimeInMinutes".into(), association.lifetime_minutes.into());
        Self::Dictionary(out)
    }
}

/// An IKEv2 VPN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpnIkev2 {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`.
    pub uuid: Uuid,
    /// `PayloadDisplayName` and `UserDefinedName`.
    pub display_name: String,
    /// `RemoteAddress`.
    pub remote_address: String,
    /// `RemoteIdentifier`.
    pub remote_identifier: String,
    /// `LocalIdentifier`.
    pub local_identifier: String,
    /// `AuthenticationMethod` and `ExtendedAuthEnabled`.
    pub authentication: Authentication,
    /// `PayloadCertificateUUID`: the payload of the identity.
    pub identity: Uuid,
    /// `CertificateType`; a device takes RSA where it is left out.
    pub certificate_type: Option<&'static str>,
    /// `ServerCertificateIssuerCommonName`.
    pub server_issuer: Option<String>,
    /// `ServerCertificateCommonName`.
    pub server_name: Option<String>,
    /// `OnDemandEnabled`, with the one rule to connect.
    pub on_demand: bool,
    /// `EnablePFS`.
    pub perfect_forward_secrecy: bool,
    /// `EnableCertificateRevocationCheck`.
    pub revocation_check: bool,
    /// `IKESecurityAssociationParameters`.
    pub ike: Option<SecurityAssociation>,
    /// `ChildSecurityAssociationParameters`.
    pub child: Option<SecurityAssociation>,
}

impl From<VpnIkev2> for Payload {
    fn from(vpn: VpnIkev2) -> Self {
        let mut ikev2 = Dictionary::new();
        let (method, extended) = match vpn.authentication {
            Authentication::Certificate => ("Certificate", 0),
            Authentication::EapTls => ("None", 1),
        };
        ikev2.insert("RemoteAddress".into(), vpn.remote_address.into());
        ikev2.insert("RemoteIdentifier".into(), vpn.remote_identifier.into());
        ikev2.insert("LocalIdentifier".into(), vpn.local_identifier.into());
        ikev2.insert("AuthenticationMethod".into(), method.into());
        ikev2.insert("ExtendedAuthEnabled".into(), extended.into());
        ikev2.insert("PayloadCertificateUUID".into(), uuid_text(vpn.identity).into());
        if let Some(kind) = vpn.certificate_type {
            ikev2.insert("CertificateType".into(), kind.into());
        }
        if let Some(issuer) = vpn.server_issuer {
            ikev2.insert("ServerCertificateIssuerCommonName".into(), issuer.into());
        }
        if let Some(name) = vpn.server_name {
            ikev2.insert("ServerCertificateCommonName".into(), name.into());
        }
        if vpn.on_demand {
            let mut rule = Dictionary::new();
            rule.insert("Action".into(), "Connect".into());
            ikev2.insert("OnDemandEnabled".into(), 1.into());
            ikev2.insert("OnDemandRules".into(), Value::Array(vec![Value::Dictionary(rule)]));
        }
        ikev2.insert("EnablePFS".into(), i64::from(vpn.perfect_forward_secrecy).into());
        ikev2.insert("EnableCertificateRevocationCheck".into(), i64::from(vpn.revocation_check).into());
        if let Some(ike) = vpn.ike {
            ikev2.insert("IKESecurityAssociationParameters".into(), ike.into());
        }
        if let Some(child) = vpn.child {
            ikev2.insert("ChildSecurityAssociationParameters".into(), child.into());
        }
        let mut keys = Dictionary::new();
        keys.insert("VPNType".into(), "IKEv2".into());
        keys.insert("UserDefinedName".into(), vpn.display_name.as_str().into());
        keys.insert("IKEv2".into(), Value::Dictionary(ikev2));
        Self {
            payload_type: "com.apple.vpn.managed".into(),
            identifier: vpn.identifier,
            uuid: vpn.uuid,
            display_name: Some(vpn.display_name),
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

    fn vpn() -> VpnIkev2 {
        let association = |group| SecurityAssociation {
            encryption: "AES-256-GCM".into(),
            integrity: "SHA2-256".into(),
            group,
            lifetime_minutes: 1440,
        };
        VpnIkev2 {
            identifier: "org.example.mdm.vpn".into(),
            uuid: id(0xA1),
            display_name: "Example VPN".into(),
            remote_address: "vpn.example.org".into(),
            remote_identifier: "vpn.example.org".into(),
            local_identifier: "C02".into(),
            authentication: Authentication::Certificate,
            identity: id(0xB2),
            certificate_type: Some("ECDSA256"),
            server_issuer: Some("Example CA".into()),
            server_name: Some("vpn.example.org".into()),
            on_demand: true,
            perfect_forward_secrecy: true,
            revocation_check: true,
            ike: Some(association(19)),
            child: Some(association(20)),
        }
    }

    fn written(vpn: VpnIkev2) -> Vec<u8> {
        let profile = Profile {
            identifier: "org.example.mdm".into(),
            uuid: id(0xE5),
            display_name: "VPN".into(),
            organization: None,
            description: None,
            scope: Some(Scope::System),
            removal_disallowed: false,
            payloads: vec![vpn.into()],
        };
        profile.encode()
    }

    #[test]
    fn a_vpn_with_every_key_is_written_as_stored() {
        golden::same("profile_vpn_ikev2", &written(vpn()));
    }

    #[test]
    fn eap_tls_and_what_is_not_given() {
        let bare = VpnIkev2 {
            authentication: Authentication::EapTls,
            certificate_type: None,
            server_issuer: None,
            server_name: None,
            on_demand: false,
            perfect_forward_secrecy: false,
            revocation_check: false,
            ike: None,
            child: None,
            ..vpn()
        };
        golden::same("profile_vpn_ikev2_eap_tls", &written(bare));
    }
}
