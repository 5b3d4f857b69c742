//! What the doors of account-driven enrollment have of their own: whom they are offered to, and how the person signs in.

use serde::{Deserialize, Serialize};
use url::Url;

/// How a device of account-driven enrollment gets its bearer token (Apple, "Implementing account-driven enrollment").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Method {
    /// A web sign-in gives the token itself; it is good for the life of the enrollment.
    #[default]
    #[serde(rename = "apple-as-web")]
    AsWeb,
    /// OAuth 2 with this server as the authorization server; the device refreshes the token by itself.
    #[serde(rename = "apple-oauth2")]
    OAuth2,
}

impl Method {
    /// Apple's word, as the challenge carries it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsWeb => "apple-as-web",
            Self::OAuth2 => "apple-oauth2",
        }
    }
}

/// Whose signature a device's request for its profile must bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSignature {
    /// That of a certificate that Apple builds into devices.
    #[default]
    Apple,
    /// Anybody's, if it is whole: the person's sign-in is what lets the device in. What the device says of itself is not proven.
    Any,
}

/// Settings of the doors `byod` and `adde`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Account {
    /// `apple-as-web` or `apple-oauth2`.
    pub method: Method,
    /// The door is for accounts of these domains (what stands after the last `@`), in lower case; empty: of any domain.
    pub domains: Vec<String>,
    /// The door is for these kinds of device, in Apple's words (`iPhone`, `iPad`, `Mac`, `RealityDevice`); empty: for all of them.
    pub model_families: Vec<String>,
    /// apple-oauth2: `client-id`, by which the device names itself.
    pub client_id: String,
    /// apple-oauth2: `scope`.
    pub scope: String,
    /// apple-oauth2: for how many seconds an access token is good before the device refreshes it, 300 to 2592000.
    pub access_token_seconds: u32,
    /// Where the device finds its Enrollment SSO document (header `X-Apple-MDM-ESSO`).
    pub enrollment_sso_url: Option<Url>,
    /// Whose signature the device's request must bear.
    pub device_signature: DeviceSignature,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            method: Method::default(),
            domains: Vec::new(),
            model_families: Vec::new(),
            client_id: "assay".to_owned(),
            scope: "mdm".to_owned(),
            access_token_seconds: 86_400,
            enrollment_sso_url: None,
            device_signature: DeviceSignature::default(),
        }
    }
}

/// The kinds of device that know account-driven enrollment. Apple's schema has no `EnrollmentMode` for tvOS and watchOS.
pub const MODEL_FAMILIES: [&str; 4] = ["iPhone", "iPad", "Mac", "RealityDevice"];

impl Account {
    /// Checks what a person wrote; says which field is wrong, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let domain = |d: &String| {
            !d.is_empty() && d.len() <= 253 && d.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        };
        // RFC 6749, appendix A: what may stand in these, less the characters that a quoted header value would need escaped.
        let visible = |text: &str| {
            (1..=200).contains(&text.len())
                && text.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'"' && b != b'\\')
        };
        if !self.domains.iter().all(domain) {
            return Err(("account.domains", "must be domain names in lower case, without an @"));
        }
        if !self.model_families.iter().all(|f| MODEL_FAMILIES.contains(&f.as_str())) {
            return Err(("account.model_families", "must be of iPhone, iPad, Mac, RealityDevice"));
        }
        if !visible(&self.client_id) {
            return Err(("account.client_id", "must have 1 to 200 visible ASCII characters, no quotes or backslashes"));
        }
        if !visible(&self.scope) {
            return Err(("account.scope", "must have 1 to 200 visible ASCII characters, no quotes or backslashes"));
        }
        if !(300..=2_592_000).contains(&self.access_token_seconds) {
            return Err(("account.access_token_seconds", "must be between 300 and 2592000"));
        }
        if self.enrollment_sso_url.as_ref().is_some_and(|url| url.scheme() != "https") {
            return Err(("account.enrollment_sso_url", "must begin with https://"));
        }
        Ok(())
    }

    /// Whether the door is for this account domain and kind of device, and how closely it names them: an account domain that is
    /// named counts more than a kind of device. `None`: it is not.
    pub fn fits(&self, domain: Option<&str>, model_family: Option<&str>) -> Option<u8> {
        let within = |list: &[String], what: Option<&str>| {
            list.is_empty() || what.is_some_and(|what| list.iter().any(|entry| entry.eq_ignore_ascii_case(what)))
        };
        let known = model_family.is_none_or(|family| MODEL_FAMILIES.contains(&family));
        let fits = known && within(&self.domains, domain) && within(&self.model_families, model_family);
        fits.then(|| u8::from(!self.domains.is_empty()) * 2 + u8::from(!self.model_families.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_for_the_domains_and_devices_that_it_names() {
        let any = Account::default();
        assert_eq!(any.fits(Some("example.org"), Some("Mac")), Some(0));
        assert_eq!(any.fits(None, None), Some(0), "a redirect lost the query");
        assert_eq!(any.fits(Some("example.org"), Some("AppleTV")), None);
        let named = Account {
            domains: vec!["example.org".into()],
            model_families: vec!["Mac".into(), "iPad".into()],
            ..Account::default()
        };
        assert_eq!(named.fits(Some("EXAMPLE.org"), Some("Mac")), Some(3));
        assert_eq!(named.fits(Some("example.org"), Some("iPhone")), None);
        assert_eq!(named.fits(Some("sub.example.org"), Some("Mac")), None);
        assert_eq!(named.fits(None, Some("Mac")), None);
    }

    #[test]
    fn what_would_break_the_header_or_the_protocol_is_refused() {
        let field = |account: Account| account.check().unwrap_err().0;
        Account::default().check().unwrap();
        assert_eq!(field(Account { client_id: "a\"b".into(), ..Account::default() }), "account.client_id");
        assert_eq!(field(Account { scope: String::new(), ..Account::default() }), "account.scope");
        assert_eq!(field(Account { domains: vec!["a@b".into()], ..Account::default() }), "account.domains");
        assert_eq!(
            field(Account { model_families: vec!["Watch".into()], ..Account::default() }),
            "account.model_families"
        );
        assert_eq!(field(Account { access_token_seconds: 1, ..Account::default() }), "account.access_token_seconds");
        let url = "http://example.org/sso".parse().ok();
        assert_eq!(field(Account { enrollment_sso_url: url, ..Account::default() }), "account.enrollment_sso_url");
        let text = r#"{"method":"apple-oauth2","device_signature":"any"}"#;
        let read: Account = serde_json::from_str(text).unwrap();
        assert_eq!((read.method, read.device_signature), (Method::OAuth2, DeviceSignature::Any));
    }
}
