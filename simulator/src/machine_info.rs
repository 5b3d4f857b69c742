//! What a device says of itself before it is enrolled: `MachineInfo`, signed with the certificate that it was built with.
//!
//! Sources: Apple, "MachineInfo" and "Authenticating through web views"; for the issuer on devices in the field (RSA-1024,
//! SHA-1, expired since 2014), protocol.md section 7.3.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, KeyUsage};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

use crate::device::Record;
use crate::error::Result;
use crate::hardware::{Family, Version};
use crate::plist::Writer;
use crate::signature::{self, Digest, Identity, Style};

/// The authority that certifies devices in the factory, with its own issuer.
#[derive(Clone)]
pub struct DeviceCa {
    /// The issuing authority first, the root last.
    chain: Vec<X509>,
    key: PKey<Private>,
    /// Of the certificates.
    digest: Digest,
    /// Of the messages that its devices sign.
    message_digest: Digest,
}

impl std::fmt::Debug for DeviceCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceCa").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// First and last day of a certificate, `YYYYMMDDhhmmssZ`.
struct Validity<'a>(&'a str, &'a str);

impl DeviceCa {
    /// Like the one of iPhones in the field: RSA-1024, SHA-1, expired in 2014, under an authority that expired in 2022.
    pub fn legacy() -> Result<Self> {
        let sha1 = MessageDigest::sha1();
        let root_key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let root_name = name("Test iPhone Certification Authority")?;
        let validity = Validity("20070412174328Z", "20220412174328Z");
        let root = authority(&root_name, &root_key, &root_name, &root_key, &validity, sha1)?;
        let key = PKey::from_rsa(Rsa::generate(1024)?)?;
        let validity = Validity("20070416225446Z", "20140416225446Z");
        let issuing = authority(&name("Test iPhone Device CA")?, &key, &root_name, &root_key, &validity, sha1)?;
        Ok(Self { chain: vec![issuing, root], key, digest: Digest::Sha1, message_digest: Digest::Sha256 })
    }

    /// As one would build it today: P-256 and SHA-256 under an RSA root, all of it valid.
    pub fn modern() -> Result<Self> {
        let sha256 = MessageDigest::sha256();
        let root_key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let root_name = name("Test Root CA")?;
        let validity = Validity("20200101000000Z", "20490101000000Z");
        let root = authority(&root_name, &root_key, &root_name, &root_key, &validity, sha256)?;
        let key = elliptic()?;
        let issuing = authority(&name("Test Device CA 2")?, &key, &root_name, &root_key, &validity, sha256)?;
        Ok(Self { chain: vec![issuing, root], key, digest: Digest::Sha256, message_digest: Digest::Sha256 })
    }

    /// Its devices sign with SHA-1, as very old ones may.
    #[must_use]
    pub fn signing_with_sha1(mut self) -> Self {
        self.message_digest = Digest::Sha1;
        self
    }

    /// The certificates of the authority, DER: the issuing one first, the root last.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.chain.iter().map(|one| one.to_der()).collect::<std::result::Result<_, _>>()?)
    }

    /// The same as one PEM text.
    pub fn pem(&self) -> Result<String> {
        let mut text = String::new();
        for certificate in &self.chain {
            text.push_str(&String::from_utf8_lossy(&certificate.to_pem()?));
        }
        Ok(text)
    }

    /// The certificate and key that a device gets in the factory.
    pub fn device(&self, common_name: &str) -> Result<Identity> {
        let key = match self.digest {
            Digest::Sha1 => PKey::from_rsa(Rsa::generate(1024)?)?,
            Digest::Sha256 => elliptic()?,
        };
        let issuer = self.chain.first().map(|issuing| issuing.subject_name().to_owned()).transpose()?;
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        serial_number(&mut builder)?;
        builder.set_subject_name(&*name(common_name)?)?;
        if let Some(issuer) = issuer {
            builder.set_issuer_name(&issuer)?;
        }
        builder.set_not_before(Asn1Time::from_str("20240101000000Z")?.as_ref())?;
        builder.set_not_after(Asn1Time::from_str("20490101000000Z")?.as_ref())?;
        builder.set_pubkey(&key)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.sign(
            &self.key,
            if self.digest == Digest::Sha1 { MessageDigest::sha1() } else { MessageDigest::sha256() },
        )?;
        Ok(Identity { certificate: builder.build(), key })
    }
}

fn elliptic() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn name(common_name: &str) -> Result<X509Name> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::ORGANIZATIONNAME, "Test devices")?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

fn serial_number(builder: &mut X509Builder) -> Result<()> {
    let mut serial = BigNum::new()?;
    serial.rand(96, MsbOption::ONE, false)?;
    Ok(builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?)
}

fn authority(
    subject: &X509Name,
    key: &PKey<Private>,
    issuer: &X509Name,
    issuer_key: &PKey<Private>,
    validity: &Validity<'_>,
    digest: MessageDigest,
) -> Result<X509> {
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    serial_number(&mut builder)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_not_before(Asn1Time::from_str(validity.0)?.as_ref())?;
    builder.set_not_after(Asn1Time::from_str(validity.1)?.as_ref())?;
    builder.set_pubkey(key)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    builder.sign(issuer_key, digest)?;
    Ok(builder.build())
}

/// What is wrong with a signed MachineInfo, for tests of what a server refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tampering {
    /// Nothing: as a device sends it.
    #[default]
    None,
    /// The property list without any signature.
    Unsigned,
    /// Signed by a device of an authority of the same name that is not Apple's.
    ForeignCa,
    /// Changed after it was signed.
    Garbled,
    /// Signed at this time (seconds since 1970).
    SignedAt(i64),
    /// These bytes, which some device sent before.
    Replay(Vec<u8>),
}

/// The keys of `MachineInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineInfo {
    /// `UDID`; left out in User Enrollment.
    pub udid: Option<String>,
    /// `SERIAL`; left out in User Enrollment.
    pub serial: Option<String>,
    /// `PRODUCT`, such as `iPhone17,2`.
    pub product: String,
    /// `VERSION`: the build.
    pub version: String,
    /// `OS_VERSION`: iOS 17, macOS 14, tvOS 17, watchOS 10, visionOS.
    pub os_version: Option<String>,
    /// `SUPPLEMENTAL_BUILD_VERSION`.
    pub supplemental_build_version: Option<String>,
    /// `SUPPLEMENTAL_OS_VERSION_EXTRA`.
    pub supplemental_os_version_extra: Option<String>,
    /// `IMEI`.
    pub imei: Option<String>,
    /// `MEID`.
    pub meid: Option<String>,
    /// `LANGUAGE`.
    pub language: Option<String>,
    /// `MDM_CAN_REQUEST_SOFTWARE_UPDATE`: iOS 17, macOS 14, visionOS 26.
    pub can_request_software_update: bool,
    /// `MDM_CAN_REQUEST_PSSO_CONFIG`: macOS 26.
    pub can_request_psso_config: bool,
    /// `PAIRING_TOKEN`, watches only.
    pub pairing_token: Option<String>,
    /// `SOFTWARE_UPDATE_DEVICE_ID`: iOS 17.4, macOS 14.4.
    pub software_update_device_id: Option<String>,
}

impl MachineInfo {
    /// What this device says in Setup Assistant.
    pub fn of(record: &Record) -> Self {
        let hardware = record.hardware;
        let os = Version::parse(&record.os_version);
        let since = |ios: Version, mac: Version, watch: Version, vision: Version| match hardware.family {
            Family::Mac => os >= mac,
            Family::Watch => os >= watch,
            Family::Vision => os >= vision,
            Family::IPhone | Family::IPad | Family::IPod | Family::AppleTv => os >= ios,
        };
        let never = Version::new(u32::MAX, 0);
        let own = record.enrollment_id.is_some();
        let tv = hardware.family == Family::AppleTv;
        let tells_system = since(Version::new(17, 0), Version::new(14, 0), Version::new(10, 0), Version::new(1, 0));
        let tells_update_id =
            since(Version::new(17, 4), Version::new(14, 4), never, Version::new(26, 0)) && !tv && !own;
        Self {
            udid: (!own).then(|| record.udid.clone()),
            serial: (!own).then(|| record.serial_number.clone()),
            product: hardware.product_name.into(),
            version: record.build_version.clone(),
            os_version: tells_system.then(|| record.os_version.clone()),
            language: Some("en-US".into()),
            can_request_software_update: since(Version::new(17, 0), Version::new(14, 0), never, Version::new(26, 0))
                && !tv,
            can_request_psso_config: hardware.family == Family::Mac && os >= Version::new(26, 0),
            software_update_device_id: tells_update_id
                .then(|| format!("{}AP", hardware.product_name.replace(',', "_"))),
            ..Self::default()
        }
    }

    /// The property list.
    pub fn document(&self) -> Vec<u8> {
        let mut keys = Writer::new()
            .maybe("IMEI", self.imei.as_deref())
            .maybe("LANGUAGE", self.language.as_deref())
            .boolean("MDM_CAN_REQUEST_SOFTWARE_UPDATE", self.can_request_software_update);
        if self.can_request_psso_config {
            keys = keys.boolean("MDM_CAN_REQUEST_PSSO_CONFIG", true);
        }
        keys.maybe("MEID", self.meid.as_deref())
            .maybe("OS_VERSION", self.os_version.as_deref())
            .maybe("PAIRING_TOKEN", self.pairing_token.as_deref())
            .string("PRODUCT", &self.product)
            .maybe("SERIAL", self.serial.as_deref())
            .maybe("SOFTWARE_UPDATE_DEVICE_ID", self.software_update_device_id.as_deref())
            .maybe("SUPPLEMENTAL_BUILD_VERSION", self.supplemental_build_version.as_deref())
            .maybe("SUPPLEMENTAL_OS_VERSION_EXTRA", self.supplemental_os_version_extra.as_deref())
            .maybe("UDID", self.udid.as_deref())
            .string("VERSION", &self.version)
            .document()
    }

    /// The signed message: DER SignedData with the property list inside and the device's chain beside it.
    pub fn signed(&self, ca: &DeviceCa, tampering: &Tampering) -> Result<Vec<u8>> {
        let subject = self.udid.as_deref().unwrap_or(&self.product);
        let time = match tampering {
            Tampering::Unsigned => return Ok(self.document()),
            Tampering::Replay(bytes) => return Ok(bytes.clone()),
            Tampering::SignedAt(time) => Some(*time),
            Tampering::None | Tampering::ForeignCa | Tampering::Garbled => None,
        };
        let foreign;
        let ca = match (tampering, ca.digest) {
            (Tampering::ForeignCa, Digest::Sha1) => {
                foreign = DeviceCa::legacy()?;
                &foreign
            }
            (Tampering::ForeignCa, Digest::Sha256) => {
                foreign = DeviceCa::modern()?;
                &foreign
            }
            _ => ca,
        };
        let style = Style { digest: ca.message_digest, null_parameters: true, plain_rsa: ca.digest == Digest::Sha1 };
        let identity = ca.device(subject)?;
        let mut der = signature::sign_with(&identity, &self.document(), true, style, Vec::new(), &ca.chain, time)?;
        if *tampering == Tampering::Garbled {
            // The product's last letter, so that the list still reads well.
            let needle = format!("{}</string>", self.product);
            let at = der.windows(needle.len()).position(|window| window == needle.as_bytes());
            if let Some(byte) = at.and_then(|at| der.get_mut(at + self.product.len() - 1)) {
                *byte = if *byte == b'9' { b'8' } else { b'9' };
            }
        }
        Ok(der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware;
    use crate::plist::parse;

    fn record() -> Record {
        Record::new(hardware::find("iPhone17,2").unwrap(), "18.1", "22B83", "machine").unwrap()
    }

    #[test]
    fn both_authorities_sign_what_a_reader_can_check() {
        for ca in [DeviceCa::legacy().unwrap(), DeviceCa::modern().unwrap()] {
            let der = MachineInfo::of(&record()).signed(&ca, &Tampering::None).unwrap();
            let opened = signature::open_profile(&der).unwrap();
            let info = parse(&opened.content).unwrap();
            assert_eq!(info.text("SERIAL"), Some(record().serial_number.as_str()));
            assert_eq!(info.text("OS_VERSION"), Some("18.1"));
            assert_eq!(opened.certificates.len(), 3);
            let issuing = X509::from_der(&ca.certificates().unwrap()[0]).unwrap();
            let key = issuing.public_key().unwrap();
            let leafs = opened.certificates.iter().map(|der| X509::from_der(der).unwrap());
            assert_eq!(leafs.filter(|leaf| leaf.verify(&key).unwrap_or(false)).count(), 1);
        }
        assert_eq!(DeviceCa::legacy().unwrap().key.bits(), 1024);
    }

    #[test]
    fn what_is_tampered_with_does_not_hold() {
        let ca = DeviceCa::legacy().unwrap();
        let info = MachineInfo::of(&record());
        assert!(signature::open_profile(&info.signed(&ca, &Tampering::Garbled).unwrap()).is_err());
        assert!(info.signed(&ca, &Tampering::Unsigned).unwrap().starts_with(b"<?xml"));
        let foreign = info.signed(&ca, &Tampering::ForeignCa).unwrap();
        let key = X509::from_der(&ca.certificates().unwrap()[0]).unwrap().public_key().unwrap();
        let included = signature::open_profile(&foreign).unwrap().certificates;
        assert!(!included.iter().any(|der| X509::from_der(der).unwrap().verify(&key).unwrap_or(false)));
        assert_eq!(info.signed(&ca, &Tampering::Replay(vec![1])).unwrap(), [1]);
    }

    #[test]
    fn user_enrollment_tells_neither_udid_nor_serial_and_old_systems_no_version() {
        let own = MachineInfo::of(&record().into_user_enrollment("x").unwrap());
        assert!(own.udid.is_none() && own.serial.is_none() && own.software_update_device_id.is_none());
        let old = Record::new(hardware::find("iPhone10,6").unwrap(), "16.0", "20A362", "old").unwrap();
        let old = MachineInfo::of(&old);
        assert!(old.os_version.is_none() && !old.can_request_software_update);
    }
}
