//! The ACME policy: a named wish for one ACME certificate, as the API carries it and as it is checked.
//!
//! [`PolicyDocument`] is what people write; [`AcmePolicy`] is what has been checked. Only a policy that some device
//! could honour, with templates that can be filled, becomes an [`AcmePolicy`].

use std::fmt;

use mdm_core::enrollment::Channel;
use mdm_core::ids::PolicyName;
use mdm_core::profile::acme::{
    self, AcmeKeys, AcmePayload, EXTRACTABLE_RULE, HARDWARE_BOUND_RULE, InvalidAcmePayload, KeyError, KeyKind,
    SubjectAltName,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::gate::{Ask, Open, Wish};
use crate::reason::ReasonCode;
use crate::require::Requirements;
use crate::ring::Plan;
use crate::template::{Template, Values, Variable};

/// The channels that a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyChannel {
    /// The device channel.
    #[default]
    Device,
    /// The user channel of Macs.
    User,
    /// Both, each with a profile of its own.
    Both,
}

impl PolicyChannel {
    /// Is the policy for this channel?
    pub fn includes(self, channel: Channel) -> bool {
        match self {
            Self::Device => channel == Channel::Device,
            Self::User => channel == Channel::User,
            Self::Both => true,
        }
    }
}

/// `SubjectAltName` of a policy: each a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlternativeNames {
    /// `rfc822Name`.
    #[serde(rename = "rfc822Name", default, skip_serializing_if = "Option::is_none")]
    pub rfc822_name: Option<String>,
    /// `dNSName`.
    #[serde(rename = "dNSName", default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// `uniformResourceIdentifier`.
    #[serde(rename = "uniformResourceIdentifier", default, skip_serializing_if = "Option::is_none")]
    pub uniform_resource_identifier: Option<String>,
    /// `ntPrincipalName`.
    #[serde(rename = "ntPrincipalName", default, skip_serializing_if = "Option::is_none")]
    pub nt_principal_name: Option<String>,
}

/// A policy as the API carries it. What is left out has the default given here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the payload or a switch of the policy")]
pub struct PolicyDocument {
    /// Its name: 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or a digit.
    pub name: String,
    /// For people; never sent to a device.
    #[serde(default)]
    pub notes: String,
    /// What a person reads on the device (`PayloadDisplayName`); the policy's name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `PayloadOrganization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The channels that it is for.
    #[serde(default)]
    pub channel: PolicyChannel,
    /// The certificate authority, by its name in Assay. Either this or `directory_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// `DirectoryURL` of an ACME server of which Assay knows nothing else: https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_url: Option<String>,
    /// PEM certificates that may sign what the server behind `directory_url` issues. Without them a certificate proves nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// `ClientIdentifier`, a template.
    pub client_identifier: String,
    /// `KeyType`: `RSA` or `ECSECPrimeRandom`.
    #[serde(default = "default_key_type")]
    pub key_type: String,
    /// `KeySize`.
    #[serde(default = "default_key_size")]
    pub key_size: u32,
    /// `HardwareBound`.
    #[serde(default = "default_wish")]
    pub hardware_bound: Wish,
    /// `Attest`.
    #[serde(default = "default_wish")]
    pub attest: Wish,
    /// `Subject`: RDNs of pairs of type and template, such as `[[["CN", "{serial}"]]]`.
    pub subject: Vec<Vec<Vec<String>>>,
    /// `SubjectAltName`: templates.
    #[serde(default)]
    pub subject_alt_name: AlternativeNames,
    /// `UsageFlags`: 1 digital signature, 4 encryption, 5 both; left out where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_flags: Option<u32>,
    /// `ExtendedKeyUsage`: dotted object identifiers.
    #[serde(default)]
    pub extended_key_usage: Vec<String>,
    /// `KeyIsExtractable`: Macs only, and only for keys that are not hardware-bound.
    #[serde(default)]
    pub key_is_extractable: bool,
    /// `AllowAllAppsAccess`: Macs only.
    #[serde(default)]
    pub allow_all_apps_access: bool,
    /// The ACME server issues to devices that give no attestation. False: such devices are refused, with the reason.
    #[serde(default)]
    pub ca_accepts_unattested: bool,
    /// Use `HardwareBound` and `Attest` on the user channel of Macs too.
    #[serde(default)]
    pub user_channel_hardware_bound: bool,
    /// What an attestation of the device must have shown.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub require: Requirements,
    /// At which share of its life a certificate is renewed, in percent: 10 to 90.
    #[serde(default = "default_renew_at_percent")]
    pub renew_at_percent: u8,
    /// The steps by which a new revision reaches its devices; none: all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Plan>,
}

fn default_renew_at_percent() -> u8 {
    66
}

fn default_key_type() -> String {
    "ECSECPrimeRandom".to_owned()
}

fn default_key_size() -> u32 {
    256
}

fn default_wish() -> Wish {
    Wish::WhenSupported
}

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
            Err(e) => Err(InvalidPolicy(wrong_fields(&json, &e))),
        }
    }

    /// Checks a policy: R1 to R13 with the key's name, the templates, and that some device could honour it.
    pub fn new(document: PolicyDocument) -> Result<Self, InvalidPolicy> {
        let mut errors = Errors::default();
        let name = errors.keep("name", document.name.parse::<PolicyName>().map_err(|e| e.why.to_owned()));
        errors.check("notes", document.notes.len() <= 8192, "at most 8,192 bytes");
        for (field, text) in [("display_name", &document.display_name), ("organization", &document.organization)] {
            let fits = |t: &String| !t.trim().is_empty() && t.len() <= 255 && !t.chars().any(char::is_control);
            errors.check(field, text.as_ref().is_none_or(fits), "1 to 255 bytes without control characters");
        }
        if let Some(url) = &document.directory_url {
            errors.rule("directory_url", acme::check_directory_url(url));
        }
        errors.check(
            "directory_url",
            document.directory_url.is_some() != document.certificate_authority.is_some(),
            "given, or certificate_authority, and not both",
        );
        let key = errors.key(&document);
        errors.wishes(&document, key);
        if let Some(flags) = document.usage_flags {
            errors.rule("usage_flags", acme::check_usage_flags(flags));
        }
        for oid in &document.extended_key_usage {
            errors.rule("extended_key_usage", acme::check_extended_key_usage(oid));
        }
        let client_identifier = errors.template("client_identifier", &document.client_identifier);
        if let Some(template) = &client_identifier {
            errors.rule(
                "client_identifier",
                acme::check_client_identifier(&template.render(&sample()).unwrap_or_default()),
            );
        }
        let subject = errors.subject(&document.subject);
        let names = errors.names(&document.subject_alt_name);
        match (name, key, client_identifier) {
            (Some(name), Some(key), Some(client_identifier)) if errors.0.is_empty() => {
                let ask = Ask {
                    hardware_bound: document.hardware_bound,
                    attest: document.attest,
                    key,
                    ca_accepts_unattested: document.ca_accepts_unattested,
                    user_channel_hardware_bound: document.user_channel_hardware_bound,
                    key_is_extractable: document.key_is_extractable,
                    allow_all_apps_access: document.allow_all_apps_access,
                };
                Ok(Self { document, name, ask, client_identifier, subject, names })
            }
            _ => Err(InvalidPolicy(errors.0)),
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

    /// The variables that its templates use.
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

/// A value for every variable, to check at writing time what a template can become.
fn sample() -> Values {
    let mut values = Values::default();
    for variable in Variable::ALL {
        values.set(*variable, Some("sample"));
    }
    values
}

#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: &str, expected: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), expected: expected.into() });
    }

    fn check(&mut self, field: &str, good: bool, expected: &str) {
        if !good {
            self.add(field, expected);
        }
    }

    fn keep<T>(&mut self, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|expected| self.add(field, expected)).ok()
    }

    fn rule(&mut self, field: &str, result: Result<(), KeyError>) {
        if let Err(e) = result {
            self.add(field, format!("{} ({})", e.expected, e.key));
        }
    }

    fn template(&mut self, field: &str, text: &str) -> Option<Template> {
        self.keep(field, Template::parse(text).map_err(|e| e.to_string()))
    }

    fn key(&mut self, document: &PolicyDocument) -> Option<KeyKind> {
        match KeyKind::new(&document.key_type, document.key_size) {
            Ok(key) => Some(key),
            Err(e) => {
                let field = if e.key == "KeyType" { "key_type" } else { "key_size" };
                self.rule(field, Err(e));
                None
            }
        }
    }

    /// R6, R7, R13 and Q1, for wishes.
    fn wishes(&mut self, document: &PolicyDocument, key: Option<KeyKind>) {
        if document.hardware_bound != Wish::Never {
            if key.is_some_and(|k| !k.fits_secure_enclave()) {
                self.add("hardware_bound", format!("never, since HardwareBound is {HARDWARE_BOUND_RULE}"));
            }
            if document.key_is_extractable {
                self.add("key_is_extractable", format!("{EXTRACTABLE_RULE} (KeyIsExtractable)"));
            }
        } else if document.attest != Wish::Never {
            self.add("attest", "never where hardware_bound is never: Attest needs HardwareBound to be true");
        }
        if document.attest == Wish::Never && !document.ca_accepts_unattested {
            self.add("attest", "required or when_supported, or ca_accepts_unattested must be true: as it stands no device could get a certificate");
        }
    }

    fn subject(&mut self, subject: &[Vec<Vec<String>>]) -> Vec<Vec<(String, Template)>> {
        let mut out = Vec::new();
        let mut samples = Vec::new();
        for rdn in subject {
            let mut pairs = Vec::new();
            let mut filled = Vec::new();
            for pair in rdn {
                if let [kind, value] = pair.as_slice() {
                    let Some(template) = self.template("subject", value) else { return Vec::new() };
                    filled.push(vec![kind.clone(), template.render(&sample()).unwrap_or_default()]);
                    pairs.push((kind.clone(), template));
                } else {
                    filled.push(pair.clone());
                }
            }
            out.push(pairs);
            samples.push(filled);
        }
        self.rule("subject", acme::check_subject(&samples));
        out
    }

    fn names(&mut self, names: &AlternativeNames) -> [Option<Template>; 4] {
        let mut one = |key: &str, text: &Option<String>| {
            let field = format!("subject_alt_name.{key}");
            let text = text.as_deref()?;
            self.check(&field, !text.is_empty() && !text.chars().any(char::is_control), "a single string, not empty");
            self.template(&field, text)
        };
        [
            one("rfc822Name", &names.rfc822_name),
            one("dNSName", &names.dns_name),
            one("uniformResourceIdentifier", &names.uniform_resource_identifier),
            one("ntPrincipalName", &names.nt_principal_name),
        ]
    }
}

/// Finds which fields made a document unreadable, by putting each into a document that is known to be right.
fn wrong_fields(json: &Json, error: &serde_json::Error) -> Vec<FieldError> {
    let Json::Object(fields) = json else {
        return vec![FieldError { field: "policy".into(), expected: "a JSON object".into() }];
    };
    let right = serde_json::json!({
        "name": "a", "directory_url": "https://a.example", "client_identifier": "a", "subject": [[["CN", "a"]]],
    });
    let Json::Object(right) = right else { return Vec::new() };
    let mut wrong = Vec::new();
    for (field, value) in fields {
        let mut trial = right.clone();
        trial.insert(field.clone(), value.clone());
        if let Err(e) = serde_json::from_value::<PolicyDocument>(Json::Object(trial)) {
            let field = field.chars().take(64).collect();
            wrong.push(FieldError { field, expected: format!("as the API describes it: {e}") });
        }
    }
    for field in right.keys().filter(|f| !fields.contains_key(*f)) {
        wrong.push(FieldError { field: field.clone(), expected: "given".into() });
    }
    if wrong.is_empty() {
        wrong.push(FieldError { field: "policy".into(), expected: format!("as the API describes it: {error}") });
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Json {
        json!({
            "name": "wifi", "directory_url": "https://ca.example.com/acme/mdm/directory",
            "client_identifier": "{serial}", "subject": [[["O", "Example"]], [["CN", "{serial}"]]],
        })
    }

    fn wrong(change: Json) -> Vec<String> {
        let mut json = policy();
        for (k, v) in change.as_object().unwrap() {
            json[k] = v.clone();
        }
        match AcmePolicy::from_value(json) {
            Ok(_) => vec![],
            Err(e) => e.0.into_iter().map(|e| e.field).collect(),
        }
    }

    #[test]
    fn the_defaults_ask_for_the_strongest_form_and_promise_nothing_of_the_ca() {
        let policy = AcmePolicy::from_value(policy()).unwrap();
        assert_eq!(policy.ask().attest, Wish::WhenSupported);
        assert_eq!(policy.ask().hardware_bound, Wish::WhenSupported);
        assert_eq!(policy.ask().key, KeyKind::EcsecPrimeRandom(256));
        assert!(!policy.ask().ca_accepts_unattested && !policy.ask().user_channel_hardware_bound);
        assert_eq!(policy.display_name(), "wifi");
        let again = AcmePolicy::from_json(&serde_json::to_string(policy.document()).unwrap()).unwrap();
        assert_eq!(again, policy);
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(wrong(json!({})), Vec::<String>::new());
        for (change, field) in [
            (json!({"name": "../x"}), "name"),
            (json!({"directory_url": "http://ca.example.com"}), "directory_url"),
            (json!({"directory_url": 7}), "directory_url"),
            (json!({"client_identifier": ""}), "client_identifier"),
            (json!({"client_identifier": "{serialnumber}"}), "client_identifier"),
            (json!({"key_type": "EC"}), "key_type"),
            (json!({"key_size": 512}), "key_size"),
            (json!({"key_size": "256"}), "key_size"),
            (json!({"key_size": 521}), "hardware_bound"),
            (json!({"key_type": "RSA", "key_size": 2048}), "hardware_bound"),
            (json!({"hardware_bound": "yes"}), "hardware_bound"),
            (json!({"hardware_bound": "never"}), "attest"),
            (json!({"attest": "never"}), "attest"),
            (json!({"subject": []}), "subject"),
            (json!({"subject": [[["CN", "{serial"]]]}), "subject"),
            (json!({"subject": [[["C", "{serial}"]]]}), "subject"),
            (json!({"subject": [[["CN"]]]}), "subject"),
            (json!({"subject": "CN=x"}), "subject"),
            (json!({"subject_alt_name": {"dNSName": ""}}), "subject_alt_name.dNSName"),
            (json!({"subject_alt_name": {"dNSName": ["a", "b"]}}), "subject_alt_name"),
            (json!({"subject_alt_name": {"iPAddress": "10.0.0.1"}}), "subject_alt_name"),
            (json!({"usage_flags": 2}), "usage_flags"),
            (json!({"extended_key_usage": ["clientAuth"]}), "extended_key_usage"),
            (json!({"key_is_extractable": true}), "key_is_extractable"),
            (json!({"channel": "computer"}), "channel"),
            (json!({"display_name": " "}), "display_name"),
            (json!({"colour": "red"}), "colour"),
        ] {
            assert_eq!(wrong(change.clone()), [field], "{change}");
        }
        assert!(AcmePolicy::from_json("[]").is_err());
        assert!(AcmePolicy::from_json("{").is_err());
        let missing = AcmePolicy::from_json("{}").unwrap_err().0.into_iter().map(|e| e.field).collect::<Vec<_>>();
        assert_eq!(missing, ["client_identifier", "directory_url", "name", "subject"]);
    }

    #[test]
    fn policies_without_hardware_can_be_written() {
        let rsa = json!({"key_type": "RSA", "key_size": 2048, "hardware_bound": "never", "attest": "never", "ca_accepts_unattested": true, "key_is_extractable": true});
        assert_eq!(wrong(rsa), Vec::<String>::new());
    }

    #[test]
    fn an_error_tells_what_would_be_right() {
        let error = AcmePolicy::from_json(&policy().to_string().replace("wifi", "wi fi")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "name must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or a digit"
        );
    }
}
