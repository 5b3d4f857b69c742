//! A test ACME authority for MDM identities: RFC 8555 over TLS with the challenge `device-attest-01`.
//!
//! It checks what step-ca is known to check (acme.md section 5): nonce, freshness, chain of the attestation, identifier against
//! serial number and UDID, the attested key against the request's, and the common name. Settings loosen what other
//! authorities loosen. Sources: RFC 8555; draft-acme-device-attest; RFC 4043 (`PermanentIdentifier`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::http::{Client, Trust};
use crate::https::Server;

mod attest;
mod issue;
mod jose;
mod objects;
mod routes;
#[cfg(test)]
mod tests;
pub mod webhook;

use attest::Checked;
use issue::Issuer;
pub use webhook::{Kind, Webhook};

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
    /// The alternative names of a request are taken over, as step-ca's default template does not.
    pub copies_names: bool,
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
            copies_names: false,
        }
    }

    /// Takes devices without attestation, and any identifier.
    pub fn lenient(attestation_root: Vec<u8>) -> Self {
        Self {
            accept_unattested: true,
            identifiers: Identifiers::Any,
            common_name_is_identifier: false,
            copies_names: true,
            ..Self::strict(attestation_root)
        }
    }
}

/// What is wrong with the authority at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// It answers everything with 503.
    pub down: bool,
    /// It waits so long before each answer.
    pub delay: Duration,
    /// An order has expired as soon as anybody looks at it again.
    pub orders_expire: bool,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The `permanent-identifier`.
    pub identifier: String,
    /// Whether the key was attested.
    pub attested: bool,
    /// The serial number that the attestation named.
    pub serial_number: Option<String>,
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
    /// The webhooks are asked and the certificate is made: nobody else can finalize now.
    Processing,
    Valid {
        pem: String,
    },
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
    faults: Faults,
    validity: Option<(i64, i64)>,
    /// Serial number → seconds before and after the moment of issuing; used once.
    short_lived: BTreeMap<String, (i64, i64)>,
    webhooks: Vec<Webhook>,
    caller: Option<Client>,
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
        let state = Mutex::new(State { validity: settings.validity, ..State::default() });
        let inner = Arc::new(Inner { settings, issuer: Issuer::new()?, state });
        let answering = Arc::clone(&inner);
        let server = Server::start(tls, move |request| {
            let inner = Arc::clone(&answering);
            async move { inner.answer(&request).await }
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
        self.inner.state().faults.down = down;
    }

    /// What is wrong with it from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.state().faults = faults;
    }

    /// The webhooks of its provisioner; `trust` is what it trusts when it calls them.
    pub fn set_webhooks(&self, webhooks: Vec<Webhook>, trust: &Trust) -> Result<()> {
        let caller = Client::new(trust, None)?;
        let mut state = self.inner.state();
        state.webhooks = webhooks;
        state.caller = Some(caller);
        Ok(())
    }

    /// First and last second of what it issues from now on; else from a minute ago for 90 days.
    pub fn set_validity(&self, validity: Option<(i64, i64)>) {
        self.inner.state().validity = validity;
    }

    /// The next certificate for the attested device with this serial number is valid from `before` seconds before it is
    /// issued until `after` seconds after that.
    pub fn short_lived(&self, serial_number: &str, before: i64, after: i64) {
        self.inner.state().short_lived.insert(serial_number.to_owned(), (before, after));
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
