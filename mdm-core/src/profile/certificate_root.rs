//! The root certificate payload (`com.apple.security.root`): a CA that the device shall trust.
//!
//! Source: Apple, "CertificateRoot" (`com.apple.security.root.yaml`). A root that comes with the enrollment profile is
//! trusted for TLS by the device without a further step by the person.

use uuid::Uuid;

use super::Payload;
use crate::plist::{Dictionary, Value};

/// A certificate that the device shall trust as an anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRoot {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`; pinning lists refer to it.
    pub uuid: Uuid,
    /// `PayloadDisplayName`.
    pub display_name: String,
    /// `PayloadContent`: the certificate's DER.
    pub der: Vec<u8>,
}

impl From<CertificateRoot> for Payload {
    fn from(root: CertificateRoot) -> Self {
        let mut keys = Dictionary::new();
        keys.insert("PayloadContent".into(), Value::Data(root.der));
        Self {
            payload_type: "com.apple.security.root".into(),
            identifier: root.identifier,
            uuid: root.uuid,
            display_name: Some(root.display_name),
            keys,
        }
    }
}
