//! The names that a certificate would have, as a call tells them, and whether each was delivered.
//!
//! An authority may leave names out. One that was not delivered is no name of this device: whoever has its permission, or reads the
//! identifier in the installed profile, can write any name into his certification request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::certificate::{AltName, read_alt_names, read_name};
use policy::proof::Expectation;
use serde::Deserialize;
use serde_json::Value;

/// `commonName` (RFC 5280).
pub(crate) const COMMON_NAME: &str = "2.5.4.3";
/// `subjectAltName` (RFC 5280).
const SUBJECT_ALT_NAME: &str = "2.5.29.17";
/// `permanentIdentifier`, in step-ca's templates the name of RFC 4043.
pub(crate) const PERMANENT_IDENTIFIER: &str = "permanentIdentifier";
/// The `otherName` of a user principal name.
pub(crate) const USER_PRINCIPAL_NAME: &str = "1.3.6.1.4.1.311.20.2.3";

/// A name that the certificate would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A common name of the subject.
    Common(String),
    /// A permanent identifier.
    Permanent(String),
    /// An alternative name of one of Apple's kinds, by its key in `SubjectAltName`.
    Alternative(&'static str, String),
    /// An alternative name whose kind step-ca finds out by its look.
    Auto(String),
    /// A name that no payload can ask for, or that cannot be read.
    Other,
}

impl Told {
    /// Whether it is the identifier, or was delivered.
    pub fn was_delivered(&self, identifier: &str, expectation: &Expectation) -> bool {
        let named = |kind: &str, value: &str| expectation.names.iter().any(|name| name.is(kind, value));
        match self {
            Self::Common(value) => value.is_empty() || value == identifier || is_common_name(expectation, value),
            Self::Permanent(value) => value == identifier,
            Self::Alternative(kind, value) => named(kind, value),
            Self::Auto(value) => value == identifier || expectation.names.iter().any(|name| name.is(&name.kind, value)),
            Self::Other => false,
        }
    }

    /// Whether it is a common name that was delivered.
    pub fn is_common_name_of(&self, expectation: &Expectation) -> bool {
        matches!(self, Self::Common(value) if is_common_name(expectation, value))
    }
}

fn is_common_name(expectation: &Expectation, value: &str) -> bool {
    expectation.subject.iter().any(|name| name.is(COMMON_NAME, value))
}

/// A name as step-ca's templates write it (x509util.SubjectAlternativeName).
#[derive(Debug, Deserialize)]
pub(crate) struct San {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    value: Value,
}

impl San {
    pub(crate) fn told(self) -> Told {
        let Value::String(value) = self.value else { return Told::Other };
        match self.r#type.as_str() {
            PERMANENT_IDENTIFIER => Told::Permanent(value),
            "dns" => Told::Alternative("dNSName", value),
            "email" => Told::Alternative("rfc822Name", value),
            "uri" => Told::Alternative("uniformResourceIdentifier", value),
            "userPrincipalName" => Told::Alternative("ntPrincipalName", value),
            USER_PRINCIPAL_NAME => match value.strip_prefix("utf8:") {
                Some(value) => Told::Alternative("ntPrincipalName", value.to_owned()),
                None => Told::Other,
            },
            "" | "auto" => Told::Auto(value),
            _ => Told::Other,
        }
    }
}

/// The subject of a certificate or a request, as step-ca describes it (x509util.Subject).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subject {
    common_name: Option<String>,
    extra_names: Option<Vec<ExtraName>>,
}

// A template may give every attribute here, as ours does: then `commonName` is left out.
#[derive(Debug, Deserialize)]
struct ExtraName {
    r#type: String,
    #[serde(default)]
    value: Value,
}

impl Subject {
    /// Its common names. Where one is in `extraNames`, step-ca leaves `commonName` out of the certificate.
    pub(crate) fn told(self) -> Vec<Told> {
        let extra: Vec<Told> = self
            .extra_names
            .into_iter()
            .flatten()
            .filter(|name| name.r#type == COMMON_NAME)
            .map(|name| name.value.as_str().map_or(Told::Other, |value| Told::Common(value.to_owned())))
            .collect();
        if extra.is_empty() { self.common_name.map(Told::Common).into_iter().collect() } else { extra }
    }
}

/// What else of a certificate as it would be signed says names (x509util.Certificate).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Alternatives {
    raw_subject: Option<String>,
    dns_names: Value,
    email_addresses: Value,
    ip_addresses: Value,
    uris: Value,
    sans: Option<Vec<San>>,
    extensions: Option<Vec<Extension>>,
}

#[derive(Debug, Deserialize)]
struct Extension {
    #[serde(default)]
    id: String,
    #[serde(default)]
    value: Value,
}

impl Alternatives {
    /// The names of the certificate, with those of its subject: a raw subject stands in its place.
    pub(crate) fn told(self, subject: Option<Subject>) -> Vec<Told> {
        let mut told = match self.raw_subject.filter(|raw| !raw.is_empty()) {
            Some(raw) => raw_subject(&raw),
            None => subject.map(Subject::told).unwrap_or_default(),
        };
        for (kind, value) in [
            ("dNSName", self.dns_names),
            ("rfc822Name", self.email_addresses),
            ("uniformResourceIdentifier", self.uris),
        ] {
            told.extend(texts(value).into_iter().map(|text| text.map_or(Told::Other, |t| Told::Alternative(kind, t))));
        }
        told.extend(texts(self.ip_addresses).into_iter().map(|_| Told::Other));
        told.extend(self.sans.into_iter().flatten().map(San::told));
        for extension in self.extensions.into_iter().flatten().filter(|e| e.id == SUBJECT_ALT_NAME) {
            told.extend(extension_names(&extension.value));
        }
        told
    }
}

/// One text, several, or none where it is null.
fn texts(value: Value) -> Vec<Option<String>> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![Some(text)],
        Value::Array(all) => all.into_iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => vec![None],
    }
}

/// The common names of a distinguished name in base64 of its DER.
fn raw_subject(base64: &str) -> Vec<Told> {
    let Some(attributes) = STANDARD.decode(base64).ok().and_then(|der| read_name(&der)) else {
        return vec![Told::Other];
    };
    let common = attributes.into_iter().filter(|(kind, _)| kind == COMMON_NAME);
    common.map(|(_, value)| value.map_or(Told::Other, Told::Common)).collect()
}

/// The names of the extension, in base64 of its value.
fn extension_names(value: &Value) -> Vec<Told> {
    let der = value.as_str().and_then(|text| STANDARD.decode(text).ok());
    let Some(names) = der.and_then(|der| read_alt_names(&der)) else { return vec![Told::Other] };
    let told = names.into_iter().map(|name| match name {
        Some(AltName::Dns(value)) => Told::Alternative("dNSName", value),
        Some(AltName::Email(value)) => Told::Alternative("rfc822Name", value),
        Some(AltName::Uri(value)) => Told::Alternative("uniformResourceIdentifier", value),
        Some(AltName::UserPrincipal(value)) => Told::Alternative("ntPrincipalName", value),
        Some(AltName::Permanent(value)) => Told::Permanent(value),
        None => Told::Other,
    });
    told.collect()
}

#[cfg(test)]
mod tests;
