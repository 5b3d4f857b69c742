//! The requests of RFC 8555, one after the other.

use http::{Method, StatusCode};
use openssl::x509::X509;
use serde_json::{Value, json};

use super::attest::{self, Checked};
use super::objects::{authorization_json, challenge_json, order_json};
use super::webhook::{self, Kind};
use super::{Inner, Issued, Order, Problem, Progress, State, issue, jose};
use crate::error::Result;
use crate::https::{Request, Response};

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
    pub(super) async fn answer(&self, request: &Request) -> Response {
        let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let base = format!("https://{host}/acme");
        let faults = self.state().faults;
        tokio::time::sleep(faults.delay).await;
        let answered = if faults.down {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "serverInternal", "down"))
        } else {
            self.route(request, &base).await
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

    async fn route(&self, request: &Request, base: &str) -> Answered {
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
            ["order", id, "finalize"] => self.finalize(&signed, id, base).await,
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
        let expired = state.faults.orders_expire;
        let order = state.orders.get_mut(id).filter(|order| order.account == account);
        let order = order.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "malformed", "no such order"))?;
        if expired && matches!(order.progress, Progress::Pending | Progress::Ready(_)) {
            order.progress = Progress::Invalid(Problem::malformed("the order has expired"));
        }
        then(order)
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

    async fn finalize(&self, signed: &jose::Signed, id: &str, base: &str) -> Answered {
        let mut taken = None;
        self.with_order(signed, id, |order| match std::mem::replace(&mut order.progress, Progress::Processing) {
            Progress::Ready(checked) => {
                taken = Some((checked, order.identifier.clone()));
                Ok(Reply::json(Value::Null))
            }
            other => {
                order.progress = other;
                Err(Problem::new(StatusCode::FORBIDDEN, "orderNotReady", "the challenge is not met"))
            }
        })?;
        let Some((checked, identifier)) = taken else { return Err(Problem::malformed("no order")) };
        let made = self.make(&signed.payload, &checked, &identifier).await;
        let answered = self.with_order(signed, id, |order| {
            order.progress = match &made {
                Ok(certificate) => {
                    let own = String::from_utf8_lossy(&certificate.to_pem()?).into_owned();
                    Progress::Valid { pem: own + &self.issuer.pem()? }
                }
                // Another request may be better (RFC 8555 section 7.4).
                Err(problem) if problem.kind == "badCSR" => Progress::Ready(checked.clone()),
                Err(problem) => Progress::Invalid(problem.clone()),
            };
            Ok(Reply::json(order_json(order, id, base)))
        })?;
        let certificate = made?.to_der()?;
        self.state().issued.push(Issued {
            identifier: identifier.clone(),
            attested: checked.key.is_some(),
            serial_number: checked.serial_number,
            certificate: certificate.clone(),
        });
        self.tell(&identifier, &certificate).await?;
        Ok(answered)
    }

    /// Checks the request, asks the webhooks, signs.
    async fn make(&self, payload: &Value, checked: &Checked, identifier: &str) -> std::result::Result<X509, Problem> {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let request = issue::read(payload)?;
        issue::check(&self.settings, &request, identifier, checked)?;
        let (webhooks, caller, validity) = {
            let mut state = self.state();
            let short = checked.serial_number.as_ref().and_then(|serial| state.short_lived.remove(serial));
            let short = short.map(|(before, after)| (now - before, now + after));
            let validity = short.or(state.validity).unwrap_or((now - 60, now + 90 * 86_400));
            (state.webhooks.clone(), state.caller.clone(), validity)
        };
        let der = request.to_der()?;
        let attestation = checked.key.is_some().then_some((checked.object.as_slice(), checked.token.as_str()));
        let subject = webhook::Subject { identifier, request: &der, validity, attestation };
        for kind in [Kind::Enriching, Kind::Authorizing, Kind::Generic] {
            for hook in webhooks.iter().filter(|hook| hook.kind == kind) {
                let Some(caller) = &caller else { continue };
                let body = webhook::body(kind, &subject, now)?;
                if let Err(error) = webhook::call(caller, hook, &body).await {
                    return Err(Problem::new(StatusCode::FORBIDDEN, "unauthorized", &error.to_string()));
                }
            }
        }
        Ok(self.issuer.build(&self.settings, &request, identifier, validity)?)
    }

    /// Tells the generic webhooks of a certificate. What they answer changes nothing.
    async fn tell(&self, identifier: &str, certificate: &[u8]) -> std::result::Result<(), Problem> {
        let (webhooks, caller) = {
            let state = self.state();
            (state.webhooks.clone(), state.caller.clone())
        };
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        for hook in webhooks.iter().filter(|hook| hook.kind == Kind::Generic) {
            let Some(caller) = &caller else { continue };
            let told = webhook::call(caller, hook, &webhook::issued_body(identifier, certificate, now)?).await;
            if let Err(error) = told {
                self.state().refusals.push(format!("told: {error}"));
            }
        }
        Ok(())
    }
}
