//! Why a call is not even looked at. What it asks for is answered by [`crate::Denial`].

use store::Busy;

/// An error of a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is believed of the device cannot be read.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// The verdict on an attestation cannot be kept.
    #[error(transparent)]
    Attestation(#[from] attestation::Error),
    /// The authority or the webhook cannot be read.
    #[error(transparent)]
    Authority(#[from] ca::Error),
    /// No webhook that this authority has, or not signed with its secret.
    #[error("the call is not signed by a webhook of this certificate authority")]
    Signature,
    /// The time in it is more than five minutes off.
    #[error("the time in the call is more than five minutes off")]
    Timestamp,
    /// Not of the form that is described.
    #[error("the body is not of the form that is described: {0}")]
    Malformed(&'static str),
    /// Larger than any call.
    #[error("the body is larger than 256 KiB")]
    TooLarge,
}

/// The result of a function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The stable word for the answer, the event and the metric.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(_) | Self::Policy(_) | Self::Attestation(_) | Self::Authority(_) => "server_fault",
            Self::Signature => "signature_wrong",
            Self::Timestamp => "timestamp_outside_window",
            Self::Malformed(_) => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Policy(e) => e.is_busy(),
            Self::Authority(e) => e.is_busy(),
            Self::Attestation(e) => e.is_busy(),
            Self::Signature | Self::Timestamp | Self::Malformed(_) | Self::TooLarge => false,
        }
    }
}
