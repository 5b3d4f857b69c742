//! What can go wrong on the way into management.

use mdm_core::crypto::cms_sign::SignError;
use mdm_core::enrollment::Door;
use policy::reason::ReasonCode;
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
    /// The facts of a device could not be read.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// A caller asked for a profile without saying what it needs.
    #[error("{0}")]
    Visitor(&'static str),
    /// The door is closed: `enabled` is false.
    #[error("the door {0} is closed (enabled is false)")]
    DoorClosed(Door),
    /// The device cannot have the identity that the door asks for, and the door refuses it (`identity.otherwise = refuse`).
    #[error("the device cannot have the identity that the door {0} asks for: {code}", code = .1.as_str())]
    IdentityRefused(Door, ReasonCode),
    /// The server is a pilot, and as many devices are enrolled as a pilot may have.
    #[error("this server is a pilot (trust.pilot), and {0} devices are enrolled already: more are not let in")]
    PilotFull(i64),
    /// The server is a pilot: account-driven enrollment would send people's passwords where nobody vouches for the server.
    #[error("this server is a pilot (trust.pilot): account-driven enrollment needs a certificate from a CA")]
    PilotAccount,
    /// No usable push certificate is stored, so an enrolled device could never be woken.
    #[error("no push certificate is stored, so no device can enroll yet: upload one first")]
    NoPushCertificate,
    /// An `Authenticate` that its certificate does not entitle to (TH-02).
    #[error(transparent)]
    Refused(#[from] issuer::admission::Refusal),
    /// The token that the enrollment profile was fetched with is no longer good, or is another enrollment's.
    #[error("the account token of this enrollment was revoked")]
    AccountToken,
    /// An `Authenticate` with another push topic than its enrollment has (TH-14).
    #[error("the push topic is not the one of the enrollment")]
    Topic,
}

impl Error {
    /// Why a device is refused, as a stable word; `None` where we failed.
    pub fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Topic => Some("other_topic"),
            Self::AccountToken => Some("account_token_revoked"),
            Self::DoorClosed(_) => Some("door_closed"),
            Self::IdentityRefused(_, reason) => Some(reason.as_str()),
            Self::PilotFull(_) => Some("pilot_full"),
            Self::PilotAccount => Some("pilot_account"),
            _ => None,
        }
    }
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            // Two first Authenticates of one device at a time: the second finds the row when it runs again.
            Self::Store(e) => e.is_busy() || matches!(e, store::Error::Duplicate(_)),
            Self::Commands(e) => e.is_busy(),
            Self::Issuer(e) => e.is_busy(),
            Self::Policy(e) => e.is_busy(),
            _ => false,
        }
    }
}
