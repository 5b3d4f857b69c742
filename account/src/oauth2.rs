//! apple-oauth2: requests and answers of OAuth 2.0 (RFC 6749), parsed at the edge. Devices are public clients.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enroll::door::Account;
use mdm_core::secret::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use crate::challenge::OAUTH2_REDIRECT;

/// An error code of RFC 6749, sections 4.1.2.1 and 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    UnsupportedGrantType,
    UnsupportedResponseType,
}

impl ErrorCode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
        }
    }
}

/// Parameters by name. None may be given twice (RFC 6749, sections 3.1 and 3.2), and an empty one counts as absent.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text).filter(|(_, value)| !value.is_empty()) {
            if all.iter().any(|(known, _)| *known == name) {
                return Err("a parameter is given twice");
            }
            if value.len() > 1024 || all.len() > 32 {
                return Err("too long");
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn secret(&self, name: &str) -> Option<Secret<String>> {
        self.get(name).map(|value| Secret::new(value.to_owned()))
    }
}

/// What of an authorization request is kept until the person has signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuthorizationRequest {
    /// `state`, given back as it came.
    pub(crate) state: Option<String>,
    /// `code_challenge` (S256), where the device sends one.
    pub(crate) code_challenge: Option<String>,
}

/// Why an authorization request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Who asks, or where the answer would go, is not right: nothing is redirected (RFC 6749, section 4.1.2.1).
    Here(&'static str),
    /// The device is told.
    There(ErrorCode, Option<String>),
}

/// An authorization request and the `login_hint` in it.
pub(crate) fn authorization(
    query: &str,
    settings: &Account,
) -> Result<(AuthorizationRequest, Option<String>), Refused> {
    let parameters = Parameters::parse(query.as_bytes()).map_err(Refused::Here)?;
    if parameters.get("client_id") != Some(&settings.client_id) {
        return Err(Refused::Here("the client is not the one of the settings"));
    }
    if parameters.get("redirect_uri") != Some(OAUTH2_REDIRECT) {
        return Err(Refused::Here("the redirect_uri is not the one of the challenge"));
    }
    let state = parameters.get("state").map(str::to_owned);
    let refused = |code| Err(Refused::There(code, state.clone()));
    if parameters.get("response_type") != Some("code") {
        return refused(ErrorCode::UnsupportedResponseType);
    }
    if parameters.get("scope").is_some_and(|scope| !within(scope, &settings.scope)) {
        return refused(ErrorCode::InvalidScope);
    }
    let code_challenge = match (parameters.get("code_challenge"), parameters.get("code_challenge_method")) {
        (None, None) => None,
        // SHA-256 as base64url without padding has 43 characters (RFC 7636, section 4.2).
        (Some(challenge), Some("S256")) if challenge.len() == 43 => Some(challenge.to_owned()),
        _ => return refused(ErrorCode::InvalidRequest),
    };
    let hint = parameters.get("login_hint").filter(|hint| hint.len() <= 320).map(str::to_owned);
    Ok((AuthorizationRequest { state, code_challenge }, hint))
}

/// Whether each word of one scope is a word of the other.
fn within(asked: &str, granted: &str) -> bool {
    asked.split(' ').filter(|word| !word.is_empty()).all(|word| granted.split(' ').any(|known| known == word))
}

/// Where the device goes with the code, or with an error.
pub(crate) fn redirect(answer: &[(&str, &str)], state: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(answer);
    if let Some(state) = state {
        query.append_pair("state", state);
    }
    format!("{OAUTH2_REDIRECT}?{}", query.finish())
}

/// A request to the token endpoint.
#[derive(Debug)]
pub(crate) enum TokenRequest {
    /// `authorization_code`.
    Code { code: Secret<String>, redirect_uri: Option<String>, verifier: Option<Secret<String>> },
    /// `refresh_token`.
    Refresh { token: Secret<String> },
}

/// Parses a request to the token endpoint and checks which client it names.
pub(crate) fn token_request(body: &[u8], settings: &Account) -> Result<TokenRequest, (ErrorCode, &'static str)> {
    let parameters = Parameters::parse(body).map_err(|why| (ErrorCode::InvalidRequest, why))?;
    let grant = parameters.get("grant_type").ok_or((ErrorCode::InvalidRequest, "grant_type is missing"))?;
    let client = parameters.get("client_id");
    let missing = |what| (ErrorCode::InvalidRequest, what);
    match grant {
        "authorization_code" => {
            if client != Some(&settings.client_id) {
                return Err((ErrorCode::InvalidClient, "the client is not the one of the settings"));
            }
            Ok(TokenRequest::Code {
                code: parameters.secret("code").ok_or(missing("code is missing"))?,
                redirect_uri: parameters.get("redirect_uri").map(str::to_owned),
                verifier: parameters.secret("code_verifier"),
            })
        }
        "refresh_token" => {
            // Section 6 does not ask a public client to name itself; if it does, it must be the right one.
            if client.is_some_and(|client| client != settings.client_id) {
                return Err((ErrorCode::InvalidClient, "the client is not the one of the settings"));
            }
            if parameters.get("scope").is_some_and(|scope| !within(scope, &settings.scope)) {
                return Err((ErrorCode::InvalidScope, "the scope is wider than it was"));
            }
            Ok(TokenRequest::Refresh {
                token: parameters.secret("refresh_token").ok_or(missing("refresh_token is missing"))?,
            })
        }
        _ => Err((ErrorCode::UnsupportedGrantType, "the grant_type is not one of an enrolled device")),
    }
}

/// Whether the verifier is that of the challenge (RFC 7636, section 4.6). Without a challenge there must be no verifier (RFC 9700,
/// section 2.1.1: PKCE can't be taken out of the first request unnoticed).
pub(crate) fn proves(challenge: Option<&str>, verifier: Option<&Secret<String>>) -> bool {
    match (challenge, verifier) {
        (None, None) => true,
        (Some(challenge), Some(verifier)) => {
            let made = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose().as_bytes()));
            bool::from(made.as_bytes().ct_eq(challenge.as_bytes()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "response_type=code&client_id=assay&redirect_uri=apple-remotemanagement-user-login%3A%2Foauth2%2Fredirection\
        &state=a%2Bb&login_hint=ada%40example.org";
    // RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn ask(query: &str) -> Result<(AuthorizationRequest, Option<String>), Refused> {
        authorization(query, &Account::default())
    }

    #[test]
    fn an_authorization_request_is_taken_apart() {
        let (request, hint) = ask(GOOD).unwrap();
        assert_eq!(request, AuthorizationRequest { state: Some("a+b".into()), code_challenge: None });
        assert_eq!(hint.as_deref(), Some("ada@example.org"));
        let pkce = format!("{GOOD}&code_challenge={CHALLENGE}&code_challenge_method=S256");
        assert_eq!(ask(&pkce).unwrap().0.code_challenge.as_deref(), Some(CHALLENGE));
    }

    #[test]
    fn th_56_nothing_is_redirected_to_an_address_that_is_not_the_one() {
        let other = |from: &str, to: &str| ask(&GOOD.replace(from, to)).unwrap_err();
        for wrong in [
            other("redirection&", "redirection2&"),
            other("apple-remotemanagement-user-login%3A", "https%3A%2F%2Fevil.example"),
            other("redirect_uri=", "redirect="),
            other("client_id=assay", "client_id=other"),
            ask(&format!("{GOOD}&redirect_uri=https%3A%2F%2Fevil.example")).unwrap_err(),
        ] {
            assert!(matches!(wrong, Refused::Here(_)), "{wrong:?}");
        }
    }

    #[test]
    fn other_errors_are_told_to_the_device_with_its_state() {
        let state = Some("a+b".to_owned());
        let there = |code| Refused::There(code, state.clone());
        let token = GOOD.replace("=code", "=token");
        assert_eq!(ask(&token).unwrap_err(), there(ErrorCode::UnsupportedResponseType));
        assert_eq!(ask(&format!("{GOOD}&scope=admin")).unwrap_err(), there(ErrorCode::InvalidScope));
        let plain = format!("{GOOD}&code_challenge={CHALLENGE}&code_challenge_method=plain");
        assert_eq!(ask(&plain).unwrap_err(), there(ErrorCode::InvalidRequest));
        assert_eq!(
            redirect(&[("error", "invalid_scope")], state.as_deref()),
            "apple-remotemanagement-user-login:/oauth2/redirection?error=invalid_scope&state=a%2Bb"
        );
    }

    #[test]
    fn pkce_is_proven_by_its_verifier_only() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(proves(None, None));
        assert!(proves(Some(CHALLENGE), Some(&secret(VERIFIER))));
        assert!(!proves(Some(CHALLENGE), Some(&secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXj"))));
        assert!(!proves(Some(CHALLENGE), Some(&secret(CHALLENGE))), "plain");
        assert!(!proves(Some(CHALLENGE), None));
        assert!(!proves(None, Some(&secret(VERIFIER))));
    }

    #[test]
    fn a_token_request_is_refused_by_the_words_of_the_rfc() {
        let code = |body: &str| token_request(body.as_bytes(), &Account::default()).map_err(|(code, _)| code.as_str());
        assert!(matches!(
            code("grant_type=authorization_code&code=c&client_id=assay&redirect_uri=r"),
            Ok(TokenRequest::Code { .. })
        ));
        assert!(matches!(code("grant_type=refresh_token&refresh_token=r"), Ok(TokenRequest::Refresh { .. })));
        assert_eq!(code("").unwrap_err(), "invalid_request");
        assert_eq!(code("grant_type=authorization_code&client_id=assay").unwrap_err(), "invalid_request");
        assert_eq!(code("grant_type=authorization_code&code=c").unwrap_err(), "invalid_client");
        assert_eq!(code("grant_type=refresh_token&refresh_token=r&client_id=x").unwrap_err(), "invalid_client");
        assert_eq!(code("grant_type=refresh_token&refresh_token=r&scope=admin").unwrap_err(), "invalid_scope");
        assert_eq!(code("grant_type=password&username=u").unwrap_err(), "unsupported_grant_type");
        assert_eq!(code("grant_type=refresh_token&refresh_token=a&refresh_token=b").unwrap_err(), "invalid_request");
    }
}
