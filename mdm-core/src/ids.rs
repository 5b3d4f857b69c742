//! Newtypes for identifiers, so that one kind can never be used as another.
//!
//! Apple's identifiers (`UDID`, `EnrollmentID`, `UserID`) are checked for form when they are parsed and are
//! never used as our key: [`EnrollmentId`] is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An identifier that does not have the form its source prescribes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} has a form that is not accepted: {why}")]
pub struct InvalidId {
    /// Which identifier, in Apple's spelling.
    pub kind: &'static str,
    /// What would be right.
    pub why: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(s)
                    .map(Self)
                    .map_err(|_| InvalidId { kind: stringify!($name), why: "a UUID" })
            }
        }
    };
}

uuid_id! {
    /// Our own key of one enrollment (one MDM relationship on one channel), a UUIDv7.
    EnrollmentId
}
uuid_id! {
    /// Key of one issuance record: for whom, by which flow and until when an identity certificate may be issued.
    IssuanceId
}
uuid_id! {
    /// Key of one enrollment link.
    LinkId
}
uuid_id! {
    /// Key of one ACME policy.
    PolicyId
}
uuid_id! {
    /// Key of one assignment: one ACME policy on one enrollment.
    AssignmentId
}
uuid_id! {
    /// Key of one attempt to get one certificate onto one enrollment: the trace id.
    AttemptId
}
uuid_id! {
    /// Key of one certificate authority that policies name.
    AuthorityId
}
uuid_id! {
    /// Key of one API token.
    TokenId
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The identifier as it was sent.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The identifier as it was sent, owned.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                $check(s).map_err(|why| InvalidId { kind: $kind, why })?;
                Ok(Self(s.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(s: String) -> Result<Self, InvalidId> {
                s.parse()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// Apple's `UDID` of a device: a UUID (Mac), 40 hexadecimal digits (older iOS), or 8-16 digits (Apple silicon).
    Udid, "UDID", check_udid
}
text_id! {
    /// Apple's `EnrollmentID`, sent instead of a UDID in User Enrollment; new at each enrollment.
    AppleEnrollmentId, "EnrollmentID", check_udid
}
text_id! {
    /// `UserID` or `EnrollmentUserID` of a user channel: a UUID.
    UserId, "UserID", check_uuid
}
text_id! {
    /// `UserShortName`: the key of a Shared iPad user, where every `UserID` is all F. 1 to 255 bytes.
    UserShortName, "UserShortName", check_short_name
}
text_id! {
    /// `CommandUUID`: any string of 1 to 128 printable ASCII characters; ours are UUIDs.
    CommandUuid, "CommandUUID", check_command_uuid
}
text_id! {
    /// Name of an ACME policy: 1 to 64 of `a-z A-Z 0-9 . _ -`, starting with a letter or a digit.
    PolicyName, "policy name", check_name
}
text_id! {
    /// A label that groups enrollments: 1 to 64 of `a-z A-Z 0-9 . _ -`, starting with a letter or a digit.
    Label, "label", check_name
}

/// SHA-256 over the DER of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of these bytes (a certificate's DER).
    pub fn of(der: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The `UserID` that every Shared iPad user has; such a user is told apart by `UserShortName`.
pub const SHARED_IPAD_USER_ID: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";

fn hex_groups(s: &str, groups: &[usize]) -> bool {
    let parts: Vec<&str> = s.split('-').collect();
    parts.len() == groups.len()
        && parts.iter().zip(groups).all(|(part, len)| part.len() == *len && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn check_uuid(s: &str) -> Result<(), &'static str> {
    if hex_groups(s, &[8, 4, 4, 4, 12]) { Ok(()) } else { Err("a UUID") }
}

fn check_udid(s: &str) -> Result<(), &'static str> {
    if hex_groups(s, &[8, 4, 4, 4, 12]) || hex_groups(s, &[8, 16]) || hex_groups(s, &[40]) {
        Ok(())
    } else {
        Err("a UUID, 40 hexadecimal digits, or 8 and 16 hexadecimal digits joined by a hyphen")
    }
}

fn check_short_name(s: &str) -> Result<(), &'static str> {
    if !s.is_empty() && s.len() <= 255 && !s.chars().any(char::is_control) {
        Ok(())
    } else {
        Err("1 to 255 bytes without control characters")
    }
}

fn check_command_uuid(s: &str) -> Result<(), &'static str> {
    if !s.is_empty() && s.len() <= 128 && s.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("1 to 128 printable ASCII characters without spaces")
    }
}

fn check_name(s: &str) -> Result<(), &'static str> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match s.as_bytes() {
        [first, rest @ ..] if first.is_ascii_alphanumeric() && s.len() <= 64 && rest.iter().all(|b| ok(*b)) => Ok(()),
        _ => Err("1 to 64 letters, digits, '.', '_' or '-', starting with a letter or a digit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udid_takes_the_three_forms_of_apple_and_nothing_else() {
        for good in [
            "00008110-000A1B2C3D4E801E",
            "0123456789abcdef0123456789abcdef01234567",
            "564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60",
        ] {
            assert_eq!(good.parse::<Udid>().map(Udid::into_string), Ok(good.to_owned()));
        }
        for bad in ["", "V:U", "564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60:x", "../../etc", "zzzz"] {
            assert!(bad.parse::<Udid>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn names_refuse_what_could_be_a_path_or_markup() {
        for bad in ["", ".hidden", "a/b", "a b", "<b>", &"x".repeat(65)] {
            assert!(bad.parse::<PolicyName>().is_err(), "{bad} was accepted");
        }
        assert!("wifi-eap_1.0".parse::<PolicyName>().is_ok());
    }
}
