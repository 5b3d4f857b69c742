//! What can go wrong with policies.

use mdm_core::crypto::cms_sign::SignError;
use mdm_core::ids::PolicyId;
use store::Busy;

/// An error of the policy engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue failed.
    #[error(transparent)]
    Commands(#[from] commands::Error),
    /// There is no such policy, or it was deleted.
    #[error("there is no ACME policy {0}")]
    NoPolicy(PolicyId),
    /// Another policy has this name.
    #[error("another ACME policy is named {0}")]
    NameTaken(String),
    /// The profile could not be signed.
    #[error("the profile could not be signed: {0}")]
    Sign(#[from] SignError),
}

/// The result of a function of the policy engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Commands(e) => e.is_busy(),
            Self::NoPolicy(_) | Self::NameTaken(_) | Self::Sign(_) => false,
        }
    }
}

impl Error {
    /// Whether a person must do something about it.
    pub fn needs_human(&self) -> bool {
        matches!(self, Self::Sign(_) | Self::Store(store::Error::Corrupt(_)))
    }
}

pub(crate) fn corrupt(what: &'static str) -> Error {
    Error::Store(store::Error::Corrupt(what))
}
