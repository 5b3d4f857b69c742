//! The ACME policy, checked: a named wish for one ACME certificate, from which the payload of each device is made.
//!
//! [`PolicyDocument`] is what people write; [`AcmePolicy`] is what has been checked. Only a policy that some device
//! could honour, with templates that can be filled, becomes an [`AcmePolicy`].

mod check;

use std::fmt;

use mdm_core::hardware::Platform;
use mdm_core::ids::PolicyName;
use mdm_core::profile::acme::{AcmeKeys, AcmePayload, InvalidAcmePayload, SubjectAltName};
use serde::Serialize;
use serde_json::Value as Json;

pub(crate) use check::Errors;

use crate::companion;
pub use crate::document::{AlternativeNames, PolicyChannel, PolicyDocument, Removal, WhenUnassigned};
use crate::gate::{Ask, Open};
use crate::reason::ReasonCode;
use crate::template::{Template, Values, Variable};

/// One field of a policy that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field, as the API spells it.
    pub field: String,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.field, self.expected)
    }
}

/// Every field that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPolicy(pub Vec<FieldError>);

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&errors.join("; "))
    }
}

impl std::error::Error for InvalidPolicy {}

/// A value of the device that does not fit: the profile is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Why.
    pub reason: ReasonCode,
    /// Which variable or key.
    pub detail: String,
}

/// A checked policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmePolicy {
    document: PolicyDocument,
    name: PolicyName,
    ask: Ask,
    client_identifier: Template,
    subject: Vec<Vec<(String, Template)>>,
    names: [Option<Template>; 4],
    companions: Vec<companion::Ready>,
}

impl AcmePolicy {
    /// Reads a policy from the JSON that the API carries.
    pub fn from_json(text: &str) -> Result<Self, InvalidPolicy> {
        let wrong = |expected: String| InvalidPolicy(vec![FieldError { field: "policy".into(), expected }]);
        let json: Json = serde_json::from_str(text).map_err(|e| wrong(format!("JSON: {e}")))?;
        Self::from_value(json)
    }

    /// Reads a policy from JSON; a value of a wrong type is named by its field.
    pub fn from_value(json: Json) -> Result<Self, InvalidPolicy> {
        match serde_json::from_value::<PolicyDocument>(json.clone()) {
            Ok(document) => Self::new(document),
            Err(e) => Err(InvalidPolicy(check::wrong_fields(&json, &e))),
        }
    }

    /// The policy as it was written.
    pub fn document(&self) -> &PolicyDocument {
        &self.document
    }

    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// What it asks of every device.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// What a person reads on the device.
    pub fn display_name(&self) -> &str {
        self.document.display_name.as_deref().unwrap_or(self.name.as_str())
    }

    /// Its companions.
    pub(crate) fn companions(&self) -> &[companion::Ready] {
        &self.companions
    }

    /// Is it for devices with this operating system? One that nobody knows is in no list.
    pub fn is_for(&self, platform: Option<Platform>) -> bool {
        let list = &self.document.platforms;
        list.is_empty() || platform.is_some_and(|platform| list.contains(&platform))
    }

    /// The variables that the templates of the certificate use.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        let subject = self.subject.iter().flatten().map(|(_, template)| template);
        std::iter::once(&self.client_identifier)
            .chain(subject)
            .chain(self.names.iter().flatten())
            .flat_map(Template::variables)
    }

    /// `ClientIdentifier` uses this variable.
    pub fn client_identifier_uses(&self, variable: Variable) -> bool {
        self.client_identifier.variables().any(|v| v == variable)
    }

    /// The payload for one device, in the form that the gate has allowed.
    pub fn payload(&self, open: &Open, values: &Values, directory_url: &str) -> Result<AcmePayload, Unfit> {
        let fill = |template: &Template| {
            template.render(values).map_err(|variable| Unfit {
                reason: ReasonCode::TemplateValueMissing,
                detail: format!("this device has no value for {variable}"),
            })
        };
        let fill_optional = |template: &Option<Template>| template.as_ref().map(fill).transpose();
        let pair = |(kind, template): &(String, Template)| Ok(vec![kind.clone(), fill(template)?]);
        let rdn = |rdn: &Vec<(String, Template)>| rdn.iter().map(pair).collect::<Result<Vec<_>, Unfit>>();
        let [rfc822_name, dns_name, uri, nt_principal_name] = &self.names;
        let keys = AcmeKeys {
            directory_url: directory_url.to_owned(),
            client_identifier: fill(&self.client_identifier)?,
            key_type: self.ask.key.key_type().to_owned(),
            key_size: self.ask.key.key_size(),
            hardware_bound: open.hardware_bound,
            subject: self.subject.iter().map(rdn).collect::<Result<_, _>>()?,
            subject_alt_name: SubjectAltName {
                rfc822_name: fill_optional(rfc822_name)?,
                dns_name: fill_optional(dns_name)?,
                uniform_resource_identifier: fill_optional(uri)?,
                nt_principal_name: fill_optional(nt_principal_name)?,
            },
            usage_flags: self.document.usage_flags,
            extended_key_usage: self.document.extended_key_usage.clone(),
            attest: open.attest,
            mac: open.mac,
        };
        AcmePayload::new(keys, open.platform)
            .map_err(|e: InvalidAcmePayload| Unfit { reason: ReasonCode::PayloadInvalid, detail: e.to_string() })
    }
}

#[cfg(test)]
mod tests;
