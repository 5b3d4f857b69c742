//! Enrollment: one MDM relationship on one channel, who speaks on it, and its states.
//!
//! Sources: Apple, "Check-in" (`Authenticate`, `TokenUpdate`, `CheckOut`); `com.apple.mdm` payload.

use serde::{Deserialize, Serialize};

use crate::ids::{AppleEnrollmentId, Udid, UserId, UserShortName};
use crate::time::Timestamp;

/// The channel a message or a command belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// The device itself.
    Device,
    /// A user of the device (macOS, Shared iPad); has a parent enrollment on the device channel.
    User,
}

/// By which kind of enrollment the relationship came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrollmentKind {
    /// Profile-based or account-driven device enrollment, identified by a UDID.
    Device,
    /// Automated Device Enrollment.
    Automated,
    /// Account-driven User Enrollment, identified by an EnrollmentID; no UDID, no serial number.
    User,
    /// A Shared iPad and its users.
    SharedIpad,
}

macro_rules! text_enum {
    ($name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $name {
            /// The text that stands for this value in the database, the API and the log.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads the text that [`Self::as_str`] gives.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use text_enum;

text_enum!(Channel { Device = "device", User = "user" });
text_enum!(EnrollmentKind { Device = "device", Automated = "automated", User = "user", SharedIpad = "shared_ipad" });

/// By which door a device came in. Each has settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// An enrollment link: profile-based device enrollment.
    Link,
    /// Automated Device Enrollment.
    Ade,
    /// Account-driven User Enrollment, `mdm-byod`.
    Byod,
    /// Account-driven device enrollment, `mdm-adde`.
    Adde,
    /// The enrollment was imported with its identity.
    Import,
}

text_enum!(Door { Link = "link", Ade = "ade", Byod = "byod", Adde = "adde", Import = "import" });

/// How a message names the device: exactly one of `UDID` and `EnrollmentID` (TH-03).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceKey {
    /// `UDID`: device enrollments.
    Udid(Udid),
    /// `EnrollmentID`: User Enrollment.
    EnrollmentId(AppleEnrollmentId),
}

/// How a message names a user of the device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserKey {
    /// `UserID` (macOS, device enrollment) or `EnrollmentUserID` (macOS, User Enrollment).
    UserId(UserId),
    /// `UserShortName` where `UserID` is [`crate::ids::SHARED_IPAD_USER_ID`].
    SharedIpad(UserShortName),
}

/// Who sent a message, as the body says; the certificate decides whether that is believed (TH-01).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The device.
    pub device: DeviceKey,
    /// The user, on a user channel.
    pub user: Option<UserKey>,
}

impl Sender {
    /// The channel that this sender speaks on.
    pub fn channel(&self) -> Channel {
        if self.user.is_some() { Channel::User } else { Channel::Device }
    }
}

/// Why an enrollment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnenrolledWhy {
    /// The device sent `CheckOut`.
    CheckOut,
    /// Another enrollment of the same device took its place.
    Replaced,
    /// An operator removed it.
    Removed,
}

text_enum!(UnenrolledWhy { CheckOut = "check_out", Replaced = "replaced", Removed = "removed" });

/// The state of an enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrollmentState {
    /// `Authenticate` was accepted; no push token yet, so nothing can be delivered.
    Authenticated {
        /// When.
        at: Timestamp,
    },
    /// `TokenUpdate` was accepted: commands flow.
    Enrolled {
        /// When the first `TokenUpdate` of this enrollment came.
        since: Timestamp,
    },
    /// It is over; only a new `Authenticate` with an identity issued for it begins again.
    Unenrolled {
        /// When.
        at: Timestamp,
        /// Why.
        why: UnenrolledWhy,
    },
}

/// What can happen to an enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrollmentEvent {
    /// An admitted `Authenticate` whose issuance record says enrollment.
    Authenticate,
    /// An admitted `Authenticate` whose issuance record says renewal of this enrollment (TH-10).
    Renew,
    /// `TokenUpdate`.
    TokenUpdate,
    /// `CheckOut`.
    CheckOut,
    /// The operator removed it.
    Remove,
    /// Another enrollment replaced it.
    Replace,
}

/// An event that does not fit the state; nothing changes (TH-13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} does not fit an enrollment that is {state}")]
pub struct InvalidTransition {
    /// The state as text.
    pub state: &'static str,
    /// The event.
    pub event: EnrollmentEvent,
}

impl EnrollmentState {
    /// `authenticated`, `enrolled` or `unenrolled`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Authenticated { .. } => "authenticated",
            Self::Enrolled { .. } => "enrolled",
            Self::Unenrolled { .. } => "unenrolled",
        }
    }

    /// The state after `event` at `now`.
    pub fn on(self, event: EnrollmentEvent, now: Timestamp) -> Result<Self, InvalidTransition> {
        use EnrollmentEvent as E;
        let refused = InvalidTransition { state: self.as_str(), event };
        match (self, event) {
            (_, E::Authenticate) => Ok(Self::Authenticated { at: now }),
            (Self::Unenrolled { .. }, E::Renew | E::TokenUpdate) => Err(refused),
            (Self::Authenticated { .. }, E::TokenUpdate) => Ok(Self::Enrolled { since: now }),
            // CheckOut may be repeated by a retrying device; the first one counts.
            (s @ (Self::Authenticated { .. } | Self::Enrolled { .. }), E::Renew)
            | (s @ Self::Enrolled { .. }, E::TokenUpdate)
            | (s @ Self::Unenrolled { .. }, E::CheckOut | E::Remove | E::Replace) => Ok(s),
            (_, E::CheckOut) => Ok(Self::Unenrolled { at: now, why: UnenrolledWhy::CheckOut }),
            (_, E::Remove) => Ok(Self::Unenrolled { at: now, why: UnenrolledWhy::Removed }),
            (_, E::Replace) => Ok(Self::Unenrolled { at: now, why: UnenrolledWhy::Replaced }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = EnrollmentEvent> {
        use EnrollmentEvent as E;
        prop::sample::select(vec![E::Authenticate, E::Renew, E::TokenUpdate, E::CheckOut, E::Remove, E::Replace])
    }

    proptest! {
        #[test]
        fn only_authenticate_leaves_unenrolled(events in prop::collection::vec(event(), 0..40)) {
            let mut state = EnrollmentState::Authenticated { at: Timestamp(0) };
            for (n, event) in events.into_iter().enumerate() {
                let was = state;
                match state.on(event, Timestamp(i64::try_from(n).unwrap())) {
                    Ok(next) => state = next,
                    Err(refused) => prop_assert_eq!(refused.state, was.as_str()),
                }
                if matches!(was, EnrollmentState::Unenrolled { .. }) && event != EnrollmentEvent::Authenticate {
                    prop_assert_eq!(state, was);
                }
            }
        }
    }

    #[test]
    fn a_token_update_without_authenticate_is_refused_after_check_out() {
        let gone = EnrollmentState::Unenrolled { at: Timestamp(1), why: UnenrolledWhy::CheckOut };
        assert!(gone.on(EnrollmentEvent::TokenUpdate, Timestamp(2)).is_err());
    }
}
