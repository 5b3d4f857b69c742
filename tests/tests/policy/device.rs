//! Pretend devices: what they are, and what they were sent.

use mdm_core::crypto::cms_verify::{Rules, Sha1Rule, verify_attached};
use mdm_core::enrollment::{DeviceKey, EnrollmentKind};
use mdm_core::ids::CommandUuid;
use mdm_core::plist::{Dictionary, Limits, Value, decode_dictionary};

/// What a device was sent.
pub struct Sent {
    pub uuid: CommandUuid,
    pub request_type: String,
    pub command: Dictionary,
    pub bytes: Vec<u8>,
}

impl Sent {
    /// The ACME payload inside the signed profile, and the profile around it.
    pub fn acme(&self) -> (Dictionary, Dictionary) {
        assert_eq!(self.request_type, "InstallProfile");
        let signed = self.command.get("Payload").and_then(Value::as_data).unwrap();
        let (_, content) = verify_attached(signed, Rules { sha1: Sha1Rule::Refuse }).unwrap();
        let profile = decode_dictionary(&content, Limits::REPORT).unwrap();
        let payloads = profile.get("PayloadContent").and_then(Value::as_array).unwrap();
        assert_eq!(payloads.len(), 1);
        (profile.clone(), payloads[0].as_dictionary().unwrap().clone())
    }

    pub fn client_identifier(&self) -> String {
        text(&self.acme().1, "ClientIdentifier").to_owned()
    }
}

pub fn text<'a>(dictionary: &'a Dictionary, key: &str) -> &'a str {
    dictionary.get(key).and_then(Value::as_string).unwrap_or_else(|| panic!("no {key}"))
}

pub fn flag(dictionary: &Dictionary, key: &str) -> Option<bool> {
    dictionary.get(key).map(|v| v.as_boolean().unwrap())
}

/// A device to enroll.
#[derive(Clone, Copy)]
pub struct Device {
    pub n: u64,
    pub product: &'static str,
    pub os: &'static str,
    pub kind: EnrollmentKind,
}

pub fn device(n: u64, product: &'static str, os: &'static str) -> Device {
    Device { n, product, os, kind: EnrollmentKind::Device }
}

pub fn phone(n: u64) -> Device {
    device(n, "iPhone15,2", "17.0")
}

impl Device {
    pub fn key(self) -> DeviceKey {
        let id = format!("00008110-{:016X}", self.n);
        match self.kind {
            EnrollmentKind::User => DeviceKey::EnrollmentId(id.parse().unwrap()),
            _ => DeviceKey::Udid(id.parse().unwrap()),
        }
    }

    /// What it answers to DeviceInformation.
    pub fn answers(self) -> Dictionary {
        let mut responses = Dictionary::new();
        responses.insert("ProductName".into(), self.product.into());
        responses.insert("OSVersion".into(), self.os.into());
        if self.product.contains("Mac") {
            let apple_silicon = self.product.starts_with("Mac1") || self.product.starts_with("VirtualMac");
            responses.insert("IsAppleSilicon".into(), apple_silicon.into());
        }
        if self.kind != EnrollmentKind::User {
            responses.insert("SerialNumber".into(), format!("SERIAL{}", self.n).into());
        }
        let mut body = Dictionary::new();
        body.insert("QueryResponses".into(), Value::Dictionary(responses));
        body
    }
}
