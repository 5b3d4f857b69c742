//! Certificate authorities that policies name, and what each is known to refuse.
//!
//! A generic authority speaks RFC 8555 with `device-attest-01`; step-ca has rules of its own. What an authority would refuse is known
//! before anything is sent: the linter, the dry run and the gate all ask [`Authority::refuses`].

use mdm_core::enrollment::EnrollmentKind;
use mdm_core::hardware::Platform;
use mdm_core::ids::Fingerprint;

/// Which rules an authority has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    /// RFC 8555 with `device-attest-01`, and what the operator says of it.
    Generic,
    /// step-ca's ACME provisioner with `device-attest-01`.
    StepCa,
}

/// An authority, as a policy uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its name; none where the policy gives a bare `DirectoryURL`.
    pub name: Option<String>,
    /// Its row; none where the policy gives a bare `DirectoryURL`.
    pub id: Option<uuid::Uuid>,
    /// Its rules.
    pub adapter: Adapter,
    /// `DirectoryURL`.
    pub directory_url: String,
    /// It issues to devices that give no attestation (Q1). False by default.
    pub accepts_unattested: bool,
    /// DER of the certificates that may sign what it issues; a certificate by another issuer proves nothing. Empty: unknown.
    pub issuers: Vec<Vec<u8>>,
}

/// What a device would ask for.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// `ClientIdentifier`.
    pub client_identifier: &'a str,
    /// Common names in `Subject`.
    pub common_names: &'a [&'a str],
    /// `Attest` is true.
    pub attested: bool,
    /// How the device was enrolled.
    pub kind: EnrollmentKind,
    /// Its operating system.
    pub platform: Option<Platform>,
    /// `SerialNumber`.
    pub serial_number: Option<&'a str>,
    /// `UDID`.
    pub udid: Option<&'a str>,
    /// `ProvisioningUDID`: what an attestation of a Mac calls its UDID.
    pub provisioning_udid: Option<&'a str>,
}

/// Why an authority would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It takes only devices that are attested.
    Unattested,
    /// The identifier must be the attested serial number or UDID.
    IdentifierNotAttested,
    /// On a Mac the attested UDID is the `ProvisioningUDID`.
    MacUdid,
    /// In User Enrollment an attestation names no device.
    UserEnrollment,
    /// The common name must be empty or the identifier.
    CommonName,
}

impl Authority {
    /// An authority of which only its address is known.
    pub fn bare(directory_url: &str, accepts_unattested: bool, issuers: Vec<Vec<u8>>) -> Self {
        Self {
            name: None,
            id: None,
            adapter: Adapter::Generic,
            directory_url: directory_url.to_owned(),
            accepts_unattested,
            issuers,
        }
    }

    /// Why it would refuse this device; none where nothing is known against it.
    pub fn refuses(&self, asking: &Asking<'_>) -> Option<Refusal> {
        (!asking.attested && !self.accepts_unattested).then_some(Refusal::Unattested)
    }

    /// The fingerprints of its issuers.
    pub fn issuer_fingerprints(&self) -> Vec<Fingerprint> {
        self.issuers.iter().map(|der| Fingerprint::of(der)).collect()
    }
}
