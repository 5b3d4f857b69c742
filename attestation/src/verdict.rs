//! A verdict on an attestation: whether it is believed, whose it is, how fresh it is, and what it says.

use mdm_core::crypto::attestation::{self as verifier, AttestationError, Attested, SecureBoot};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Where an attestation came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `DeviceInformation`, `DevicePropertiesAttestation`.
    DeviceInformation,
    /// The attestation object of ACME's `device-attest-01`.
    Acme,
}

impl Source {
    /// The word in its row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceInformation => "device_information",
            Self::Acme => "acme",
        }
    }
}

/// Whether an attestation is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Apple signed it.
    Accepted,
    /// The device was asked and gave none: Apple's servers were not reached or would not attest it, or the `AccessRights` of its
    /// enrollment profile lack device information.
    Absent,
    /// It proves nothing.
    Refused(AttestationError),
}

impl Verdict {
    /// The stable word in rows, events and facts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Absent => "absent",
            Self::Refused(error) => error.as_str(),
        }
    }
}

/// Whose an attestation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// This device's.
    Matches,
    /// A genuine Apple device's; in User Enrollment Apple does not say which.
    NotAttested,
    /// Another device's.
    Mismatch,
    /// It is not believed, so that nobody can say.
    Unknown,
}

impl Identity {
    /// The word in its row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::NotAttested => "not_attested",
            Self::Mismatch => "mismatch",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the word of a row.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Matches, Self::NotAttested, Self::Mismatch, Self::Unknown].into_iter().find(|i| i.as_str() == text)
    }
}

impl From<verifier::Identity> for Identity {
    fn from(identity: verifier::Identity) -> Self {
        match identity {
            verifier::Identity::Matches => Self::Matches,
            verifier::Identity::NotAttested => Self::NotAttested,
        }
    }
}

/// What was attested, as it is kept with the verdict: without serial number and UDID (TH-49). The JSON of `attestation.body`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Values {
    /// Whether a serial number was attested.
    #[serde(default)]
    pub serial_number_attested: bool,
    /// Whether a UDID was attested; on a Mac that is its ProvisioningUDID.
    #[serde(default)]
    pub udid_attested: bool,
    /// The model: software update device ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_update_device_id: Option<String>,
    /// Version of the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Version of sepOS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sep_os_version: Option<String>,
    /// Version of the low-level boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llb_version: Option<String>,
    /// System Integrity Protection; Macs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip_enabled: Option<bool>,
    /// Secure boot: `full`, `reduced` or `permissive`; Macs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub secure_boot: Option<SecureBoot>,
    /// Whether any third-party kernel extensions are allowed; Macs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub third_party_kexts: Option<bool>,
}

impl From<&Attested> for Values {
    fn from(attested: &Attested) -> Self {
        Self {
            serial_number_attested: attested.serial_number.is_some(),
            udid_attested: attested.udid.is_some(),
            software_update_device_id: attested.software_update_device_id.clone(),
            os_version: attested.os_version.clone(),
            sep_os_version: attested.sep_os_version.clone(),
            llb_version: attested.llb_version.clone(),
            sip_enabled: attested.sip_enabled,
            secure_boot: attested.secure_boot,
            third_party_kexts: attested.third_party_kexts,
        }
    }
}

/// A verdict with all that it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Whether it is believed.
    pub verdict: Verdict,
    /// Whose it is.
    pub identity: Identity,
    /// When the nonce that it carries was sent; `None`: unknown, as where the device answered with one that it had (TH-38).
    pub fresh_as_of: Option<Timestamp>,
    /// What Apple signed, where the verdict is [`Verdict::Accepted`].
    pub attested: Option<Attested>,
}

impl Judged {
    pub(crate) fn refused(error: AttestationError) -> Self {
        let identity = if error.is_mismatch() { Identity::Mismatch } else { Identity::Unknown };
        Self { verdict: Verdict::Refused(error), identity, fresh_as_of: None, attested: None }
    }

    pub(crate) fn absent() -> Self {
        Self { verdict: Verdict::Absent, identity: Identity::Unknown, fresh_as_of: None, attested: None }
    }

    /// The values as they are kept.
    pub fn values(&self) -> Values {
        self.attested.as_ref().map(Values::from).unwrap_or_default()
    }
}
