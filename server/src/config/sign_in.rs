//! `[sign_in]`: how people show who they are before they enroll a device.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mdm_core::ids::Label;
use mdm_core::secret::Secret;
use serde::Deserialize;

use super::Config;
use crate::tls;

/// How people sign in. By default nobody can: neither a provider nor invitation codes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignIn {
    /// Issuer identifier of the OpenID Connect provider, exactly as its discovery document has it.
    pub issuer: Option<String>,
    /// What the provider calls this server.
    pub client_id: Option<String>,
    /// File with the secret that the provider gave; a public client has none.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that is the Managed Apple Account: `email` (must be verified), `preferred_username`, `upn` or another.
    pub account_claim: String,
    /// The domains that accounts may have.
    pub allowed_domains: Vec<String>,
    /// A claim that tells labels, such as `groups`.
    pub label_claim: Option<String>,
    /// Which value of it stands for which label; the first that a person has counts.
    pub labels: Vec<LabelOf>,
    /// PEM: CA certificates that the provider's certificate may come from, beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whether the provider may have a private address.
    pub private_addresses: bool,
    /// Whether invitation codes are taken in account-driven enrollment.
    pub invitations: bool,
}

/// One value of a claim and its label.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelOf {
    /// As the provider writes it.
    pub value: String,
    /// The label on the enrollment.
    pub label: Label,
}

impl Default for SignIn {
    fn default() -> Self {
        Self {
            issuer: None,
            client_id: None,
            client_secret_file: None,
            scopes: vec!["email".to_owned(), "profile".to_owned()],
            account_claim: "email".to_owned(),
            allowed_domains: Vec::new(),
            label_claim: None,
            labels: Vec::new(),
            ca_file: None,
            private_addresses: false,
            invitations: false,
        }
    }
}

impl SignIn {
    /// Says what does not fit together.
    pub(super) fn check(&self) -> Result<()> {
        let Some(issuer) = &self.issuer else {
            if self.client_id.is_some() || self.client_secret_file.is_some() || !self.allowed_domains.is_empty() {
                bail!("the keys of [sign_in] for a provider need sign_in.issuer");
            }
            return Ok(());
        };
        if !issuer.starts_with("https://") {
            bail!("sign_in.issuer must begin with https://");
        }
        if self.client_id.is_none() {
            bail!("sign_in.issuer needs sign_in.client_id");
        }
        if self.allowed_domains.is_empty() {
            bail!("sign_in.allowed_domains must name the domains whose accounts may enroll devices");
        }
        if self.label_claim.is_some() == self.labels.is_empty() {
            bail!("sign_in.label_claim and sign_in.labels belong together: give both or none");
        }
        Ok(())
    }

    /// The files that it names.
    pub(super) fn files(&mut self) -> [&mut Option<PathBuf>; 2] {
        [&mut self.client_secret_file, &mut self.ca_file]
    }

    /// The provider, where one is configured. Nothing is asked of it yet.
    pub(crate) fn provider(&self) -> Result<Option<signin::Provider>> {
        let (Some(issuer), Some(client_id)) = (&self.issuer, &self.client_id) else { return Ok(None) };
        let client_secret = match &self.client_secret_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read sign_in.client_secret_file {}", file.display()))?;
                Some(Secret::new(text.trim().to_owned()))
            }
            None => None,
        };
        let mut outbound = outbound::Settings::new(concat!("assay/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &self.ca_file {
            let anchors = tls::read_anchors(file)?;
            outbound.roots = outbound::Roots::PublicAnd(anchors.iter().map(|ca| ca.der().to_vec()).collect());
        }
        outbound.private_addresses = self.private_addresses;
        outbound.timeout = Duration::from_secs(10);
        let settings = signin::ProviderSettings {
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            client_secret,
            scopes: self.scopes.clone(),
            rules: signin::Rules {
                account: signin::AccountClaim::named(&self.account_claim),
                domains: self.allowed_domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
                label_claim: self.label_claim.clone(),
                labels: self.labels.iter().map(|of| (of.value.clone(), of.label.clone())).collect(),
            },
        };
        Ok(Some(signin::Provider::new(settings, outbound::Client::new(&outbound)?)?))
    }
}

impl Config {
    /// What every sign-in has in common.
    pub(crate) fn sign_in_settings(&self) -> signin::Settings {
        let mut settings = signin::Settings::new(self.public_url.clone(), &self.organization);
        settings.pilot = self.trust.pilot;
        settings.invitations = self.sign_in.invitations;
        settings.per_ip.burst = self.limits.enroll_per_ip_per_minute;
        settings.per_ip.per_second = f64::from(self.limits.enroll_per_ip_per_minute) / 60.0;
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn half_a_provider_is_refused_by_name() {
        let parse = |lines: &str| Config::parse(&format!("public_url = 'https://a.b'\n[sign_in]\n{lines}"));
        for (lines, word) in [
            ("client_id = 'x'", "sign_in.issuer"),
            ("issuer = 'http://a'", "https"),
            ("issuer = 'https://a'", "client_id"),
            ("issuer = 'https://a'\nclient_id = 'x'", "allowed_domains"),
            (
                "issuer = 'https://a'\nclient_id = 'x'\nallowed_domains = ['b']\nlabel_claim = 'groups'",
                "sign_in.labels",
            ),
            ("isuer = 'https://a'", "isuer"),
        ] {
            let error = format!("{:#}", parse(lines).unwrap_err());
            assert!(error.contains(word), "{lines}: {error}");
        }
        let good = "issuer = 'https://a'\nclient_id = 'x'\nallowed_domains = ['Example.ORG']";
        let config = parse(good).unwrap();
        assert_eq!(config.sign_in.provider().unwrap().unwrap().issuer(), "https://a");
        assert!(parse("").unwrap().sign_in.provider().unwrap().is_none());
    }
}
