//! Policies and all that they name as one document: what `assay apply` takes and `assay export` gives.

use std::collections::BTreeSet;

use ca::Document as AuthorityDocument;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use store::Tx;

use crate::acme::{AcmePolicy, FieldError, InvalidPolicy};
use crate::error::{Result, corrupt};
use crate::label_rules::{self, LabelRule};
use crate::scope::Scope;

/// The most objects of one kind in a bundle.
const MOST: usize = 500;
/// Rows that are read at a time.
const PAGE: i64 = 200;

const AUTHORITIES: &str = "certificate_authorities";
const RULES: &str = "label_rules";
const POLICIES: &str = "acme_policies";

/// Objects that are written together. What is not named in it stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Certificate authorities.
    pub authorities: Vec<AuthorityDocument>,
    /// Rules of labels.
    pub rules: Vec<LabelRule>,
    /// Policies, each with its scope where one is given.
    pub policies: Vec<(AcmePolicy, Option<Scope>)>,
}

impl Bundle {
    /// Reads a bundle: an object of three arrays, `certificate_authorities`, `label_rules` and `acme_policies`, each of which may be
    /// left out. An ACME policy has one field more than elsewhere: `scope`. Every wrong field is named with its place.
    pub fn from_value(json: Json) -> Result<Self, InvalidPolicy> {
        let mut reader = Reader::default();
        let Json::Object(mut fields) = json else {
            reader.wrong("body", "an object with certificate_authorities, label_rules and acme_policies");
            return Err(InvalidPolicy(reader.errors));
        };
        let mut bundle = Self::default();
        for (at, value) in reader.list(&mut fields, AUTHORITIES) {
            let document: Option<AuthorityDocument> = reader.typed(&at, value);
            if let Some(document) = document {
                let wrong = document.check().into_iter().map(|e| FieldError { field: e.field, expected: e.expected });
                reader.under(&at, wrong);
                reader.once(&at, "name", &document.name);
                bundle.authorities.push(document);
            }
        }
        for (at, value) in reader.list(&mut fields, RULES) {
            let rule: Option<LabelRule> = reader.typed(&at, value);
            if let Some(rule) = rule {
                reader.under(&at, rule.check().into_iter());
                reader.once(&at, "label", rule.label.as_str());
                bundle.rules.push(rule);
            }
        }
        for (at, value) in reader.list(&mut fields, POLICIES) {
            if let Some(read) = reader.policy(&at, value) {
                bundle.policies.push(read);
            }
        }
        for field in fields.keys() {
            let field: String = field.chars().take(64).collect();
            reader.wrong(&field, "one of certificate_authorities, label_rules and acme_policies");
        }
        if reader.errors.is_empty() { Ok(bundle) } else { Err(InvalidPolicy(reader.errors)) }
    }

    /// All that is stored; or, where names are given, these policies with the authorities and rules that they use.
    pub async fn stored(tx: &mut Tx, only: Option<&BTreeSet<String>>) -> Result<Self> {
        let mut bundle = Self::default();
        let mut after = String::new();
        loop {
            let rows = store::policies::list(tx, &after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.name);
            for row in rows.iter().filter(|row| only.is_none_or(|names| names.contains(&row.name))) {
                let policy = AcmePolicy::from_json(&row.body).map_err(|_| corrupt("acme_policy_revision.body"))?;
                let scope = crate::scope(tx, row.id()).await?;
                bundle.policies.push((policy, Some(scope)));
            }
        }
        let mut after = String::new();
        loop {
            let rows = store::authorities::list(tx, &after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.name);
            for row in &rows {
                let (document, _) = ca::stored(row).map_err(|_| corrupt("certificate_authority.body"))?;
                let used = || {
                    bundle.policies.iter().any(|(policy, _)| {
                        policy.document().certificate_authority.as_deref() == Some(document.name.as_str())
                    })
                };
                if only.is_none() || used() {
                    bundle.authorities.push(document);
                }
            }
        }
        for rule in label_rules::all(tx).await? {
            let used = || {
                bundle
                    .policies
                    .iter()
                    .filter_map(|(_, scope)| scope.as_ref())
                    .any(|scope| scope.labels.contains(&rule.label) || scope.exclude.labels.contains(&rule.label))
            };
            if only.is_none() || used() {
                bundle.rules.push(rule);
            }
        }
        Ok(bundle)
    }

    /// The document that [`Self::from_value`] reads.
    pub fn to_value(&self) -> Json {
        let list = |values: Vec<Json>| Json::Array(values);
        let mut out = Map::new();
        out.insert(AUTHORITIES.into(), list(self.authorities.iter().map(json).collect()));
        out.insert(RULES.into(), list(self.rules.iter().map(json).collect()));
        let policies = self.policies.iter().map(|(policy, scope)| {
            let mut value = json(policy.document());
            if let (Some(fields), Some(scope)) = (value.as_object_mut(), scope) {
                fields.insert("scope".into(), json(scope));
            }
            value
        });
        out.insert(POLICIES.into(), list(policies.collect()));
        Json::Object(out)
    }
}

/// A document as JSON.
pub(crate) fn json(document: &impl serde::Serialize) -> Json {
    serde_json::to_value(document).expect("documents have text keys and no fallible parts")
}

#[derive(Default)]
struct Reader {
    errors: Vec<FieldError>,
    seen: BTreeSet<String>,
}

impl Reader {
    fn wrong(&mut self, field: &str, expected: impl Into<String>) {
        self.errors.push(FieldError { field: field.to_owned(), expected: expected.into() });
    }

    fn under(&mut self, at: &str, errors: impl Iterator<Item = FieldError>) {
        let named = |e: FieldError| FieldError { field: format!("{at}.{}", e.field), ..e };
        self.errors.extend(errors.map(named));
    }

    /// The entries of a list, with their places.
    fn list(&mut self, fields: &mut Map<String, Json>, key: &str) -> Vec<(String, Json)> {
        match fields.remove(key) {
            None => Vec::new(),
            Some(Json::Array(items)) if items.len() <= MOST => {
                items.into_iter().enumerate().map(|(n, item)| (format!("{key}[{n}]"), item)).collect()
            }
            Some(Json::Array(_)) => {
                self.wrong(key, format!("at most {MOST} objects"));
                Vec::new()
            }
            Some(_) => {
                self.wrong(key, "an array of objects");
                Vec::new()
            }
        }
    }

    /// A name that no other object of the kind has.
    fn once(&mut self, at: &str, field: &str, name: &str) {
        let kind = at.split('[').next().unwrap_or(at);
        if !self.seen.insert(format!("{kind} {name}")) {
            self.wrong(&format!("{at}.{field}"), "a name that no other object of the kind has");
        }
    }

    fn typed<T: DeserializeOwned>(&mut self, at: &str, value: Json) -> Option<T> {
        match serde_json::from_value(value) {
            Ok(document) => Some(document),
            Err(e) => {
                self.wrong(at, format!("as the API describes it: {e}"));
                None
            }
        }
    }

    fn policy(&mut self, at: &str, mut value: Json) -> Option<(AcmePolicy, Option<Scope>)> {
        let scope = value.as_object_mut().and_then(|fields| fields.remove("scope"));
        let scope: Option<Scope> = match scope {
            Some(scope) => {
                let scope: Scope = self.typed(&format!("{at}.scope"), scope)?;
                self.under(&format!("{at}.scope"), scope.check().into_iter());
                Some(scope)
            }
            None => None,
        };
        match AcmePolicy::from_value(value) {
            Ok(policy) => {
                self.once(at, "name", policy.name().as_str());
                Some((policy, scope))
            }
            Err(InvalidPolicy(errors)) => {
                self.under(at, errors.into_iter());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Json {
        json!({
            "certificate_authorities": [{"name": "step", "kind": "step_ca", "directory_url": "https://ca.example/acme/mdm/directory"}],
            "label_rules": [{"label": "macs", "families": ["Mac"]}],
            "acme_policies": [{"name": "wifi", "certificate_authority": "step", "client_identifier": "{serial}",
                "subject": [[["CN", "{serial}"]]], "scope": {"labels": ["macs"]}}],
        })
    }

    fn wrong(json: Json) -> Vec<String> {
        Bundle::from_value(json).map_or_else(|e| e.0.into_iter().map(|e| e.field).collect(), |_| vec![])
    }

    #[test]
    fn a_bundle_reads_back_from_what_it_writes() {
        let bundle = Bundle::from_value(good()).unwrap();
        assert_eq!((bundle.authorities.len(), bundle.rules.len(), bundle.policies.len()), (1, 1, 1));
        assert_eq!(Bundle::from_value(bundle.to_value()).unwrap(), bundle);
        assert_eq!(Bundle::from_value(json!({})).unwrap(), Bundle::default());
    }

    #[test]
    fn every_wrong_field_is_named_with_its_place() {
        let change = |kind: &str, field: &str, value: Json| {
            let mut json = good();
            json[kind][0][field] = value;
            json
        };
        for (json, field) in [
            (json!([]), "body"),
            (json!({"policies": []}), "policies"),
            (json!({"acme_policies": {}}), "acme_policies"),
            (change("acme_policies", "key_size", json!(512)), "acme_policies[0].key_size"),
            (change("acme_policies", "scope", json!({"everyone": true})), "acme_policies[0].scope"),
            (
                change("acme_policies", "scope", json!({"labels": ["a"], "exclude": {"labels": ["a"]}})),
                "acme_policies[0].scope.exclude.labels",
            ),
            (
                change("certificate_authorities", "directory_url", json!("http://x")),
                "certificate_authorities[0].directory_url",
            ),
            (change("certificate_authorities", "colour", json!(1)), "certificate_authorities[0]"),
            (change("label_rules", "label", json!("../x")), "label_rules[0]"),
        ] {
            assert_eq!(wrong(json.clone()), [field], "{json}");
        }
        let mut twice = good();
        let again = twice["acme_policies"][0].clone();
        twice["acme_policies"].as_array_mut().unwrap().push(again);
        assert_eq!(wrong(twice), ["acme_policies[1].name"]);
    }
}
