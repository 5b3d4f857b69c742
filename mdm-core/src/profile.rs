//! The configuration profile: the envelope, and the payloads inside it.
//!
//! Source: Apple, "TopLevel" and "CommonPayloadKeys" (`TopLevel.yaml`, `CommonPayloadKeys.yaml`). What is built here is
//! only ever encoded; profiles of other people are passed on as the bytes they are.

pub mod acme;
pub mod certificate_pkcs1;
pub mod certificate_root;
pub mod mdm;
pub mod scep;
pub mod vpn;
pub mod wifi;

use uuid::Uuid;

use crate::plist::{self, Dictionary, Value};

/// `PayloadScope`: for whom a Mac installs the profile; other systems take no notice of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// For the whole device (`System`).
    System,
    /// For one user (`User`).
    User,
}

impl Scope {
    /// Apple's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::User => "User",
        }
    }
}

/// One payload: the keys that every payload has, and those of its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// `PayloadType`, such as `com.apple.mdm`.
    pub payload_type: String,
    /// `PayloadIdentifier`: stable over the life of what it configures.
    pub identifier: String,
    /// `PayloadUUID`: other payloads of the same profile refer to this one by it.
    pub uuid: Uuid,
    /// `PayloadDisplayName`: what a person reads.
    pub display_name: Option<String>,
    /// The keys of the type itself.
    pub keys: Dictionary,
}

impl Payload {
    /// The payload as it stands in `PayloadContent`. The common keys win over keys of the same name in [`Self::keys`].
    fn to_value(&self) -> Value {
        let mut out = self.keys.clone();
        insert_common(&mut out, &self.payload_type, &self.identifier, self.uuid);
        if let Some(name) = &self.display_name {
            out.insert("PayloadDisplayName".into(), name.as_str().into());
        }
        Value::Dictionary(out)
    }
}

/// A configuration profile (`PayloadType` `Configuration`).
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// `PayloadIdentifier`: a profile with the same one replaces this one on the device.
    pub identifier: String,
    /// `PayloadUUID`: new for each revision.
    pub uuid: Uuid,
    /// `PayloadDisplayName`: the heading a person reads.
    pub display_name: String,
    /// `PayloadOrganization`: who it is from, for a person.
    pub organization: Option<String>,
    /// `PayloadDescription`: what it is for, for a person.
    pub description: Option<String>,
    /// `PayloadScope`; absent means `User` to a Mac.
    pub scope: Option<Scope>,
    /// `PayloadRemovalDisallowed`; forbidden in User Enrollment, written only where true.
    pub removal_disallowed: bool,
    /// `PayloadContent`.
    pub payloads: Vec<Payload>,
}

impl Profile {
    /// The profile as an XML property list, not signed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Dictionary::new();
        insert_common(&mut out, "Configuration", &self.identifier, self.uuid);
        out.insert("PayloadDisplayName".into(), self.display_name.as_str().into());
        if let Some(organization) = &self.organization {
            out.insert("PayloadOrganization".into(), organization.as_str().into());
        }
        if let Some(description) = &self.description {
            out.insert("PayloadDescription".into(), description.as_str().into());
        }
        if let Some(scope) = self.scope {
            out.insert("PayloadScope".into(), scope.as_str().into());
        }
        if self.removal_disallowed {
            out.insert("PayloadRemovalDisallowed".into(), true.into());
        }
        let payloads = self.payloads.iter().map(Payload::to_value).collect();
        out.insert("PayloadContent".into(), Value::Array(payloads));
        plist::encode(&Value::Dictionary(out))
    }
}

/// A UUID in the upper-case form that Apple's own tools write.
pub fn uuid_text(uuid: Uuid) -> String {
    uuid.hyphenated().to_string().to_ascii_uppercase()
}

fn insert_common(out: &mut Dictionary, payload_type: &str, identifier: &str, uuid: Uuid) {
    out.insert("PayloadType".into(), payload_type.into());
    out.insert("PayloadVersion".into(), 1.into());
    out.insert("PayloadIdentifier".into(), identifier.into());
    out.insert("PayloadUUID".into(), uuid_text(uuid).into());
}

/// A distinguished name as SCEP and ACME payloads write it: an array of RDNs, each an array of `[type, value]` pairs.
/// Each pair given here becomes an RDN of its own; `type` is `C`, `L`, `ST`, `O`, `OU`, `CN` or a dotted OID.
pub fn subject_value(rdns: &[(String, String)]) -> Value {
    let rdn = |(kind, value): &(String, String)| {
        Value::Array(vec![Value::Array(vec![kind.as_str().into(), value.as_str().into()])])
    };
    Value::Array(rdns.iter().map(rdn).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::secret::Secret;

    fn id(n: u8) -> Uuid {
        Uuid::from_bytes([n; 16])
    }

    fn identity() -> scep::ScepPayload {
        scep::ScepPayload {
            identifier: "org.example.mdm.identity".into(),
            uuid: id(0xA1),
            display_name: "Identity".into(),
            url: "https://mdm.example.org/scep".into(),
            name: Some("Assay".into()),
            subject: vec![("O".into(), "Example".into()), ("CN".into(), "Device <&> 1".into())],
            challenge: Secret::new("one-time".into()),
            key_usage: scep::KeyUsage::SigningAndEncryption,
            retries: 3,
            retry_delay: 10,
            ca_fingerprint: None,
        }
    }

    fn management(mode: mdm::Mode, pinning: Vec<Uuid>) -> mdm::MdmPayload {
        mdm::MdmPayload {
            identifier: "org.example.mdm.mdm".into(),
            uuid: id(0xB2),
            identity: id(0xA1),
            topic: "com.apple.mgmt.External.0a1b2c3d-0000-4000-8000-000000000001".into(),
            server_url: "https://mdm.example.org/mdm/connect".into(),
            check_in_url: "https://mdm.example.org/mdm/checkin".into(),
            sign_message: true,
            use_development_apns: false,
            mode,
            pinning,
            pinning_revocation_check: false,
        }
    }

    fn profile(payloads: Vec<Payload>) -> Profile {
        Profile {
            identifier: "org.example.mdm".into(),
            uuid: id(0xC3),
            display_name: "Example management".into(),
            organization: Some("Example".into()),
            description: Some("Lets Example manage this device.".into()),
            scope: Some(Scope::System),
            removal_disallowed: false,
            payloads,
        }
    }

    #[test]
    fn an_enrollment_profile_is_written_as_stored() {
        let root = certificate_root::CertificateRoot {
            identifier: "org.example.mdm.root".into(),
            uuid: id(0xD4),
            display_name: "Example root".into(),
            der: vec![0x30, 0x03, 0x02, 0x01, 0x00],
        };
        let mdm = management(mdm::Mode::Device, vec![id(0xD4)]);
        let device = profile(vec![root.into(), identity().into(), mdm.into()]);
        golden::same("profile_enrollment_device", &device.encode());
    }

    #[test]
    fn a_user_enrollment_profile_has_no_access_rights() {
        let mode = mdm::Mode::User { managed_apple_id: "ada@example.org".into() };
        let user = profile(vec![identity().into(), management(mode, vec![]).into()]);
        let written = user.encode();
        golden::same("profile_enrollment_user", &written);
        assert!(!String::from_utf8_lossy(&written).contains("AccessRights"));
    }

    fn acme_identity() -> acme::AcmePayload {
        let pair = |kind: &str, value: &str| vec![vec![kind.to_owned(), value.to_owned()]];
        let keys = acme::AcmeKeys {
            directory_url: "https://ca.example.org/acme/directory".into(),
            client_identifier: "one-time".into(),
            key_type: "ECSECPrimeRandom".into(),
            key_size: 256,
            hardware_bound: true,
            subject: vec![pair("O", "Example"), pair("CN", "one-time")],
            subject_alt_name: acme::SubjectAltName::default(),
            usage_flags: Some(1),
            extended_key_usage: vec!["1.3.6.1.5.5.7.3.2".into()],
            attest: acme::Attest::True,
            mac: None,
        };
        acme::AcmePayload::new(keys, Some(crate::hardware::Platform::Ios)).unwrap()
    }

    #[test]
    fn the_management_may_refer_to_an_acme_identity() {
        let identity = acme_identity().payload("org.example.mdm.identity".into(), id(0xA1), Some("Identity".into()));
        let acme = profile(vec![identity, management(mdm::Mode::Device, vec![]).into()]);
        golden::same("profile_enrollment_acme", &acme.encode());
    }

    #[test]
    fn an_account_driven_device_enrollment_has_account_mode_and_access_rights() {
        let mode = mdm::Mode::AccountDevice { managed_apple_id: "ada@example.org".into() };
        let account = profile(vec![identity().into(), management(mode, vec![]).into()]);
        golden::same("profile_enrollment_account_device", &account.encode());
    }

    #[test]
    fn the_common_keys_can_not_be_overwritten() {
        let mut payload: Payload = identity().into();
        payload.keys.insert("PayloadType".into(), "com.apple.mdm".into());
        let Value::Dictionary(written) = payload.to_value() else { panic!("a payload is a dictionary") };
        assert_eq!(written.get("PayloadType").and_then(Value::as_string), Some("com.apple.security.scep"));
    }
}
