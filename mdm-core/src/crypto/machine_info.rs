//! `MachineInfo`: what a device says of itself when it asks for its enrollment profile, signed with the certificate that it was
//! built with.
//!
//! Sources: Apple, "MachineInfo" (`machineinfo.yaml`). Apple says that the chain validates against the Apple Root CA; in the field
//! the issuer is the Apple iPhone Device CA, with an RSA key of 1024 bits, SHA-1, and expired in 2014. So there are two ways to
//! be believed, and both are narrow (TH-16):
//!
//! - the leaf was signed by the key of a **pinned** device CA. For exactly this link SHA-1 and an RSA key of 1024 bits are
//!   accepted, and the CA's own validity is not looked at;
//! - or an ordinary chain, SHA-2 only, leads to the Apple Root CA, and the leaf's issuer is one of Apple's *device* CAs by its
//!   name: under the same root, Apple certifies developers too.
//!
//! All else of the message is held to the strict profile of [`super::cms_verify`].

use std::fmt;

use super::cms_verify::{CmsError, Rules, Sha1Rule, SignedBy, verify_attached_by_factory_key};
use super::factory_key::FactoryKey;
use super::key::{Hash, PublicKey, SignatureAlgorithm};
use super::trust::{Purpose, Trust, TrustError};
use crate::certificate::Certificate;
use crate::ids::{InvalidId, Udid};
use crate::plist::fields::{FieldError, Fields};
use crate::plist::{self, Limits, PlistError};
use crate::time::Timestamp;

const IPHONE_DEVICE_CA: &str = include_str!("../../data/apple/apple-iphone-device-ca.pem");
const APPLE_ROOT_CA: &str = include_str!("../../data/apple/apple-root-ca.pem");

/// The property list in the message: small, flat.
const LIMITS: Limits = Limits { bytes: 64 * 1024, depth: 8, nodes: 1000 };

/// Why a `MachineInfo` is not believed. For the log and the event: the device hears nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineInfoError {
    /// The signature, or the form of the message.
    #[error(transparent)]
    Cms(#[from] CmsError),
    /// No device CA that we know issued the signer's certificate.
    #[error("the signer's certificate is not one of an Apple device ({why}); its issuer is {issuer}")]
    Foreign {
        /// What was wrong with its chain.
        why: TrustError,
        /// The issuer's name.
        issuer: String,
    },
    /// SHA-1 where only the link to a pinned device CA may have it.
    #[error("the message is signed with SHA-1")]
    Sha1,
    /// Not a readable property list.
    #[error(transparent)]
    Plist(#[from] PlistError),
    /// A key is missing or wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// `UDID` has a form that is not accepted.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

impl MachineInfoError {
    /// A stable word for events and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cms(_) => "machine_info_signature",
            Self::Foreign { .. } => "machine_info_foreign",
            Self::Sha1 => "machine_info_sha1",
            Self::Plist(_) | Self::Field(_) | Self::Id(_) => "machine_info_content",
        }
    }
}

/// Whether a pinned CA's key is the usual kind or the one that only factory certificates have.
#[derive(Debug, Clone)]
enum PinnedKey {
    Usual(PublicKey),
    Factory(FactoryKey),
}

#[derive(Debug, Clone)]
struct Pinned {
    certificate: Certificate,
    key: PinnedKey,
}

impl Pinned {
    fn new(certificate: Certificate) -> Result<Self, TrustError> {
        if !certificate.is_ca() {
            return Err(TrustError::WrongUse);
        }
        let key = match certificate.public_key() {
            Ok(key) => PinnedKey::Usual(key),
            Err(_) => PinnedKey::Factory(certificate.factory_key().map_err(|_| TrustError::Weak)?),
        };
        Ok(Self { certificate, key })
    }

    fn signed(&self, leaf: &Certificate) -> bool {
        let Some((algorithm, signature)) = leaf.signature() else { return false };
        let (SignatureAlgorithm::Rsa(hash) | SignatureAlgorithm::Ecdsa(hash)) = algorithm else { return false };
        match &self.key {
            PinnedKey::Usual(key) => algorithm.suits(key.kind()) && key.verify(hash, leaf.tbs_der(), signature).is_ok(),
            PinnedKey::Factory(key) => {
                matches!(algorithm, SignatureAlgorithm::Rsa(Hash::Sha1 | Hash::Sha256))
                    && key.verify(hash, leaf.tbs_der(), signature).is_ok()
            }
        }
    }
}

/// Who certifies devices in the factory.
#[derive(Debug, Clone)]
pub struct DeviceAuthorities {
    pinned: Vec<Pinned>,
    roots: Trust,
    sha1_digest: bool,
}

impl DeviceAuthorities {
    /// Apple's, and `more` device CAs that the operator pins. `sha1_digest` also accepts SHA-1 as the digest of a message whose
    /// signer a pinned CA certified.
    ///
    /// # Errors
    /// [`TrustError::WrongUse`] for a certificate that is no CA, [`TrustError::Weak`] for RSA below 1024 bits or an unusual key.
    pub fn new(more: Vec<Certificate>, sha1_digest: bool) -> Result<Self, TrustError> {
        let read = |pem: &str| Certificate::from_pem(pem).map_err(|_| TrustError::Unreadable);
        let pinned = std::iter::once(read(IPHONE_DEVICE_CA)?).chain(more).map(Pinned::new).collect::<Result<_, _>>()?;
        Ok(Self { pinned, roots: Trust::new(vec![read(APPLE_ROOT_CA)?])?, sha1_digest })
    }

    /// The pinned device CAs.
    pub fn pinned(&self) -> impl Iterator<Item = &Certificate> {
        self.pinned.iter().map(|pinned| &pinned.certificate)
    }

    fn judge(&self, by: &SignedBy, now: Timestamp) -> Result<(), MachineInfoError> {
        let leaf = &by.certificate;
        let foreign = |why| Err(MachineInfoError::Foreign { why, issuer: leaf.issuer() });
        let pins = self.pinned.iter().filter(|pin| leaf.names_as_issuer(&pin.certificate));
        if pins.into_iter().any(|pin| pin.signed(leaf)) {
            if leaf.is_ca() {
                return foreign(TrustError::IsAuthority);
            }
            if !leaf.is_valid_at(now) {
                return foreign(TrustError::Expired);
            }
            return if by.sha1 && !self.sha1_digest { Err(MachineInfoError::Sha1) } else { Ok(()) };
        }
        if by.sha1 {
            return Err(MachineInfoError::Sha1);
        }
        if leaf.public_key().is_err() {
            return foreign(TrustError::Weak);
        }
        if !leaf.issuer_common_name().is_some_and(|name| name.starts_with("Apple ") && name.contains("Device CA")) {
            return foreign(TrustError::Unknown);
        }
        self.roots.verify(leaf, &by.others, now, Purpose::Signature).or_else(foreign)
    }
}

/// What a device says of itself. `Debug` shows the kind of device only.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineInfo {
    /// `UDID`; not sent in User Enrollment.
    pub udid: Option<Udid>,
    /// `SERIAL`; not sent in User Enrollment.
    pub serial: Option<String>,
    /// `PRODUCT`, such as `iPhone17,2`.
    pub product: String,
    /// `VERSION`: the build, such as `22B83`.
    pub version: String,
    /// `OS_VERSION` (iOS 17, macOS 14, tvOS 17, watchOS 10).
    pub os_version: Option<String>,
    /// `SUPPLEMENTAL_BUILD_VERSION`.
    pub supplemental_build_version: Option<String>,
    /// `SUPPLEMENTAL_OS_VERSION_EXTRA`.
    pub supplemental_os_version_extra: Option<String>,
    /// `IMEI`.
    pub imei: Option<String>,
    /// `MEID`.
    pub meid: Option<String>,
    /// `LANGUAGE`, such as `en-US`.
    pub language: Option<String>,
    /// `MDM_CAN_REQUEST_SOFTWARE_UPDATE`: the answer `com.apple.softwareupdate.required` is understood.
    pub can_request_software_update: bool,
    /// `MDM_CAN_REQUEST_PSSO_CONFIG` (macOS 26).
    pub can_request_psso_config: bool,
    /// `SOFTWARE_UPDATE_DEVICE_ID` (iOS 17.4, macOS 14.4).
    pub software_update_device_id: Option<String>,
    /// When it was signed, by the device's clock, where the signature says so.
    pub signed_at: Option<Timestamp>,
}

impl fmt::Debug for MachineInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineInfo")
            .field("product", &self.product)
            .field("os_version", &self.os_version)
            .finish_non_exhaustive()
    }
}

/// Checks a message of at most 64 KiB and reads it.
///
/// # Errors
/// [`MachineInfoError`]; nothing of what the message says is to be believed then.
pub fn verify(cms: &[u8], authorities: &DeviceAuthorities, now: Timestamp) -> Result<MachineInfo, MachineInfoError> {
    let (by, content) = verify_attached_by_factory_key(cms, Rules { sha1: Sha1Rule::Accept })?;
    authorities.judge(&by, now)?;
    read(&content, by.signing_time)
}

/// Checks only that the message is signed by whoever it says, and reads it: for a sign-in that is itself the proof
/// (account-driven enrollment with `device_signature = any`). What the device says of itself is not proven.
///
/// # Errors
/// [`MachineInfoError`].
pub fn verify_signature_only(cms: &[u8]) -> Result<MachineInfo, MachineInfoError> {
    let (by, content) = verify_attached_by_factory_key(cms, Rules { sha1: Sha1Rule::Refuse })?;
    read(&content, by.signing_time)
}

fn read(content: &[u8], signed_at: Option<Timestamp>) -> Result<MachineInfo, MachineInfoError> {
    let mut fields = Fields::new(plist::decode_dictionary(content, LIMITS)?);
    let udid = fields.string("UDID")?;
    Ok(MachineInfo {
        udid: udid.map(|udid| udid.parse()).transpose()?,
        serial: short(&mut fields, "SERIAL")?.filter(|serial| serial.bytes().all(|b| b.is_ascii_alphanumeric())),
        product: short(&mut fields, "PRODUCT")?.ok_or(FieldError::Missing("PRODUCT"))?,
        version: short(&mut fields, "VERSION")?.ok_or(FieldError::Missing("VERSION"))?,
        os_version: short(&mut fields, "OS_VERSION")?,
        supplemental_build_version: short(&mut fields, "SUPPLEMENTAL_BUILD_VERSION")?,
        supplemental_os_version_extra: short(&mut fields, "SUPPLEMENTAL_OS_VERSION_EXTRA")?,
        imei: short(&mut fields, "IMEI")?,
        meid: short(&mut fields, "MEID")?,
        language: short(&mut fields, "LANGUAGE")?,
        can_request_software_update: fields.boolean("MDM_CAN_REQUEST_SOFTWARE_UPDATE")?.unwrap_or(false),
        can_request_psso_config: fields.boolean("MDM_CAN_REQUEST_PSSO_CONFIG")?.unwrap_or(false),
        software_update_device_id: short(&mut fields, "SOFTWARE_UPDATE_DEVICE_ID")?,
        signed_at,
    })
}

/// A string of at most 64 characters without control characters.
fn short(fields: &mut Fields, key: &'static str) -> Result<Option<String>, FieldError> {
    let good = |text: &String| text.len() <= 64 && !text.chars().any(char::is_control);
    match fields.string(key)? {
        Some(text) if !good(&text) => Err(FieldError::Form { key, why: "at most 64 characters, none of control" }),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests;
