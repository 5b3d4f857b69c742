//! Apple's Managed Device Attestation: what a chain of certificates proves of a device, and what of a key.
//!
//! The same verifier reads the answer to `DevicePropertiesAttestation` and the attestation object of ACME's `device-attest-01`. The
//! order of the checks is fixed, and the first that fails ends it: limits and form, the path to the pinned root, freshness,
//! identity, key. Nothing is believed that Apple did not sign, and what Apple left out or left blank is no match (TH-41).
//!
//! Sources: `DeviceInformation`, `DevicePropertiesAttestation`; `com.apple.security.acme`, `Attest`;
//! draft-ietf-acme-device-attest, section 5.

mod leaf;
mod object;

use std::ops::RangeInclusive;

use der::Decode;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use x509_cert::ext::pkix::BasicConstraints;

pub use self::leaf::Value;
pub use self::object::read_object;
use super::key::{Hash, KeyKind, SignatureAlgorithm};
use super::trust::{Purpose, Trust, TrustError};
use crate::certificate::Certificate;
use crate::enrollment::text_enum;
use crate::hardware::Platform;
use crate::ids::Fingerprint;
use crate::time::Timestamp;

/// Certificates of a chain: the leaf, Apple's issuing authority, and room for what else a chain may bring.
pub(super) const CHAIN: RangeInclusive<usize> = 2..=5;
/// Bytes of one certificate, at most.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// Apple Enterprise Attestation Root CA.
const APPLE_ROOT_PEM: &str = include_str!("../../data/apple/apple-enterprise-attestation-root-ca.pem");
/// SHA-256 of its DER: the file is believed only while it is this one (TH-36).
const APPLE_ROOT_SHA256: [u8; 32] = [
    0xcc, 0xf5, 0x9e, 0xf8, 0xfc, 0xb3, 0x01, 0x7d, 0x97, 0xf8, 0xb5, 0xfa, 0x6f, 0xa9, 0x0e, 0x7a, 0x3f, 0x92, 0x83,
    0xf7, 0x6b, 0x55, 0xac, 0x6c, 0xf6, 0xed, 0xa8, 0xb8, 0xb9, 0x49, 0xf0, 0x5b,
];

/// Why an attestation proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// More bytes than an attestation has (TH-47).
    #[error("the attestation is larger than 64 KiB")]
    TooLarge,
    /// Not the CBOR of an attestation object (TH-47).
    #[error("this is not an attestation object in CBOR")]
    Malformed,
    /// A format other than Apple's.
    #[error("the attestation object has another format than apple")]
    Format,
    /// The device had no attestation to give.
    #[error("the attestation object holds no attestation")]
    NoStatement,
    /// Not two to five certificates (TH-47).
    #[error("an attestation has 2 to 5 certificates")]
    ChainLength,
    /// One of them cannot be read.
    #[error("a certificate of the attestation cannot be read")]
    Certificate,
    /// A signature or an authority's key that is not ECDSA on P-384 with SHA-384, or a key too weak.
    #[error("the attestation is not signed as Apple signs: ECDSA on P-384 with SHA-384")]
    Algorithm,
    /// No path to Apple's root (TH-36).
    #[error("the attestation does not lead to the Apple Enterprise Attestation Root CA")]
    Untrusted,
    /// A certificate of the path has ended.
    #[error("a certificate of the attestation has expired")]
    Expired,
    /// A certificate of the path has not begun.
    #[error("a certificate of the attestation is not valid yet")]
    NotYetValid,
    /// The leaf is an authority's certificate.
    #[error("the first certificate of the attestation is an authority's")]
    LeafIsAuthority,
    /// A critical extension that nobody knows, or one extension twice.
    #[error("a certificate of the attestation has an extension twice, or a critical one that is not understood")]
    Extension,
    /// A value of the leaf is neither printable text nor blank.
    #[error("the attestation's value {name} cannot be read", name = .0.as_str())]
    Value(Value),
    /// No freshness code (TH-37).
    #[error("the attestation has no freshness code")]
    FreshnessMissing,
    /// Another freshness code than that of this challenge (TH-37).
    #[error("the attestation's freshness code is not that of this challenge")]
    FreshnessMismatch,
    /// The nonce of another enrollment (TH-39).
    #[error("the attestation's freshness code was sent to another enrollment")]
    FreshnessForeign,
    /// Neither serial number nor UDID, or nothing to compare them with (TH-41).
    #[error("the attestation names no device that could be compared")]
    IdentityMissing,
    /// Another serial number (TH-39).
    #[error("the attested serial number is not that of this device")]
    SerialMismatch,
    /// Another UDID; on a Mac, another ProvisioningUDID (TH-39, TH-40).
    #[error("the attested UDID is not that of this device")]
    UdidMismatch,
    /// The attested key is not the one of the certification request (TH-42).
    #[error("the attested key is not the key of the certification request")]
    KeyMismatch,
}

impl AttestationError {
    /// The stable word that stands for it in rows, events and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Format => "unknown_format",
            Self::NoStatement => "no_statement",
            Self::ChainLength => "chain_length",
            Self::Certificate => "certificate_unreadable",
            Self::Algorithm => "algorithm",
            Self::Untrusted => "untrusted_root",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::LeafIsAuthority => "leaf_is_authority",
            Self::Extension => "extension",
            Self::Value(_) => "value_unreadable",
            Self::FreshnessMissing => "freshness_missing",
            Self::FreshnessMismatch => "freshness_mismatch",
            Self::FreshnessForeign => "freshness_foreign",
            Self::IdentityMissing => "identity_missing",
            Self::SerialMismatch => "serial_mismatch",
            Self::UdidMismatch => "udid_mismatch",
            Self::KeyMismatch => "key_mismatch",
        }
    }

    /// Whether it says that this is another device, rather than that the statement is no good.
    pub fn is_mismatch(self) -> bool {
        matches!(self, Self::FreshnessForeign | Self::SerialMismatch | Self::UdidMismatch | Self::KeyMismatch)
    }
}

impl From<TrustError> for AttestationError {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Unknown | TrustError::WrongUse => Self::Untrusted,
            TrustError::Expired => Self::Expired,
            TrustError::NotYetValid => Self::NotYetValid,
            TrustError::IsAuthority => Self::LeafIsAuthority,
            TrustError::Weak => Self::Algorithm,
            TrustError::Unreadable => Self::Extension,
        }
    }
}

/// The roots that attestations must lead to: Apple's, and in rehearsals those of a pretend Apple.
#[derive(Debug, Clone)]
pub struct Roots {
    trust: Trust,
}

impl Roots {
    /// Apple's root alone.
    ///
    /// # Panics
    /// Never: that the file is the pinned certificate is tested.
    pub fn apple() -> Self {
        Self::with_test_roots(&[]).expect("the pinned root is a CA with a P-384 key")
    }

    /// Apple's root and these. For rehearsals on loopback only: who holds such a root's key can attest anything (TH-36).
    ///
    /// # Errors
    /// [`TrustError::WrongUse`] for a certificate that is no CA, [`TrustError::Weak`] for a weak key.
    pub fn with_test_roots(test_roots: &[Certificate]) -> Result<Self, TrustError> {
        let mut roots = vec![apple_root().ok_or(TrustError::Unreadable)?];
        roots.extend_from_slice(test_roots);
        Ok(Self { trust: Trust::new(roots)? })
    }
}

/// The root in the file, if it is the one that is pinned.
fn apple_root() -> Option<Certificate> {
    Certificate::from_pem(APPLE_ROOT_PEM).ok().filter(|root| root.fingerprint() == Fingerprint(APPLE_ROOT_SHA256))
}

/// `SecureBootStatus` of a Mac with Apple silicon: what its LocalPolicy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBoot {
    /// `Full Security`.
    Full,
    /// `Reduced Security`.
    Reduced,
    /// `Permissive Security`.
    Permissive,
}

text_enum!(SecureBoot { Full = "full", Reduced = "reduced", Permissive = "permissive" });

impl SecureBoot {
    fn from_apple(text: &str) -> Option<Self> {
        match text {
            "Full Security" => Some(Self::Full),
            "Reduced Security" => Some(Self::Reduced),
            "Permissive Security" => Some(Self::Permissive),
            _ => None,
        }
    }
}

/// What Apple has signed of a device, and the key that it was signed for. What was left out or blank is `None`.
#[derive(Clone, PartialEq, Eq)]
pub struct Attested {
    /// 8.9.1, serial number.
    pub serial_number: Option<String>,
    /// 8.9.2, UDID; on a Mac its ProvisioningUDID.
    pub udid: Option<String>,
    /// 8.9.4, software update device ID, such as `iPhone15,2` or `J413AP`.
    pub software_update_device_id: Option<String>,
    /// 8.10.1, version of the operating system.
    pub os_version: Option<String>,
    /// 8.10.2, version of sepOS.
    pub sep_os_version: Option<String>,
    /// 8.10.3, version of the low-level boot loader.
    pub llb_version: Option<String>,
    /// 8.11.1, freshness code.
    pub freshness: Option<Vec<u8>>,
    /// 8.13.1, System Integrity Protection; Macs only.
    pub sip_enabled: Option<bool>,
    /// 8.13.2; Macs only.
    pub secure_boot: Option<SecureBoot>,
    /// 8.13.3, whether any third-party kernel extensions are allowed; Macs only.
    pub third_party_kexts: Option<bool>,
    /// `SubjectPublicKeyInfo` of the leaf, DER.
    pub key_spki: Vec<u8>,
}

/// Without serial number and UDID: an attestation is kept out of the log (TH-49).
impl std::fmt::Debug for Attested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attested")
            .field("software_update_device_id", &self.software_update_device_id)
            .field("os_version", &self.os_version)
            .field("sip_enabled", &self.sip_enabled)
            .field("secure_boot", &self.secure_boot)
            .field("third_party_kexts", &self.third_party_kexts)
            .finish_non_exhaustive()
    }
}

/// The device that an attestation should be of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device<'a> {
    /// Its operating system, where that is known: on a Mac the attested UDID is the ProvisioningUDID (TH-40).
    pub platform: Option<Platform>,
    /// It is in User Enrollment: Apple attests no serial number and no UDID then.
    pub user_enrollment: bool,
    /// `SerialNumber`.
    pub serial_number: Option<&'a str>,
    /// `UDID` of its enrollment.
    pub udid: Option<&'a str>,
    /// `ProvisioningUDID`.
    pub provisioning_udid: Option<&'a str>,
}

/// Whether an attestation names the device that it should be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// All that it names is this device's, and it names something.
    Matches,
    /// A genuine Apple device, and not said which.
    NotAttested,
}

impl Attested {
    /// Compares serial number and UDID, whichever are there, octet for octet.
    ///
    /// # Errors
    /// [`AttestationError::SerialMismatch`] and [`AttestationError::UdidMismatch`].
    pub fn identity(&self, device: &Device<'_>) -> Result<Identity, AttestationError> {
        if device.user_enrollment {
            return Ok(Identity::NotAttested);
        }
        let udid = match device.platform {
            Some(Platform::Macos) => device.provisioning_udid,
            Some(_) => device.udid,
            None => device.provisioning_udid.or(device.udid),
        };
        let pairs = [
            (&self.serial_number, device.serial_number, AttestationError::SerialMismatch),
            (&self.udid, udid, AttestationError::UdidMismatch),
        ];
        let mut identity = Identity::NotAttested;
        for (attested, expected, mismatch) in pairs {
            match (attested, expected.filter(|text| !text.is_empty())) {
                (Some(attested), Some(expected)) if attested == expected => identity = Identity::Matches,
                (Some(_), Some(_)) => return Err(mismatch),
                (Some(_) | None, None) | (None, Some(_)) => {}
            }
        }
        Ok(identity)
    }

    /// Whether its freshness code is this one.
    pub fn is_fresh_for(&self, code: &[u8]) -> bool {
        self.freshness.as_deref().is_some_and(|freshness| bool::from(freshness.ct_eq(code)))
    }

    /// Whether its key is this one (`SubjectPublicKeyInfo`, DER), octet for octet (TH-42).
    pub fn is_of_key(&self, spki: &[u8]) -> bool {
        self.key_spki == spki
    }
}

/// Verifies a chain (DER, the leaf first) up to one of the roots and reads the leaf: steps 1 and 2 of the order. Freshness and
/// identity are for the caller, who knows what was asked of whom.
///
/// # Errors
/// Those of [`AttestationError`] up to and with [`AttestationError::Value`].
pub fn verify_chain(chain: &[Vec<u8>], roots: &Roots, now: Timestamp) -> Result<Attested, AttestationError> {
    if !CHAIN.contains(&chain.len()) {
        return Err(AttestationError::ChainLength);
    }
    if chain.iter().any(|der| der.len() > MAX_CERTIFICATE) {
        return Err(AttestationError::TooLarge);
    }
    let certificates = chain
        .iter()
        .map(|der| Certificate::from_der(der).map_err(|_| AttestationError::Certificate))
        .collect::<Result<Vec<_>, _>>()?;
    let (leaf, above) = certificates.split_first().ok_or(AttestationError::ChainLength)?;
    if says_ca(leaf)? {
        return Err(AttestationError::LeafIsAuthority);
    }
    if !certificates.iter().all(is_signed_as_apple_signs) || !above.iter().all(has_p384_key) {
        return Err(AttestationError::Algorithm);
    }
    roots.trust.verify(leaf, above, now, Purpose::Signature)?;
    leaf::read(leaf)
}

/// Verifies an attestation object of ACME's `device-attest-01`: steps 1 to 5 of the order. `token` is that of the challenge,
/// `csr_spki` the `SubjectPublicKeyInfo` of the certification request. Whether the ClientIdentifier is still good, and whether the
/// key was seen elsewhere, the caller's rows say.
///
/// # Errors
/// Any of [`AttestationError`], the first that applies. Outside User Enrollment a device that is not named is
/// [`AttestationError::IdentityMissing`].
pub fn verify_object(
    object: &[u8],
    token: &str,
    device: &Device<'_>,
    csr_spki: &[u8],
    roots: &Roots,
    now: Timestamp,
) -> Result<(Attested, Identity), AttestationError> {
    let attested = verify_chain(&read_object(object)?, roots, now)?;
    if attested.freshness.is_none() {
        return Err(AttestationError::FreshnessMissing);
    }
    if !attested.is_fresh_for(&Hash::Sha256.digest(token.as_bytes())) {
        return Err(AttestationError::FreshnessMismatch);
    }
    let identity = attested.identity(device)?;
    if identity == Identity::NotAttested && !device.user_enrollment {
        return Err(AttestationError::IdentityMissing);
    }
    if !attested.is_of_key(csr_spki) {
        return Err(AttestationError::KeyMismatch);
    }
    Ok((attested, identity))
}

/// Whether basic constraints say CA, whatever the key usage says beside them.
fn says_ca(certificate: &Certificate) -> Result<bool, AttestationError> {
    certificate
        .extension("2.5.29.19")
        .map_or(Ok(false), |value| BasicConstraints::from_der(value).map(|basic| basic.ca))
        .map_err(|_| AttestationError::Certificate)
}

fn is_signed_as_apple_signs(certificate: &Certificate) -> bool {
    matches!(certificate.signature(), Some((SignatureAlgorithm::Ecdsa(Hash::Sha384), _)))
}

fn has_p384_key(authority: &Certificate) -> bool {
    authority.public_key().is_ok_and(|key| key.kind() == KeyKind::P384)
}

#[cfg(test)]
mod tests;
