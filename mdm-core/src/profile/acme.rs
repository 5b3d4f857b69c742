//! `com.apple.security.acme`: asks a device to get its certificate from an ACME server.
//!
//! Source: Apple, "ACMECertificate" (`com.apple.security.acme.yaml`); the rules R1 to R13 are numbered in
//! `docs/` as in the code. [`AcmePayload::new`] is the only way to make one, so a payload that Apple's page forbids
//! does not exist.

use std::fmt;

use url::Url;
use uuid::Uuid;

use super::Payload;
use crate::hardware::Platform;
use crate::plist::{Dictionary, Value};

/// `PayloadType` of this payload.
pub const PAYLOAD_TYPE: &str = "com.apple.security.acme";

/// `KeyType` with its `KeySize`, which only make sense together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `RSA`, 1024 to 4096 bits, a multiple of 8.
    Rsa(u32),
    /// `ECSECPrimeRandom`, the curve P-192, P-256, P-384 or P-521.
    EcsecPrimeRandom(u32),
}

impl KeyKind {
    /// Reads `KeyType` and `KeySize` (R3, R4, R5).
    pub fn new(key_type: &str, key_size: u32) -> Result<Self, KeyError> {
        match key_type {
            "RSA" if (1024..=4096).contains(&key_size) && key_size.is_multiple_of(8) => Ok(Self::Rsa(key_size)),
            "RSA" => Err(KeyError::new("KeySize", "for RSA: 1024 to 4096 and a multiple of 8")),
            "ECSECPrimeRandom" if matches!(key_size, 192 | 256 | 384 | 521) => Ok(Self::EcsecPrimeRandom(key_size)),
            "ECSECPrimeRandom" => {
                Err(KeyError::new("KeySize", "for ECSECPrimeRandom: 192, 256, 384 or 521 (521, not 512)"))
            }
            _ => Err(KeyError::new("KeyType", "RSA or ECSECPrimeRandom")),
        }
    }

    /// `KeyType`.
    pub fn key_type(self) -> &'static str {
        match self {
            Self::Rsa(_) => "RSA",
            Self::EcsecPrimeRandom(_) => "ECSECPrimeRandom",
        }
    }

    /// `KeySize`, in bits.
    pub fn key_size(self) -> u32 {
        match self {
            Self::Rsa(size) | Self::EcsecPrimeRandom(size) => size,
        }
    }

    /// A Secure Enclave can make such a key: P-256 or P-384 (R6).
    pub fn fits_secure_enclave(self) -> bool {
        matches!(self, Self::EcsecPrimeRandom(256 | 384))
    }
}

/// How the `Attest` key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attest {
    /// Not at all; its default is false.
    LeaveOut,
    /// `false`, in so many words: what Apple demands where it "must have a value of false".
    False,
    /// `true`.
    True,
}

/// The keys that only macOS has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacKeys {
    /// `KeyIsExtractable`: false tags the private key as non-extractable.
    pub key_is_extractable: bool,
    /// `AllowAllAppsAccess`: true lets every app use the private key.
    pub allow_all_apps_access: bool,
}

/// `SubjectAltName`: each kind at most once, as a single string.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectAltName {
    /// An e-mail address.
    #[serde(rename = "rfc822Name", default, skip_serializing_if = "Option::is_none")]
    pub rfc822_name: Option<String>,
    /// A host name.
    #[serde(rename = "dNSName", default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// A URI.
    #[serde(rename = "uniformResourceIdentifier", default, skip_serializing_if = "Option::is_none")]
    pub uniform_resource_identifier: Option<String>,
    /// A user principal name: otherName 1.3.6.1.4.1.311.20.2.3.
    #[serde(rename = "ntPrincipalName", default, skip_serializing_if = "Option::is_none")]
    pub nt_principal_name: Option<String>,
}

impl SubjectAltName {
    /// The entries that are there, with Apple's key.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("rfc822Name", &self.rfc822_name),
            ("dNSName", &self.dns_name),
            ("uniformResourceIdentifier", &self.uniform_resource_identifier),
            ("ntPrincipalName", &self.nt_principal_name),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.as_deref().map(|v| (key, v)))
    }
}

/// `Subject`: an RDN sequence of RDNs of pairs of type and value.
pub type Subject = Vec<Vec<Vec<String>>>;

/// The values of a payload, before they are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeKeys {
    /// `DirectoryURL`: of the ACME server, https.
    pub directory_url: String,
    /// `ClientIdentifier`: the `permanent-identifier` of the order.
    pub client_identifier: String,
    /// `KeyType`.
    pub key_type: String,
    /// `KeySize`, in bits.
    pub key_size: u32,
    /// `HardwareBound`: the Secure Enclave makes and keeps the key.
    pub hardware_bound: bool,
    /// `Subject`.
    pub subject: Subject,
    /// `SubjectAltName`.
    pub subject_alt_name: SubjectAltName,
    /// `UsageFlags`: 1 digital signature, 4 encryption.
    pub usage_flags: Option<u32>,
    /// `ExtendedKeyUsage`: dotted object identifiers; none leaves the key out.
    pub extended_key_usage: Vec<String>,
    /// `Attest`.
    pub attest: Attest,
    /// `KeyIsExtractable` and `AllowAllAppsAccess`, only for macOS.
    pub mac: Option<MacKeys>,
}

/// One key of the payload that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be {expected}")]
pub struct KeyError {
    /// The key, in Apple's spelling.
    pub key: &'static str,
    /// What would be right.
    pub expected: String,
}

impl KeyError {
    /// `key` is wrong; `expected` would be right.
    pub fn new(key: &'static str, expected: impl Into<String>) -> Self {
        Self { key, expected: expected.into() }
    }
}

/// Every key that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAcmePayload(pub Vec<KeyError>);

impl fmt::Display for InvalidAcmePayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidAcmePayload {}

/// An ACME payload that Apple's rules allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmePayload {
    keys: AcmeKeys,
    key: KeyKind,
}

impl AcmePayload {
    /// Checks R1 to R13 for a device that runs `platform` (none where nobody knows) and names every key that is wrong.
    pub fn new(keys: AcmeKeys, platform: Option<Platform>) -> Result<Self, InvalidAcmePayload> {
        let mut errors = Vec::new();
        let mut check = |result: Result<(), KeyError>| errors.extend(result.err());
        check(check_directory_url(&keys.directory_url));
        check(check_client_identifier(&keys.client_identifier));
        let key = KeyKind::new(&keys.key_type, keys.key_size);
        check(key.clone().map(|_| ()));
        if let Ok(key) = &key
            && keys.hardware_bound
            && !key.fits_secure_enclave()
        {
            check(Err(KeyError::new("HardwareBound", HARDWARE_BOUND_RULE)));
        }
        if keys.attest == Attest::True && !keys.hardware_bound {
            check(Err(KeyError::new("Attest", "false unless HardwareBound is true")));
        }
        check(check_subject(&keys.subject));
        check(check_subject_alt_name(&keys.subject_alt_name));
        check(keys.usage_flags.map_or(Ok(()), check_usage_flags));
        check(keys.extended_key_usage.iter().try_for_each(|oid| check_extended_key_usage(oid)));
        if let Some(mac) = &keys.mac {
            if platform != Some(Platform::Macos) {
                check(Err(KeyError::new("KeyIsExtractable", "left out unless the device is a Mac")));
                check(Err(KeyError::new("AllowAllAppsAccess", "left out unless the device is a Mac")));
            }
            if mac.key_is_extractable && keys.hardware_bound {
                check(Err(KeyError::new("KeyIsExtractable", EXTRACTABLE_RULE)));
            }
        }
        match key {
            Ok(key) if errors.is_empty() => Ok(Self { keys, key }),
            _ => Err(InvalidAcmePayload(errors)),
        }
    }

    /// The values.
    pub fn keys(&self) -> &AcmeKeys {
        &self.keys
    }

    /// The payload with the keys that every payload has.
    pub fn payload(&self, identifier: String, uuid: Uuid, display_name: Option<String>) -> Payload {
        Payload { payload_type: PAYLOAD_TYPE.into(), identifier, uuid, display_name, keys: self.dictionary() }
    }

    fn dictionary(&self) -> Dictionary {
        let strings = |s: &[String]| Value::Array(s.iter().map(|v| v.as_str().into()).collect());
        let keys = &self.keys;
        let mut out = Dictionary::new();
        out.insert("DirectoryURL".into(), keys.directory_url.as_str().into());
        out.insert("ClientIdentifier".into(), keys.client_identifier.as_str().into());
        out.insert("KeyType".into(), self.key.key_type().into());
        out.insert("KeySize".into(), self.key.key_size().into());
        out.insert("HardwareBound".into(), keys.hardware_bound.into());
        let rdn = |rdn: &Vec<Vec<String>>| Value::Array(rdn.iter().map(|pair| strings(pair)).collect());
        out.insert("Subject".into(), Value::Array(keys.subject.iter().map(rdn).collect()));
        let mut names = Dictionary::new();
        for (key, value) in keys.subject_alt_name.entries() {
            names.insert(key.into(), value.into());
        }
        if !names.is_empty() {
            out.insert("SubjectAltName".into(), Value::Dictionary(names));
        }
        if let Some(flags) = keys.usage_flags {
            out.insert("UsageFlags".into(), flags.into());
        }
        if !keys.extended_key_usage.is_empty() {
            out.insert("ExtendedKeyUsage".into(), strings(&keys.extended_key_usage));
        }
        match keys.attest {
            Attest::LeaveOut => {}
            Attest::False => drop(out.insert("Attest".into(), false.into())),
            Attest::True => drop(out.insert("Attest".into(), true.into())),
        }
        if let Some(mac) = &keys.mac {
            out.insert("KeyIsExtractable".into(), mac.key_is_extractable.into());
            out.insert("AllowAllAppsAccess".into(), mac.allow_all_apps_access.into());
        }
        out
    }
}

/// What R6 demands.
pub const HARDWARE_BOUND_RULE: &str = "false unless KeyType is ECSECPrimeRandom and KeySize is 256 or 384";

/// What R13 demands.
pub const EXTRACTABLE_RULE: &str = "false where HardwareBound is true: such a key cannot leave the Secure Enclave";

/// R1: an https URL with a host and without user information.
pub fn check_directory_url(text: &str) -> Result<(), KeyError> {
    match Url::parse(text) {
        Ok(url)
            if url.scheme() == "https"
                && url.host_str().is_some_and(|h| !h.is_empty())
                && url.username().is_empty()
                && url.password().is_none()
                && text.len() <= 2048
                && !text.chars().any(|c| c.is_control() || c.is_whitespace()) =>
        {
            Ok(())
        }
        _ => Err(KeyError::new("DirectoryURL", "an absolute URL with the https scheme and a host")),
    }
}

/// R2: not empty; at most 4,096 bytes and no control characters (our addition).
pub fn check_client_identifier(text: &str) -> Result<(), KeyError> {
    if text.trim().is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
        return Err(KeyError::new("ClientIdentifier", "1 to 4,096 bytes without control characters"));
    }
    Ok(())
}

/// R8: at least one RDN, none of them empty, each pair two strings, types as Apple lists them.
pub fn check_subject(subject: &Subject) -> Result<(), KeyError> {
    let wrong = |expected: &str| Err(KeyError::new("Subject", expected));
    if subject.is_empty() || subject.iter().any(Vec::is_empty) {
        return wrong("a non-empty array of non-empty arrays of pairs, such as [[[\"CN\",\"{serial}\"]]]");
    }
    for pair in subject.iter().flatten() {
        let [kind, value] = pair.as_slice() else {
            return wrong("made of pairs of exactly two strings: a type and its value");
        };
        if !matches!(kind.as_str(), "C" | "L" | "ST" | "O" | "OU" | "CN") && !is_dotted_oid(kind) {
            return wrong("made of pairs whose type is C, L, ST, O, OU, CN or a dotted object identifier");
        }
        if value.is_empty() || value.chars().any(char::is_control) {
            return wrong("made of pairs whose value is not empty and has no control characters");
        }
        if kind == "C" && !(value.len() == 2 && value.bytes().all(|b| b.is_ascii_alphabetic())) {
            return wrong("given a country (C) of exactly two letters");
        }
    }
    Ok(())
}

/// R9: single strings, not empty. Unknown keys cannot be expressed.
pub fn check_subject_alt_name(names: &SubjectAltName) -> Result<(), KeyError> {
    if names.entries().any(|(_, value)| value.is_empty() || value.chars().any(char::is_control)) {
        return Err(KeyError::new("SubjectAltName", "made of single strings, not empty, without control characters"));
    }
    Ok(())
}

/// R10: bits 1 and 4 only.
pub fn check_usage_flags(flags: u32) -> Result<(), KeyError> {
    if flags & !5 == 0 {
        return Ok(());
    }
    Err(KeyError::new("UsageFlags", "0, 1 (digital signature), 4 (encryption) or 5 (both)"))
}

/// R11: a dotted object identifier.
pub fn check_extended_key_usage(oid: &str) -> Result<(), KeyError> {
    if is_dotted_oid(oid) {
        return Ok(());
    }
    Err(KeyError::new("ExtendedKeyUsage", "an array of dotted object identifiers, such as 1.3.6.1.5.5.7.3.2"))
}

/// Is this an object identifier in dotted notation (X.660: the first arc is 0 to 2, the second below 40 under 0 and 1)?
pub fn is_dotted_oid(text: &str) -> bool {
    let number = |arc: &str| {
        let plain = !arc.is_empty() && arc.len() <= 39 && arc.bytes().all(|b| b.is_ascii_digit());
        plain && (arc == "0" || !arc.starts_with('0'))
    };
    let arcs: Vec<&str> = text.split('.').collect();
    let [first, second, ..] = arcs.as_slice() else {
        return false;
    };
    let root = match *first {
        "0" | "1" => second.parse::<u32>().is_ok_and(|n| n < 40),
        "2" => true,
        _ => false,
    };
    root && text.len() <= 255 && arcs.iter().all(|arc| number(arc))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good() -> AcmeKeys {
        AcmeKeys {
            directory_url: "https://ca.example.com/acme/mdm/directory".into(),
            client_identifier: "C02XX1234567".into(),
            key_type: "ECSECPrimeRandom".into(),
            key_size: 256,
            hardware_bound: true,
            subject: vec![
                vec![vec!["C".into(), "US".into()]],
                vec![vec!["CN".into(), "foo".into()], vec!["1.2.5.3".into(), "bar".into()]],
            ],
            subject_alt_name: SubjectAltName { dns_name: Some("a.example.com".into()), ..SubjectAltName::default() },
            usage_flags: Some(5),
            extended_key_usage: vec!["1.3.6.1.5.5.7.3.2".into()],
            attest: Attest::True,
            mac: Some(MacKeys { key_is_extractable: false, allow_all_apps_access: true }),
        }
    }

    fn wrong_keys(change: impl FnOnce(&mut AcmeKeys)) -> Vec<&'static str> {
        let mut keys = good();
        change(&mut keys);
        match AcmePayload::new(keys, Some(Platform::Macos)) {
            Ok(_) => vec![],
            Err(InvalidAcmePayload(errors)) => errors.into_iter().map(|e| e.key).collect(),
        }
    }

    #[test]
    fn each_rule_names_its_key() {
        assert_eq!(wrong_keys(|_| ()), Vec::<&str>::new());
        for url in [
            "http://ca.example.com/",
            "ca.example.com",
            "https://",
            "https://u:p@ca.example.com/",
            "",
            "https://ca\n.example.com/",
        ] {
            assert_eq!(wrong_keys(|k| k.directory_url = url.into()), ["DirectoryURL"], "R1 {url}");
        }
        assert_eq!(wrong_keys(|k| k.client_identifier = " ".into()), ["ClientIdentifier"], "R2");
        assert_eq!(wrong_keys(|k| k.key_type = "EC".into()), ["KeyType"], "R3");
        let rsa = |size, bound| {
            wrong_keys(|k| {
                (k.key_type, k.key_size, k.hardware_bound, k.attest) = ("RSA".into(), size, bound, Attest::False);
            })
        };
        for size in [0, 1016, 1025, 4104, 256] {
            assert_eq!(rsa(size, false), ["KeySize"], "R4 {size}");
        }
        assert_eq!(rsa(4096, false), Vec::<&str>::new());
        assert_eq!(rsa(2048, true), ["HardwareBound"], "R4, R6");
        assert_eq!(wrong_keys(|k| k.key_size = 512), ["KeySize"], "R5");
        assert_eq!(wrong_keys(|k| k.key_size = 521), ["HardwareBound"], "R6");
        assert_eq!(wrong_keys(|k| k.hardware_bound = false), ["Attest"], "R7");
        let pair = |p: &[&str]| wrong_keys(|k| k.subject = vec![vec![p.iter().map(|s| (*s).into()).collect()]]);
        for bad in [
            &["CN"][..],
            &["CN", "a", "b"],
            &["EMAIL", "a"],
            &["1", "a"],
            &["3.1", "a"],
            &["1.40", "a"],
            &["C", "USA"],
            &["CN", ""],
            &["1.02", "x"],
        ] {
            assert_eq!(pair(bad), ["Subject"], "R8 {bad:?}");
        }
        assert_eq!(wrong_keys(|k| k.subject = vec![]), ["Subject"], "R8");
        assert_eq!(wrong_keys(|k| k.subject = vec![vec![]]), ["Subject"], "R8");
        assert_eq!(wrong_keys(|k| k.subject_alt_name.dns_name = Some(String::new())), ["SubjectAltName"], "R9");
        for flags in [2, 3, 8, 255] {
            assert_eq!(wrong_keys(|k| k.usage_flags = Some(flags)), ["UsageFlags"], "R10 {flags}");
        }
        assert_eq!(wrong_keys(|k| k.extended_key_usage = vec!["clientAuth".into()]), ["ExtendedKeyUsage"], "R11");
        let elsewhere = AcmePayload::new(good(), Some(Platform::Ios))
            .map(|_| ())
            .map_err(|e| e.0.into_iter().map(|e| e.key).collect());
        assert_eq!(elsewhere, Err(vec!["KeyIsExtractable", "AllowAllAppsAccess"]), "R12");
        assert_eq!(
            wrong_keys(|k| k.mac = Some(MacKeys { key_is_extractable: true, allow_all_apps_access: false })),
            ["KeyIsExtractable"],
            "R13"
        );
    }

    #[test]
    fn several_wrong_keys_are_all_named_in_one_sentence() {
        let mut keys = good();
        keys.directory_url = String::new();
        keys.usage_flags = Some(2);
        let error = AcmePayload::new(keys, Some(Platform::Macos)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "DirectoryURL must be an absolute URL with the https scheme and a host; \
             UsageFlags must be 0, 1 (digital signature), 4 (encryption) or 5 (both)"
        );
    }

    #[test]
    fn an_unknown_kind_of_alternative_name_is_refused() {
        assert!(serde_json::from_str::<SubjectAltName>(r#"{"dNSName":"a","iPAddress":"1.2.3.4"}"#).is_err());
        assert!(serde_json::from_str::<SubjectAltName>(r#"{"dNSName":["a"]}"#).is_err());
    }

    #[test]
    fn the_payload_has_apples_keys_and_types() {
        let uuid = Uuid::from_u128(0x11);
        let payload = AcmePayload::new(good(), Some(Platform::Macos)).unwrap().payload(
            "com.example.acme".into(),
            uuid,
            Some("Identity".into()),
        );
        let keys = &payload.keys;
        assert_eq!(payload.payload_type, "com.apple.security.acme");
        assert_eq!(keys.get("KeySize").and_then(Value::as_signed_integer), Some(256));
        assert_eq!(keys.get("HardwareBound").and_then(Value::as_boolean), Some(true));
        assert_eq!(keys.get("Attest").and_then(Value::as_boolean), Some(true));
        assert_eq!(keys.get("KeyIsExtractable").and_then(Value::as_boolean), Some(false));
        let subject = keys.get("Subject").and_then(Value::as_array).unwrap();
        assert_eq!(subject.len(), 2);
        assert_eq!(subject[1].as_array().unwrap()[1].as_array().unwrap()[0].as_string(), Some("1.2.5.3"));
        let names = keys.get("SubjectAltName").and_then(Value::as_dictionary).unwrap();
        assert_eq!(names.get("dNSName").and_then(Value::as_string), Some("a.example.com"));
    }

    #[test]
    fn a_profile_with_the_payload_is_written_as_stored() {
        let payload = AcmePayload::new(good(), Some(Platform::Macos)).unwrap();
        let uuid = |n| Uuid::from_bytes([n; 16]);
        let profile = crate::profile::Profile {
            identifier: "org.example.acme".into(),
            uuid: uuid(0xE5),
            display_name: "Wi-Fi identity".into(),
            organization: Some("Example".into()),
            description: None,
            scope: Some(crate::profile::Scope::System),
            removal_disallowed: false,
            payloads: vec![payload.payload("org.example.acme.identity".into(), uuid(0xF6), Some("Identity".into()))],
        };
        crate::golden::same("profile_acme", &profile.encode());
    }

    #[test]
    fn optional_keys_that_are_not_set_are_left_out() {
        let keys = AcmeKeys {
            subject_alt_name: SubjectAltName::default(),
            usage_flags: None,
            extended_key_usage: vec![],
            attest: Attest::LeaveOut,
            mac: None,
            ..good()
        };
        let payload = AcmePayload::new(keys, None).unwrap().payload("i".into(), Uuid::nil(), None);
        let mut names: Vec<&str> = payload.keys.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["ClientIdentifier", "DirectoryURL", "HardwareBound", "KeySize", "KeyType", "Subject"]);
    }

    fn any_keys() -> impl Strategy<Value = (AcmeKeys, Option<Platform>)> {
        let platform = prop::option::of(prop::sample::select(vec![Platform::Ios, Platform::Macos, Platform::Watchos]));
        let key = (
            prop::sample::select(vec!["RSA", "ECSECPrimeRandom", "DSA"]),
            prop::sample::select(vec![192u32, 256, 384, 512, 521, 1024, 1025, 2048, 4096, 8192]),
        );
        let attest = prop::sample::select(vec![Attest::LeaveOut, Attest::False, Attest::True]);
        let mac = prop::option::of((any::<bool>(), any::<bool>()));
        (key, any::<bool>(), attest, mac, prop::option::of(0u32..8), "[A-Z]{0,2}", platform).prop_map(
            |((key_type, key_size), hardware_bound, attest, mac, usage_flags, kind, platform)| {
                let keys = AcmeKeys {
                    key_type: key_type.into(),
                    key_size,
                    hardware_bound,
                    attest,
                    usage_flags,
                    subject: vec![vec![vec![kind, "US".into()]]],
                    mac: mac.map(|(key_is_extractable, allow_all_apps_access)| MacKeys {
                        key_is_extractable,
                        allow_all_apps_access,
                    }),
                    ..good()
                };
                (keys, platform)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_accepted_keeps_apples_rules((keys, platform) in any_keys()) {
            let by_rule = {
                let rsa = keys.key_type == "RSA" && keys.key_size >= 1024 && keys.key_size <= 4096 && keys.key_size % 8 == 0;
                let ec = keys.key_type == "ECSECPrimeRandom" && [192, 256, 384, 521].contains(&keys.key_size);
                let bound = !keys.hardware_bound || (ec && [256, 384].contains(&keys.key_size));
                let attest = keys.attest != Attest::True || keys.hardware_bound;
                let mac = keys.mac.is_none_or(|m| platform == Some(Platform::Macos) && !(m.key_is_extractable && keys.hardware_bound));
                let kind = ["C", "L", "ST", "O", "OU", "CN"].contains(&keys.subject[0][0][0].as_str());
                (rsa || ec) && bound && attest && mac && kind && keys.usage_flags.is_none_or(|f| [0, 1, 4, 5].contains(&f))
            };
            prop_assert_eq!(AcmePayload::new(keys, platform).is_ok(), by_rule);
        }

        #[test]
        fn any_text_is_checked_without_a_panic(text in ".{0,60}") {
            let _ = check_directory_url(&text);
            let _ = is_dotted_oid(&text);
            let _ = check_subject(&vec![vec![vec![text.clone(), text]]]);
        }
    }
}
