//! What a certificate must show to be the one that a delivery asked for. Fixed at the delivery, kept with the attempt.

use mdm_core::certificate::{AltName, Certificate};
use mdm_core::ids::Fingerprint;
use mdm_core::profile::acme::{AcmePayload, Attest};
use serde::{Deserialize, Serialize};

/// From this length on a common piece of two texts may be a secret; `{random}` is longer.
const SECRET_PIECE: usize = 16;

/// A text that the certificate should carry. One that would give a one-time ClientIdentifier away is kept as its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// The text.
    Text(String),
    /// SHA-256 of the text, hexadecimal.
    Sha256(String),
}

impl Expected {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(expected) => expected == text,
            Self::Sha256(expected) => *expected == sha256(text),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Sha256(_) => f.write_str("a one-time value"),
        }
    }
}

/// One name: its kind (a dotted identifier of an attribute, or Apple's key in `SubjectAltName`) and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The kind.
    pub kind: String,
    /// The value.
    pub value: Expected,
}

impl Name {
    /// Whether this is the name of this kind and value. Names of the DNS are the same in either case (RFC 5280 section 7.2), and
    /// authorities change it: step-ca writes them in small letters. All others must be equal octet for octet.
    pub fn is(&self, kind: &str, value: &str) -> bool {
        self.kind == kind
            && match &self.value {
                Expected::Text(expected) if kind == DNS_NAME => expected.eq_ignore_ascii_case(value),
                expected => expected.is(value),
            }
    }
}

/// What was delivered, as far as the certificate and the authority's webhook must agree with it. JSON in `attempt.expectation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// The device's `SerialNumber`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// The device's `UDID`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udid: Option<String>,
    /// The Mac's `ProvisioningUDID`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_udid: Option<String>,
    /// SHA-256 of `ClientIdentifier`, hexadecimal.
    pub client_identifier_sha256: String,
    /// `ClientIdentifier` is the device's own serial number or UDID: no secret, and the same in every attempt.
    pub names_device: bool,
    /// `KeyType`.
    pub key_type: String,
    /// `KeySize` in bits.
    pub key_size: u32,
    /// `HardwareBound`.
    pub hardware_bound: bool,
    /// `Attest`.
    pub attested: bool,
    /// `Subject`, flat.
    pub subject: Vec<Name>,
    /// `SubjectAltName`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Name>,
}

impl Expectation {
    /// What a payload asks for, on a device with these identifiers.
    pub fn of(
        payload: &AcmePayload,
        serial_number: Option<&str>,
        udid: Option<&str>,
        provisioning_udid: Option<&str>,
    ) -> Self {
        let keys = payload.keys();
        let identifier = keys.client_identifier.as_str();
        let names_device = [serial_number, udid, provisioning_udid].contains(&Some(identifier));
        let expected = |text: &str| {
            if !names_device && shares_a_secret(identifier, text) {
                Expected::Sha256(sha256(text))
            } else {
                Expected::Text(text.to_owned())
            }
        };
        let subject = keys.subject.iter().flatten().filter_map(|pair| match pair.as_slice() {
            [kind, value] => Some(Name { kind: attribute_oid(kind).to_owned(), value: expected(value) }),
            _ => None,
        });
        let names = keys.subject_alt_name.entries();
        Self {
            serial_number: serial_number.map(str::to_owned),
            udid: udid.map(str::to_owned),
            provisioning_udid: provisioning_udid.map(str::to_owned),
            client_identifier_sha256: sha256(identifier),
            names_device,
            key_type: keys.key_type.clone(),
            key_size: keys.key_size,
            hardware_bound: keys.hardware_bound,
            attested: keys.attest == Attest::True,
            subject: subject.collect(),
            names: names.map(|(kind, value)| Name { kind: kind.to_owned(), value: expected(value) }).collect(),
        }
    }

    /// Whether the certificate's key is of the kind that was asked for; else what it is.
    pub fn key_differs(&self, certificate: &Certificate) -> Option<String> {
        let key = certificate.subject_key();
        let same = key.key_type == Some(self.key_type.as_str()) && key.key_size == Some(self.key_size);
        (!same).then(|| format!("its key is {}, and {} {} was asked for", key.words(), self.key_type, self.key_size))
    }

    /// How the certificate's names agree with what was asked for; else what differs.
    ///
    /// An authority may leave names out and add others (Apple: "the ACME server may override or ignore this"), so that one of these
    /// is enough: the ClientIdentifier as a permanent identifier, every alternative name, the common name, the whole subject.
    /// A kind of name that was asked for and that the certificate has with other values only is a contradiction.
    pub fn names_agree(&self, certificate: &Certificate) -> Result<Agreement, String> {
        let subject = certificate.subject_attributes();
        let alternatives = certificate.alt_names();
        let alternatives: Vec<(&str, &str)> = alternatives.iter().map(kind_and_value).collect();
        let subject: Vec<(&str, &str)> = subject.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
        for (wanted, there) in [(&self.subject, &subject), (&self.names, &alternatives)] {
            if let Some(name) = wanted.iter().find(|name| contradicts(name, there)) {
                let found: Vec<&str> = there.iter().filter(|(kind, _)| *kind == name.kind).map(|(_, v)| *v).collect();
                let kind = attribute_word(&name.kind);
                return Err(format!("its {kind} is \"{}\", and {} was asked for", found.join("\", \""), name.value));
            }
        }
        let permanent = alternatives
            .iter()
            .any(|(kind, value)| *kind == PERMANENT_IDENTIFIER && sha256(value) == self.client_identifier_sha256);
        if permanent {
            return Ok(if self.names_device { Agreement::Names } else { Agreement::OneTime });
        }
        let has = |there: &[(&str, &str)], name: &Name| there.iter().any(|(kind, value)| name.is(kind, value));
        let all = |wanted: &[Name], there: &[(&str, &str)]| !wanted.is_empty() && wanted.iter().all(|n| has(there, n));
        let common: Vec<Name> = self.subject.iter().filter(|n| n.kind == COMMON_NAME).cloned().collect();
        if all(&self.names, &alternatives) || all(&common, &subject) || all(&self.subject, &subject) {
            return Ok(Agreement::Names);
        }
        Err("it has neither the subject, nor an alternative name, nor the permanent identifier that was asked for"
            .to_owned())
    }
}

/// How the names of a certificate agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agreement {
    /// They are those that were asked for.
    Names,
    /// It carries the one-time ClientIdentifier of this very attempt.
    OneTime,
}

const COMMON_NAME: &str = "2.5.4.3";
const DNS_NAME: &str = "dNSName";
const PERMANENT_IDENTIFIER: &str = "permanentIdentifier";

/// The certificate has names of this kind, and none of them is the one.
fn contradicts(name: &Name, there: &[(&str, &str)]) -> bool {
    let mut of_kind = there.iter().filter(|(kind, _)| *kind == name.kind).peekable();
    of_kind.peek().is_some() && !of_kind.any(|(kind, value)| name.is(kind, value))
}

fn kind_and_value(name: &AltName) -> (&str, &str) {
    match name {
        AltName::Dns(value) => (DNS_NAME, value),
        AltName::Email(value) => ("rfc822Name", value),
        AltName::Uri(value) => ("uniformResourceIdentifier", value),
        AltName::UserPrincipal(value) => ("ntPrincipalName", value),
        AltName::Permanent(value) => (PERMANENT_IDENTIFIER, value),
    }
}

/// The identifiers of the types that Apple's `Subject` has words for (RFC 4519).
const ATTRIBUTES: [(&str, &str); 6] =
    [("C", "2.5.4.6"), ("L", "2.5.4.7"), ("ST", "2.5.4.8"), ("O", "2.5.4.10"), ("OU", "2.5.4.11"), ("CN", COMMON_NAME)];

fn attribute_oid(kind: &str) -> &str {
    ATTRIBUTES.iter().find(|(word, _)| *word == kind).map_or(kind, |(_, oid)| oid)
}

fn attribute_word(kind: &str) -> &str {
    ATTRIBUTES.iter().find(|(_, oid)| *oid == kind).map_or(kind, |(word, _)| word)
}

/// Whether a text would give away the secret, or a good piece of it.
fn shares_a_secret(secret: &str, text: &str) -> bool {
    let (secret, text) = (secret.as_bytes(), text.as_bytes());
    let has = |piece: &[u8]| !piece.is_empty() && text.windows(piece.len()).any(|there| there == piece);
    has(secret) || secret.windows(SECRET_PIECE).any(has)
}

fn sha256(text: &str) -> String {
    Fingerprint::of(text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests;
