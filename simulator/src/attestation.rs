//! Managed Device Attestation: the authority that plays Apple's, and what it says of a device.
//!
//! Sources: Apple, "ACMECertificate" (`Attest`) and "DeviceInformation" (`DevicePropertiesAttestation`, which lists the
//! extensions of the leaf and the systems that have them); draft-acme-device-attest, section 5. The values of the
//! extensions are raw bytes, not DER strings.

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage};
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder};

use crate::error::Result;
use crate::hardware::{Family, Version};
use crate::record::Record;

mod device;
mod statement;

pub use device::DeviceAttestation;
pub use statement::Statement;

/// Serial number.
pub const SERIAL_NUMBER: &str = "1.2.840.113635.100.8.9.1";
/// UDID; on a Mac the ProvisioningUDID.
pub const UDID: &str = "1.2.840.113635.100.8.9.2";
/// Software update device ID.
pub const MODEL: &str = "1.2.840.113635.100.8.9.4";
/// Version of the operating system.
pub const OS_VERSION: &str = "1.2.840.113635.100.8.10.1";
/// Version of sepOS.
pub const SEP_OS_VERSION: &str = "1.2.840.113635.100.8.10.2";
/// Version of the low level boot loader.
pub const LLB_VERSION: &str = "1.2.840.113635.100.8.10.3";
/// Freshness code.
pub const FRESHNESS: &str = "1.2.840.113635.100.8.11.1";
/// System Integrity Protection: `0` enabled, `1` disabled.
pub const SIP: &str = "1.2.840.113635.100.8.13.1";
/// Secure boot: `Full Security`, `Reduced Security`, `Permissive Security`.
pub const SECURE_BOOT: &str = "1.2.840.113635.100.8.13.2";
/// Third-party kernel extensions: `0` not allowed.
pub const THIRD_PARTY_KEXTS: &str = "1.2.840.113635.100.8.13.3";

/// The authority that attests devices.
#[derive(Clone)]
pub struct Authority {
    root: X509,
    issuing: X509,
    key: PKey<Private>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// What an attestation says of a device; `None` where the value is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Serial number; left out in User Enrollment.
    pub serial_number: Option<String>,
    /// UDID, on a Mac the ProvisioningUDID; left out in User Enrollment.
    pub udid: Option<String>,
    /// Version of sepOS.
    pub sep_os_version: Option<String>,
    /// Version of the operating system: iOS 17.2, macOS 14.2, watchOS 10.2, visionOS 1.1 and later.
    pub os_version: Option<String>,
    /// The model, also in User Enrollment: as `os_version`.
    pub model: Option<String>,
    /// Version of the low level boot loader: as `os_version`.
    pub llb_version: Option<String>,
    /// System Integrity Protection: macOS 14.2 and later.
    pub sip_enabled: Option<bool>,
    /// Secure boot: macOS 14.2 and later.
    pub secure_boot: Option<String>,
    /// Whether third-party kernel extensions are allowed: macOS 14.2 and later.
    pub third_party_kexts: Option<bool>,
}

impl Facts {
    /// What would be attested of this device.
    pub fn of(record: &Record) -> Self {
        let own = record.enrollment_id.is_some();
        let udid = record.provisioning_udid.as_ref().unwrap_or(&record.udid);
        let family = record.hardware.family;
        let since = match family {
            Family::IPhone | Family::IPad | Family::IPod | Family::AppleTv => Version::new(17, 2),
            Family::Mac => Version::new(14, 2),
            Family::Watch => Version::new(10, 2),
            Family::Vision => Version::new(1, 1),
        };
        let later = Version::parse(&record.os_version) >= since;
        let mac = later && family == Family::Mac;
        Self {
            serial_number: (!own).then(|| record.serial_number.clone()),
            udid: (!own).then(|| udid.clone()),
            sep_os_version: Some(record.os_version.clone()),
            os_version: later.then(|| record.os_version.clone()),
            model: later.then(|| record.hardware.product_name.to_owned()),
            llb_version: later.then(|| "11881.140.96".to_owned()),
            sip_enabled: mac.then_some(true),
            secure_boot: mac.then(|| "Full Security".to_owned()),
            third_party_kexts: mac.then_some(false),
        }
    }

    fn values(&self) -> Vec<(&'static str, Vec<u8>)> {
        let text = |value: &Option<String>| value.as_deref().map(|value| value.as_bytes().to_vec());
        let digit = |value: bool| if value { b"1".to_vec() } else { b"0".to_vec() };
        [
            (SERIAL_NUMBER, text(&self.serial_number)),
            (UDID, text(&self.udid)),
            (SEP_OS_VERSION, text(&self.sep_os_version)),
            (OS_VERSION, text(&self.os_version)),
            (MODEL, text(&self.model)),
            (LLB_VERSION, text(&self.llb_version)),
            (SIP, self.sip_enabled.map(|enabled| digit(!enabled))),
            (SECURE_BOOT, text(&self.secure_boot)),
            (THIRD_PARTY_KEXTS, self.third_party_kexts.map(digit)),
        ]
        .into_iter()
        .filter_map(|(oid, value)| Some((oid, value?)))
        .collect()
    }
}

/// What is wrong with the attestations of a device, for tests and rehearsals.
#[derive(Debug, Clone, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The freshness code is another than the asked one, as in a statement from a cache.
    WrongNonce,
    /// The statement speaks of another device.
    OtherDevice(Facts),
    /// Somebody else signed it.
    ForeignRoot(Authority),
    /// The value with this OID is left out.
    Without(&'static str),
    /// The value with this OID is there and empty.
    Blank(&'static str),
    /// The value with this OID is this one.
    Value(&'static str, Vec<u8>),
    /// Apple's servers give no attestation.
    Silent,
}

impl Authority {
    /// A root and an issuing authority, both P-384 as Apple's.
    pub fn new() -> Result<Self> {
        let root_key = key(Nid::SECP384R1)?;
        let root = certificate("Test Enterprise Attestation Root CA", &root_key, None, &root_key, &[])?;
        let issuing_key = key(Nid::SECP384R1)?;
        let issuing = certificate("Test Enterprise Attestation Sub CA 1", &issuing_key, Some(&root), &root_key, &[])?;
        Ok(Self { root, issuing, key: issuing_key })
    }

    /// The root, DER: what a CA that checks attestations trusts.
    pub fn root(&self) -> Result<Vec<u8>> {
        Ok(self.root.to_der()?)
    }

    /// The root, PEM.
    pub fn root_pem(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.root.to_pem()?).into_owned())
    }

    /// The chain for a key of a device, DER, the leaf first.
    pub fn attest<K: HasPublic>(&self, facts: &Facts, key: &PKeyRef<K>, freshness: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut values = facts.values();
        values.push((FRESHNESS, freshness.to_vec()));
        self.sign(key, &values)
    }

    /// The same with something wrong in it; `None` where there is no attestation at all.
    pub fn attest_with<K: HasPublic>(
        &self,
        facts: &Facts,
        key: &PKeyRef<K>,
        freshness: &[u8],
        fault: &Fault,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let mut authority = self;
        let mut values = facts.values();
        values.push((FRESHNESS, freshness.to_vec()));
        match fault {
            Fault::None => {}
            Fault::Silent => return Ok(None),
            Fault::WrongNonce => replace(&mut values, FRESHNESS, vec![0x5a; 32]),
            Fault::OtherDevice(other) => {
                values = other.values();
                values.push((FRESHNESS, freshness.to_vec()));
            }
            Fault::ForeignRoot(foreign) => authority = foreign,
            Fault::Without(oid) => values.retain(|(known, _)| known != oid),
            Fault::Blank(oid) => replace(&mut values, oid, Vec::new()),
            Fault::Value(oid, value) => replace(&mut values, oid, value.clone()),
        }
        authority.sign(key, &values).map(Some)
    }

    fn sign<K: HasPublic>(&self, key: &PKeyRef<K>, values: &[(&str, Vec<u8>)]) -> Result<Vec<Vec<u8>>> {
        let leaf = certificate("Test attested key", key, Some(&self.issuing), &self.key, values)?;
        Ok(vec![leaf.to_der()?, self.issuing.to_der()?])
    }
}

fn replace(values: &mut Vec<(&'static str, Vec<u8>)>, oid: &'static str, value: Vec<u8>) {
    values.retain(|(known, _)| *known != oid);
    values.push((oid, value));
}

fn key(curve: Nid) -> Result<PKey<Private>> {
    Ok(PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(curve)?)?)?)
}

/// A certificate for this key, signed by `signer`; one without an issuer is its own.
fn certificate<K: HasPublic>(
    common_name: &str,
    key: &PKeyRef<K>,
    issuer: Option<&X509>,
    signer: &PKey<Private>,
    values: &[(&str, Vec<u8>)],
) -> Result<X509> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(96, MsbOption::ONE, false)?;
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(issuer.map_or(name.as_ref(), |above| above.subject_name()))?;
    builder.set_not_before(Asn1Time::from_str("20240101000000Z")?.as_ref())?;
    builder.set_not_after(Asn1Time::from_str("20490101000000Z")?.as_ref())?;
    builder.set_pubkey(key)?;
    if values.is_empty() {
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    } else {
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    }
    for (oid, value) in values {
        // The value stands there as it is, not wrapped in a DER string.
        let value = Asn1OctetString::new_from_bytes(value)?;
        let oid = Asn1Object::from_str(oid)?;
        builder.append_extension(X509Extension::new_from_der(&oid, false, &value)?)?;
    }
    builder.sign(signer, MessageDigest::sha384())?;
    Ok(builder.build())
}

/// The raw value of an extension of a certificate (DER).
pub(crate) fn extension(certificate: &[u8], oid: &str) -> Result<Option<Vec<u8>>> {
    use der::Decode as _;
    let parsed = x509_cert::Certificate::from_der(certificate)?;
    let extensions = parsed.tbs_certificate.extensions.unwrap_or_default();
    Ok(extensions
        .into_iter()
        .find(|extension| extension.extn_id.to_string() == oid)
        .map(|extension| extension.extn_value.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_carries_raw_values_and_none_that_user_enrollment_hides() {
        let record = Record::new(crate::hardware::find("Mac16,10").unwrap(), "15.6", "24G84", "leaf").unwrap();
        let authority = Authority::new().unwrap();
        let key = key(Nid::X9_62_PRIME256V1).unwrap();
        let chain = authority.attest(&Facts::of(&record), &key, &[5; 32]).unwrap();
        let value = |oid| extension(&chain[0], oid).unwrap();
        assert_eq!(value(SERIAL_NUMBER).as_deref(), Some(record.serial_number.as_bytes()));
        assert_eq!(value(UDID).as_deref(), record.provisioning_udid.as_deref().map(str::as_bytes));
        assert_eq!(value(FRESHNESS).as_deref(), Some(&[5; 32][..]));
        assert_eq!(value(SIP).as_deref(), Some(b"0".as_slice()));
        assert_eq!(value(SECURE_BOOT).as_deref(), Some(b"Full Security".as_slice()));
        assert!(X509::from_der(&chain[0]).unwrap().public_key().unwrap().public_eq(&key));
        let own = Facts::of(&record.into_user_enrollment("x").unwrap());
        let chain = authority.attest(&own, &key, &[5; 32]).unwrap();
        assert_eq!(extension(&chain[0], SERIAL_NUMBER).unwrap(), None);
        assert_eq!(extension(&chain[0], UDID).unwrap(), None);
    }

    #[test]
    fn older_systems_say_less() {
        let facts =
            |product, os| Facts::of(&Record::new(crate::hardware::find(product).unwrap(), os, "1A1", "old").unwrap());
        assert_eq!(facts("iPhone11,2", "16.1").os_version, None);
        assert_eq!(facts("iPhone11,2", "17.2").os_version.as_deref(), Some("17.2"));
        assert_eq!(facts("iPhone11,2", "17.2").sip_enabled, None);
        assert_eq!(facts("MacBookAir10,1", "14.0").sip_enabled, None);
    }

    #[test]
    fn every_fault_is_seen_in_the_leaf() {
        let record = Record::new(crate::hardware::find("iPhone17,2").unwrap(), "18.1", "22B83", "fault").unwrap();
        let other = Record::new(crate::hardware::find("iPhone17,2").unwrap(), "18.1", "22B83", "other").unwrap();
        let (authority, foreign) = (Authority::new().unwrap(), Authority::new().unwrap());
        let key = key(Nid::X9_62_PRIME256V1).unwrap();
        let attest = |fault: Fault| authority.attest_with(&Facts::of(&record), &key, &[5; 32], &fault).unwrap();
        let value = |fault, oid| extension(&attest(fault).unwrap()[0], oid).unwrap();
        assert!(attest(Fault::Silent).is_none());
        assert_ne!(value(Fault::WrongNonce, FRESHNESS).unwrap(), [5; 32]);
        let theirs = value(Fault::OtherDevice(Facts::of(&other)), SERIAL_NUMBER);
        assert_eq!(theirs.as_deref(), Some(other.serial_number.as_bytes()));
        assert_eq!(value(Fault::Without(UDID), UDID), None);
        assert_eq!(value(Fault::Blank(UDID), UDID), Some(Vec::new()));
        assert_eq!(value(Fault::Value(SIP, b"1".to_vec()), SIP), Some(b"1".to_vec()));
        let chain = attest(Fault::ForeignRoot(foreign.clone())).unwrap();
        assert_eq!(chain[1], foreign.issuing.to_der().unwrap());
    }
}
