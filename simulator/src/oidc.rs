//! A stand-in for an OpenID Connect provider: discovery, a login form, authorization codes with PKCE, ID tokens, UserInfo.
//!
//! It is strict where a provider must be (exact `redirect_uri`, S256, codes that work once) and breaks the rules where a test
//! asks it to ([`Fault`]). OpenID Connect Core 1.0, Discovery 1.0; RFC 6749, 7636, 9207.

mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::https::{Request, Response, Server};

/// How it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with SHA-256.
    Rs256,
    /// ECDSA on P-256.
    Es256,
}

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// `nonce` of another sign-in.
    Nonce,
    /// No `nonce`.
    NoNonce,
    /// `aud` is another client.
    Audience,
    /// `aud` also names another client.
    TwoAudiences,
    /// `iss` is another provider.
    Issuer,
    /// `exp` lies in the past.
    Expired,
    /// `iat` lies in the future.
    NotYet,
    /// The signature is of a key that nobody publishes, under the published `kid`.
    Signature,
    /// `alg` is `none`.
    Unsigned,
    /// `alg` is HS256 with the public key as its secret, as in the old attack on libraries.
    Hmac,
    /// `at_hash` of another access token.
    AccessToken,
    /// The authorization response has another `state`.
    State,
    /// The authorization response names another issuer.
    Iss,
    /// The person says no.
    Denied,
    /// UserInfo is about somebody else.
    OtherSubject,
}

/// Somebody who can log in.
#[derive(Debug, Clone)]
pub struct Account {
    /// What they type.
    pub login: String,
    /// What they type.
    pub password: String,
    /// What the provider says of them; `sub` is their login.
    pub claims: Map<String, Value>,
}

impl Account {
    /// Somebody with a verified e-mail address, which is the login too.
    pub fn new(email: &str, password: &str) -> Self {
        let claims = json!({ "email": email, "email_verified": true, "preferred_username": email });
        Self { login: email.to_owned(), password: password.to_owned(), claims: object(claims) }
    }

    /// The same with one claim more, or another value for it.
    #[must_use]
    pub fn with(mut self, claim: &str, value: Value) -> Self {
        self.claims.insert(claim.to_owned(), value);
        self
    }
}

/// How it is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What it calls the client.
    pub client_id: String,
    /// The client's secret; `None`: a public client.
    pub client_secret: Option<String>,
    /// The one `redirect_uri` that it takes.
    pub redirect_uri: String,
    /// Who can log in.
    pub people: Vec<Account>,
    /// How it signs.
    pub algorithm: Algorithm,
    /// Whether claims about a person are in the ID token; else only UserInfo tells them.
    pub claims_in_id_token: bool,
    /// The time, in seconds since 1970; `None`: the machine's.
    pub now: Option<i64>,
}

/// A running provider; it stops when dropped.
pub struct Provider {
    server: Server,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    settings: Settings,
    issuer: String,
    fault: Fault,
    key: PKey<Private>,
    kid: String,
    /// Where a login form will lead, by its hidden number.
    asked: HashMap<String, Asked>,
    codes: HashMap<String, Grant>,
    tokens: HashMap<String, String>,
    discovered: u32,
}

/// An authorization request.
#[derive(Debug, Clone)]
struct Asked {
    state: String,
    nonce: Option<String>,
    challenge: String,
}

#[derive(Debug, Clone)]
struct Grant {
    login: String,
    asked: Asked,
}

impl Provider {
    /// Starts one with a certificate of this authority.
    pub async fn start(authority: &Authority, settings: Settings) -> Result<Self> {
        let (key, kid) = token::new_key(settings.algorithm)?;
        let shared = Arc::new(Mutex::new(Shared {
            settings,
            issuer: String::new(),
            fault: Fault::None,
            key,
            kid,
            asked: HashMap::new(),
            codes: HashMap::new(),
            tokens: HashMap::new(),
            discovered: 0,
        }));
        let answering = Arc::clone(&shared);
        let server = Server::start(authority, move |request| {
            let answer = lock(&answering).answer(&request).unwrap_or_else(|error| text(500, &error.to_string()));
            async move { answer }
        })
        .await?;
        lock(&shared).issuer = server.url("");
        Ok(Self { server, shared })
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> String {
        self.server.url("")
    }

    /// Does this wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        lock(&self.shared).fault = fault;
    }

    /// From now on this is its time, in seconds since 1970.
    pub fn set_time(&self, now: i64) {
        lock(&self.shared).settings.now = Some(now);
    }

    /// Whether claims about a person are in the ID token.
    pub fn set_claims_in_id_token(&self, there: bool) {
        lock(&self.shared).settings.claims_in_id_token = there;
    }

    /// Signs with a new key under a new name from now on, and publishes only that.
    pub fn change_key(&self) -> Result<()> {
        let mut shared = lock(&self.shared);
        (shared.key, shared.kid) = token::new_key(shared.settings.algorithm)?;
        Ok(())
    }

    /// How often its discovery document was asked for.
    pub fn discovered(&self) -> u32 {
        lock(&self.shared).discovered
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn answer(&mut self, request: &Request) -> Result<Response> {
        let query = pairs(request.uri().query().unwrap_or_default().as_bytes());
        let form = pairs(request.body());
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/.well-known/openid-configuration") => {
                self.discovered += 1;
                Ok(json_answer(200, &self.document()))
            }
            ("GET", "/jwks") => Ok(json_answer(200, &json!({ "keys": [self.public_key()?] }))),
            ("GET", "/authorize") => self.authorize(&query),
            ("POST", "/login") => self.login(&form),
            ("POST", "/token") => self.token(request, &form),
            ("GET", "/userinfo") => Ok(self.user_info(request)),
            _ => Ok(text(404, "not found")),
        }
    }

    fn document(&self) -> Value {
        let issuer = &self.issuer;
        let algorithm = match self.settings.algorithm {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        };
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "jwks_uri": format!("{issuer}/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [algorithm],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
        })
    }

    fn authorize(&mut self, query: &HashMap<String, String>) -> Result<Response> {
        let get = |name: &str| query.get(name).cloned().unwrap_or_default();
        let scopes = get("scope");
        let wrong = if get("client_id") != self.settings.client_id {
            "client_id"
        } else if get("redirect_uri") != self.settings.redirect_uri {
            "redirect_uri"
        } else if get("response_type") != "code" {
            "response_type"
        } else if !scopes.split(' ').any(|scope| scope == "openid") {
            "scope"
        } else if get("code_challenge_method") != "S256" || get("code_challenge").len() != 43 {
            "code_challenge"
        } else if get("state").is_empty() {
            "state"
        } else {
            let number = random()?;
            let asked =
                Asked { state: get("state"), nonce: query.get("nonce").cloned(), challenge: get("code_challenge") };
            self.asked.insert(number.clone(), asked);
            return Ok(login_page(&number, &get("login_hint"), ""));
        };
        Ok(text(400, &format!("this {wrong} is not accepted")))
    }

    fn login(&mut self, form: &HashMap<String, String>) -> Result<Response> {
        let get = |name: &str| form.get(name).cloned().unwrap_or_default();
        let number = get("request");
        let Some(asked) = self.asked.get(&number).cloned() else { return Ok(text(400, "begin again")) };
        let known = self.settings.people.iter().any(|a| a.login == get("login") && a.password == get("password"));
        if !known {
            return Ok(login_page(&number, &get("login"), "<p>Wrong login or password.</p>"));
        }
        self.asked.remove(&number);
        let mut back = form_urlencoded::Serializer::new(String::new());
        match self.fault {
            Fault::State => back.append_pair("state", &random()?),
            _ => back.append_pair("state", &asked.state),
        };
        match self.fault {
            Fault::Iss => back.append_pair("iss", "https://other.example.com"),
            _ => back.append_pair("iss", &self.issuer),
        };
        if self.fault == Fault::Denied {
            back.append_pair("error", "access_denied");
        } else {
            let code = random()?;
            back.append_pair("code", &code);
            self.codes.insert(code, Grant { login: get("login"), asked });
        }
        let location = format!("{}?{}", self.settings.redirect_uri, back.finish());
        response(303, &[("location", &location)], Vec::new())
    }

    fn token(&mut self, request: &Request, form: &HashMap<String, String>) -> Result<Response> {
        let get = |name: &str| form.get(name).cloned().unwrap_or_default();
        let refuse = |why: &str| Ok(json_answer(400, &json!({ "error": why })));
        if !self.is_client(request, form) {
            return Ok(json_answer(401, &json!({ "error": "invalid_client" })));
        }
        if get("grant_type") != "authorization_code" {
            return refuse("unsupported_grant_type");
        }
        // Taken out whatever comes of it: a code works once.
        let Some(grant) = self.codes.remove(&get("code")) else { return refuse("invalid_grant") };
        let challenge = URL_SAFE_NO_PAD.encode(sha256(get("code_verifier").as_bytes()));
        if challenge != grant.asked.challenge || get("redirect_uri") != self.settings.redirect_uri {
            return refuse("invalid_grant");
        }
        let access_token = random()?;
        let id_token = self.id_token(&grant, &access_token)?;
        self.tokens.insert(access_token.clone(), grant.login);
        let answer = json!({
            "access_token": access_token, "token_type": "Bearer", "expires_in": 300, "id_token": id_token,
        });
        Ok(json_answer(200, &answer))
    }

    fn is_client(&self, request: &Request, form: &HashMap<String, String>) -> bool {
        let Some(secret) = &self.settings.client_secret else {
            return form.get("client_id") == Some(&self.settings.client_id);
        };
        // RFC 6749, 2.3.1: both parts are form-encoded before they are base64-encoded.
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let expected =
            format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(&self.settings.client_id), encode(secret))));
        request.headers().get("authorization").is_some_and(|sent| sent.as_bytes() == expected.as_bytes())
    }

    fn claims(&self, login: &str) -> Map<String, Value> {
        let account = self.settings.people.iter().find(|account| account.login == login);
        account.map(|account| account.claims.clone()).unwrap_or_default()
    }

    fn user_info(&self, request: &Request) -> Response {
        let sent = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let Some(login) = sent.and_then(|sent| sent.strip_prefix("Bearer ")).and_then(|token| self.tokens.get(token))
        else {
            return json_answer(401, &json!({ "error": "invalid_token" }));
        };
        let mut claims = self.claims(login);
        let subject = if self.fault == Fault::OtherSubject { "somebody else" } else { login };
        claims.insert("sub".to_owned(), json!(subject));
        json_answer(200, &Value::Object(claims))
    }
}

fn random() -> Result<String> {
    let mut bytes = [0; 24];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn pairs(encoded: &[u8]) -> HashMap<String, String> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn login_page(number: &str, login: &str, message: &str) -> Response {
    let login: String = login.chars().filter(|c| !matches!(c, '"' | '<' | '>' | '&')).collect();
    let page = format!(
        "<!DOCTYPE html><title>Log in</title>{message}<form method=\"post\" action=\"/login\">\
         <input type=\"hidden\" name=\"request\" value=\"{number}\"><input name=\"login\" value=\"{login}\">\
         <input type=\"password\" name=\"password\"><button type=\"submit\">Log in</button></form>"
    );
    response(200, &[("content-type", "text/html; charset=utf-8")], page.into_bytes()).unwrap_or_default()
}

fn json_answer(status: u16, body: &Value) -> Response {
    let headers = [("content-type", "application/json"), ("cache-control", "no-store")];
    response(status, &headers, body.to_string().into_bytes()).unwrap_or_default()
}

fn text(status: u16, body: &str) -> Response {
    response(status, &[("content-type", "text/plain; charset=utf-8")], body.as_bytes().to_vec()).unwrap_or_default()
}

fn response(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Response> {
    let mut builder = http::Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).map_err(|error| Error::Options(error.to_string()))
}
