//! The values that Apple writes into the leaf of an attestation, extension by extension.
//!
//! Source: `DeviceInformation`, `DevicePropertiesAttestation`. The page names the values and not their encoding. Texts were seen as
//! raw bytes, numbers as raw text and as a DER INTEGER; a text in a DER string is read too. A DER header is never printable, so
//! that no value has two readings. A value that is blank or left out is none: Apple could not verify it (TH-41).

use der::asn1::{Ia5StringRef, OctetStringRef, PrintableStringRef, Utf8StringRef};
use der::{Decode, Encode};

use super::{AttestationError, Attested, SecureBoot};
use crate::certificate::Certificate;

/// Longest value that is read.
const MAX_VALUE: usize = 128;
/// Longest freshness code: 32 bytes (`DeviceAttestationNonce`), and what a header adds.
const MAX_FRESHNESS: usize = 40;

macro_rules! values {
    ($($(#[doc = $doc:literal])+ $name:ident = $oid:literal, $text:literal;)+) => {
        /// A value of the leaf, by its OID below 1.2.840.113635.100.8.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Value {
            $($(#[doc = $doc])+ $name),+
        }

        impl Value {
            /// Every value that is read.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The OID of the extension.
            pub fn oid(self) -> &'static str {
                match self { $(Self::$name => concat!("1.2.840.113635.100.8.", $oid)),+ }
            }

            /// Its name, as errors and stored verdicts have it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

values! {
    /// Serial number; left out in User Enrollment.
    SerialNumber = "9.1", "serial_number";
    /// UDID; on a Mac its ProvisioningUDID (TH-40). Left out in User Enrollment.
    Udid = "9.2", "udid";
    /// Software update device ID: the model, also in User Enrollment.
    SoftwareUpdateDeviceId = "9.4", "software_update_device_id";
    /// Version of the operating system.
    OsVersion = "10.1", "os_version";
    /// Version of sepOS.
    SepOsVersion = "10.2", "sep_os_version";
    /// Version of the low-level boot loader.
    LlbVersion = "10.3", "llb_version";
    /// Freshness code.
    Freshness = "11.1", "freshness";
    /// System Integrity Protection: 0 is on.
    SipStatus = "13.1", "sip_status";
    /// Secure boot.
    SecureBootStatus = "13.2", "secure_boot";
    /// Third-party kernel extensions: 0 is not allowed.
    ThirdPartyKexts = "13.3", "third_party_kexts";
}

/// Reads all values of a leaf whose chain has been verified.
pub(super) fn read(leaf: &Certificate) -> Result<Attested, AttestationError> {
    let text = |value| text(leaf, value);
    let number = |value| number(leaf, value);
    Ok(Attested {
        serial_number: text(Value::SerialNumber)?,
        udid: text(Value::Udid)?,
        software_update_device_id: text(Value::SoftwareUpdateDeviceId)?,
        os_version: text(Value::OsVersion)?,
        sep_os_version: text(Value::SepOsVersion)?,
        llb_version: text(Value::LlbVersion)?,
        freshness: freshness(leaf)?,
        sip_enabled: number(Value::SipStatus).map(|status| status == 0),
        secure_boot: text(Value::SecureBootStatus)?.as_deref().and_then(SecureBoot::from_apple),
        third_party_kexts: number(Value::ThirdPartyKexts).map(|allowed| allowed != 0),
        key_spki: leaf
            .parsed()
            .tbs_certificate
            .subject_public_key_info
            .to_der()
            .map_err(|_| AttestationError::Certificate)?,
    })
}

fn raw(leaf: &Certificate, value: Value) -> Option<&[u8]> {
    leaf.extension(value.oid()).filter(|bytes| !bytes.is_empty())
}

fn text(leaf: &Certificate, value: Value) -> Result<Option<String>, AttestationError> {
    let Some(bytes) = raw(leaf, value) else { return Ok(None) };
    let text = plain(bytes).ok_or(AttestationError::Value(value))?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Printable text, as it is or in a DER string. Nothing is trimmed or folded: what is compared is what Apple signed.
fn plain(bytes: &[u8]) -> Option<&str> {
    let text = match bytes.first()? {
        0x0c => Utf8StringRef::from_der(bytes).ok()?.as_str(),
        0x13 => PrintableStringRef::from_der(bytes).ok()?.as_str(),
        0x16 => Ia5StringRef::from_der(bytes).ok()?.as_str(),
        _ => std::str::from_utf8(bytes).ok()?,
    };
    (text.len() <= MAX_VALUE && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())).then_some(text)
}

/// A number, where it is one in a form that is known; anything else says nothing, and nothing is not good.
fn number(leaf: &Certificate, value: Value) -> Option<i64> {
    let bytes = raw(leaf, value)?;
    match bytes {
        [0x02, ..] => i64::from_der(bytes).ok(),
        [byte @ (0 | 1)] => Some(i64::from(*byte)),
        _ => plain(bytes).filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok(),
    }
}

/// The freshness code, as it is or in an OCTET STRING.
fn freshness(leaf: &Certificate) -> Result<Option<Vec<u8>>, AttestationError> {
    let Some(bytes) = raw(leaf, Value::Freshness) else { return Ok(None) };
    if bytes.len() > MAX_FRESHNESS {
        return Err(AttestationError::Value(Value::Freshness));
    }
    // 34 bytes that begin so are 32 in their wrapping: a code has 32 at most.
    let code = match OctetStringRef::from_der(bytes) {
        Ok(octets) if bytes.len() > 32 => octets.as_bytes(),
        _ => bytes,
    };
    if code.len() > 32 {
        return Err(AttestationError::Value(Value::Freshness));
    }
    Ok(Some(code.to_vec()))
}
