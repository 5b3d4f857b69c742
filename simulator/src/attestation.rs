//! Managed Device Attestation: the authority that plays Apple's, and the attestation object of `device-attest-01`.
//!
//! Sources: Apple, "ACMECertificate" (`Attest`); draft-acme-device-attest, section 5; WebAuthn, "Attestation objects"; the
//! extensions of the leaf and their raw values are in acme.md section 6.

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage};
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder};

use crate::error::{Error, Result};
use crate::record::Record;

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
/// Freshness code.
pub const FRESHNESS: &str = "1.2.840.113635.100.8.11.1";

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

/// What an attestation says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Serial number; left out in User Enrollment.
    pub serial_number: Option<String>,
    /// UDID; left out in User Enrollment.
    pub udid: Option<String>,
    /// Version of the operating system.
    pub os_version: String,
    /// The model, also in User Enrollment.
    pub model: String,
}

impl Facts {
    /// What would be attested of this device.
    pub fn of(record: &Record) -> Self {
        let own = record.enrollment_id.is_some();
        let udid = record.provisioning_udid.as_ref().unwrap_or(&record.udid);
        Self {
            serial_number: (!own).then(|| record.serial_number.clone()),
            udid: (!own).then(|| udid.clone()),
            os_version: record.os_version.clone(),
            model: record.hardware.product_name.to_owned(),
        }
    }
}

impl Authority {
    /// A root and an issuing authority, both P-384 as Apple's.
    pub fn new() -> Result<Self> {
        let root_key = key(Nid::SECP384R1)?;
        let root = certificate("Test Enterprise Attestation Root CA", &root_key, None, true, &[])?;
        let issuing_key = key(Nid::SECP384R1)?;
        let above = Some((&root, &root_key));
        let issuing = certificate("Test Enterprise Attestation Sub CA 1", &issuing_key, above, true, &[])?;
        Ok(Self { root, issuing, key: issuing_key })
    }

    /// The root, DER: what a CA that checks attestations trusts.
    pub fn root(&self) -> Result<Vec<u8>> {
        Ok(self.root.to_der()?)
    }

    /// The chain for a key of a device, DER, the leaf first.
    pub fn attest(&self, facts: &Facts, key: &PKey<Private>, freshness: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut values: Vec<(&str, &[u8])> = vec![
            (FRESHNESS, freshness),
            (OS_VERSION, facts.os_version.as_bytes()),
            (SEP_OS_VERSION, facts.os_version.as_bytes()),
            (MODEL, facts.model.as_bytes()),
        ];
        values.extend(facts.serial_number.as_deref().map(|serial| (SERIAL_NUMBER, serial.as_bytes())));
        values.extend(facts.udid.as_deref().map(|udid| (UDID, udid.as_bytes())));
        let above = Some((&self.issuing, &self.key));
        let leaf = certificate("Test attested key", key, above, false, &values)?;
        Ok(vec![leaf.to_der()?, self.issuing.to_der()?])
    }
}

fn key(curve: Nid) -> Result<PKey<Private>> {
    Ok(PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(curve)?)?)?)
}

fn certificate(
    common_name: &str,
    key: &PKey<Private>,
    issuer: Option<(&X509, &PKey<Private>)>,
    authority: bool,
    values: &[(&str, &[u8])],
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
    builder.set_issuer_name(issuer.map_or(name.as_ref(), |(above, _)| above.subject_name()))?;
    builder.set_not_before(Asn1Time::from_str("20240101000000Z")?.as_ref())?;
    builder.set_not_after(Asn1Time::from_str("20490101000000Z")?.as_ref())?;
    builder.set_pubkey(key)?;
    if authority {
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
    let signer = issuer.map_or(key, |(_, key)| key);
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

/// An attestation object: CBOR (RFC 8949), a map of `fmt` and `attStmt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// `fmt`: `apple`, or `none`.
    pub format: String,
    /// `x5c` of the statement, DER, the leaf first; empty where the format has none.
    pub x5c: Vec<Vec<u8>>,
}

impl Statement {
    /// What a device sends that has an attestation.
    pub fn apple(x5c: Vec<Vec<u8>>) -> Self {
        Self { format: "apple".into(), x5c }
    }

    /// What a device sends that has none (open question Q1).
    pub fn none() -> Self {
        Self { format: "none".into(), x5c: Vec::new() }
    }

    /// The CBOR bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        head(&mut bytes, 5, 2);
        text(&mut bytes, "fmt");
        text(&mut bytes, &self.format);
        text(&mut bytes, "attStmt");
        if self.x5c.is_empty() {
            head(&mut bytes, 5, 0);
        } else {
            head(&mut bytes, 5, 1);
            text(&mut bytes, "x5c");
            head(&mut bytes, 4, self.x5c.len());
            for certificate in &self.x5c {
                head(&mut bytes, 2, certificate.len());
                bytes.extend_from_slice(certificate);
            }
        }
        bytes
    }

    /// Reads the two formats; anything else is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Cbor { rest: bytes };
        let mut statement = Self { format: String::new(), x5c: Vec::new() };
        for _ in 0..reader.head(5)? {
            match reader.text()?.as_str() {
                "fmt" => statement.format = reader.text()?,
                "attStmt" => {
                    for _ in 0..reader.head(5)? {
                        if reader.text()? != "x5c" {
                            return Err(cbor("attStmt has only x5c"));
                        }
                        for _ in 0..reader.head(4)? {
                            statement.x5c.push(reader.string(2)?.to_vec());
                        }
                    }
                }
                _ => return Err(cbor("an unknown key")),
            }
        }
        if !reader.rest.is_empty() {
            return Err(cbor("bytes after the end"));
        }
        Ok(statement)
    }
}

fn cbor(why: &str) -> Error {
    Error::Acme(format!("attestation object: {why}"))
}

fn head(bytes: &mut Vec<u8>, major: u8, length: usize) {
    let major = major << 5;
    match u16::try_from(length) {
        Ok(short @ 0..=23) => bytes.push(major | short.to_be_bytes()[1]),
        Ok(short @ 24..=255) => bytes.extend([major | 0x18, short.to_be_bytes()[1]]),
        Ok(long) => {
            bytes.push(major | 0x19);
            bytes.extend(long.to_be_bytes());
        }
        Err(_) => {
            bytes.push(major | 0x1b);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    head(bytes, 3, value.len());
    bytes.extend_from_slice(value.as_bytes());
}

struct Cbor<'a> {
    rest: &'a [u8],
}

impl<'a> Cbor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| cbor("too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The length or count of an item that must be of this major type.
    fn head(&mut self, major: u8) -> Result<usize> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        if first >> 5 != major {
            return Err(cbor("another type was expected"));
        }
        let length = match first & 0x1f {
            short @ 0..=23 => u64::from(short),
            long @ 24..=27 => self.take(1 << (long - 24))?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            _ => return Err(cbor("indefinite lengths are not used")),
        };
        usize::try_from(length).ok().filter(|length| *length <= 1 << 20).ok_or_else(|| cbor("too long"))
    }

    fn string(&mut self, major: u8) -> Result<&'a [u8]> {
        let length = self.head(major)?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.string(3)?.to_vec()).map_err(|_| cbor("text is UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_reads_back_and_junk_does_not() {
        for statement in [Statement::none(), Statement::apple(vec![vec![7; 700], vec![8; 30], vec![9; 3]])] {
            assert_eq!(Statement::decode(&statement.encode()).unwrap(), statement);
        }
        assert_eq!(Statement::none().encode(), b"\xa2cfmtdnonegattStmt\xa0");
        let good = Statement::apple(vec![vec![1; 300]]).encode();
        for end in 0..good.len() {
            assert!(Statement::decode(&good[..end]).is_err());
        }
        assert!(Statement::decode(b"\xa1\x63fmt\x9f").is_err());
    }

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
        assert!(X509::from_der(&chain[0]).unwrap().public_key().unwrap().public_eq(&key));
        let own = Facts::of(&record.into_user_enrollment("x").unwrap());
        let chain = authority.attest(&own, &key, &[5; 32]).unwrap();
        assert_eq!(extension(&chain[0], SERIAL_NUMBER).unwrap(), None);
        assert_eq!(extension(&chain[0], UDID).unwrap(), None);
    }
}
