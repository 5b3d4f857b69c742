//! A test ACME authority for MDM identities: RFC 8555 over TLS with the challenge `device-attest-01`.
//!
//! It checks what step-ca is known to check (acme.md section 5): nonce, freshness, chain of the attestation, identifier against
//! serial number and UDID, the attested key against the request's, and the common name. Settings loosen what other
//! authorities loosen. Sources: RFC 8555; draft-acme-device-attest; RFC 4043 (`PermanentIdentifier`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::https::{Request, Response, Server};

mod attest;
mod issue;
mod jose;
mod objects;
#[cfg(test)]
mod tests;

use attest::Checked;
use issue::Issuer;
use objects::{authorization_json, challenge_json, order_json};

/// Which identifiers an attested device may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identifiers {
    /// Its serial number or UDID, as the attestation names them.
    #[default]
    OfDevice,
    /// Any: who it is has been settled elsewhere, such as by a one-time ClientIdentifier.
    Any,
}

/// What the authority takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The roots of attestations, DER.
    pub attestation_roots: Vec<Vec<u8>>,
    /// Whether the attestation object `none` will do.
    pub accept_unattested: bool,
    /// Which identifiers are taken.
    pub identifiers: Identifiers,
    /// The common name of a request must be empty or the identifier, as with step-ca.
    pub common_name_is_identifier: bool,
    /// First and last second of what it issues (since 1970); else from a minute ago for 90 days.
    pub validity: Option<(i64, i64)>,
}

impl Settings {
    /// As strict as step-ca out of the box.
    pub fn strict(attestation_root: Vec<u8>) -> Self {
        Self {
            attestation_roots: vec![attestation_root],
            accept_unattested: false,
            identifiers: Identifiers::OfDevice,
            common_name_is_identifier: true,
            validity: None,
        }
    }

    /// Takes devices without attestation, and any identifier.
    pub fn lenient(attestation_root: Vec<u8>) -> Self {
        Self { accept_unattested: true, identifiers: Identifiers::Any, ..Self::strict(attestation_root) }
    }
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The `permanent-identifier`.
    pub identifier: String,
    /// Whether the key was attested.
    pub attested: bool,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
}

/// An error as ACME writes it (RFC 8555 section 6.7).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, detail: &str) -> Self {
        Self { status, kind, detail: detail.to_owned() }
    }

    fn malformed(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    fn json(&self) -> Value {
        json!({
            "type": format!("urn:ietf:params:acme:error:{}", self.kind),
            "detail": self.detail,
            "status": self.status.as_u16(),
        })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "serverInternal", &error.to_string())
    }
}

impl From<openssl::error::ErrorStack> for Problem {
    fn from(error: openssl::error::ErrorStack) -> Self {
        Error::from(error).into()
    }
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Pending,
    Ready(Checked),
    Valid { pem: String },
    Invalid(Problem),
}

struct Order {
    account: String,
    identifier: String,
    token: String,
    progress: Progress,
}

#[derive(Default)]
struct State {
    nonces: BTreeSet<String>,
    accounts: BTreeMap<String, jose::Jwk>,
    orders: BTreeMap<String, Order>,
    issued: Vec<Issued>,
    refusals: Vec<String>,
    down: bool,
}

struct Inner {
    settings: Settings,
    issuer: Issuer,
    state: Mutex<State>,
}

/// A running authority; it stops when dropped.
pub struct AcmeCa {
    server: Server,
    inner: Arc<Inner>,
}

impl AcmeCa {
    /// Starts on a free port; `tls` issues its server certificate, which devices must trust.
    pub async fn start(tls: &Authority, settings: Settings) -> Result<Self> {
        let inner = Arc::new(Inner { settings, issuer: Issuer::new()?, state: Mutex::default() });
        let answering = Arc::clone(&inner);
        let server = Server::start(tls, move |request| {
            let inner = Arc::clone(&answering);
            async move { inner.answer(&request) }
        })
        .await?;
        Ok(Self { server, inner })
    }

    /// `DirectoryURL` of the ACME payload.
    pub fn directory_url(&self) -> String {
        self.server.url("/acme/directory")
    }

    /// The certificate that signs what it issues, PEM: what an MDM server trusts as issuer of identities.
    pub fn issuer_pem(&self) -> Result<String> {
        self.inner.issuer.pem()
    }

    /// The same, DER.
    pub fn issuer_der(&self) -> Result<Vec<u8>> {
        self.inner.issuer.der()
    }

    /// What it issued so far.
    pub fn issued(&self) -> Vec<Issued> {
        self.inner.state().issued.clone()
    }

    /// Why it refused, in order.
    pub fn refusals(&self) -> Vec<String> {
        self.inner.state().refusals.clone()
    }

    /// Answers everything with 503, or works again.
    pub fn set_down(&self, down: bool) {
        self.inner.state().down = down;
    }
}

type Answered = std::result::Result<Reply, Problem>;

struct Reply {
    status: StatusCode,
    location: Option<String>,
    body: Body,
}

enum Body {
    Json(Value),
    Pem(String),
}

impl Reply {
    fn json(body: Value) -> Self {
        Self { status: StatusCode::OK, location: None, body: Body::Json(body) }
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Response {
        let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let base = format!("https://{host}/acme");
        let answered = if self.state().down {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "serverInternal", "down"))
        } else {
            self.route(request, &base)
        };
        let mut response = http::Response::builder().header("cache-control", "no-store");
        if let Ok(nonce) = self.nonce() {
            response = response.header("replay-nonce", nonce);
        }
        let built = match answered {
            Ok(reply) => {
                if let Some(location) = reply.location {
                    response = response.header("location", location);
                }
                let (kind, body) = match reply.body {
                    Body::Json(body) => ("application/json", body.to_string()),
                    Body::Pem(body) => ("application/pem-certificate-chain", body),
                };
                response.status(reply.status).header("content-type", kind).body(body.into_bytes())
            }
            Err(problem) => {
                self.state().refusals.push(format!("{}: {}", problem.kind, problem.detail));
                response
                    .status(problem.status)
                    .header("content-type", "application/problem+json")
                    .body(problem.json().to_string().into_bytes())
            }
        };
        built.unwrap_or_default()
    }

    fn nonce(&self) -> Result<String> {
        let nonce = jose::random()?;
        self.state().nonces.insert(nonce.clone());
        Ok(nonce)
    }

    fn route(&self, request: &Request, base: &str) -> Answered {
        let path = request.uri().path().strip_prefix("/acme/").unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let nothing = || Problem::new(StatusCode::NOT_FOUND, "malformed", "nothing here");
        if request.method() != Method::POST {
            return match parts[..] {
                ["directory"] => Ok(Reply::json(json!({
                    "newNonce": format!("{base}/new-nonce"),
                    "newAccount": format!("{base}/new-account"),
                    "newOrder": format!("{base}/new-order"),
                    "revokeCert": format!("{base}/revoke-cert"),
                    "keyChange": format!("{base}/key-change"),
                }))),
                ["new-nonce"] => Ok(Reply::json(json!({}))),
                _ => Err(nothing()),
            };
        }
        let signed = self.open(request, base)?;
        match parts[..] {
            ["new-account"] => self.new_account(&signed, base),
            ["new-order"] => self.new_order(&signed, base),
            ["order", id] => self.with_order(&signed, id, |order| Ok(Reply::json(order_json(order, id, base)))),
            ["order", id, "finalize"] => self.finalize(&signed, id, base),
            ["authz", id] => self.with_order(&signed, id, |order| Ok(Reply::json(authorization_json(order, id, base)))),
            ["challenge", id] => self.respond(&signed, id, base),
            ["certificate", id] => self.with_order(&signed, id, |order| match &order.progress {
                Progress::Valid { pem } => {
                    Ok(Reply { status: StatusCode::OK, location: None, body: Body::Pem(pem.clone()) })
                }
                _ => Err(Problem::malformed("no certificate yet")),
            }),
            _ => Err(nothing()),
        }
    }

    /// Opens the JWS: its nonce is used up, its URL is the request's, and the key is the account's.
    fn open(&self, request: &Request, base: &str) -> std::result::Result<jose::Signed, Problem> {
        let origin = base.strip_suffix("/acme").unwrap_or_default();
        let url = format!("{origin}{}", request.uri().path());
        let mut state = self.state();
        let State { nonces, accounts, .. } = &mut *state;
        jose::open(request.body(), &url, |nonce| nonces.remove(nonce), |kid| accounts.get(kid).cloned())
    }

    fn new_account(&self, signed: &jose::Signed, base: &str) -> Answered {
        let jose::Signer::New(jwk) = &signed.signer else {
            return Err(Problem::malformed("a new account signs with its jwk"));
        };
        let kid = format!("{base}/account/{}", jwk.thumbprint()?);
        self.state().accounts.insert(kid.clone(), jwk.clone());
        let body = json!({ "status": "valid", "contact": [] });
        Ok(Reply { status: StatusCode::CREATED, location: Some(kid), body: Body::Json(body) })
    }

    fn new_order(&self, signed: &jose::Signed, base: &str) -> Answered {
        let account = signed.account()?.to_owned();
        let identifiers = signed.payload.get("identifiers").and_then(Value::as_array);
        let [identifier] = identifiers.map(Vec::as_slice).unwrap_or_default() else {
            return Err(Problem::malformed("exactly one identifier is taken"));
        };
        let text = |key: &str| identifier.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("type") != "permanent-identifier" || text("value").is_empty() {
            let detail = "only permanent-identifier is taken";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "unsupportedIdentifier", detail));
        }
        let id = jose::random()?;
        let order = Order {
            account,
            identifier: text("value").to_owned(),
            token: jose::random()?,
            progress: Progress::Pending,
        };
        let body = order_json(&order, &id, base);
        self.state().orders.insert(id.clone(), order);
        let location = Some(format!("{base}/order/{id}"));
        Ok(Reply { status: StatusCode::CREATED, location, body: Body::Json(body) })
    }

    fn with_order(&self, signed: &jose::Signed, id: &str, then: impl FnOnce(&mut Order) -> Answered) -> Answered {
        let account = signed.account()?;
        let mut state = self.state();
        let order = state.orders.get_mut(id).filter(|order| order.account == account);
        then(order.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "malformed", "no such order"))?)
    }

    /// The answer to the challenge: an attestation object.
    fn respond(&self, signed: &jose::Signed, id: &str, base: &str) -> Answered {
        let mut refused = None;
        let answered = self.with_order(signed, id, |order| {
            if order.progress == Progress::Pending {
                order.progress = match attest::check(&self.settings, &signed.payload, &order.identifier, &order.token) {
                    Ok(checked) => Progress::Ready(checked),
                    Err(problem) => {
                        refused = Some(format!("{}: {}", problem.kind, problem.detail));
                        Progress::Invalid(problem)
                    }
                };
            }
            Ok(Reply::json(challenge_json(order, id, base)))
        });
        self.state().refusals.extend(refused);
        answered
    }

    fn finalize(&self, signed: &jose::Signed, id: &str, base: &str) -> Answered {
        let mut issued = None;
        let answered = self.with_order(signed, id, |order| {
            let Progress::Ready(checked) = &order.progress else {
                return Err(Problem::new(StatusCode::FORBIDDEN, "orderNotReady", "the challenge is not met"));
            };
            let certificate = self.issuer.issue(&self.settings, &signed.payload, &order.identifier, checked)?;
            let pem = format!("{}{}", String::from_utf8_lossy(&certificate.to_pem()?), self.issuer.pem()?);
            issued = Some(Issued {
                identifier: order.identifier.clone(),
                attested: checked.key.is_some(),
                certificate: certificate.to_der()?,
            });
            order.progress = Progress::Valid { pem };
            Ok(Reply::json(order_json(order, id, base)))
        });
        self.state().issued.extend(issued);
        answered
    }
}
