//! Checking a policy when it is written: R1 to R13 with the key's name, the templates, and that the wishes fit together.

use mdm_core::certificate;
use mdm_core::hardware::Platform;
use mdm_core::ids::PolicyName;
use mdm_core::profile::acme::{self, EXTRACTABLE_RULE, HARDWARE_BOUND_RULE, KeyError, KeyKind};
use serde_json::Value as Json;

use super::{AcmePolicy, AlternativeNames, FieldError, InvalidPolicy, PolicyChannel, PolicyDocument};
use crate::companion;
use crate::gate::{Ask, Wish};
use crate::ring::Plan;
use crate::template::{Template, Values, Variable};

impl AcmePolicy {
    /// Checks a policy and names every field that is wrong.
    pub fn new(document: PolicyDocument) -> Result<Self, InvalidPolicy> {
        let mut errors = Errors::default();
        let name = errors.keep("name", document.name.parse::<PolicyName>().map_err(|e| e.why.to_owned()));
        errors.check("notes", document.notes.len() <= 8192, "at most 8,192 bytes");
        errors.line("display_name", document.display_name.as_deref());
        errors.line("organization", document.organization.as_deref());
        errors.authority(&document);
        let key = errors.key(&document);
        errors.wishes(&document, key);
        errors.targets(&document);
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
            let of_one = |variable| UNIQUE.contains(&variable);
            let wrong = errors.0.iter().any(|error| error.field == "client_identifier");
            errors.check(
                "client_identifier",
                wrong || template.variables().any(of_one),
                "made of {serial}, {udid}, {provisioning_udid}, {enrollment_id} or {random}: it is unique for each device",
            );
        }
        let subject = errors.subject(&document.subject);
        let names = errors.names(&document.subject_alt_name);
        let companions = companion::check(&document.companions, key, &mut errors);
        if let Some(name) = &document.signing_identity {
            errors.keep("signing_identity", name.parse::<PolicyName>().map_err(|e| e.why.to_owned()));
        }
        let share = (10..=90).contains(&document.renew_at_percent);
        errors.check("renew_at_percent", share, "10 to 90");
        errors.0.extend(document.require.check());
        errors.0.extend(document.rollout.as_ref().map(Plan::check).unwrap_or_default());
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
                Ok(Self { document, name, ask, client_identifier, subject, names, companions })
            }
            _ => Err(InvalidPolicy(errors.0)),
        }
    }
}

/// The variables that no two devices share. Apple, `ClientIdentifier`: "a unique string identifying a specific device".
const UNIQUE: [Variable; 5] =
    [Variable::Serial, Variable::Udid, Variable::ProvisioningUdid, Variable::EnrollmentId, Variable::Random];

/// A value for every variable, to check at writing time what a template can become.
fn sample() -> Values {
    let mut values = Values::default();
    for variable in Variable::ALL {
        values.set(*variable, Some("sample"));
    }
    values
}

/// The fields that are wrong so far.
#[derive(Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    pub(crate) fn add(&mut self, field: &str, expected: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), expected: expected.into() });
    }

    pub(crate) fn check(&mut self, field: &str, good: bool, expected: &str) {
        if !good {
            self.add(field, expected);
        }
    }

    pub(crate) fn keep<T>(&mut self, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|expected| self.add(field, expected)).ok()
    }

    /// A text that people read.
    pub(crate) fn line(&mut self, field: &str, text: Option<&str>) {
        let fits = |t: &str| !t.trim().is_empty() && t.len() <= 255 && !t.chars().any(char::is_control);
        self.check(field, text.is_none_or(fits), "1 to 255 bytes without control characters");
    }

    fn rule(&mut self, field: &str, result: Result<(), KeyError>) {
        if let Err(e) = result {
            self.add(field, format!("{} ({})", e.expected, e.key));
        }
    }

    /// A template of the certificate; the identity's `PayloadUUID` is a value of companions alone.
    fn template(&mut self, field: &str, text: &str) -> Option<Template> {
        let template = self.keep(field, Template::parse(text).map_err(|e| e.to_string()))?;
        let foreign = template.variables().any(|variable| variable == Variable::IdentityUuid);
        self.check(field, !foreign, "made without {identity_uuid}, which only companions can use");
        Some(template)
    }

    /// Where certificates come from: one of two ways, and what belongs to each.
    fn authority(&mut self, document: &PolicyDocument) {
        match (&document.certificate_authority, &document.directory_url) {
            (Some(name), None) => {
                self.keep("certificate_authority", name.parse::<PolicyName>().map_err(|e| e.why.to_owned()));
                let told_there = "left out where certificate_authority is named: it is told there";
                self.check("issuers", document.issuers.is_empty(), told_there);
                self.check("ca_accepts_unattested", !document.ca_accepts_unattested, told_there);
            }
            (None, Some(url)) => self.rule("directory_url", acme::check_directory_url(url)),
            _ => self.add("directory_url", "given, or certificate_authority, and not both"),
        }
        for (n, pem) in document.issuers.iter().enumerate() {
            let one = certificate::pem_chain(pem).is_ok_and(|chain| chain.len() == 1) && !pem.contains("PRIVATE KEY");
            self.check(&format!("issuers[{n}]"), one, "exactly one certificate as PEM, and no private key");
        }
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
        // Of a named authority only the authority itself knows; see the linter.
        let told_here = document.certificate_authority.is_none();
        if told_here && document.attest == Wish::Never && !document.ca_accepts_unattested {
            self.add(
                "attest",
                "required or when_supported, or ca_accepts_unattested must be true: as it stands no device could get a certificate",
            );
        }
    }

    /// The operating systems and the channel.
    fn targets(&mut self, document: &PolicyDocument) {
        let platforms = &document.platforms;
        let twice = platforms.iter().enumerate().any(|(n, p)| platforms.iter().skip(n + 1).any(|other| p == other));
        self.check("platforms", !twice, "a list in which nothing stands twice");
        let macs = platforms.is_empty() || platforms.contains(&Platform::Macos);
        if document.channel == PolicyChannel::User && !macs {
            self.add(
                "channel",
                "device, or platforms must name macOS: the ACME payload is on the user channel of Macs only",
            );
        }
        let only_others = !macs && (document.key_is_extractable || document.allow_all_apps_access);
        self.check(
            "platforms",
            !only_others,
            "a list with macOS where key_is_extractable or allow_all_apps_access is true: they exist on macOS only (R12)",
        );
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
pub(super) fn wrong_fields(json: &Json, error: &serde_json::Error) -> Vec<FieldError> {
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
    let named = fields.contains_key("certificate_authority");
    for field in right.keys().filter(|f| !fields.contains_key(*f) && (!named || *f != "directory_url")) {
        wrong.push(FieldError { field: field.clone(), expected: "given".into() });
    }
    if wrong.is_empty() {
        wrong.push(FieldError { field: "policy".into(), expected: format!("as the API describes it: {error}") });
    }
    wrong
}
