//! From a provider's claims to an account and a label.

use mdm_core::ids::Label;
use serde_json::{Map, Value};

use crate::Refusal;

/// Which claim is the Managed Apple Account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountClaim {
    /// `email`; then `email_verified` must be true.
    Email,
    /// Another one, such as `preferred_username` or `upn`. What stands there must be under the provider's control, not the
    /// person's.
    Other(String),
}

impl AccountClaim {
    /// The claim with this name.
    pub fn named(name: &str) -> Self {
        if name == "email" { Self::Email } else { Self::Other(name.to_owned()) }
    }

    fn name(&self) -> &str {
        match self {
            Self::Email => "email",
            Self::Other(name) => name,
        }
    }
}

/// How claims are read.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Which claim is the account.
    pub account: AccountClaim,
    /// The domains that accounts may have, lower case. None: nobody gets in.
    pub domains: Vec<String>,
    /// The claim that tells labels, such as `groups`; text or a list of texts.
    pub label_claim: Option<String>,
    /// Which value of it stands for which label; the first that the person has counts.
    pub labels: Vec<(String, Label)>,
}

impl Rules {
    /// Whether these claims hold all that is asked for.
    pub(crate) fn are_met(&self, claims: &Map<String, Value>) -> bool {
        let has = |name: &str| claims.contains_key(name);
        has(self.account.name())
            && (self.account != AccountClaim::Email || has("email_verified"))
            && self.label_claim.as_deref().is_none_or(has)
    }

    /// The account in these claims.
    pub(crate) fn account(&self, claims: &Map<String, Value>) -> Result<String, Refusal> {
        let text = claims.get(self.account.name()).and_then(Value::as_str).ok_or(Refusal::NoAccount)?;
        if self.account == AccountClaim::Email && claims.get("email_verified") != Some(&Value::Bool(true)) {
            return Err(Refusal::NotVerified);
        }
        let account = normal(text).ok_or(Refusal::AccountForm)?;
        let domain = account.rsplit_once('@').map_or("", |(_, domain)| domain);
        if !self.domains.iter().any(|allowed| allowed.eq_ignore_ascii_case(domain)) {
            return Err(Refusal::Domain);
        }
        Ok(account)
    }

    /// The label that these claims earn.
    pub(crate) fn label(&self, claims: &Map<String, Value>) -> Option<Label> {
        let claim = claims.get(self.label_claim.as_deref()?)?;
        let has = |wanted: &str| match claim {
            Value::String(one) => one == wanted,
            Value::Array(all) => all.iter().any(|one| one.as_str() == Some(wanted)),
            _ => false,
        };
        self.labels.iter().find(|(value, _)| has(value)).map(|(_, label)| label.clone())
    }
}

/// An account as it is stored: `name@domain`, the domain in lower case; `None` where it has another form.
pub(crate) fn normal(text: &str) -> Option<String> {
    let (name, domain) = text.rsplit_once('@')?;
    let plain = |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@');
    (plain(name) && plain(domain) && text.len() <= 320).then(|| format!("{name}@{}", domain.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(claim: &str) -> Rules {
        Rules {
            account: AccountClaim::named(claim),
            domains: vec!["example.org".into()],
            label_claim: Some("groups".into()),
            labels: vec![("crew".into(), "crew".parse().unwrap()), ("staff".into(), "staff".parse().unwrap())],
        }
    }

    fn account(claim: &str, claims: Value) -> Result<String, Refusal> {
        rules(claim).account(claims.as_object().unwrap())
    }

    #[test]
    fn an_address_counts_only_when_it_is_verified_and_of_an_allowed_domain() {
        let ada = |verified: Value| account("email", json!({ "email": "Ada@Example.ORG", "email_verified": verified }));
        assert_eq!(ada(json!(true)).unwrap(), "Ada@example.org");
        assert_eq!(ada(json!(false)), Err(Refusal::NotVerified));
        assert_eq!(ada(json!("yes")), Err(Refusal::NotVerified));
        assert_eq!(account("email", json!({ "email": "ada@example.org" })), Err(Refusal::NotVerified));
        assert_eq!(account("email", json!({ "email_verified": true })), Err(Refusal::NoAccount));
        for other in ["ada@example.org.evil.net", "ada@evil.net", "ada@sub.example.org"] {
            assert_eq!(
                account("email", json!({ "email": other, "email_verified": true })),
                Err(Refusal::Domain),
                "{other}"
            );
        }
        assert_eq!(account("upn", json!({ "upn": "ada@example.org" })).unwrap(), "ada@example.org");
        assert_eq!(account("upn", json!({ "upn": ["ada@example.org"] })), Err(Refusal::NoAccount));
        for wrong in
            ["", "ada", "@example.org", "ada@", "a b@example.org", "ada@evil.net@example.org", "ada\n@example.org"]
        {
            assert_eq!(account("upn", json!({ "upn": wrong })), Err(Refusal::AccountForm), "{wrong}");
        }
    }

    #[test]
    fn the_first_label_that_fits_counts() {
        let label = |groups: Value| {
            let claims = json!({ "groups": groups });
            rules("email").label(claims.as_object().unwrap()).map(Label::into_string)
        };
        assert_eq!(label(json!(["staff", "crew"])).as_deref(), Some("crew"));
        assert_eq!(label(json!("staff")).as_deref(), Some("staff"));
        assert_eq!(label(json!(["other"])), None);
        assert_eq!(label(json!(7)), None);
        assert_eq!(Rules { label_claim: None, ..rules("email") }.label(&Map::new()), None);
    }

    #[test]
    fn claims_that_lack_something_are_looked_up_elsewhere() {
        let met = |claims: Value| rules("email").are_met(claims.as_object().unwrap());
        assert!(met(json!({ "email": "a@example.org", "email_verified": true, "groups": [] })));
        assert!(!met(json!({ "email": "a@example.org", "groups": [] })));
        assert!(!met(json!({ "email": "a@example.org", "email_verified": true })));
    }
}
