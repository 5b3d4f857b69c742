//! What can go wrong on the way into management.

use mdm_core::crypto::cms_sign::SignError;
use store::Busy;

/// Why a link could not be made, a profile not be built, or an `Authenticate` not be admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Outstanding commands could not be cancelled.
    #[error(transparent)]
    Commands(#[from] commands::Error),
    /// The issuance record could not be opened.
    #[error(transparent)]
    Issuer(#[from] issuer::Error),
    /// The profile could not be signed.
    #[error("the enrollment profile could not be signed: {0}")]
    Sign(#[from] SignError),
    /// A field of a new link has a value that is not accepted.
    #[error("{field} {why}")]
    Field {
        /// The field, in the API's spelling.
        field: &'static str,
        /// What would be right.
        why: &'static str,
    },
    /// No usable push certificate is stored, so an enrolled device could never be woken.
    #[error("no push certificate is stored, so no device can enroll yet: upload one first")]
    NoPushCertificate,
    /// An `Authenticate` that its certificate does not entitle to (TH-02).
    #[error(transparent)]
    Refused(#[from] crate::admit::Refused),
}

impl Error {
    /// Whether the device or the operator asked for what is not allowed, as opposed to our failing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Field { .. })
    }
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Commands(e) => e.is_busy(),
            Self::Issuer(e) => e.is_busy(),
            _ => false,
        }
    }
}
