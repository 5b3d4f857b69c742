//! Why a well-signed call is answered with no: stable codes, each with a sentence.

use serde::{Deserialize, Serialize};

macro_rules! denials {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal: $sentence:literal;)+) => {
        /// Why a permission is not given. The text of a code is its name in snake case, and never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Denial {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $name),+
        }

        impl Denial {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// What it means.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),+ }
            }
        }
    };
}

denials! {
    /// TH-41.
    IdentifierMissing = "identifier_missing":
        "The call names no permanent identifier: the order did not pass device-attest-01.";
    /// TH-44.
    IdentifierMalformed = "identifier_malformed":
        "The permanent identifier is not one text with at most one assigner.";
    /// Nobody was told to ask with it, or its time is over.
    NoOpenAttempt = "no_open_attempt":
        "No device was sent this identifier, or its permission has ended.";
    /// It is another authority's to ask.
    OtherAuthority = "other_authority":
        "The device was sent to another certificate authority.";
    /// The enrollment is over, or never began.
    NotEnrolled = "not_enrolled":
        "The device is not enrolled.";
    /// The policy is gone, or something else was decided since.
    NotAssigned = "not_assigned":
        "The policy is not being installed on this device.";
    /// TH-39, TH-40.
    IdentifierNotTheDevices = "identifier_not_the_devices":
        "The permanent identifier is not one that Apple attests of this device.";
    /// TH-39: a permission is one device's.
    IdentifierOfSeveral = "identifier_of_several":
        "Several devices were sent this identifier, so that it is nobody's permission.";
    /// TH-43.
    IdentifierNoSecret = "identifier_no_secret":
        "Without an attestation only a one-time identifier is a permission, and others know this one.";
    /// Q1.
    NotAttested = "not_attested":
        "The certificate authority issues to attested devices only, and this one showed no attestation.";
    /// Section (d) of the threat model.
    AttestationRefused = "attestation_refused":
        "The attestation that was shown proves nothing of this device and this key.";
    /// Not what was delivered.
    NamesDiffer = "names_differ":
        "The certificate would have a name that was not delivered to this device.";
    /// Not what was asked for.
    KeyDiffers = "key_differs":
        "The key is not of the kind and the size that the policy asks for.";
    /// TH-42.
    KeyOfAnother = "key_of_another":
        "The key was used for another enrollment.";
    /// TH-43, TH-45.
    AlreadyUsed = "already_used":
        "The permission was used before: for another key, or by another call.";
    /// Of a report of what was issued.
    NotAllowed = "not_allowed":
        "No permission was given for the key of this certificate.";
    /// Of a report of what was issued.
    OtherCertificate = "other_certificate":
        "Another certificate was reported for this permission before.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_snake_case_and_read_back() {
        let codes: std::collections::BTreeSet<_> = Denial::ALL.iter().map(|denial| denial.as_str()).collect();
        assert_eq!(codes.len(), Denial::ALL.len());
        for denial in Denial::ALL {
            assert_eq!(serde_json::to_value(denial).unwrap(), denial.as_str());
            assert!(denial.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(denial.sentence().ends_with('.'));
        }
    }
}
