//! What certificate authorities ask before they issue: step-ca's webhooks, and a generic signed one.
//!
//! A call is read in this order, and the first that fails ends it: its size, its headers, the webhook that they name, the signature
//! over the body as it was sent (`signature`), the time in it, its form (`step_ca`, `generic`). Then one transaction loads what
//! is stored, `decide` says yes or no, and the answer is written down with what follows from it (`answer`), so that the same call
//! again gets the same answer and does nothing. Whatever is not known to be right is a no.
//!
//! Source of step-ca's form: smallstep/certificates, webhook/types.go, authority/provisioner/webhook.go and authority/tls.go.

mod answer;
mod certificate;
pub mod decide;
mod denial;
mod error;
mod generic;
mod http;
mod names;
mod request;
mod signature;
mod step_ca;
mod template;

use std::net::IpAddr;
use std::sync::Arc;

use mdm_core::crypto::seal::Sealer;
use mdm_core::rate::Buckets;
use mdm_core::time::Clock;
use store::Store;

pub use denial::Denial;
pub use error::{Error, Result};
pub use http::router;
pub use signature::sign;

/// What the routes need. Clones share it.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Opens the secrets of the webhooks.
    pub sealer: Sealer,
    /// What attestations are judged with.
    pub attestation: attestation::Context,
    /// How often an address that signs wrongly is written down; the rest is only counted.
    pub turned_away: Arc<Buckets<IpAddr>>,
}
