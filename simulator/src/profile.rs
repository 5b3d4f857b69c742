//! Configuration profiles as the device reads them: the enrollment profile, and those that
//! `InstallProfile` brings.
//!
//! Source: Apple, "TopLevel", "CommonPayloadKeys", "MDM" (`com.apple.mdm`), "SCEP" (`com.apple.security.scep`).

use std::collections::{BTreeMap, BTreeSet};

use crate::acme::{self, Acme};
use crate::error::{Error, Result};
use crate::hardware::{Attestation, Family, Hardware, Version};
use crate::identity::IdentityPayload;
use crate::plist::{self, Value};
use crate::{acme_client, companion, scep, signature};

/// Where a profile is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The family, which decides the system.
    pub family: Family,
    /// Version of the system.
    pub os: Version,
    /// Row of Apple's table.
    pub attestation: Attestation,
    /// Whether hardware-bound keys can be made.
    pub secure_enclave: bool,
    /// The profile came over a user channel.
    pub user_channel: bool,
    /// The device is in User Enrollment.
    pub user_enrollment: bool,
}

impl Situation {
    /// The device channel of a device enrollment.
    pub fn new(hardware: &Hardware, os_version: &str) -> Self {
        Self {
            family: hardware.family,
            os: Version::parse(os_version),
            attestation: hardware.attestation,
            secure_enclave: hardware.secure_enclave,
            user_channel: false,
            user_enrollment: false,
        }
    }
}

/// Why a profile is not installed, as the device reports it in `ErrorChain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `ErrorCode`.
    pub code: i64,
    /// `ErrorDomain`.
    pub domain: &'static str,
    /// `LocalizedDescription`.
    pub text: String,
    /// What was behind it: the next item of the chain.
    pub cause: Option<Box<Refusal>>,
}

impl Refusal {
    /// A refusal of a profile.
    pub fn new(code: i64, text: &str) -> Self {
        Self::of(code, "MCInstallationErrorDomain", text)
    }

    /// A refusal of any domain.
    pub fn of(code: i64, domain: &'static str, text: &str) -> Self {
        Self { code, domain, text: text.to_owned(), cause: None }
    }

    /// The same with what was behind it.
    #[must_use]
    pub fn because(self, cause: Self) -> Self {
        Self { cause: Some(Box::new(cause)), ..self }
    }

    /// The whole chain, this one first.
    pub fn chain(&self) -> Vec<&Self> {
        std::iter::successors(Some(self), |refusal| refusal.cause.as_deref()).collect()
    }
}

/// One payload of an installed profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// `PayloadType`.
    pub kind: String,
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`.
    pub uuid: String,
    /// All keys.
    pub keys: Value,
}

/// A profile that the device has taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// `PayloadIdentifier`: a profile with the same one replaces this.
    pub identifier: String,
    /// `PayloadUUID`: another one for each revision.
    pub uuid: String,
    /// `PayloadDisplayName`.
    pub display_name: Option<String>,
    /// The payloads.
    pub payloads: Vec<Payload>,
    /// Its ACME payloads.
    pub acme: Vec<Acme>,
    /// Certificates of the signer and its chain, DER; empty for an unsigned profile.
    pub signer_certificates: Vec<Vec<u8>>,
    /// What its certificate payloads bring, DER.
    pub certificates: Vec<Vec<u8>>,
}

/// Opens, reads and checks what `InstallProfile` brought.
pub fn check(bytes: &[u8], device: &Situation) -> std::result::Result<Profile, Refusal> {
    let opened = signature::open_profile(bytes)
        .map_err(|error| Refusal::new(4000, &format!("the profile's signature does not hold: {error}")))?;
    let value = plist::parse(&opened.content).map_err(|error| Refusal::new(1000, &error.to_string()))?;
    let mut profile = read(&value)?;
    profile.signer_certificates = opened.certificates;
    for payload in &profile.payloads {
        match payload.kind.as_str() {
            acme::PAYLOAD_TYPE => profile.acme.push(acme::check(&payload.keys, device)?),
            "com.apple.mdm" => return Err(Refusal::new(4001, "com.apple.mdm: only one MDM payload on a device")),
            _ => {}
        }
    }
    profile.certificates = companion::check(&profile, device)?;
    Ok(profile)
}

fn read(value: &Value) -> std::result::Result<Profile, Refusal> {
    let wrong = |key: &str, why: &str| Refusal::new(1001, &format!("{key}: {why}"));
    let text = |value: &Value, key: &str| {
        value
            .text(key)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| wrong(key, "a string is required"))
    };
    if value.text("PayloadType") != Some("Configuration") {
        return Err(wrong("PayloadType", "a profile is of type Configuration"));
    }
    let version = |value: &Value| match value.get("PayloadVersion").and_then(Value::as_integer) {
        Some(1) => Ok(()),
        _ => Err(wrong("PayloadVersion", "must be 1")),
    };
    version(value)?;
    let content = value.get("PayloadContent").and_then(Value::as_array);
    let content = content.ok_or_else(|| wrong("PayloadContent", "an array is required"))?;
    let mut payloads = Vec::new();
    let mut uuids = BTreeSet::new();
    for keys in content {
        version(keys)?;
        let payload = Payload {
            kind: text(keys, "PayloadType")?,
            identifier: text(keys, "PayloadIdentifier")?,
            uuid: text(keys, "PayloadUUID")?,
            keys: keys.clone(),
        };
        if !is_uuid(&payload.uuid) || !uuids.insert(payload.uuid.clone()) {
            return Err(wrong("PayloadUUID", "each payload needs a UUID of its own"));
        }
        payloads.push(payload);
    }
    Ok(Profile {
        identifier: text(value, "PayloadIdentifier")?,
        uuid: text(value, "PayloadUUID")?,
        display_name: value.text("PayloadDisplayName").map(str::to_owned),
        payloads,
        acme: Vec::new(),
        signer_certificates: Vec::new(),
        certificates: Vec::new(),
    })
}

fn is_uuid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok() && text.len() == 36
}

/// Whether the text is a dotted object identifier.
pub(crate) fn is_oid(text: &str) -> bool {
    text.contains('.') && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// The MDM payload of an enrollment profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mdm {
    /// `Topic`.
    pub topic: String,
    /// `ServerURL`.
    pub server_url: String,
    /// `CheckInURL`, or `ServerURL` where there is none.
    pub check_in_url: String,
    /// `SignMessage`.
    pub sign_message: bool,
    /// `CheckOutWhenRemoved`.
    pub check_out_when_removed: bool,
    /// Whether `com.apple.mdm.per-user-connections` is among the `ServerCapabilities`.
    pub per_user_connections: bool,
    /// Whether `com.apple.mdm.bootstraptoken` is among the `ServerCapabilities`.
    pub bootstrap_token: bool,
    /// `AccessRights`.
    pub access_rights: Option<i64>,
    /// `EnrollmentMode`.
    pub enrollment_mode: Option<String>,
    /// `AssignedManagedAppleID`.
    pub assigned_managed_apple_id: Option<String>,
    /// `RequiredAppIDForMDM`.
    pub required_app: Option<i64>,
}

impl Mdm {
    /// What an update of the profile may not change (Apple, "MDM": the keys that say so).
    pub(crate) fn immutable_differs(&self, new: &Self) -> Option<&'static str> {
        let rights = |mdm: &Self| mdm.access_rights.unwrap_or_default();
        [
            ("ServerURL", self.server_url != new.server_url),
            ("CheckInURL", self.check_in_url != new.check_in_url),
            ("Topic", self.topic != new.topic),
            ("EnrollmentMode", self.enrollment_mode != new.enrollment_mode),
            ("AssignedManagedAppleID", self.assigned_managed_apple_id != new.assigned_managed_apple_id),
            ("RequiredAppIDForMDM", self.required_app != new.required_app),
            ("ServerCapabilities", self.per_user_connections != new.per_user_connections),
            ("AccessRights", rights(new) & !rights(self) != 0),
        ]
        .into_iter()
        .find_map(|(key, differs)| differs.then_some(key))
    }
}

/// An enrollment profile, ready to be followed.
#[derive(Debug, Clone)]
pub struct EnrollmentProfile {
    /// `PayloadIdentifier` of the whole.
    pub profile: Profile,
    /// The MDM payload.
    pub mdm: Mdm,
    /// What the identity payload asks.
    pub identity: IdentityPayload,
    /// Certificates that the device trusts from now on, DER.
    pub anchors: Vec<Vec<u8>>,
    /// The certificates of `ServerURLPinningCertificateUUIDs`, DER; empty where nothing is pinned.
    pub server_pins: Vec<Vec<u8>>,
    /// The certificates of `CheckInURLPinningCertificateUUIDs`, DER; empty where nothing is pinned.
    pub check_in_pins: Vec<Vec<u8>>,
    /// Whether the profile was signed.
    pub signed: bool,
}

/// Reads an enrollment profile and cancels where a device would.
pub fn read_enrollment(bytes: &[u8], device: &Situation) -> Result<EnrollmentProfile> {
    let opened = signature::open_profile(bytes)?;
    let mut profile = read(&plist::parse(&opened.content)?).map_err(|refusal| Error::Profile(refusal.text))?;
    let signed = opened.signer.is_some();
    profile.signer_certificates = opened.certificates;
    let wrong = |why: &str| Error::Profile(why.to_owned());
    let of_type = |kind: &str| profile.payloads.iter().filter(|payload| payload.kind == kind).collect::<Vec<_>>();

    let [mdm] = of_type("com.apple.mdm")[..] else { return Err(wrong("exactly one MDM payload is needed")) };
    let identity = mdm.keys.text("IdentityCertificateUUID");
    let identity = profile.payloads.iter().find(|payload| Some(payload.uuid.as_str()) == identity);
    let identity = identity.ok_or_else(|| wrong("IdentityCertificateUUID names no payload of this profile"))?;
    let identity = match identity.kind.as_str() {
        "com.apple.security.scep" => IdentityPayload::Scep(scep_payload(&identity.keys)?),
        acme::PAYLOAD_TYPE => {
            let acme = acme::check(&identity.keys, device).map_err(|refusal| Error::Profile(refusal.text))?;
            let request = acme_client::Request::read(&identity.keys, acme);
            IdentityPayload::Acme(request.ok_or_else(|| wrong("com.apple.security.acme: Subject"))?)
        }
        other => return Err(wrong(&format!("this device follows no identity of type {other}"))),
    };
    let mdm_keys = &mdm.keys;
    let mdm = mdm_payload(mdm_keys, device)?;
    let mut anchors = Vec::new();
    let mut by_uuid = BTreeMap::new();
    for kind in ["com.apple.security.root", "com.apple.security.pem", "com.apple.security.pkcs1"] {
        for payload in of_type(kind) {
            let data = payload.keys.get("PayloadContent").and_then(Value::as_data);
            let data = data.ok_or_else(|| wrong("a certificate payload without PayloadContent"))?;
            let certificate = openssl::x509::X509::from_der(data).or_else(|_| openssl::x509::X509::from_pem(data))?;
            anchors.push(certificate.to_der()?);
            by_uuid.insert(payload.uuid.clone(), certificate.to_der()?);
        }
    }
    let pins = |key: &str| {
        let named = mdm_keys.get(key).and_then(Value::as_array).unwrap_or_default().iter();
        named
            .map(|uuid| uuid.as_str().and_then(|uuid| by_uuid.get(uuid)).cloned())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| wrong(&format!("{key} names no certificate payload of this profile")))
    };
    let (server_pins, check_in_pins) =
        (pins("ServerURLPinningCertificateUUIDs")?, pins("CheckInURLPinningCertificateUUIDs")?);
    Ok(EnrollmentProfile { profile, mdm, identity, anchors, server_pins, check_in_pins, signed })
}

/// Whether these bytes are a profile with an MDM payload.
pub(crate) fn is_enrollment(bytes: &[u8]) -> bool {
    let opened = signature::open_profile(bytes).ok();
    let read = opened.and_then(|opened| read(&plist::parse(&opened.content).ok()?).ok());
    read.is_some_and(|profile| profile.payloads.iter().any(|payload| payload.kind == "com.apple.mdm"))
}

/// `Subject` of a SCEP or ACME payload; `None` where it is malformed.
pub(crate) fn subject(keys: &Value) -> Option<Vec<Vec<(String, String)>>> {
    let pair = |pair: &Value| match pair.as_array()? {
        [kind, value] => Some((kind.as_str()?.to_owned(), value.as_str()?.to_owned())),
        _ => None,
    };
    let rdns = keys.get("Subject").and_then(Value::as_array).unwrap_or_default();
    rdns.iter().map(|rdn| rdn.as_array()?.iter().map(pair).collect()).collect()
}

fn mdm_payload(keys: &Value, device: &Situation) -> Result<Mdm> {
    let wrong = |why: &str| Error::Profile(format!("com.apple.mdm: {why}"));
    let topic = keys.text("Topic").filter(|topic| topic.starts_with("com.apple.mgmt."));
    let topic = topic.ok_or_else(|| wrong("Topic starts with com.apple.mgmt."))?.to_owned();
    let server_url = keys.text("ServerURL").ok_or_else(|| wrong("ServerURL is required"))?.to_owned();
    let check_in_url = keys.text("CheckInURL").unwrap_or(&server_url).to_owned();
    let rights = keys.get("AccessRights");
    match (device.user_enrollment, rights) {
        (true, Some(_)) => return Err(wrong("AccessRights must not be present in User Enrollment: cancelled")),
        (true, None) => {
            if keys.text("EnrollmentMode") != Some("BYOD") || keys.text("AssignedManagedAppleID").is_none() {
                return Err(wrong("EnrollmentMode BYOD and AssignedManagedAppleID are required in User Enrollment"));
            }
        }
        // Apple allows the key here and demands it nowhere.
        (false, None) if keys.text("EnrollmentMode") == Some("ADDE") => {}
        (false, rights) => {
            let rights = rights.and_then(Value::as_integer).unwrap_or_default();
            let needs = |right: i64, other: i64| rights & right == 0 || rights & other != 0;
            if rights == 0 || rights > 8191 || !needs(2, 1) || !needs(128, 64) {
                return Err(wrong("AccessRights is not a valid sum of rights"));
            }
        }
    }
    let flag = |key: &str| keys.get(key).and_then(Value::as_boolean).unwrap_or_default();
    let capabilities = keys.get("ServerCapabilities").and_then(Value::as_array).unwrap_or_default();
    let capable = |name: &str| capabilities.iter().any(|capability| capability.as_str() == Some(name));
    Ok(Mdm {
        topic,
        server_url,
        check_in_url,
        sign_message: flag("SignMessage"),
        check_out_when_removed: flag("CheckOutWhenRemoved"),
        per_user_connections: capable("com.apple.mdm.per-user-connections"),
        bootstrap_token: capable("com.apple.mdm.bootstraptoken"),
        access_rights: keys.get("AccessRights").and_then(Value::as_integer),
        enrollment_mode: keys.text("EnrollmentMode").map(str::to_owned),
        assigned_managed_apple_id: keys.text("AssignedManagedAppleID").map(str::to_owned),
        required_app: keys.get("RequiredAppIDForMDM").and_then(Value::as_integer),
    })
}

fn scep_payload(keys: &Value) -> Result<scep::Request> {
    let wrong = |why: &str| Error::Profile(format!("com.apple.security.scep: {why}"));
    let content = keys.get("PayloadContent").ok_or_else(|| wrong("PayloadContent is required"))?;
    let url = content.text("URL").ok_or_else(|| wrong("URL is required"))?.to_owned();
    if content.text("Key Type").is_some_and(|kind| kind != "RSA") {
        return Err(wrong("Key Type is RSA"));
    }
    let size = content.get("Keysize").map_or(Some(1024), Value::as_integer);
    let key_size = size.and_then(|size| u32::try_from(size).ok()).filter(|size| [1024, 2048, 4096].contains(size));
    Ok(scep::Request {
        url,
        name: content.text("Name").map(str::to_owned),
        challenge: content.text("Challenge").map(str::to_owned),
        subject: subject(content).ok_or_else(|| wrong("Subject"))?,
        key_size: key_size.ok_or_else(|| wrong("Keysize is 1024, 2048 or 4096"))?,
        fingerprint: content.get("CAFingerprint").and_then(Value::as_data).map(<[u8]>::to_vec),
        key: None,
    })
}

#[cfg(test)]
mod tests;
