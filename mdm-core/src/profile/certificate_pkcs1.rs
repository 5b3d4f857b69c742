//! The certificate payload (`com.apple.security.pkcs1`): a certificate without a key that is no root, such as an intermediate.
//!
//! Source: Apple, "CertificatePKCS1" (`com.apple.security.pkcs1.yaml`).

use uuid::Uuid;

use super::Payload;
use crate::plist::{Dictionary, Value};

/// A certificate that the device keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePkcs1 {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`; other payloads refer to it.
    pub uuid: Uuid,
    /// `PayloadDisplayName`.
    pub display_name: String,
    /// `PayloadContent`: the certificate's DER.
    pub der: Vec<u8>,
}

impl From<CertificatePkcs1> for Payload {
    fn from(certificate: CertificatePkcs1) -> Self {
        let mut keys = Dictionary::new();
        keys.insert("PayloadContent".into(), Value::Data(certificate.der));
        Self {
            payload_type: "com.apple.security.pkcs1".into(),
            identifier: certificate.identifier,
            uuid: certificate.uuid,
            display_name: Some(certificate.display_name),
            keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::profile::Profile;

    #[test]
    fn an_intermediate_is_written_as_stored() {
        let certificate = CertificatePkcs1 {
            identifier: "org.example.mdm.issuing".into(),
            uuid: Uuid::from_bytes([0xA1; 16]),
            display_name: "Example issuing CA".into(),
            der: vec![0x30, 0x03, 0x02, 0x01, 0x00],
        };
        let profile = Profile {
            identifier: "org.example.mdm".into(),
            uuid: Uuid::from_bytes([0xE5; 16]),
            display_name: "Certificates".into(),
            organization: None,
            description: None,
            scope: None,
            removal_disallowed: false,
            payloads: vec![certificate.into()],
        };
        golden::same("profile_certificate_pkcs1", &profile.encode());
    }
}
