//! What can go wrong on the way of account-driven enrollment.

use store::Busy;

/// Why a request could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The enrollment profile was refused or could not be made.
    #[error(transparent)]
    Enroll(#[from] enroll::Error),
    /// Nobody can sign in, or it failed.
    #[error(transparent)]
    SignIn(#[from] signin::Error),
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Enroll(e) => e.is_busy(),
            Self::SignIn(e) => e.is_busy(),
        }
    }
}
