//! Account-driven enrollment: a person types user@domain in Settings, signs in, and the device carries the access token of
//! that from then on.
//!
//! Sources: Apple, "Discover Authentication Servers", "Onboarding users with account sign-in", "Implementing the simple
//! authentication user enrollment flow", "Implementing the OAuth 2 authentication user enrollment flow"; RFC 6749 and 6750;
//! protocol.md section 6.

use std::sync::Arc;

use http::Method;
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};

use crate::browser::{Browser, End, PROFILE, Person, Reached};
use crate::device::{ChannelId, Device};
use crate::error::{Error, Result};
use crate::hardware::{Family, Version};
use crate::http::{Answer, Client, Trust};
use crate::profile;
use crate::record::fresh_uuid;

mod challenge;
mod discovery;

pub use challenge::Challenge;

/// Begins the redirect that ends the sign-in of `apple-as-web`.
const RESULTS: &str = "apple-remotemanagement-user-login://authentication-results";
/// Begins every redirect URL of `apple-oauth2`.
const SCHEME: &str = "apple-remotemanagement-user-login:/";
/// What kind of enrollment the organization offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `mdm-byod`: User Enrollment.
    Byod,
    /// `mdm-adde`: device enrollment.
    Adde,
}

impl Mode {
    fn of(version: &str) -> Option<Self> {
        match version {
            "mdm-byod" => Some(Self::Byod),
            "mdm-adde" => Some(Self::Adde),
            _ => None,
        }
    }

    /// `EnrollmentMode` of the MDM payload.
    fn name(self) -> &'static str {
        match self {
            Self::Byod => "BYOD",
            Self::Adde => "ADDE",
        }
    }

    fn since(self, family: Family) -> Option<Version> {
        match (self, family) {
            (Self::Byod, Family::IPhone | Family::IPad | Family::IPod) => Some(Version::new(15, 0)),
            (Self::Adde, Family::IPhone | Family::IPad | Family::IPod) => Some(Version::new(16, 0)),
            (_, Family::Mac) => Some(Version::new(14, 0)),
            (_, Family::Vision) => Some(Version::new(1, 1)),
            (_, Family::AppleTv | Family::Watch) => None,
        }
    }
}

/// The account that a person types in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    user_identifier: String,
    discovery: Option<String>,
    fallback: Option<String>,
}

impl Account {
    /// `user@domain`.
    pub fn new(user_identifier: &str) -> Self {
        Self { user_identifier: user_identifier.to_owned(), discovery: None, fallback: None }
    }

    /// Asks this origin in place of `https://domain`, for tests whose domain is not theirs.
    #[must_use]
    pub fn discovered_at(mut self, origin: &str) -> Self {
        self.discovery = Some(origin.trim_end_matches('/').to_owned());
        self
    }

    /// Where Apple's fallback leads when the domain itself has nothing: `mdm_service_discovery_url`.
    #[must_use]
    pub fn falling_back_to(mut self, url: &str) -> Self {
        self.fallback = Some(url.to_owned());
        self
    }
}

/// The person's session with the server, which the device keeps for the life of the enrollment.
pub(crate) struct SignedIn {
    user_identifier: String,
    person: Person,
    trust: Trust,
    challenge: Option<Challenge>,
    access_token: String,
    refresh_token: Option<String>,
    /// How often a person had to do something.
    sign_ins: usize,
}

impl SignedIn {
    pub(crate) fn access_token(&self) -> &str {
        &self.access_token
    }

    /// The token is no longer taken: OAuth 2 refreshes it without a word, else the person signs in again.
    pub(crate) async fn again(&mut self, challenge: Challenge) -> Result<()> {
        if let (Challenge::OAuth2 { token_url, client_id, .. }, Some(refresh)) = (&challenge, self.refresh_token.take())
            && self.challenge.as_ref() == Some(&challenge)
        {
            let form = [("grant_type", "refresh_token"), ("refresh_token", &refresh), ("client_id", client_id)];
            if self.token(token_url, &form).await.is_ok() {
                return Ok(());
            }
        }
        self.sign_in(challenge).await
    }

    async fn sign_in(&mut self, challenge: Challenge) -> Result<()> {
        self.sign_ins += 1;
        match &challenge {
            Challenge::Web { url } => {
                let mut url = url.clone();
                url.query_pairs_mut().append_pair("user-identifier", &self.user_identifier);
                let back = self.browse(url, RESULTS).await?;
                let token = query(&back, "access-token");
                self.access_token = token.ok_or_else(|| Error::Protocol("no access-token in the redirect".into()))?;
                self.refresh_token = None;
            }
            Challenge::OAuth2 { authorization_url, token_url, redirect_url, client_id, scope } => {
                let state = fresh_uuid()?;
                let mut url = authorization_url.clone();
                url.query_pairs_mut()
                    .append_pair("response_type", "code")
                    .append_pair("client_id", client_id)
                    .append_pair("redirect_uri", redirect_url)
                    .append_pair("scope", scope)
                    .append_pair("state", &state)
                    .append_pair("login_hint", &self.user_identifier);
                let back = self.browse(url, redirect_url).await?;
                if query(&back, "state").as_deref() != Some(&state) {
                    return Err(Error::Protocol("the redirect has another state".into()));
                }
                let code = query(&back, "code");
                let code = code.ok_or_else(|| {
                    let error = query(&back, "error").unwrap_or_default();
                    Error::Protocol(format!("no code in the redirect: {error}"))
                })?;
                let form = [
                    ("grant_type", "authorization_code"),
                    ("code", &code),
                    ("redirect_uri", redirect_url),
                    ("client_id", client_id),
                ];
                self.token(token_url, &form).await?;
            }
        }
        self.challenge = Some(challenge);
        Ok(())
    }

    async fn browse(&self, url: Url, callback: &str) -> Result<Url> {
        let end = End::Callback(callback.to_owned());
        match Browser::new(&self.trust, &self.person)?.open(url, None, &end).await? {
            Reached::Callback(url) => Ok(url),
            Reached::Profile(_) | Reached::Code(_) => Err(Error::Protocol("the sign-in ended elsewhere".into())),
        }
    }

    /// A request to the token endpoint (RFC 6749 section 4.1.3 and 6).
    async fn token(&mut self, url: &Url, form: &[(&str, &str)]) -> Result<()> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")];
        let client = Client::new(&self.trust, None)?;
        let answer = client.send(Method::POST, url.as_str(), &headers, body.into_bytes()).await?;
        if answer.status != 200 {
            return Err(answer.refused(url.as_str()));
        }
        let wrong = |why: &str| Error::Protocol(format!("token-url: {why}"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| wrong("no JSON"))?;
        let text = |key: &str| body.get(key).and_then(|value| value.as_str());
        if answer.content_type() != "application/json"
            || !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"))
        {
            return Err(wrong("token_type is Bearer, in JSON"));
        }
        let access_token = text("access_token").ok_or_else(|| wrong("access_token is required"))?;
        access_token.clone_into(&mut self.access_token);
        self.refresh_token = text("refresh_token").map(str::to_owned);
        Ok(())
    }
}

fn query(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

impl Device {
    /// Enrolls with an account, from discovery to TokenUpdate; `mode` is what the person expects to be offered.
    pub async fn enroll_account(&mut self, account: &Account, mode: Mode, person: &Person) -> Result<()> {
        let (offered, base_url) = self.discover(account).await?;
        if offered != mode {
            return Err(Error::Protocol(format!("the server offers {}", offered.name())));
        }
        let os = Version::parse(&self.record.os_version);
        if mode.since(self.record.hardware.family).is_none_or(|since| os < since) {
            return Err(Error::Protocol(format!("{} is not known to this system", mode.name())));
        }
        self.unenroll();
        match mode {
            Mode::Byod if self.record.enrollment_id.is_none() => self.record.enrollment_id = Some(fresh_uuid()?),
            Mode::Byod => {}
            Mode::Adde => self.record.enrollment_id = None,
        }
        let challenge = match self.ask_for_profile(&base_url, None).await? {
            answer if answer.status == 401 => Challenge::read(&answer)?,
            answer if answer.status == 200 => {
                return Err(Error::Protocol("a profile for somebody who did not sign in".into()));
            }
            answer => return Err(answer.refused(&base_url)),
        };
        let mut signed_in = SignedIn {
            user_identifier: account.user_identifier.clone(),
            person: person.clone(),
            trust: self.trust.clone(),
            challenge: None,
            access_token: String::new(),
            refresh_token: None,
            sign_ins: 0,
        };
        signed_in.sign_in(challenge).await?;
        let answer = self.ask_for_profile(&base_url, Some(signed_in.access_token())).await?;
        if answer.status != 200 {
            return Err(answer.refused(&base_url));
        }
        if answer.content_type() != PROFILE {
            return Err(Error::Profile(format!("Content-Type is «{}»", answer.content_type())));
        }
        let enrollment = profile::read_enrollment(&answer.body, &self.record.situation(false))?;
        if enrollment.mdm.enrollment_mode.as_deref() != Some(mode.name()) {
            return Err(Error::Profile(format!("com.apple.mdm: EnrollmentMode is not {}", mode.name())));
        }
        if enrollment.mdm.assigned_managed_apple_id.is_none() {
            return Err(Error::Profile("com.apple.mdm: AssignedManagedAppleID is required".into()));
        }
        self.begin(enrollment).await?;
        self.signed_in = Some(Arc::new(Mutex::new(signed_in)));
        self.authenticate().await?;
        self.token_update(ChannelId::DEVICE).await
    }

    /// The access token that it carries; `None` outside account-driven enrollments.
    pub async fn access_token(&self) -> Option<String> {
        Some(self.signed_in.as_ref()?.lock().await.access_token.clone())
    }

    /// Carries another access token from now on, for tests.
    pub async fn set_access_token(&self, token: &str) {
        if let Some(signed_in) = &self.signed_in {
            token.clone_into(&mut signed_in.lock().await.access_token);
        }
    }

    /// How often the person had to sign in during this enrollment.
    pub async fn sign_ins(&self) -> usize {
        match &self.signed_in {
            Some(signed_in) => signed_in.lock().await.sign_ins,
            None => 0,
        }
    }

    async fn ask_for_profile(&self, base_url: &str, token: Option<&str>) -> Result<Answer> {
        let bearer;
        let mut headers =
            vec![("content-type", "application/pkcs7-signature"), ("user-agent", "DeviceManagementClient/1.0")];
        if let Some(token) = token {
            bearer = format!("Bearer {token}");
            headers.push(("authorization", &bearer));
        }
        let body = self.signed_machine_info()?;
        Client::new(&self.trust, None)?.send(Method::POST, base_url, &headers, body).await
    }
}

#[cfg(test)]
mod tests;
