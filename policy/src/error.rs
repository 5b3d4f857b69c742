//! What can go wrong with policies.

use mdm_core::crypto::cms_sign::SignError;
use mdm_core::ids::{Label, PolicyId};
use store::Busy;

use crate::acme::InvalidPolicy;

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
    /// An attestation could not be asked for or judged.
    #[error(transparent)]
    Attestation(#[from] attestation::Error),
    /// There is no such policy, or it was deleted.
    #[error("there is no ACME policy {0}")]
    NoPolicy(PolicyId),
    /// Another policy has this name.
    #[error("another ACME policy is named {0}")]
    NameTaken(String),
    /// A policy names a certificate authority that does not exist.
    #[error("there is no certificate authority {0}")]
    NoAuthority(String),
    /// The policy cannot be what it says, with what else is stored.
    #[error(transparent)]
    Invalid(InvalidPolicy),
    /// The label has a rule, and is never put on or taken off by hand.
    #[error("the label {0} follows from its rule; it is not put on or taken off by hand")]
    RuledLabel(Label),
    /// The policy installs more than certificates, and its author may not send commands.
    #[error(
        "raw companions, signing_identity or removal.disallowed of the ACME policy {0} are new or changed: that needs a token with the \
         scope commands:write as well"
    )]
    NeedsCommands(String),
    /// Every kind of device would be refused.
    #[error("no device could honour the policy. {0}")]
    NobodyCould(String),
    /// A policy names a signing identity that the configuration does not have.
    #[error("there is no signing identity {0} in the server's configuration")]
    NoSigningIdentity(String),
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
            Self::Attestation(e) => e.is_busy(),
            Self::NoPolicy(_)
            | Self::NameTaken(_)
            | Self::NoAuthority(_)
            | Self::Invalid(_)
            | Self::RuledLabel(_)
            | Self::NeedsCommands(_)
            | Self::NobodyCould(_)
            | Self::NoSigningIdentity(_)
            | Self::Sign(_) => false,
        }
    }
}

impl Error {
    /// Whether a person must do something about it.
    pub fn needs_human(&self) -> bool {
        matches!(
            self,
            Self::NoAuthority(_) | Self::NoSigningIdentity(_) | Self::Sign(_) | Self::Store(store::Error::Corrupt(_))
        )
    }
}

pub(crate) fn corrupt(what: &'static str) -> Error {
    Error::Store(store::Error::Corrupt(what))
}
