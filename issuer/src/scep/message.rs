//! SCEP messages (RFC 8894 §3): CMS `SignedData` around CMS `EnvelopedData`, with SCEP's own signed attributes.

use axum::body::Body;
use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use const_oid::db::rfc5911::{ID_DATA, ID_SIGNED_DATA};
use der::asn1::{Any, ObjectIdentifier, OctetString, OctetStringRef, PrintableStringRef, SetOfVec};
use der::{Decode, Encode};
use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::Attribute;
use mdm_core::crypto::cms_verify::{CmsError, Rules, Sha1Rule, verify_attached};
use mdm_core::crypto::enveloped::{ContentCipher, seal_to};
use mdm_core::crypto::key::Hash;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;

use crate::{Authority, Error};

const MESSAGE_TYPE: &str = "2.16.840.1.113733.1.9.2";
const PKI_STATUS: &str = "2.16.840.1.113733.1.9.3";
const FAIL_INFO: &str = "2.16.840.1.113733.1.9.4";
const SENDER_NONCE: &str = "2.16.840.1.113733.1.9.5";
const RECIPIENT_NONCE: &str = "2.16.840.1.113733.1.9.6";
const TRANSACTION_ID: &str = "2.16.840.1.113733.1.9.7";
/// RFC 8894 §3.2.1.5 has nonces of 16 octets; some clients send others.
const MAX_NONCE: usize = 64;
const MAX_TRANSACTION_ID: usize = 128;

/// RFC 8894 §3.2.1.2, and 18, which old drafts called `UpdateReq` (TH-27: CVE-2026-30836).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageType {
    CertRep,
    RenewalReq,
    UpdateReq,
    PkcsReq,
    CertPoll,
    GetCert,
    GetCrl,
    Unknown,
}

impl MessageType {
    fn read(text: &str) -> Self {
        match text {
            "3" => Self::CertRep,
            "17" => Self::RenewalReq,
            "18" => Self::UpdateReq,
            "19" => Self::PkcsReq,
            "20" => Self::CertPoll,
            "21" => Self::GetCert,
            "22" => Self::GetCrl,
            _ => Self::Unknown,
        }
    }
}

/// RFC 8894 §3.2.1.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailInfo {
    /// `badAlg` (0).
    BadAlg,
    /// `badRequest` (2).
    BadRequest,
}

/// Why a message cannot even be answered in SCEP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Cms(#[from] CmsError),
    #[error("messageType, transactionID or senderNonce is missing or not as RFC 8894 has it")]
    Attributes,
}

/// A message whose signature was checked. Its signer is whoever holds the key, and nobody more.
#[derive(Debug)]
pub(super) struct PkiMessage {
    pub(super) message_type: MessageType,
    pub(super) transaction_id: String,
    pub(super) signer: Certificate,
    pub(super) content: Vec<u8>,
    sender_nonce: Vec<u8>,
    hash: Hash,
}

impl PkiMessage {
    /// Checks the signature with the signer's own certificate, and reads the attributes.
    ///
    /// SHA-1 passes here so that it can be refused with an answer: the caller must ask [`Self::is_sha1`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (signed, content) = verify_attached(bytes, Rules { sha1: Sha1Rule::Accept })?;
        let text = |oid| {
            let der = signed.attribute(oid).ok_or(Unreadable::Attributes)?;
            let text = PrintableStringRef::from_der(&der).map_err(|_| Unreadable::Attributes)?;
            Ok::<_, Unreadable>(text.as_str().to_owned())
        };
        let transaction_id = text(TRANSACTION_ID)?;
        let nonce = signed.attribute(SENDER_NONCE).ok_or(Unreadable::Attributes)?;
        let sender_nonce = OctetString::from_der(&nonce).map_err(|_| Unreadable::Attributes)?.into_bytes();
        if transaction_id.is_empty() || transaction_id.len() > MAX_TRANSACTION_ID || sender_nonce.len() > MAX_NONCE {
            return Err(Unreadable::Attributes);
        }
        Ok(Self {
            message_type: MessageType::read(&text(MESSAGE_TYPE)?),
            transaction_id,
            signer: signed.certificate,
            content,
            sender_nonce,
            hash: signed.hash,
        })
    }

    /// Whether it is signed with SHA-1.
    pub(super) fn is_sha1(&self) -> bool {
        self.hash == Hash::Sha1
    }
}

/// `CertRep` with the certificate, encrypted to the signer of the request with the cipher and hash that it used itself.
pub(super) fn success(
    authority: &Authority,
    to: &PkiMessage,
    certificate: &Certificate,
    cipher: ContentCipher,
    random: &Random,
    now: Timestamp,
) -> Result<Body, Error> {
    // Only the leaf: some clients take whichever certificate comes first.
    let content = Secret::new(certificates_only([certificate])?);
    let envelope = seal_to(to.signer.der(), content.expose(), cipher, random)?;
    reply(authority, to, &envelope, &[printable(PKI_STATUS, "0")?], random, now)
}

/// `CertRep` that says no.
pub(super) fn failure(
    authority: &Authority,
    to: &PkiMessage,
    fail_info: FailInfo,
    random: &Random,
    now: Timestamp,
) -> Result<Body, Error> {
    let code = match fail_info {
        FailInfo::BadAlg => "0",
        FailInfo::BadRequest => "2",
    };
    reply(authority, to, &[], &[printable(PKI_STATUS, "2")?, printable(FAIL_INFO, code)?], random, now)
}

fn reply(
    authority: &Authority,
    to: &PkiMessage,
    content: &[u8],
    status: &[Attribute],
    random: &Random,
    now: Timestamp,
) -> Result<Body, Error> {
    let mut attributes = vec![
        printable(MESSAGE_TYPE, "3")?,
        printable(TRANSACTION_ID, &to.transaction_id)?,
        octets(SENDER_NONCE, &random.bytes::<16>())?,
        octets(RECIPIENT_NONCE, &to.sender_nonce)?,
    ];
    attributes.extend_from_slice(status);
    // A client that is refused for SHA-1 could still read nothing else.
    Ok(authority.ra().sign_with(content, now, to.hash, &attributes)?.into())
}

/// The answer to `GetCACert`: the registration authority and the CA.
pub(super) fn certificates(authority: &Authority) -> Result<Body, Error> {
    Ok(certificates_only([authority.ra_certificate(), authority.certificate()])?.into())
}

/// A degenerate `SignedData` that carries certificates and no signature (RFC 8894 §3.4).
fn certificates_only<const N: usize>(certificates: [&Certificate; N]) -> Result<Vec<u8>, Error> {
    let certificates: Vec<CertificateChoices> = certificates
        .into_iter()
        .map(|certificate| {
            cms::cert::x509::Certificate::from_der(certificate.der()).map(CertificateChoices::Certificate)
        })
        .collect::<der::Result<_>>()?;
    let data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::new(),
        encap_content_info: EncapsulatedContentInfo { econtent_type: ID_DATA, econtent: None },
        certificates: Some(CertificateSet(SetOfVec::try_from(certificates)?)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::new()),
    };
    Ok(ContentInfo { content_type: ID_SIGNED_DATA, content: Any::encode_from(&data)? }.to_der()?)
}

fn printable(oid: &str, text: &str) -> Result<Attribute, Error> {
    attribute(oid, &PrintableStringRef::new(text)?)
}

fn octets(oid: &str, octets: &[u8]) -> Result<Attribute, Error> {
    attribute(oid, &OctetStringRef::new(octets)?)
}

fn attribute(oid: &str, value: &impl Encode) -> Result<Attribute, Error> {
    let oid = ObjectIdentifier::new(oid).map_err(|_| Error::Encoding)?;
    Ok(Attribute { oid, value: value.to_der()? })
}

#[cfg(test)]
pub(super) mod client;
