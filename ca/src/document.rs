//! An authority as the API carries it, and how it is checked.

use std::fmt;

use mdm_core::certificate::{Certificate, pem_chain};
use mdm_core::ids::PolicyName;
use mdm_core::profile::acme::check_directory_url;
use serde::{Deserialize, Serialize};

use crate::authority::{CommonNameRule, IdentifierRule};

/// The most issuers of one authority.
const MAX_ISSUERS: usize = 16;

/// Which rules an authority has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// RFC 8555 with `device-attest-01`, and what is said of it here.
    Generic,
    /// step-ca's ACME provisioner with `device-attest-01`: its rules are known.
    StepCa,
}

/// A certificate authority as the API carries it. What is left out has the default given here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CertificateAuthority)]
pub struct Document {
    /// Its name: 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or a digit. Policies name it so.
    pub name: String,
    /// `generic` or `step_ca`.
    pub kind: Kind,
    /// For people; never sent anywhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// `DirectoryURL`: https. With step-ca `https://<ca>/acme/<provisioner>/directory`.
    pub directory_url: String,
    /// PEM certificates that may sign what it issues. A certificate of another issuer proves nothing; without any, none is proved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// It issues to devices that give no attestation. Never with step-ca, which refuses them.
    #[serde(default)]
    pub accepts_unattested: bool,
    /// What it wants `ClientIdentifier` to be. `generic` only; with step-ca always `attested`.
    #[serde(default = "any_identifier")]
    pub identifier: IdentifierRule,
    /// What it wants the common name to be. `generic` only; with step-ca always `identifier`.
    #[serde(default = "any_common_name")]
    pub common_name: CommonNameRule,
    /// It verifies attestations itself and compares the identifier with them, as step-ca does: only with `identifier` `attested`. Where
    /// false, its webhook must show Assay each attestation. `generic` only.
    #[serde(default)]
    pub verifies_attestation: bool,
}

fn any_identifier() -> IdentifierRule {
    IdentifierRule::Any
}

fn any_common_name() -> CommonNameRule {
    CommonNameRule::Any
}

/// One field that is wrong.
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

impl Document {
    /// Every field that is wrong; empty where it can be used.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, expected: &str| {
            errors.push(FieldError { field: field.to_owned(), expected: expected.to_owned() });
        };
        if let Err(e) = self.name.parse::<PolicyName>() {
            wrong("name", e.why);
        }
        if self.notes.len() > 8192 {
            wrong("notes", "at most 8,192 bytes");
        }
        if let Err(e) = check_directory_url(&self.directory_url) {
            wrong("directory_url", &e.expected);
        }
        if self.kind == Kind::StepCa {
            if self.accepts_unattested {
                wrong(
                    "accepts_unattested",
                    "false with step-ca, whose device-attest-01 refuses devices without an attestation",
                );
            }
            let said = (self.identifier, self.common_name, self.verifies_attestation);
            let (identifier, common_name, verifies) = said;
            if identifier != IdentifierRule::Any {
                wrong("identifier", "left out with step-ca, which wants the attested serial number or UDID");
            }
            if common_name != CommonNameRule::Any {
                wrong("common_name", "left out with step-ca, which wants it to be empty or the identifier");
            }
            if verifies {
                wrong("verifies_attestation", "left out with step-ca, which always does");
            }
        }
        if self.kind == Kind::Generic && self.verifies_attestation && self.identifier != IdentifierRule::Attested {
            wrong(
                "verifies_attestation",
                "false unless identifier is attested: whoever does not compare the identifier with the attestation shows it to Assay",
            );
        }
        let mut found = 0_usize;
        for pem in &self.issuers {
            // All of the text is stored, and shown to whoever may read authorities.
            let blocks = |begin: &str| pem.matches(begin).count();
            if blocks("-----BEGIN ") != blocks("-----BEGIN CERTIFICATE-----") || pem.contains("PRIVATE KEY") {
                wrong("issuers", "PEM certificates and nothing else: a private key does not belong here");
                continue;
            }
            match pem_chain(pem) {
                Ok(chain) if chain.iter().all(Certificate::is_ca) => found += chain.len(),
                Ok(_) => wrong("issuers", "CA certificates only"),
                Err(_) => wrong("issuers", "PEM certificates"),
            }
        }
        if found > MAX_ISSUERS {
            wrong("issuers", "at most 16 certificates");
        }
        errors
    }

    /// DER of its issuers; those that cannot be read are left out ([`Self::check`] refuses them).
    pub fn issuer_certificates(&self) -> Vec<Vec<u8>> {
        let chains = self.issuers.iter().filter_map(|pem| pem_chain(pem).ok());
        chains.flatten().map(|certificate| certificate.der().to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(change: serde_json::Value) -> Document {
        let mut json =
            json!({"name": "step", "kind": "step_ca", "directory_url": "https://ca.example/acme/mdm/directory"});
        for (key, value) in change.as_object().unwrap() {
            json[key] = value.clone();
        }
        serde_json::from_value(json).unwrap()
    }

    fn fields(change: serde_json::Value) -> Vec<String> {
        document(change).check().into_iter().map(|e| e.field).collect()
    }

    fn pem(ca: bool) -> String {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(fields(json!({})), Vec::<String>::new());
        for (change, field) in [
            (json!({"name": "a b"}), "name"),
            (json!({"directory_url": "http://ca.example/"}), "directory_url"),
            (json!({"accepts_unattested": true}), "accepts_unattested"),
            (json!({"identifier": "attested"}), "identifier"),
            (json!({"common_name": "identifier"}), "common_name"),
            (json!({"verifies_attestation": true}), "verifies_attestation"),
            (json!({"issuers": ["x"]}), "issuers"),
            (json!({"issuers": [pem(false)]}), "issuers"),
            (json!({"notes": "x".repeat(8193)}), "notes"),
        ] {
            assert_eq!(fields(change), [field]);
        }
        let free = json!({"kind": "generic", "accepts_unattested": true, "identifier": "attested", "common_name": "identifier",
            "verifies_attestation": true, "issuers": [pem(true)]});
        assert_eq!(fields(free.clone()), Vec::<String>::new());
        assert_eq!(document(free).issuer_certificates().len(), 1);
        assert!(
            serde_json::from_value::<Document>(json!({"name": "a", "kind": "ejbca", "directory_url": "https://a"}))
                .is_err()
        );
    }

    #[test]
    fn th_64_a_private_key_beside_an_issuer_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for pasted in [format!("{}{key}", pem(true)), format!("{key}{}", pem(true))] {
            let wrong = document(json!({ "issuers": [pasted] })).check();
            let told: Vec<_> = wrong.iter().map(|e| (e.field.as_str(), e.expected.as_str())).collect();
            assert_eq!(told, [("issuers", "PEM certificates and nothing else: a private key does not belong here")]);
        }
        let other = format!("{}-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n", pem(true));
        assert_eq!(fields(json!({ "issuers": [other] })), ["issuers"]);
        // The lines that programs write before a certificate do no harm.
        assert_eq!(fields(json!({ "issuers": [format!("subject=CN = x\n{}", pem(true))] })), Vec::<String>::new());
    }

    #[test]
    fn th_39_only_who_compares_the_identifier_verifies_the_attestation() {
        let generic =
            |identifier: &str| json!({"kind": "generic", "verifies_attestation": true, "identifier": identifier});
        assert_eq!(fields(generic("any")), ["verifies_attestation"]);
        assert_eq!(fields(generic("attested")), Vec::<String>::new());
    }

    #[test]
    fn a_document_reads_back() {
        let document = document(json!({"issuers": [pem(true)], "notes": "ours"}));
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(serde_json::from_str::<Document>(&text).unwrap(), document);
    }
}
