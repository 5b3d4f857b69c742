//! PKCS#10 certification requests (RFC 2986): only what an issuer may believe of one.
//!
//! The key is believed, because the request is signed with it (proof of possession, TH-34). The subject and the requested
//! extensions are not: they are kept as text for the log, never for a certificate (TH-29).

use const_oid::ObjectIdentifier;
use der::asn1::BitString;
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::request::CertReqInfo;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::key::{KeyError, PublicKey, SignatureAlgorithm};
use crate::secret::Secret;

/// `challengePassword` (PKCS#9, RFC 2985 §5.4.1).
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
/// Longest challenge that is looked at: RFC 2985 allows 255 characters.
const MAX_CHALLENGE: usize = 255;

/// Why a certification request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is not a PKCS#10 request in DER.
    #[error("this is not a PKCS#10 certification request in DER")]
    Malformed,
    /// Its key is not one that a certificate is issued for (TH-18).
    #[error("the key of the request is refused: {0}")]
    Key(#[from] KeyError),
    /// It is not signed with its own key (TH-34).
    #[error("the request is not signed with its own key")]
    NotPossessed,
    /// Its `challengePassword` is not one short text.
    #[error("the challengePassword of the request is not one text of at most 255 bytes")]
    Challenge,
}

/// A certification request that proves the possession of its key.
#[derive(Debug, Clone)]
pub struct Csr {
    public_key: PublicKey,
    challenge: Option<Secret<String>>,
    subject: String,
}

impl Csr {
    /// Reads a request and checks its signature with its own key.
    ///
    /// SHA-1 is let through here, and only here: the signature proves possession of the key inside an envelope that was
    /// itself signed, and no one gains by forging it for a key that he does not have.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let (info_der, algorithm, signature) = split(der).map_err(|_| CsrError::Malformed)?;
        let info = CertReqInfo::from_der(info_der).map_err(|_| CsrError::Malformed)?;
        let spki = info.public_key.to_der().map_err(|_| CsrError::Malformed)?;
        let public_key = PublicKey::from_spki_der(&spki)?;
        let hash = match SignatureAlgorithm::from_identifier(&algorithm) {
            Some(named @ (SignatureAlgorithm::Rsa(hash) | SignatureAlgorithm::Ecdsa(hash)))
                if named.suits(public_key.kind()) =>
            {
                hash
            }
            _ => return Err(CsrError::NotPossessed),
        };
        let signature = signature.as_bytes().ok_or(CsrError::Malformed)?;
        public_key.verify(hash, info_der, signature).map_err(|_| CsrError::NotPossessed)?;
        let challenge = challenge_of(&info)?;
        Ok(Self { public_key, challenge, subject: info.subject.to_string() })
    }

    /// The key that a certificate may be issued for.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The `challengePassword`, where there is one.
    pub fn challenge(&self) -> Option<&Secret<String>> {
        self.challenge.as_ref()
    }

    /// The subject that was wished for (RFC 4514 text). For the log only.
    pub fn wished_subject(&self) -> &str {
        &self.subject
    }
}

/// The signed part as it was sent, the algorithm and the signature.
fn split(der: &[u8]) -> der::Result<(&[u8], AlgorithmIdentifierOwned, BitString)> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|inner| {
        let info = inner.tlv_bytes()?;
        Ok((info, AlgorithmIdentifierOwned::decode(inner)?, BitString::decode(inner)?))
    })?;
    reader.finish(parts)
}

fn challenge_of(info: &CertReqInfo) -> Result<Option<Secret<String>>, CsrError> {
    let mut found = info.attributes.iter().filter(|attribute| attribute.oid == CHALLENGE_PASSWORD);
    let Some(attribute) = found.next() else { return Ok(None) };
    let (None, [value]) = (found.next(), attribute.values.as_slice()) else { return Err(CsrError::Challenge) };
    let text = matches!(value.tag(), Tag::PrintableString | Tag::Utf8String | Tag::Ia5String | Tag::TeletexString);
    if !text || value.value().len() > MAX_CHALLENGE {
        return Err(CsrError::Challenge);
    }
    std::str::from_utf8(value.value()).map(|text| Some(Secret::new(text.to_owned()))).map_err(|_| CsrError::Challenge)
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;
    use openssl::x509::X509Req;

    use super::super::key::PrivateKey;
    use super::*;

    fn request(key: &PKey<openssl::pkey::Private>, signer: &PKey<openssl::pkey::Private>) -> Vec<u8> {
        let mut builder = X509Req::builder().unwrap();
        let mut name = openssl::x509::X509Name::builder().unwrap();
        name.append_entry_by_text("CN", "root of all").unwrap();
        builder.set_subject_name(&name.build()).unwrap();
        builder.set_pubkey(key).unwrap();
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        builder.build().to_der().unwrap()
    }

    fn rsa(bits: u32) -> PKey<openssl::pkey::Private> {
        PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
    }

    #[test]
    fn a_request_gives_its_key_and_its_wish() {
        let key = PrivateKey::generate_p256().unwrap();
        let csr = Csr::from_der(&request(key.pkey(), key.pkey())).unwrap();
        assert_eq!(csr.public_key().spki_der(), key.public_spki_der().unwrap());
        assert_eq!(csr.wished_subject(), "CN=root of all");
        assert!(csr.challenge().is_none());
    }

    #[test]
    fn th_34_a_request_that_is_signed_with_another_key_is_refused() {
        let (key, other) = (rsa(2048), rsa(2048));
        assert_eq!(Csr::from_der(&request(&key, &other)).unwrap_err(), CsrError::NotPossessed);
    }

    #[test]
    fn th_18_a_request_with_a_weak_key_is_refused() {
        let weak = rsa(1024);
        assert_eq!(Csr::from_der(&request(&weak, &weak)).unwrap_err(), CsrError::Key(KeyError::Weak { bits: 1024 }));
    }

    #[test]
    fn what_is_not_a_request_is_malformed_and_does_not_panic() {
        let key = rsa(2048);
        let good = request(&key, &key);
        for length in 0..good.len() {
            assert!(Csr::from_der(&good[..length]).is_err());
        }
        let mut trailing = good;
        trailing.push(0);
        assert_eq!(Csr::from_der(&trailing).unwrap_err(), CsrError::Malformed);
    }
}
