//! Signed messages of a device: `Mdm-Signature`, SCEP's pkiMessage, and the check of a signed
//! profile.
//!
//! SignedData (RFC 5652 section 5) is put together from the `cms` crate's types and signed with
//! OpenSSL, because SCEP needs signed attributes of its own and foreign clients leave the NULL
//! parameters out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5911, rfc5912};
use der::asn1::{Any, OctetString, SetOfVec, UtcTime};
use der::{Decode, Encode};
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::X509;
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::error::{Error, Result};

/// A certificate and its private key, as a device keeps them in its keychain.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: X509,
    /// Its key: RSA from SCEP, RSA or an elliptic curve from ACME.
    pub key: PKey<Private>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("subject", &self.certificate.subject_name()).finish_non_exhaustive()
    }
}

/// The digest of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// What old and foreign clients use.
    Sha1,
    /// What Apple's devices and this simulator use.
    Sha256,
}

impl Digest {
    fn openssl(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
        }
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => rfc5912::ID_SHA_1,
            Self::Sha256 => rfc5912::ID_SHA_256,
        }
    }

    fn with_rsa(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => rfc5912::SHA_1_WITH_RSA_ENCRYPTION,
            Self::Sha256 => rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
        }
    }

    fn with_ecdsa(self) -> ObjectIdentifier {
        match self {
            // ecdsa-with-SHA1 (RFC 3279 section 2.2.3).
            Self::Sha1 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
            Self::Sha256 => rfc5912::ECDSA_WITH_SHA_256,
        }
    }
}

/// How a message is signed.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Digest of content and attributes.
    pub digest: Digest,
    /// Whether AlgorithmIdentifiers carry the NULL that RFC 4055 asks for.
    pub null_parameters: bool,
    /// `rsaEncryption` as signature algorithm (what SCEP clients send) in place of the combined
    /// one.
    pub plain_rsa: bool,
}

impl Style {
    /// SHA-256 with NULL parameters.
    pub const TODAY: Self = Self { digest: Digest::Sha256, null_parameters: true, plain_rsa: false };
}

fn algorithm(oid: ObjectIdentifier, null: bool) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters: null.then(Any::null) }
}

/// One attribute with one value.
pub(crate) fn attribute(oid: ObjectIdentifier, value: Any) -> Result<Attribute> {
    let mut values = SetOfVec::new();
    values.insert(value)?;
    Ok(Attribute { oid, values })
}

/// SignedData over `content`; `attached` puts the content inside, `extra` joins the signed
/// attributes contentType, signingTime and messageDigest.
pub fn sign(
    identity: &Identity,
    content: &[u8],
    attached: bool,
    style: Style,
    extra: Vec<Attribute>,
) -> Result<Vec<u8>> {
    sign_with(identity, content, attached, style, extra, &[], None)
}

/// As [`sign`], with more certificates for the reader and a signingTime of choice (seconds since 1970).
pub(crate) fn sign_with(
    identity: &Identity,
    content: &[u8],
    attached: bool,
    style: Style,
    extra: Vec<Attribute>,
    chain: &[X509],
    signing_time: Option<i64>,
) -> Result<Vec<u8>> {
    let digest = openssl::hash::hash(style.digest.openssl(), content)?;
    let now = signing_time.unwrap_or_else(|| time::OffsetDateTime::now_utc().unix_timestamp());
    let now = std::time::Duration::from_secs(u64::try_from(now).unwrap_or_default());
    let mut attributes = SetOfVec::new();
    attributes.insert(attribute(rfc5911::ID_CONTENT_TYPE, Any::encode_from(&rfc5911::ID_DATA)?)?)?;
    attributes.insert(attribute(rfc5911::ID_SIGNING_TIME, Any::encode_from(&UtcTime::from_unix_duration(now)?)?)?)?;
    attributes
        .insert(attribute(rfc5911::ID_MESSAGE_DIGEST, Any::encode_from(&OctetString::new(digest.to_vec())?)?)?)?;
    for one in extra {
        attributes.insert(one)?;
    }
    let mut signer = Signer::new(style.digest.openssl(), &identity.key)?;
    let signature = signer.sign_oneshot_to_vec(&attributes.to_der()?)?;

    let certificate = x509_cert::Certificate::from_der(&identity.certificate.to_der()?)?;
    let digest_alg = algorithm(style.digest.oid(), style.null_parameters);
    let signature_algorithm = if identity.key.id() == openssl::pkey::Id::EC {
        // RFC 5754 section 3.3: no parameters.
        algorithm(style.digest.with_ecdsa(), false)
    } else if style.plain_rsa {
        algorithm(rfc5912::RSA_ENCRYPTION, style.null_parameters)
    } else {
        algorithm(style.digest.with_rsa(), style.null_parameters)
    };
    let mut included = vec![CertificateChoices::Certificate(certificate.clone())];
    for authority in chain {
        included.push(CertificateChoices::Certificate(x509_cert::Certificate::from_der(&authority.to_der()?)?));
    }
    let info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: certificate.tbs_certificate.issuer.clone(),
            serial_number: certificate.tbs_certificate.serial_number.clone(),
        }),
        digest_alg: digest_alg.clone(),
        signed_attrs: Some(attributes),
        signature_algorithm,
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let content = OctetString::new(content)?;
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![digest_alg])?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: rfc5911::ID_DATA,
            econtent: if attached { Some(Any::encode_from(&content)?) } else { None },
        },
        certificates: Some(CertificateSet(SetOfVec::try_from(included)?)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![info])?),
    };
    let message = ContentInfo { content_type: rfc5911::ID_SIGNED_DATA, content: Any::encode_from(&signed)? };
    Ok(message.to_der()?)
}

/// The value of the `Mdm-Signature` header for `body`: base64 of a detached signature.
pub fn mdm_signature(identity: &Identity, body: &[u8], style: Style) -> Result<String> {
    Ok(STANDARD.encode(sign(identity, body, false, style, Vec::new())?))
}

/// What a profile is, once its signature is off.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The property list.
    pub content: Vec<u8>,
    /// Subject of the signer; `None` for an unsigned profile.
    pub signer: Option<String>,
    /// Certificates that came with the signature.
    pub certificates: Vec<Vec<u8>>,
}

/// Takes the signature off a profile. An unsigned profile is accepted, as devices do; one with a
/// signature that does not fit its content is not. Whether the signer is trusted only decides
/// what the device shows, so the chain is not looked at here.
pub fn open_profile(bytes: &[u8]) -> Result<Opened> {
    if bytes.trim_ascii_start().starts_with(b"<") {
        return Ok(Opened { content: bytes.to_vec(), signer: None, certificates: Vec::new() });
    }
    let content = verify_attached(bytes)?;
    let certificates = certificates(bytes)?;
    let signer = match certificates.first() {
        Some(first) => subject(&X509::from_der(first)?),
        None => String::from("a certificate that is not included"),
    };
    Ok(Opened { content, signer: Some(signer), certificates })
}

fn subject(certificate: &X509) -> String {
    certificate
        .subject_name()
        .entries()
        .filter_map(|entry| entry.data().to_string().ok())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Checks an attached signature with the certificates it carries and returns the content.
pub(crate) fn verify_attached(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut message = CmsContentInfo::from_der(bytes)?;
    let mut content = Vec::new();
    message.verify(None, None, None, Some(&mut content), CMSOptions::BINARY | CMSOptions::NO_SIGNER_CERT_VERIFY)?;
    Ok(content)
}

/// Reads a SignedData; BER is re-encoded first.
pub(crate) fn signed_data(bytes: &[u8]) -> Result<SignedData> {
    let info = match ContentInfo::from_der(bytes) {
        Ok(info) => info,
        Err(_) => ContentInfo::from_der(&CmsContentInfo::from_der(bytes)?.to_der()?)?,
    };
    if info.content_type != rfc5911::ID_SIGNED_DATA {
        return Err(Error::Protocol("a CMS message that is no SignedData".into()));
    }
    Ok(info.content.decode_as()?)
}

/// The certificates inside a SignedData, DER.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    if let Some(set) = signed_data(bytes)?.certificates {
        for choice in set.0.iter() {
            if let CertificateChoices::Certificate(certificate) = choice {
                found.push(certificate.to_der()?);
            }
        }
    }
    Ok(found)
}

/// Test and load material: a self-signed RSA-2048 identity.
pub fn self_signed(common_name: &str, bits: u32, days: u32) -> Result<Identity> {
    let key = PKey::from_rsa(openssl::rsa::Rsa::generate(bits)?)?;
    let mut name = openssl::x509::X509NameBuilder::new()?;
    name.append_entry_by_text("CN", common_name)?;
    let name = name.build();
    let certificate = self_signed_with(&name, &key, days, Digest::Sha256)?;
    Ok(Identity { certificate, key })
}

/// A self-signed certificate for `key`, as SCEP's first request needs one (RFC 8894 section 2.3).
pub(crate) fn self_signed_with(
    name: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    days: u32,
    digest: Digest,
) -> Result<X509> {
    let mut serial = openssl::bn::BigNum::new()?;
    serial.rand(64, openssl::bn::MsbOption::ONE, false)?;
    let mut builder = openssl::x509::X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(name)?;
    builder.set_issuer_name(name)?;
    builder.set_not_before(openssl::asn1::Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(openssl::asn1::Asn1Time::days_from_now(days)?.as_ref())?;
    builder.set_pubkey(key)?;
    let usage = openssl::x509::extension::KeyUsage::new().critical().digital_signature().key_encipherment().build()?;
    builder.append_extension(usage)?;
    builder.sign(key, digest.openssl())?;
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_accepts_each_style_of_detached_signature() {
        let identity = self_signed("device", 2048, 1).unwrap();
        for style in [Style::TODAY, Style { digest: Digest::Sha1, null_parameters: false, plain_rsa: false }] {
            let der = sign(&identity, b"body", false, style, Vec::new()).unwrap();
            for (content, good) in [(&b"body"[..], true), (&b"other"[..], false)] {
                let mut message = CmsContentInfo::from_der(&der).unwrap();
                let checked = message.verify(
                    None,
                    None,
                    Some(content),
                    None,
                    CMSOptions::BINARY | CMSOptions::NO_SIGNER_CERT_VERIFY,
                );
                assert_eq!(checked.is_ok(), good);
            }
        }
    }

    #[test]
    fn a_profile_opens_signed_or_not_but_never_changed() {
        let identity = self_signed("Example Organization", 2048, 1).unwrap();
        let plain = open_profile(b"<?xml version=\"1.0\"?><plist/>").unwrap();
        assert!(plain.signer.is_none());
        let mut der = sign(&identity, b"<plist/>", true, Style::TODAY, Vec::new()).unwrap();
        let opened = open_profile(&der).unwrap();
        assert_eq!(opened.content, b"<plist/>");
        assert_eq!(opened.signer.as_deref(), Some("Example Organization"));
        let at = der.windows(8).position(|w| w == b"<plist/>").unwrap();
        der[at + 1] = b'q';
        assert!(open_profile(&der).is_err());
    }
}
