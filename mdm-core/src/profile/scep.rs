//! The SCEP payload (`com.apple.security.scep`): the device makes a key and asks for its certificate by SCEP (RFC 8894).
//!
//! Source: Apple, "SCEP" (`com.apple.security.scep.yaml`).

use uuid::Uuid;

use super::{Payload, subject_value};
use crate::plist::{Dictionary, Value};
use crate::secret::Secret;

/// `Key Usage`: what the device's key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUsage {
    /// 1.
    Signing,
    /// 4.
    Encryption,
    /// 5.
    SigningAndEncryption,
}

impl KeyUsage {
    fn bits(self) -> i64 {
        match self {
            Self::Signing => 1,
            Self::Encryption => 4,
            Self::SigningAndEncryption => 5,
        }
    }
}

/// What the device needs for one SCEP enrollment. The key is always RSA with 2048 bits, written out: a client that
/// finds no `Keysize` takes 1024.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScepPayload {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`; `IdentityCertificateUUID` of the MDM payload refers to it.
    pub uuid: Uuid,
    /// `PayloadDisplayName`.
    pub display_name: String,
    /// `URL` of the SCEP server.
    pub url: String,
    /// `Name`: which CA, where the server has several.
    pub name: Option<String>,
    /// `Subject`: pairs of attribute type and value, one RDN each.
    pub subject: Vec<(String, String)>,
    /// `Challenge`: the one-time password. The finished profile carries it in clear.
    pub challenge: Secret<String>,
    /// `Key Usage`.
    pub key_usage: KeyUsage,
    /// `Retries` after a PENDING or failed answer.
    pub retries: u32,
    /// `RetryDelay` in seconds.
    pub retry_delay: u32,
    /// `CAFingerprint`: hash of the CA certificate, for a SCEP server that is reached without TLS.
    pub ca_fingerprint: Option<Vec<u8>>,
}

impl From<ScepPayload> for Payload {
    fn from(scep: ScepPayload) -> Self {
        let mut content = Dictionary::new();
        content.insert("URL".into(), scep.url.into());
        if let Some(name) = scep.name {
            content.insert("Name".into(), name.into());
        }
        if !scep.subject.is_empty() {
            content.insert("Subject".into(), subject_value(&scep.subject));
        }
        content.insert("Challenge".into(), scep.challenge.expose().as_str().into());
        content.insert("Keysize".into(), 2048.into());
        content.insert("Key Type".into(), "RSA".into());
        content.insert("Key Usage".into(), scep.key_usage.bits().into());
        content.insert("Retries".into(), i64::from(scep.retries).into());
        content.insert("RetryDelay".into(), i64::from(scep.retry_delay).into());
        if let Some(fingerprint) = scep.ca_fingerprint {
            content.insert("CAFingerprint".into(), Value::Data(fingerprint));
        }
        let mut keys = Dictionary::new();
        keys.insert("PayloadContent".into(), Value::Dictionary(content));
        Self {
            payload_type: "com.apple.security.scep".into(),
            identifier: scep.identifier,
            uuid: scep.uuid,
            display_name: Some(scep.display_name),
            keys,
        }
    }
}
