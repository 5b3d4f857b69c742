//! Checking CMS `SignedData` (RFC 5652) against a strict profile (TH-15).
//!
//! A message passes only with exactly one signer, who is chosen by the signer identifier and whose certificate is in the message;
//! with signed attributes, among them exactly one `contentType` = id-data and one `messageDigest`; with SHA-256, SHA-384 or SHA-512
//! (SHA-1 where a rule allows it, MD5 never); in DER without trailing bytes, at most 64 KiB, at most 10 certificates.
//! What comes in BER (Apple's clients do that) is re-encoded by OpenSSL and then held to the same rules.
//!
//! That the signer's certificate is believed is for [`super::trust::Trust`] to say.

mod signer_key;

use cms::cert::IssuerAndSerialNumber;
use cms::signed_data::{EncapsulatedContentInfo, SignedAttributes, SignerIdentifier, SignerInfo};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5911::{ID_CONTENT_TYPE, ID_DATA, ID_MESSAGE_DIGEST, ID_SIGNED_DATA, ID_SIGNING_TIME};
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged};
use openssl::cms::CmsContentInfo;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use self::signer_key::SignerKey;
use super::key::{Hash, SignatureAlgorithm, plain_parameters};
use crate::certificate::Certificate;
use crate::time::Timestamp;

/// The longest message that is looked at, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// The most certificates in one message.
const MAX_CERTIFICATES: usize = 10;
/// The deepest nesting of indefinite lengths in BER.
const MAX_BER_DEPTH: usize = 32;

/// What a caller accepts beyond the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether SHA-1 is accepted.
    pub sha1: Sha1Rule,
}

/// Whether SHA-1 is accepted as the digest of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sha1Rule {
    /// Accepted; [`SignedBy::sha1`] tells, so that the caller can count it.
    Accept,
    /// Refused.
    Refuse,
}

/// Why a signed message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CmsError {
    /// Longer than 64 KiB.
    #[error("the signed message is longer than 64 KiB")]
    TooLong,
    /// Not CMS SignedData, neither in DER nor in BER, or with bytes after it.
    #[error("this is not one CMS SignedData message")]
    Malformed,
    /// More than ten certificates, or something that is not an X.509 certificate among them.
    #[error("the message carries too many certificates, or other things than X.509 certificates")]
    Certificates,
    /// No signer or several.
    #[error("the message must have exactly one signer")]
    NotOneSigner,
    /// The signer's certificate is not in the message, or it is ambiguous.
    #[error("the certificate of the signer is not in the message")]
    NoSignerCertificate,
    /// Signed attributes are missing, repeated, or without contentType or messageDigest.
    #[error("the signed attributes are missing or not as they must be")]
    Attributes,
    /// The content type is not id-data.
    #[error("the content type must be data")]
    ContentType,
    /// Content inside where it must be outside, or the reverse.
    #[error("the content must be {}", if *.detached { "outside the signature" } else { "inside the signature" })]
    ContentPlace {
        /// Whether it must be outside.
        detached: bool,
    },
    /// MD5 or another digest or signature algorithm that is not accepted, or one that does not fit the key.
    #[error("the digest or signature algorithm is not accepted")]
    Algorithm,
    /// SHA-1, where the rule refuses it.
    #[error("SHA-1 is not accepted")]
    Sha1,
    /// The signer's key is weak or unusual.
    #[error("the key of the signer is too weak or not supported")]
    Key,
    /// The content is not the one that was signed.
    #[error("the content is not the one that was signed")]
    Digest,
    /// The signature is wrong.
    #[error("the signature does not verify")]
    Signature,
}

/// Who signed a message, as the message itself says; nothing is said about whether the certificate is believed.
#[derive(Debug, Clone)]
pub struct SignedBy {
    /// The signer's certificate.
    pub certificate: Certificate,
    /// The other certificates in the message.
    pub others: Vec<Certificate>,
    /// The `signingTime` attribute, where there is one: the signer's clock, signed but not to be relied on.
    pub signing_time: Option<Timestamp>,
    /// Whether the digest was SHA-1.
    pub sha1: bool,
    /// The hash of the signature.
    pub hash: Hash,
    attributes: SignedAttributes,
}

impl SignedBy {
    /// The value of a signed attribute that occurs once with one value, as DER, by its dotted OID.
    pub fn attribute(&self, oid: &str) -> Option<Vec<u8>> {
        let oid = ObjectIdentifier::new(oid).ok()?;
        single(&self.attributes, oid).ok()??.to_der().ok()
    }
}

/// Checks a signature whose content is beside it, as in the `Mdm-Signature` header (Apple, "Check-in").
pub fn verify_detached(cms: &[u8], content: &[u8], rules: Rules) -> Result<SignedBy, CmsError> {
    strictly_or_from_ber(cms, |der| {
        let parts = Parts::read(der)?;
        if parts.content.econtent.is_some() {
            return Err(CmsError::ContentPlace { detached: true });
        }
        parts.verify(content, rules)
    })
}

/// Checks a signature around its content, and gives the content.
pub fn verify_attached(cms: &[u8], rules: Rules) -> Result<(SignedBy, Vec<u8>), CmsError> {
    strictly_or_from_ber(cms, |der| {
        let parts = Parts::read(der)?;
        let inside = parts.content.econtent.as_ref().ok_or(CmsError::ContentPlace { detached: false })?;
        let content: OctetStringRef<'_> = inside.decode_as().map_err(|_| CmsError::Malformed)?;
        let content = content.as_bytes().to_vec();
        Ok((parts.verify(&content, rules)?, content))
    })
}

/// Checks a signature around its content, where the signer may have an RSA key of 1024 bits: only for a device's factory
/// certificate, which the caller then finds under a pinned authority ([`super::machine_info`]).
pub(in crate::crypto) fn verify_attached_by_factory_key(
    cms: &[u8],
    rules: Rules,
) -> Result<(SignedBy, Vec<u8>), CmsError> {
    strictly_or_from_ber(cms, |der| {
        let parts = Parts::read(der)?;
        let inside = parts.content.econtent.as_ref().ok_or(CmsError::ContentPlace { detached: false })?;
        let content: OctetStringRef<'_> = inside.decode_as().map_err(|_| CmsError::Malformed)?;
        let content = content.as_bytes().to_vec();
        Ok((parts.verify_with(&content, rules, SignerKey::also_factory)?, content))
    })
}

fn strictly_or_from_ber<T>(cms: &[u8], check: impl Fn(&[u8]) -> Result<T, CmsError>) -> Result<T, CmsError> {
    if cms.len() > MAX_BYTES {
        return Err(CmsError::TooLong);
    }
    match check(cms) {
        // OpenSSL stops reading after the first element: whether anything follows is looked at here.
        Err(CmsError::Malformed) if ber_length(cms) == Some(cms.len()) => {
            let read = CmsContentInfo::from_der(cms).and_then(|cms| cms.to_der());
            check(&read.map_err(|_| CmsError::Malformed)?)
        }
        result => result,
    }
}

/// The length of the first BER element, header and end marks included.
fn ber_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    let mut open = 0_usize;
    loop {
        let first = *bytes.get(at)?;
        at += 1;
        if first & 0x1f == 0x1f {
            while bytes.get(at)? & 0x80 != 0 {
                at += 1;
            }
            at += 1;
        }
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 if first == 0 => open = open.checked_sub(1)?,
            0x80 => {
                open += 1;
                if first & 0x20 == 0 || open > MAX_BER_DEPTH {
                    return None;
                }
                continue;
            }
            0..0x80 => at = at.checked_add(length)?,
            _ => {
                let octets = bytes.get(at..at.checked_add(length - 0x80)?)?;
                at += octets.len();
                let long = octets.iter().try_fold(0_usize, |n, o| n.checked_mul(256)?.checked_add(usize::from(*o)))?;
                at = at.checked_add(long)?;
            }
        }
        if open == 0 {
            return (at <= bytes.len()).then_some(at);
        }
    }
}

/// The parts of SignedData (RFC 5652 §5.1).
struct Outline<'a> {
    digest_algorithms: Vec<ObjectIdentifier>,
    content: EncapsulatedContentInfo,
    certificates: Vec<&'a [u8]>,
    signers: Vec<&'a [u8]>,
}

/// What the profile looks at, still unverified.
struct Parts<'a> {
    digest_algorithms: Vec<ObjectIdentifier>,
    content: EncapsulatedContentInfo,
    certificates: Vec<&'a [u8]>,
    signer: SignerInfo,
}

impl<'a> Parts<'a> {
    fn read(der: &'a [u8]) -> Result<Self, CmsError> {
        let Outline { digest_algorithms, content, certificates, signers } =
            Self::outline(der).map_err(|_| CmsError::Malformed)?;
        if certificates.len() > MAX_CERTIFICATES {
            return Err(CmsError::Certificates);
        }
        let [signer] = signers.as_slice() else {
            return Err(CmsError::NotOneSigner);
        };
        let signer = SignerInfo::from_der(signer).map_err(|_| CmsError::Malformed)?;
        Ok(Self { digest_algorithms, content, certificates, signer })
    }

    /// Walks down to the parts. Certificates stay as the octets they came in: a fingerprint is made of them.
    fn outline(der: &'a [u8]) -> der::Result<Outline<'a>> {
        let mut content_info = SliceReader::new(contents(der, Tag::Sequence)?)?;
        if ObjectIdentifier::decode(&mut content_info)? != ID_SIGNED_DATA {
            return Err(der::ErrorKind::Failed.into());
        }
        let explicit = contents(content_info.tlv_bytes()?, context(0))?;
        content_info.finish(())?;

        let mut signed_data = SliceReader::new(contents(explicit, Tag::Sequence)?)?;
        contents(signed_data.tlv_bytes()?, Tag::Integer)?;
        let digest_algorithms = elements(contents(signed_data.tlv_bytes()?, Tag::Set)?)?
            .into_iter()
            .map(|element| AlgorithmIdentifierOwned::from_der(element).map(|algorithm| algorithm.oid))
            .collect::<der::Result<_>>()?;
        let content = EncapsulatedContentInfo::decode(&mut signed_data)?;
        let mut certificates = Vec::new();
        if signed_data.peek_tag()? == context(0) {
            certificates = elements(contents(signed_data.tlv_bytes()?, context(0))?)?;
        }
        if signed_data.peek_tag()? == context(1) {
            signed_data.tlv_bytes()?;
        }
        let signers = elements(contents(signed_data.tlv_bytes()?, Tag::Set)?)?;
        signed_data.finish(())?;
        Ok(Outline { digest_algorithms, content, certificates, signers })
    }

    fn verify(self, content: &[u8], rules: Rules) -> Result<SignedBy, CmsError> {
        self.verify_with(content, rules, SignerKey::usual)
    }

    fn verify_with(
        self,
        content: &[u8],
        rules: Rules,
        key_of: fn(&Certificate) -> Result<SignerKey, CmsError>,
    ) -> Result<SignedBy, CmsError> {
        if self.content.econtent_type != ID_DATA {
            return Err(CmsError::ContentType);
        }
        let attributes = self.signer.signed_attrs.as_ref().ok_or(CmsError::Attributes)?;
        let content_type: ObjectIdentifier = required(attributes, ID_CONTENT_TYPE)?;
        if content_type != ID_DATA {
            return Err(CmsError::ContentType);
        }
        let message_digest: OctetStringRef<'_> = required(attributes, ID_MESSAGE_DIGEST)?;
        let signing_time = match single(attributes, ID_SIGNING_TIME)? {
            Some(value) => Some(moment(&value.to_der().map_err(|_| CmsError::Attributes)?)?),
            None => None,
        };
        let hash = self.hash(rules)?;
        let algorithm =
            SignatureAlgorithm::from_identifier(&self.signer.signature_algorithm).ok_or(CmsError::Algorithm)?;
        match algorithm {
            SignatureAlgorithm::RsaAnyHash => {}
            SignatureAlgorithm::Rsa(named) | SignatureAlgorithm::Ecdsa(named) if named == hash => {}
            _ => return Err(CmsError::Algorithm),
        }
        if message_digest.as_bytes() != hash.digest(content) {
            return Err(CmsError::Digest);
        }
        let (certificate, others) = self.signer_certificate()?;
        let key = key_of(&certificate)?;
        if !key.suits(algorithm) {
            return Err(CmsError::Algorithm);
        }
        // RFC 5652 §5.4: the signature is over the attributes as an explicit SET OF.
        let signed = attributes.to_der().map_err(|_| CmsError::Attributes)?;
        key.verify(hash, &signed, self.signer.signature.as_bytes()).map_err(|_| CmsError::Signature)?;
        let attributes = self.signer.signed_attrs.unwrap_or_default();
        Ok(SignedBy { certificate, others, signing_time, sha1: hash == Hash::Sha1, hash, attributes })
    }

    fn hash(&self, rules: Rules) -> Result<Hash, CmsError> {
        let algorithm = &self.signer.digest_alg;
        if !plain_parameters(algorithm) || !self.digest_algorithms.contains(&algorithm.oid) {
            return Err(CmsError::Algorithm);
        }
        match Hash::from_oid(algorithm.oid).ok_or(CmsError::Algorithm)? {
            Hash::Sha1 if rules.sha1 == Sha1Rule::Refuse => Err(CmsError::Sha1),
            hash => Ok(hash),
        }
    }

    /// The certificate that the signer identifier names, and the others.
    fn signer_certificate(&self) -> Result<(Certificate, Vec<Certificate>), CmsError> {
        let mut signer = None;
        let mut others = Vec::new();
        for der in &self.certificates {
            let certificate = Certificate::from_der(der).map_err(|_| CmsError::Certificates)?;
            if !self.names(&certificate) {
                others.push(certificate);
            } else if signer.replace(certificate).is_some() {
                return Err(CmsError::NoSignerCertificate);
            }
        }
        Ok((signer.ok_or(CmsError::NoSignerCertificate)?, others))
    }

    fn names(&self, certificate: &Certificate) -> bool {
        match &self.signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber { issuer, serial_number }) => {
                let tbs = &certificate.parsed().tbs_certificate;
                tbs.issuer == *issuer && tbs.serial_number == *serial_number
            }
            SignerIdentifier::SubjectKeyIdentifier(id) => certificate.subject_key_id() == Some(id.0.as_bytes()),
        }
    }
}

/// The one value of an attribute; an attribute that occurs twice or has not exactly one value is an error.
fn single(attributes: &SignedAttributes, oid: ObjectIdentifier) -> Result<Option<&der::Any>, CmsError> {
    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
    let Some(attribute) = found.next() else {
        return Ok(None);
    };
    match (found.next(), attribute.values.len()) {
        (None, 1) => Ok(attribute.values.get(0)),
        _ => Err(CmsError::Attributes),
    }
}

fn required<'a, T: der::Choice<'a> + der::DecodeValue<'a>>(
    attributes: &'a SignedAttributes,
    oid: ObjectIdentifier,
) -> Result<T, CmsError> {
    let value = single(attributes, oid)?.ok_or(CmsError::Attributes)?;
    value.decode_as().map_err(|_| CmsError::Attributes)
}

fn moment(der: &[u8]) -> Result<Timestamp, CmsError> {
    let seconds = Time::from_der(der).map_err(|_| CmsError::Attributes)?.to_unix_duration().as_secs();
    Ok(Timestamp::from_unix_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

fn context(number: u8) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber::new(number) }
}

/// The content of one element with this tag and nothing after it.
fn contents(der: &[u8], tag: Tag) -> der::Result<&[u8]> {
    let any = AnyRef::from_der(der)?;
    if any.tag() == tag { Ok(any.value()) } else { Err(tag.value_error()) }
}

fn elements(mut rest: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let element = SliceReader::new(rest)?.tlv_bytes()?;
        found.push(element);
        rest = rest.get(element.len()..).unwrap_or_default();
    }
    Ok(found)
}

#[cfg(test)]
#[path = "cms_verify_tests.rs"]
mod tests;
