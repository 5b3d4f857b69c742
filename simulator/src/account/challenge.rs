//! What a 401 asks of the device (RFC 6750 section 3, with Apple's methods).

use std::collections::BTreeMap;

use url::Url;

use super::SCHEME;
use crate::error::{Error, Result};
use crate::http::Answer;

/// `WWW-Authenticate` of an account-driven enrollment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// `apple-as-web`.
    Web {
        /// `url`.
        url: Url,
    },
    /// `apple-oauth2`.
    OAuth2 {
        /// `authorization-url`.
        authorization_url: Url,
        /// `token-url`.
        token_url: Url,
        /// `redirect-url`.
        redirect_url: String,
        /// `client-id`.
        client_id: String,
        /// `scope`.
        scope: String,
    },
}

impl Challenge {
    /// Reads the header of a 401; the device cancels where it is missing or not as Apple's text has it.
    pub fn read(answer: &Answer) -> Result<Self> {
        let header = answer.header("www-authenticate");
        Self::parse(header.ok_or_else(|| Error::Protocol("401 without WWW-Authenticate".into()))?)
    }

    pub(super) fn parse(header: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Protocol(format!("WWW-Authenticate: {why}: {header}"));
        let mut rest = header.strip_prefix("Bearer ").ok_or_else(|| wrong("the scheme is Bearer"))?.trim();
        let mut parameters = BTreeMap::new();
        while !rest.is_empty() {
            let (name, value) = rest.split_once("=\"").ok_or_else(|| wrong("name=\"value\" is expected"))?;
            let (value, behind) = value.split_once('"').ok_or_else(|| wrong("a value without end"))?;
            if parameters.insert(name, value).is_some() {
                return Err(wrong("a parameter twice"));
            }
            rest = match behind.strip_prefix(',') {
                Some(behind) => behind.trim_start(),
                None if behind.is_empty() => behind,
                None => return Err(wrong("a comma is expected")),
            };
        }
        let text = |name: &str| {
            let value = parameters.get(name).copied().filter(|value| !value.is_empty());
            value.map(str::to_owned).ok_or_else(|| wrong(&format!("{name} is required")))
        };
        let https = |name: &str| {
            let url = Url::parse(&text(name)?).ok().filter(|url| url.scheme() == "https");
            url.ok_or_else(|| wrong(&format!("{name} is an https URL")))
        };
        match text("method")?.as_str() {
            "apple-as-web" => Ok(Self::Web { url: https("url")? }),
            "apple-oauth2" => {
                let redirect_url = text("redirect-url")?;
                if !redirect_url.starts_with(SCHEME) {
                    return Err(wrong("redirect-url"));
                }
                Ok(Self::OAuth2 {
                    authorization_url: https("authorization-url")?,
                    token_url: https("token-url")?,
                    redirect_url,
                    client_id: text("client-id")?,
                    scope: text("scope")?,
                })
            }
            _ => Err(wrong("method")),
        }
    }
}
