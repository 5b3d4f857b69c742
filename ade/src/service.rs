//! Requests to Apple's device service: sessions, and what its refusals mean.

use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use mdm_core::secret::Secret;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::token::Token;
use crate::wire::Session;
use crate::{Context, oauth};

/// The longest that a `Retry-After` is followed.
const LONGEST_WAIT: u64 = 24 * 3600;

/// What Apple's service says instead of doing what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// `T_C_NOT_SIGNED`.
    #[error(
        "Apple's terms have changed: somebody with the right to it must accept them in the portal (T_C_NOT_SIGNED)"
    )]
    TermsNotSigned,
    /// The token has ended.
    #[error("the server token has ended: download a new one from the portal and put it here")]
    TokenExpired,
    /// The token is not accepted.
    #[error("Apple refuses the server token ({0}): download a new one from the portal and put it here")]
    TokenRefused(String),
    /// Too many requests.
    #[error("Apple asks for patience (429)")]
    Throttled {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No answer, or one that says that the service has a fault.
    #[error("Apple's service cannot be reached: {why}")]
    Unreachable {
        /// Why.
        why: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// This request is refused.
    #[error("Apple refuses a request: {status} {code}")]
    Refused {
        /// The status.
        status: u16,
        /// Apple's word, such as `INVALID_CURSOR`.
        code: String,
    },
    /// The answer is not what Apple's documentation has.
    #[error("the answer to {0} is not in Apple's form")]
    NotUnderstood(&'static str),
}

impl Fault {
    /// Whether the refusal holds this word of Apple's.
    pub(crate) fn says(&self, word: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code.contains(word))
    }

    /// Whether only what was asked is at fault, so that something else may be asked.
    pub(crate) fn is_about_the_request(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// One server's conversation with Apple: a session that is opened when it is first needed.
pub(crate) struct Service<'a> {
    context: &'a Context,
    token: &'a Token,
    session: Option<Secret<String>>,
}

impl<'a> Service<'a> {
    pub(crate) fn new(context: &'a Context, token: &'a Token) -> Self {
        Self { context, token, session: None }
    }

    /// Calls with a JSON body where there is one, and reads the answer as `T`.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &'static str,
        body: Option<&Value>,
    ) -> Result<T, Fault> {
        let answer = self.ask(method, path, body).await?;
        let bytes = if answer.is_empty() { b"{}".as_slice() } else { &answer };
        serde_json::from_slice(bytes).map_err(|_| Fault::NotUnderstood(path))
    }

    /// Calls; a session that is no longer good is opened anew, once.
    async fn ask(&mut self, method: Method, path: &'static str, body: Option<&Value>) -> Result<Vec<u8>, Fault> {
        let answer = self.once(method.clone(), path, body).await?;
        let answer = if session_is_over(&answer) {
            self.session = None;
            self.once(method, path, body).await?
        } else {
            answer
        };
        judge(answer)
    }

    async fn once(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Vec<u8>>, Fault> {
        let session = match &self.session {
            Some(session) => session.clone(),
            None => self.open().await?,
        };
        let mut session = HeaderValue::from_str(session.expose()).map_err(|_| Fault::NotUnderstood("/session"))?;
        session.set_sensitive(true);
        let mut request = self.request(method, path);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json;charset=UTF8");
        }
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let answer = self.send(request.header("X-ADM-Auth-Session", session).body(body)).await?;
        // A new session takes the place of the old one from now on.
        if let Some(next) = answer.headers().get("X-ADM-Auth-Session").and_then(|next| next.to_str().ok()) {
            self.session = Some(Secret::new(next.to_owned()));
        }
        Ok(answer)
    }

    async fn open(&mut self) -> Result<Secret<String>, Fault> {
        let now = self.context.clock.now();
        if self.token.expires_at <= now {
            return Err(Fault::TokenExpired);
        }
        let nonce = self.context.random.token();
        let url = self.url("/session");
        let header = oauth::authorization(&url, self.token.credentials(), &nonce, now.unix_seconds());
        let mut header =
            HeaderValue::from_str(&header).map_err(|_| Fault::TokenRefused("it holds odd letters".into()))?;
        header.set_sensitive(true);
        let request = self.request(Method::GET, "/session").header(AUTHORIZATION, header);
        let answer = judge(self.send(request.body(Vec::new())).await?)?;
        let session: Session = serde_json::from_slice(&answer).map_err(|_| Fault::NotUnderstood("/session"))?;
        let session = Secret::new(session.auth_session_token);
        self.session = Some(session.clone());
        Ok(session)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.context.settings.base_url.as_str().trim_end_matches('/'))
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(self.url(path))
            .header(ACCEPT, "application/json")
            .header("X-Server-Protocol-Version", self.context.settings.protocol_version)
    }

    async fn send(&self, request: http::Result<Request<Vec<u8>>>) -> Result<Response<Vec<u8>>, Fault> {
        let unreachable = |why: String| Fault::Unreachable { why, retry_after: None };
        let request = request.map_err(|_| unreachable("its URL cannot be used".to_owned()))?;
        self.context.client.send(request).await.map_err(|e| unreachable(e.to_string()))
    }
}

/// Apple's words come bare, in quotes or in JSON: they are searched for.
fn text(answer: &Response<Vec<u8>>) -> String {
    let all = String::from_utf8_lossy(answer.body());
    let letters = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { ' ' };
    let words: String = all.chars().take(400).map(letters).collect();
    words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect()
}

fn session_is_over(answer: &Response<Vec<u8>>) -> bool {
    match answer.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => text(answer).contains("FORBIDDEN"),
        _ => false,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

/// An answer's body, or what its refusal means.
fn judge(answer: Response<Vec<u8>>) -> Result<Vec<u8>, Fault> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let code = text(&answer);
    let retry_after = retry_after(answer.headers());
    Err(match status {
        _ if code.contains("T_C_NOT_SIGNED") => Fault::TermsNotSigned,
        _ if status == StatusCode::TOO_MANY_REQUESTS || code.contains("TOO_MANY_REQUESTS") => {
            Fault::Throttled { retry_after }
        }
        _ if code.to_ascii_lowercase().contains("token_expired") => Fault::TokenExpired,
        StatusCode::UNAUTHORIZED => Fault::TokenRefused(if code.is_empty() { "401".to_owned() } else { code }),
        StatusCode::FORBIDDEN => Fault::TokenRefused(if code.is_empty() { "403".to_owned() } else { code }),
        _ if status.is_server_error() || status.is_redirection() => {
            Fault::Unreachable { why: format!("it answers {}", status.as_u16()), retry_after }
        }
        _ => Fault::Refused { status: status.as_u16(), code },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response<Vec<u8>> {
        Response::builder().status(status).header(RETRY_AFTER, "30").body(body.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn each_refusal_has_its_meaning_however_it_is_written() {
        for body in ["T_C_NOT_SIGNED", "\"T_C_NOT_SIGNED\"", "{\"code\":\"T_C_NOT_SIGNED\"}"] {
            assert_eq!(judge(answer(403, body)), Err(Fault::TermsNotSigned));
        }
        let wait = Some(Duration::from_secs(30));
        assert_eq!(judge(answer(429, "")), Err(Fault::Throttled { retry_after: wait }));
        assert_eq!(judge(answer(401, "oauth_problem_advice: token_expired")), Err(Fault::TokenExpired));
        assert_eq!(judge(answer(401, "")), Err(Fault::TokenRefused("401".into())));
        assert_eq!(judge(answer(403, "ACCESS_DENIED")), Err(Fault::TokenRefused("ACCESS_DENIED".into())));
        assert!(matches!(judge(answer(503, "")), Err(Fault::Unreachable { retry_after, .. }) if retry_after == wait));
        let cursor = judge(answer(400, "{\"error\":\"EXPIRED_CURSOR\"}")).unwrap_err();
        assert!(cursor.says("EXPIRED_CURSOR") && cursor.is_about_the_request());
        assert_eq!(judge(answer(200, "{}")), Ok(b"{}".to_vec()));
    }

    #[test]
    fn what_apple_says_is_cut_and_holds_words_only() {
        let long = "<script>".repeat(200);
        let Err(Fault::Refused { code, .. }) = judge(answer(400, &long)) else { panic!() };
        assert!(code.len() <= 120 && !code.contains('<'));
    }
}
