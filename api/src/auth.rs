//! Who may do what: API tokens with scopes, asked for by every route of the table (TH-57, TH-59, TH-60).
//!
//! A token reads `assay_<id>_<secret>_<crc>`: 32 hexadecimal digits that find its row, 256 random bits as 43 base64url
//! characters, and a CRC-32 that tells a mistyped token from a wrong one without asking the database and lets secret
//! scanners be sure. Only its SHA-256 is stored. It is sent as `Authorization: Bearer …`, or, to the addresses of
//! NanoMDM's API only, as the password of the Basic user `nanomdm`, as tools written for NanoMDM do.

mod scope;
mod token;

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, header};
use mdm_core::ids::TokenId;
use mdm_core::rate::{Buckets, Rate};
use mdm_core::time::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use scope::{Access, Scope, Scopes};
pub use token::{DEFAULT_LIFE, Minted, mint};

use crate::Shared;
use crate::nanomdm;
use crate::problem::{Problem, Slug};

/// Failed requests that one address or one token may make at once; one more is allowed each second.
const FAILURES: Rate = Rate { burst: 20, per_second: 1.0 };
/// Destructive requests that one token may make at once; one more is allowed each two seconds.
const DESTRUCTIVE: Rate = Rate { burst: 30, per_second: 0.5 };

/// What is remembered in memory about callers: how often they failed, and when tokens were used.
#[derive(Debug, Default)]
pub struct Guard {
    by_address: Buckets<IpAddr>,
    by_token: Buckets<TokenId>,
    destructive: Buckets<TokenId>,
    used: Mutex<std::collections::HashMap<TokenId, Timestamp>>,
}

impl Guard {
    /// Writes down when tokens were used since the last call. The server calls this every few seconds and on shutdown.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub async fn flush(&self, store: &store::Store) -> Result<(), store::Error> {
        let used = std::mem::take(&mut *self.used.lock().expect("no holder of this lock panics"));
        if used.is_empty() {
            return Ok(());
        }
        let mut tx = store.begin().await?;
        for (id, at) in used {
            store::tokens::used(&mut tx, id, at).await?;
        }
        tx.commit().await
    }
}

/// Who sent this request, and what they may do.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) id: TokenId,
    pub(crate) scopes: Scopes,
    /// `token:<name>`, for events and `created_by`.
    pub(crate) actor: String,
}

impl Caller {
    /// Refuses unless the token carries this scope.
    pub(crate) fn must(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.allow(scope) {
            return Ok(());
        }
        Err(Problem::new(Slug::ScopeMissing, format!("this needs a token with the scope {}", scope.as_str())))
    }

    /// Refuses unless the token may send destructive commands and has not just sent very many (TH-60).
    pub(crate) fn must_destroy(&self, shared: &Shared) -> Result<(), Problem> {
        self.must(Scope::CommandsDestructive)?;
        if shared.guard.destructive.take(self.id, DESTRUCTIVE, shared.clock.now()) {
            return Ok(());
        }
        Err(Problem::new(Slug::RateLimited, "this token has sent many destructive commands in a short time")
            .retry_after(2))
    }
}

impl Caller {
    /// An event that this caller caused; the summary and what else it concerns are filled in.
    pub(crate) fn event<'a>(&'a self, at: Timestamp, kind: &'a str) -> store::events::NewEvent<'a> {
        store::events::NewEvent {
            at,
            kind,
            enrollment: None,
            command: None,
            actor: &self.actor,
            summary: "",
            data: &serde_json::Value::Null,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let missing = || Problem::new(Slug::AuthenticationRequired, "send Authorization: Bearer <token>");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// The gate before each route of the table.
pub(crate) async fn gate(
    State((shared, access, is_nanomdm)): State<(Shared, Access, bool)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Access::Needs(scope) = access else { return next.run(request).await };
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    match authenticate(&shared, request.headers(), is_nanomdm).await {
        Ok(caller) => {
            if let Some(scope) = scope
                && let Err(problem) = caller.must(scope)
            {
                let spared = shared.guard.by_token.take(caller.id, FAILURES, shared.clock.now());
                return if spared { problem } else { too_many() }.into_response();
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => refuse(&shared, address, problem, is_nanomdm),
    }
}

/// Answers a request without a valid token. A valid token is never held up by the failures of others (TH-55's rule).
fn refuse(shared: &Shared, address: Option<IpAddr>, problem: Problem, is_nanomdm: bool) -> Response {
    if problem.slug().parts().1 != http::StatusCode::UNAUTHORIZED {
        return problem.into_response();
    }
    metrics::counter!("assay_api_authentication_failures_total").increment(1);
    let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    if !shared.guard.by_address.take(address, FAILURES, shared.clock.now()) {
        return too_many().into_response();
    }
    tracing::info!(client.address = %address, problem = problem.slug().as_str(), "an API request had no valid token");
    if is_nanomdm { nanomdm::unauthorized() } else { problem.into_response() }
}

fn too_many() -> Problem {
    Problem::new(Slug::RateLimited, "too many refused requests; look at the answers to the earlier ones").retry_after(1)
}

async fn authenticate(shared: &Shared, headers: &HeaderMap, is_nanomdm: bool) -> Result<Caller, Problem> {
    let required = |detail: &str| Problem::new(Slug::AuthenticationRequired, detail);
    let text = presented(headers, is_nanomdm).ok_or_else(|| required("send Authorization: Bearer <token>"))?;
    let id =
        token::id_of(&text).ok_or_else(|| required("this is not a token of this server: it is cut or mistyped"))?;
    let row = {
        let mut tx = shared.store.read().await?;
        store::tokens::find(&mut tx, id).await?
    };
    let row = row.ok_or_else(|| required("no such token"))?;
    if !bool::from(Sha256::digest(text.as_bytes()).as_slice().ct_eq(&row.sha256)) {
        return Err(required("no such token"));
    }
    let now = shared.clock.now();
    if row.revoked_at.is_some() {
        return Err(Problem::new(Slug::TokenRevoked, format!("the token {:?} was revoked", row.name)));
    }
    if row.expires_at <= now.0 {
        let at = Timestamp(row.expires_at);
        return Err(Problem::new(Slug::TokenExpired, format!("the token {:?} expired at {at}", row.name)));
    }
    shared.guard.used.lock().expect("no holder of this lock panics").insert(id, now);
    Ok(Caller { id, scopes: Scopes::from_text(&row.scopes), actor: format!("token:{}", row.name) })
}

/// The token in the `Authorization` header.
fn presented(headers: &HeaderMap, is_nanomdm: bool) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    // A browser sends Basic credentials by itself, so they open nothing but the addresses made for NanoMDM's tools.
    if !is_nanomdm || !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = plain.split_once(':')?;
    matches!(user, "nanomdm" | "nanohub").then(|| password.to_owned())
}
