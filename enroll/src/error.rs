//! What can go wrong on the way into management.

use mdm_core::crypto::cms_sign::SignError;
use mdm_core::crypto::machine_info::MachineInfoError;
use mdm_core::enrollment::{Door, InvalidTransition};
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
    /// The list of Apple's devices could not be read.
    #[error(transparent)]
    Ade(#[from] ade::Error),
    /// A sign-in could not begin or end.
    #[error(transparent)]
    SignIn(#[from] signin::Error),
    /// A device's MachineInfo is not to be believed (TH-52).
    #[error(transparent)]
    MachineInfo(#[from] MachineInfoError),
    /// A MachineInfo that was signed too long ago, or in the future.
    #[error("the MachineInfo was signed too far from now, by its own time")]
    Stale,
    /// A MachineInfo without `SERIAL` or `UDID`.
    #[error("the MachineInfo has no SERIAL or no UDID")]
    Unnamed,
    /// The web view came without a MachineInfo.
    #[error("the request has no x-apple-aspen-deviceinfo header that can be read")]
    NoDeviceInfo,
    /// No server of Apple Business or School Manager lists the serial number.
    #[error("no server of Apple Business Manager or Apple School Manager lists this serial number")]
    NotListed,
    /// No operator has approved the serial number (TH-50).
    #[error("no operator has approved this serial number (require is approval)")]
    NotApproved,
    /// The device asks for its profile without the sign-in that the door wants.
    #[error("a person must sign in: the device's profile at Apple needs configuration_web_url")]
    SignInNeeded,
    /// Nobody signed in, or for something else (TH-54).
    #[error("nobody signed in for this, or the sign-in is over")]
    NotSignedIn,
    /// The serial number had its profiles for this hour (TH-52).
    #[error("this serial number was given as many profiles as it may have in an hour")]
    TooOften,
    /// The system is too old, and the device can't be told to update.
    #[error("the system is older than minimum_os, and the device can't be told to update")]
    TooOld,
    /// No usable push certificate is stored, so an enrolled device could never be woken.
    #[error("no push certificate is stored, so no device can enroll yet: upload one first")]
    NoPushCertificate,
    /// An `Authenticate` that its certificate does not entitle to (TH-02).
    #[error(transparent)]
    Refused(#[from] issuer::admission::Refusal),
    /// The token that the enrollment profile was fetched with is no longer good, or is another enrollment's.
    #[error("the account token of this enrollment was revoked")]
    AccountToken,
    /// What happened does not fit the enrollment's state (TH-13).
    #[error(transparent)]
    State(#[from] InvalidTransition),
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
            Self::MachineInfo(error) => Some(error.code()),
            Self::Stale => Some("machine_info_stale"),
            Self::Unnamed => Some("machine_info_unnamed"),
            Self::NoDeviceInfo => Some("machine_info_missing"),
            Self::NotListed => Some("serial_not_listed"),
            Self::NotApproved => Some("serial_not_approved"),
            Self::SignInNeeded => Some("sign_in_needed"),
            Self::NotSignedIn => Some("not_signed_in"),
            Self::TooOften => Some("too_often"),
            Self::TooOld => Some("system_too_old"),
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
            Self::Ade(e) => e.is_busy(),
            Self::SignIn(e) => e.is_busy(),
            _ => false,
        }
    }
}
