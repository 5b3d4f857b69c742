//! `GET /api/v1/trust`

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mdm_core::certificate::Certificate;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Shared;
use crate::problem::Problem;
use crate::when::When;

/// How devices come to trust this server, and what is wrong with that.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Trust)]
pub struct TrustReport {
    /// Who signed the server's TLS certificate, as configured: `public`, `private-ca` or `self-signed`.
    pub server_certificate: &'static str,
    /// When devices verify it: `always`, or `anchored-first-contact` (at every contact too, after its CA was delivered to them).
    pub verification: &'static str,
    /// Whether profiles pin the CA.
    pub pinned: bool,
    /// A trial: at most 25 devices, none by an account.
    pub pilot: bool,
    /// The chain that devices are shown, the server's certificate first. Empty where a proxy ends TLS and it was not seen.
    pub chain: Vec<CertificateOf>,
    /// The CA certificates that devices are given.
    pub anchors: Vec<CertificateOf>,
    /// Those that will take over.
    pub next_anchors: Vec<CertificateOf>,
    /// How many devices hold which.
    pub devices: Devices,
    /// What is wrong (`E1` to `E7`) or will be (`W1` to `W6`); docs/trust.md has the table.
    pub findings: Vec<TrustFinding>,
}

/// A certificate in short.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TrustCertificate)]
pub struct CertificateOf {
    /// Its subject.
    subject: String,
    /// SHA-256 of it, hexadecimal.
    sha256: String,
    /// When it ends.
    not_after: When,
}

impl From<&Certificate> for CertificateOf {
    fn from(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject(),
            sha256: certificate.fingerprint().to_string(),
            not_after: certificate.not_after().into(),
        }
    }
}

/// Live enrollments by the anchors in their profiles.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = TrustDevices)]
pub struct Devices {
    /// All.
    pub live: i64,
    /// Those whose profile has every next anchor. Once these are all, the TLS certificate can be changed to the next CA.
    pub hold_next_anchors: i64,
    /// Those whose profile was made before it was noted what is in it.
    pub unknown: i64,
}

/// Something that a person should know.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TrustFinding {
    /// `E1` to `E7`: wrong now. `W1` to `W6`: soon, or to be looked at.
    pub code: &'static str,
    /// Which part of the set-up.
    pub about: &'static str,
    /// What is the case.
    pub text: String,
    /// What to do.
    pub what_to_do: String,
}

type Answer = Pin<Box<dyn Future<Output = Result<TrustReport, store::Error>> + Send>>;

/// Asks the server how devices trust it, at this moment.
#[derive(Clone)]
pub struct AskTrust(Arc<dyn Fn() -> Answer + Send + Sync>);

impl AskTrust {
    /// Asks by this function.
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<TrustReport, store::Error>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }
}

impl fmt::Debug for AskTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskTrust")
    }
}

/// How devices come to trust this server, which of them hold the next CA, and what is wrong. Any valid token may read it.
#[utoipa::path(
    get, path = "/api/v1/trust", tag = "server",
    responses((status = 200, description = "The trust in this server", body = TrustReport)),
)]
pub(crate) async fn show_trust(State(shared): State<Shared>) -> Result<Json<TrustReport>, Problem> {
    Ok(Json((shared.trust.0)().await?))
}
