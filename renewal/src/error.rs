//! What can go wrong in a renewal on the server's side. What goes wrong on the device's is written in the renewal's row.

use store::Busy;

/// An error of the renewal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue failed.
    #[error(transparent)]
    Commands(#[from] commands::Error),
    /// The enrollment profile could not be made.
    #[error(transparent)]
    Enroll(#[from] enroll::Error),
    /// There is nothing to renew: the enrollment is not enrolled, or has no identity.
    #[error("{0}")]
    NothingToRenew(&'static str),
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Commands(e) => e.is_busy(),
            Self::Enroll(e) => e.is_busy(),
            Self::NothingToRenew(_) => false,
        }
    }
}
