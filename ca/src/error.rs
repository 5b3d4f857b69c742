//! What can go wrong with certificate authorities.

use store::Busy;

use crate::document::FieldError;

/// An error of the certificate authorities.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is written of an authority or a webhook is wrong; never empty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// There is no such authority, or it was deleted.
    #[error("there is no certificate authority {0}")]
    NoAuthority(String),
    /// Another webhook has this id.
    #[error("a webhook with the id {0} is known already, or was")]
    WebhookKnown(String),
}

/// The result of a function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Busy for Error {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Store(e) if e.is_busy())
    }
}

impl Error {
    /// One field is wrong.
    pub(crate) fn field(field: &str, expected: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { field: field.to_owned(), expected: expected.into() }])
    }
}
