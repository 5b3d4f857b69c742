//! What can go wrong on the server's side while identities are issued. Refusals are not errors: see
//! [`crate::issuance::Refusal`] and [`crate::admission::Refusal`].

use mdm_core::certificate::CertificateError;
use mdm_core::crypto::cms_sign::SignError;
use mdm_core::crypto::enveloped::EnvelopeError;
use mdm_core::crypto::issue::IssueError;
use mdm_core::crypto::key::KeyError;
use mdm_core::crypto::seal::SealError;

/// An error of the issuer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A stored key does not open.
    #[error("the stored key '{name}' does not open: {source}")]
    Sealed {
        /// Which key.
        name: &'static str,
        /// Why.
        source: SealError,
    },
    /// A stored key or certificate cannot be read.
    #[error("the stored key or certificate of '{0}' cannot be read")]
    Unreadable(&'static str),
    /// A key could not be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A certificate that was just made cannot be read back.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An answer could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// An answer could not be encrypted.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// An answer could not be encoded.
    #[error("the answer cannot be encoded")]
    Encoding,
    /// A record was asked for that would not bind anybody.
    #[error("{0}")]
    Record(&'static str),
}

impl From<der::Error> for Error {
    fn from(_: der::Error) -> Self {
        Self::Encoding
    }
}

impl store::Busy for Error {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Store(e) if e.is_busy())
    }
}
