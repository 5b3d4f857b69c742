//! The OpenID Connect provider: discovery, where a person is sent, and what an authorization code is exchanged for.
//!
//! The protocol's forms and the check of ID tokens are the `openidconnect` crate's; requests go out by [`outbound::Client`],
//! which judges each address (TH-63). Time and randomness are given to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClientAuthMethod, CoreErrorResponseType,
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessTokenHash, AdditionalClaims, AuthType, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret,
    CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    IdToken, IdTokenClaims, IdTokenFields, IdTokenVerifier, IssuerUrl, LoginHint, Nonce, OAuth2TokenResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, StandardErrorResponse,
    StandardTokenResponse, TokenResponse, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::session::Secrets;
use crate::{Error, Refusal, Rules};

/// How long the discovery document and the keys are used without looking again.
const FRESH: Duration = Duration::from_hours(1);
/// How long they are used where looking again fails.
const STALE: Duration = Duration::from_hours(24);
/// How soon they are looked at again because a signature did not fit: keys may have been changed.
const AGAIN: Duration = Duration::from_mins(1);
/// How far the provider's clock may be from ours.
const SKEW: Duration = Duration::from_mins(1);

/// The signatures that are accepted: those of keys that only the provider has. Not HMAC, and never none.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// The provider as it is configured.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Its issuer identifier, exactly as its discovery document has it.
    pub issuer: String,
    /// What it calls us.
    pub client_id: String,
    /// The secret that it gave us; a public client has none.
    pub client_secret: Option<Secret<String>>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// How its claims are read.
    pub rules: Rules,
}

/// The provider; clones share what was discovered.
#[derive(Debug, Clone)]
pub struct Provider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ProviderSettings,
    issuer: IssuerUrl,
    client: outbound::Client,
    known: Mutex<Option<Known>>,
}

/// What was discovered, and when.
#[derive(Debug, Clone)]
struct Known {
    metadata: Arc<CoreProviderMetadata>,
    at: Timestamp,
}

/// Claims beyond those that OpenID Connect names.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Others {
    #[serde(flatten)]
    all: Map<String, Value>,
}

impl AdditionalClaims for Others {}

type Fields = IdTokenFields<
    Others,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Token = IdToken<Others, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;
type Claims = IdTokenClaims<Others, CoreGenderClaim>;
type Client = openidconnect::Client<
    Others,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Whom the provider named, as far as we want to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) account: String,
    pub(crate) label: Option<mdm_core::ids::Label>,
}

impl Provider {
    /// A provider that nothing is asked of yet; refuses an issuer that is not an `https` URL.
    pub fn new(settings: ProviderSettings, client: outbound::Client) -> Result<Self, Error> {
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|e| Error::provider(&e))?;
        if issuer.url().scheme() != "https" {
            return Err(Error::Provider("the issuer must begin with https://".to_owned()));
        }
        Ok(Self(Arc::new(Inner { settings, issuer, client, known: Mutex::default() })))
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.0.settings.issuer
    }

    /// Asks for the discovery document and the keys, for a check of the configuration.
    pub async fn examine(&self, now: Timestamp) -> Result<(), Error> {
        self.discover(now).await.map(drop)
    }

    /// Where the browser is sent: the authorization endpoint with this state, and nonce and PKCE challenge of these secrets.
    pub(crate) async fn authorization_url(
        &self,
        redirect: Url,
        state: &str,
        secrets: &Secrets,
        now: Timestamp,
    ) -> Result<Url, Error> {
        let client = self.client(&*self.metadata(now).await?, redirect);
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(secrets.verifier.clone()));
        let (state, nonce) = (state.to_owned(), secrets.nonce.clone());
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let mut request = client
            .authorize_url(flow, || CsrfToken::new(state), || Nonce::new(nonce))
            .add_scopes(self.0.settings.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge);
        if let Some(hint) = &secrets.login_hint {
            request = request.set_login_hint(LoginHint::new(hint.clone()));
        }
        let (url, _, _) = request.url();
        if url.scheme() != "https" {
            return Err(Error::Provider("its authorization endpoint does not begin with https://".to_owned()));
        }
        Ok(url)
    }

    /// Exchanges an authorization code, checks the ID token, and reads whom it names.
    pub(crate) async fn redeem(
        &self,
        redirect: Url,
        code: String,
        secrets: Secrets,
        now: Timestamp,
    ) -> Result<Named, Error> {
        let client = self.client(&*self.metadata(now).await?, redirect.clone());
        let http = self.http();
        let answer = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|e| Error::provider(&e))?
            .set_pkce_verifier(PkceCodeVerifier::new(secrets.verifier))
            .request_async(&http)
            .await
            .map_err(|e| match e {
                RequestTokenError::ServerResponse(answer) => {
                    tracing::debug!(answer = %answer.error(), "the provider did not take an authorization code");
                    Refusal::Code.into()
                }
                other => Error::provider(&other),
            })?;
        let token = answer.id_token().ok_or(Refusal::NoIdToken)?;
        let nonce = Nonce::new(secrets.nonce);
        let (client, claims) = match verified(&client, token, &nonce, now) {
            // The provider may have changed its keys since they were looked at.
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                let client = self.client(&*self.newer_metadata(now).await?, redirect);
                let claims = verified(&client, token, &nonce, now).map_err(|e| refusal(&e))?;
                (client, claims)
            }
            Err(e) => return Err(refusal(&e).into()),
            Ok(claims) => (client, claims),
        };
        if let Some(expected) = claims.access_token_hash() {
            let verifier = verifier(&client, now);
            let key = token.signing_key(&verifier).map_err(|_| Refusal::Signature)?;
            let algorithm = token.signing_alg().map_err(|_| Refusal::Signature)?;
            let actual =
                AccessTokenHash::from_token(answer.access_token(), algorithm, key).map_err(|_| Refusal::IdToken)?;
            if actual != *expected {
                return Err(Refusal::IdToken.into());
            }
        }
        let mut known = object(&claims);
        let rules = &self.0.settings.rules;
        if !rules.are_met(&known) && client.user_info_url().is_some() {
            let subject = claims.subject().clone();
            let request = client.user_info(answer.access_token().clone(), Some(subject));
            let more: UserInfoClaims<Others, CoreGenderClaim> = request
                .map_err(|e| Error::provider(&e))?
                .request_async(&http)
                .await
                .map_err(|e| Error::provider(&e))?;
            // What both say, the UserInfo endpoint says now; all of it is about one subject.
            known.extend(object(&more));
        }
        Ok(Named { account: rules.account(&known)?, label: rules.label(&known) })
    }

    fn client(&self, metadata: &CoreProviderMetadata, redirect: Url) -> Client {
        let settings = &self.0.settings;
        let secret = settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().clone()));
        let client = openidconnect::Client::from_provider_metadata(
            metadata.clone(),
            ClientId::new(settings.client_id.clone()),
            secret,
        )
        .set_redirect_uri(RedirectUrl::from_url(redirect));
        // Where nothing is said, it is client_secret_basic (OpenID Connect Discovery 1.0, 3).
        let methods = metadata.token_endpoint_auth_methods_supported();
        let only_post = methods.is_some_and(|all| {
            !all.contains(&CoreClientAuthMethod::ClientSecretBasic)
                && all.contains(&CoreClientAuthMethod::ClientSecretPost)
        });
        client.set_auth_type(if only_post { AuthType::RequestBody } else { AuthType::BasicAuth })
    }

    fn http(
        &self,
    ) -> impl Fn(HttpRequest) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, outbound::Error>> + Send>> + use<>
    {
        let client = self.0.client.clone();
        move |request| {
            let client = client.clone();
            Box::pin(async move { client.send(request).await })
        }
    }

    /// What is known of the provider, not older than an hour unless it cannot be reached.
    async fn metadata(&self, now: Timestamp) -> Result<Arc<CoreProviderMetadata>, Error> {
        let known = self.known();
        match &known {
            Some(known) if now.since(known.at) < FRESH => return Ok(Arc::clone(&known.metadata)),
            _ => {}
        }
        match (self.discover(now).await, known) {
            (Err(e), Some(known)) if now.since(known.at) < STALE => {
                tracing::warn!(error = %e, "the OpenID Connect provider cannot be reached; what was known of it is used");
                Ok(known.metadata)
            }
            (discovered, _) => discovered,
        }
    }

    async fn newer_metadata(&self, now: Timestamp) -> Result<Arc<CoreProviderMetadata>, Error> {
        match self.known() {
            Some(known) if now.since(known.at) < AGAIN => Ok(known.metadata),
            _ => self.discover(now).await,
        }
    }

    fn known(&self) -> Option<Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn discover(&self, now: Timestamp) -> Result<Arc<CoreProviderMetadata>, Error> {
        let http = self.http();
        let metadata = CoreProviderMetadata::discover_async(self.0.issuer.clone(), &http)
            .await
            .map_err(|e| Error::provider(&e))?;
        let metadata = Arc::new(metadata);
        let known = Known { metadata: Arc::clone(&metadata), at: now };
        *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(metadata)
    }
}

fn verifier(client: &Client, now: Timestamp) -> IdTokenVerifier<'_, CoreJsonWebKey> {
    let late = now.minus(SKEW).to_rfc3339();
    let early = now.plus(SKEW).0;
    client
        .id_token_verifier()
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || late.parse().expect("a Timestamp is written as RFC 3339"))
        .set_issue_time_verifier_fn(move |issued| {
            if issued.timestamp_millis() <= early { Ok(()) } else { Err("issued in the future".to_owned()) }
        })
}

fn verified(client: &Client, token: &Token, nonce: &Nonce, now: Timestamp) -> Result<Claims, ClaimsVerificationError> {
    token.claims(&verifier(client, now), nonce).cloned()
}

fn refusal(error: &ClaimsVerificationError) -> Refusal {
    tracing::debug!(error = %error, "an ID token was refused");
    match error {
        ClaimsVerificationError::Expired(_) => Refusal::Time,
        ClaimsVerificationError::InvalidAudience(_) => Refusal::Audience,
        ClaimsVerificationError::InvalidIssuer(_) => Refusal::Issuer,
        ClaimsVerificationError::InvalidNonce(_) => Refusal::Nonce,
        ClaimsVerificationError::SignatureVerification(_) => Refusal::Signature,
        _ => Refusal::IdToken,
    }
}

/// Claims as the JSON object that they came as.
fn object(claims: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(claims) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
