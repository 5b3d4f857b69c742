//! What tells a device how to get a bearer token: the value of `WWW-Authenticate`.

use enroll::door::account::{Account, Method};
use url::Url;

use crate::Mode;

/// Where a device of apple-oauth2 takes the authorization code; nothing else is ever redirected to (TH-56). Apple fixes the scheme.
pub(crate) const OAUTH2_REDIRECT: &str = "apple-remotemanagement-user-login:/oauth2/redirection";

/// Where a device of apple-as-web takes the access token; Apple fixes all of it.
pub(crate) const AS_WEB_REDIRECT: &str = "apple-remotemanagement-user-login://authentication-results";

/// The challenge of a mode, by the method that its door is set to. All parameters are quoted and separated by comma and space, as
/// in RFC 9110, section 11.2.
pub fn challenge(public_url: &Url, mode: Mode, settings: &Account) -> String {
    let url = |what| mode.url(public_url, what);
    let parameters: Vec<(&str, String)> = match settings.method {
        Method::AsWeb => vec![("url", url("sign-in"))],
        Method::OAuth2 => vec![
            ("authorization-url", url("authorize")),
            ("token-url", url("token")),
            ("redirect-url", OAUTH2_REDIRECT.to_owned()),
            ("client-id", settings.client_id.clone()),
            ("scope", settings.scope.clone()),
        ],
    };
    let method = std::iter::once(("method", settings.method.as_str().to_owned()));
    let all: Vec<String> = method.chain(parameters).map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!("Bearer {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_has_what_apple_lists() {
        let public_url: Url = "https://mdm.example.org/".parse().unwrap();
        let mut settings = Account::default();
        assert_eq!(
            challenge(&public_url, Mode::Byod, &settings),
            r#"Bearer method="apple-as-web", url="https://mdm.example.org/account/byod/sign-in""#
        );
        settings.method = Method::OAuth2;
        assert_eq!(
            challenge(&public_url, Mode::Adde, &settings),
            r#"Bearer method="apple-oauth2", authorization-url="https://mdm.example.org/account/adde/authorize", token-url="https://mdm.example.org/account/adde/token", redirect-url="apple-remotemanagement-user-login:/oauth2/redirection", client-id="assay", scope="mdm""#
        );
    }
}
