//! What we read of an X.509 certificate (RFC 5280).

use const_oid::db::rfc5280;
use const_oid::db::rfc5912::{ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME};
use der::asn1::{Ia5String, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use der::{Decode, Encode, Reader, SliceReader, Tagged};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::name::Name;

use crate::crypto::factory_key::FactoryKey;
use crate::crypto::key::{KeyError, PublicKey, SignatureAlgorithm};
use crate::ids::Fingerprint;
use crate::time::Timestamp;

mod description;

pub use description::{SubjectKey, read_name};

/// `UID` of a distinguished name (RFC 4519 §2.39): an MDM push certificate carries its topic there.
const USER_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");
/// `commonName` (RFC 5280).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// The `otherName` type of a Microsoft user principal name.
const USER_PRINCIPAL_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");
/// The `otherName` type of a `PermanentIdentifier` (RFC 4043 §3).
const PERMANENT_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.3");
/// More certificates than any chain has.
const MAX_CHAIN: usize = 64;

/// The bytes are not a certificate that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not an X.509 certificate in DER.
    #[error("this is not an X.509 certificate in DER")]
    Malformed,
    /// Not PEM, or no `CERTIFICATE` block in it.
    #[error("this text holds no PEM certificate")]
    NoPem,
}

/// One entry of a subject alternative name (RFC 5280 §4.2.1.6) of the kinds that an ACME payload can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AltName {
    /// `dNSName`.
    Dns(String),
    /// `rfc822Name`.
    Email(String),
    /// `uniformResourceIdentifier`.
    Uri(String),
    /// `otherName` of the type user principal name (Apple's `ntPrincipalName`).
    UserPrincipal(String),
    /// `otherName` of the type `PermanentIdentifier` (RFC 4043): an ACME server's name of the device that it served.
    Permanent(String),
}

/// A certificate, parsed once; it keeps the bytes it was read from.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject())
            .field("serial", &self.serial_hex())
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads one DER certificate with nothing after it.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        Ok(Self { der: der.to_vec(), parsed })
    }

    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        pem_chain(pem)?.into_iter().next().ok_or(CertificateError::NoPem)
    }

    /// The bytes it was read from.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate as PEM (RFC 7468).
    ///
    /// # Panics
    /// Never: only a length beyond the machine's could not be encoded.
    pub fn to_pem(&self) -> String {
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &self.der).expect("a certificate fits in PEM")
    }

    /// SHA-256 over the DER.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The first common name of the subject.
    pub fn common_name(&self) -> Option<String> {
        attribute(&self.parsed.tbs_certificate.subject, COMMON_NAME)
    }

    /// The `UID` attribute (0.9.2342.19200300.100.1.1) of the subject: the topic, in an MDM push certificate.
    pub fn user_id(&self) -> Option<String> {
        attribute(&self.parsed.tbs_certificate.subject, USER_ID)
    }

    /// The value of one attribute of the subject, by the dotted OID of its type.
    pub fn subject_attribute(&self, oid: &str) -> Option<String> {
        attribute(&self.parsed.tbs_certificate.subject, ObjectIdentifier::new(oid).ok()?)
    }

    /// The subject as text (RFC 4514), such as `CN=device,O=Example`.
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate.subject.to_string()
    }

    /// The issuer as text (RFC 4514).
    pub fn issuer(&self) -> String {
        self.parsed.tbs_certificate.issuer.to_string()
    }

    /// The first common name of the issuer.
    pub fn issuer_common_name(&self) -> Option<String> {
        attribute(&self.parsed.tbs_certificate.issuer, COMMON_NAME)
    }

    /// The issuer's name, encoded: what is compared with another certificate's subject.
    pub fn issuer_der(&self) -> Vec<u8> {
        self.parsed.tbs_certificate.issuer.to_der().unwrap_or_default()
    }

    /// The subject's name, encoded.
    pub fn subject_der(&self) -> Vec<u8> {
        self.parsed.tbs_certificate.subject.to_der().unwrap_or_default()
    }

    /// Whether `issuer`'s subject is this certificate's issuer, by name only.
    pub fn names_as_issuer(&self, issuer: &Self) -> bool {
        self.parsed.tbs_certificate.issuer == issuer.parsed.tbs_certificate.subject
    }

    /// The serial number in lower-case hexadecimal digits, without leading zero octets.
    pub fn serial_hex(&self) -> String {
        let bytes = self.parsed.tbs_certificate.serial_number.as_bytes();
        match bytes {
            [0, rest @ ..] if !rest.is_empty() => hex::encode(rest),
            _ => hex::encode(bytes),
        }
    }

    /// From when it is valid.
    pub fn not_before(&self) -> Timestamp {
        moment(self.parsed.tbs_certificate.validity.not_before)
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> Timestamp {
        moment(self.parsed.tbs_certificate.validity.not_after)
    }

    /// Whether `now` lies within its validity (RFC 5280 §4.1.2.5: both ends included).
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before() <= now && now <= self.not_after()
    }

    /// The extended key usages as dotted OIDs; `None` where the extension is missing (then any use is meant).
    pub fn extended_key_usages(&self) -> Option<Vec<String>> {
        let usages = ExtendedKeyUsage::from_der(self.extension_value(ID_CE_EXT_KEY_USAGE)?).ok()?;
        Some(usages.0.iter().map(ToString::to_string).collect())
    }

    /// Whether the extended key usages name clientAuth (RFC 5280 §4.2.1.12); a missing extension is not enough (TH-08).
    pub fn allows_client_auth(&self) -> bool {
        self.has_usage(rfc5280::ID_KP_CLIENT_AUTH)
    }

    /// Whether the extended key usages name serverAuth.
    pub fn allows_server_auth(&self) -> bool {
        self.has_usage(rfc5280::ID_KP_SERVER_AUTH)
    }

    fn has_usage(&self, usage: ObjectIdentifier) -> bool {
        self.extension_value(ID_CE_EXT_KEY_USAGE)
            .and_then(|value| ExtendedKeyUsage::from_der(value).ok())
            .is_some_and(|usages| usages.0.contains(&usage))
    }

    /// Whether it says that it is a CA (basic constraints), and may sign certificates where it has a key usage.
    pub fn is_ca(&self) -> bool {
        let ca = self.basic_constraints().is_some_and(|basic| basic.ca);
        ca && match self.extension_value(ID_CE_KEY_USAGE) {
            None => true,
            Some(value) => KeyUsage::from_der(value).is_ok_and(|usage| usage.key_cert_sign()),
        }
    }

    /// How many CAs may come below this one, where it is a CA and says so.
    pub fn path_length(&self) -> Option<u8> {
        self.basic_constraints()?.path_len_constraint
    }

    fn basic_constraints(&self) -> Option<BasicConstraints> {
        BasicConstraints::from_der(self.extension_value(ID_CE_BASIC_CONSTRAINTS)?).ok()
    }

    /// The names of the subject alternative name extension that an ACME payload can ask for.
    pub fn alt_names(&self) -> Vec<AltName> {
        let names = self.extension_value(ID_CE_SUBJECT_ALT_NAME).and_then(read_alt_names);
        names.into_iter().flatten().flatten().collect()
    }

    /// The value of an extension (the content of its OCTET STRING), by its dotted OID.
    pub fn extension(&self, oid: &str) -> Option<&[u8]> {
        self.extension_value(ObjectIdentifier::new(oid).ok()?)
    }

    /// The dotted OIDs of the extensions that are marked critical.
    pub fn critical_extensions(&self) -> Vec<String> {
        self.parsed
            .tbs_certificate
            .extensions
            .iter()
            .flatten()
            .filter(|extension| extension.critical)
            .map(|extension| extension.extn_id.to_string())
            .collect()
    }

    fn extension_value(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate.extensions.as_ref()?;
        extensions.iter().find(|extension| extension.extn_id == oid).map(|extension| extension.extn_value.as_bytes())
    }

    /// Whether an extension occurs twice, which RFC 5280 §4.2 forbids.
    pub fn repeats_an_extension(&self) -> bool {
        let extensions = self.parsed.tbs_certificate.extensions.as_deref().unwrap_or_default();
        extensions
            .iter()
            .enumerate()
            .any(|(at, extension)| extensions.iter().take(at).any(|earlier| earlier.extn_id == extension.extn_id))
    }

    /// The public key, if it is strong enough (TH-18).
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        let spki = self.parsed.tbs_certificate.subject_public_key_info.to_der();
        PublicKey::from_spki_der(&spki.map_err(|_| KeyError::Malformed)?)
    }

    /// The public key, where it is an RSA key of 1024 bits or more (TH-16).
    pub(crate) fn factory_key(&self) -> Result<FactoryKey, KeyError> {
        let spki = self.parsed.tbs_certificate.subject_public_key_info.to_der();
        FactoryKey::from_spki_der(&spki.map_err(|_| KeyError::Malformed)?)
    }

    /// The subject key identifier, where there is one.
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        let value = self.extension("2.5.29.14")?;
        der::asn1::OctetStringRef::from_der(value).ok().map(|id| id.as_bytes())
    }

    /// The signed part, octet for octet.
    pub fn tbs_der(&self) -> &[u8] {
        let read = || -> der::Result<&[u8]> {
            let mut reader = SliceReader::new(&self.der)?;
            let header = der::Header::decode(&mut reader)?;
            SliceReader::new(reader.read_slice(header.length)?)?.tlv_bytes()
        };
        read().unwrap_or_default()
    }

    /// The signature over [`Self::tbs_der`] and its algorithm, if it is one that we know.
    pub fn signature(&self) -> Option<(SignatureAlgorithm, &[u8])> {
        // RFC 5280 §4.1.1.2: the two mentions of the algorithm must be equal.
        if self.parsed.signature_algorithm != self.parsed.tbs_certificate.signature {
            return None;
        }
        let algorithm = SignatureAlgorithm::from_identifier(&self.parsed.signature_algorithm)?;
        Some((algorithm, self.parsed.signature.as_bytes()?))
    }

    pub(crate) fn parsed(&self) -> &x509_cert::Certificate {
        &self.parsed
    }
}

/// Reads the value of a subject alternative name extension: each name, or none for a name of a kind that [`AltName`] does not have.
/// Nothing where it is not such a value.
pub fn read_alt_names(extension: &[u8]) -> Option<Vec<Option<AltName>>> {
    let names = SubjectAltName::from_der(extension).ok()?;
    Some(names.0.iter().map(alt_name).collect())
}

fn alt_name(name: &GeneralName) -> Option<AltName> {
    let text = Ia5String::to_string;
    match name {
        GeneralName::DnsName(value) => Some(AltName::Dns(text(value))),
        GeneralName::Rfc822Name(value) => Some(AltName::Email(text(value))),
        GeneralName::UniformResourceIdentifier(value) => Some(AltName::Uri(text(value))),
        GeneralName::OtherName(other) if other.type_id == USER_PRINCIPAL_NAME => {
            other.value.decode_as::<Utf8StringRef<'_>>().ok().map(|v| AltName::UserPrincipal(v.to_string()))
        }
        GeneralName::OtherName(other) if other.type_id == PERMANENT_IDENTIFIER => {
            permanent_identifier(&other.value).map(AltName::Permanent)
        }
        _ => None,
    }
}

/// `identifierValue` of a `PermanentIdentifier` (RFC 4043 §3: `SEQUENCE { identifierValue UTF8String OPTIONAL, assigner OBJECT
/// IDENTIFIER OPTIONAL }`).
fn permanent_identifier(value: &der::Any) -> Option<String> {
    let encoded = value.to_der().ok()?;
    let mut reader = SliceReader::new(&encoded).ok()?;
    reader
        .sequence(|inner| {
            let name = Option::<Utf8StringRef<'_>>::decode(inner)?.map(|name| name.to_string());
            Option::<ObjectIdentifier>::decode(inner)?;
            Ok::<_, der::Error>(name)
        })
        .ok()?
}

/// Reads every `CERTIFICATE` block of a PEM text, in order; text between the blocks is skipped.
pub fn pem_chain(text: &str) -> Result<Vec<Certificate>, CertificateError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut chain = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once(BEGIN) {
        let (base64, after) = block.split_once(END).ok_or(CertificateError::NoPem)?;
        let compact: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, compact)
            .map_err(|_| CertificateError::NoPem)?;
        chain.push(Certificate::from_der(&der)?);
        if chain.len() > MAX_CHAIN {
            return Err(CertificateError::Malformed);
        }
        rest = after;
    }
    if chain.is_empty() { Err(CertificateError::NoPem) } else { Ok(chain) }
}

fn attribute(name: &Name, oid: ObjectIdentifier) -> Option<String> {
    let value = name.0.iter().flat_map(|rdn| rdn.0.iter()).find(|attribute| attribute.oid == oid).map(|a| &a.value)?;
    match value.tag() {
        der::Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|s| s.to_string()),
        der::Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|s| s.to_string()),
        der::Tag::Ia5String => value.decode_as::<der::asn1::Ia5StringRef<'_>>().ok().map(|s| s.to_string()),
        der::Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok().map(|s| s.to_string()),
        _ => None,
    }
}

fn moment(time: x509_cert::time::Time) -> Timestamp {
    Timestamp::from_unix_seconds(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
