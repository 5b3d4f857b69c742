//! Signing: attached CMS `SignedData` (RFC 5652) in DER, as configuration profiles and SCEP replies are signed.
//!
//! The structure is small and always the same, so it is written here directly; the signature itself is OpenSSL's.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5911::{ID_CONTENT_TYPE, ID_DATA, ID_MESSAGE_DIGEST, ID_SIGNED_DATA, ID_SIGNING_TIME};
use const_oid::db::rfc5912;
use der::asn1::{GeneralizedTime, UtcTime};
use der::{DateTime, Encode};

use super::key::{Hash, KeyError, PrivateKey};
use crate::certificate::Certificate;
use crate::time::Timestamp;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const CONTEXT_0: u8 = 0xa0;
const NULL: [u8; 2] = [5, 0];
const INTEGER_1: [u8; 3] = [2, 1, 1];

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The certificate was made for another key.
    #[error("the signing certificate does not belong to the private key")]
    OtherKey,
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The time or a length cannot be written in DER.
    #[error("the signature cannot be encoded")]
    Encoding,
}

impl From<der::Error> for SignError {
    fn from(_: der::Error) -> Self {
        Self::Encoding
    }
}

/// A signed attribute with one value (RFC 5652 §5.3).
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its type.
    pub oid: ObjectIdentifier,
    /// Its value, as DER.
    pub value: Vec<u8>,
}

/// Who signs profiles: a key, its certificate, and the CA certificates that lead to what a device trusts.
#[derive(Debug, Clone)]
pub struct ProfileSigner {
    key: PrivateKey,
    certificate: Certificate,
    chain: Vec<Certificate>,
}

impl ProfileSigner {
    /// With this key and its certificate; `chain` goes into each signature.
    pub fn new(key: PrivateKey, certificate: Certificate, chain: Vec<Certificate>) -> Result<Self, SignError> {
        if certificate.public_key()?.spki_der() != key.public_spki_der()? {
            return Err(SignError::OtherKey);
        }
        Ok(Self { key, certificate, chain })
    }

    /// The signing certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Signs `content` (a profile as XML) with the hash that suits the key.
    pub fn sign(&self, content: &[u8], now: Timestamp) -> Result<Vec<u8>, SignError> {
        self.sign_with(content, now, self.key.preferred_hash(), &[])
    }

    /// Signs `content` with this hash and further signed attributes, such as those of SCEP (RFC 8894 §3.2).
    ///
    /// An RSA signature is named `rsaEncryption`, which every reader takes.
    pub fn sign_with(
        &self,
        content: &[u8],
        now: Timestamp,
        hash: Hash,
        further: &[Attribute],
    ) -> Result<Vec<u8>, SignError> {
        let mut attributes = vec![
            attribute(ID_CONTENT_TYPE, &ID_DATA.to_der()?)?,
            attribute(ID_SIGNING_TIME, &time(now)?)?,
            attribute(ID_MESSAGE_DIGEST, &tlv(OCTET_STRING, &[&hash.digest(content)])?)?,
        ];
        for more in further {
            attributes.push(attribute(more.oid, &more.value)?);
        }
        let attributes = sorted(attributes);
        let signature = self.key.sign(hash, &tlv(SET, &[&attributes])?)?;

        let digest_algorithm = tlv(SEQUENCE, &[&hash.oid().to_der()?])?;
        let tbs = &self.certificate.parsed().tbs_certificate;
        let signer_info = tlv(
            SEQUENCE,
            &[
                &INTEGER_1,
                &tlv(SEQUENCE, &[&tbs.issuer.to_der()?, &tbs.serial_number.to_der()?])?,
                &digest_algorithm,
                &tlv(CONTEXT_0, &[&attributes])?,
                &self.signature_algorithm(hash)?,
                &tlv(OCTET_STRING, &[&signature])?,
            ],
        )?;
        let certificates =
            std::iter::once(&self.certificate).chain(&self.chain).map(|certificate| certificate.der().to_vec());
        let octets = tlv(CONTEXT_0, &[&tlv(OCTET_STRING, &[content])?])?;
        let signed_data = tlv(
            SEQUENCE,
            &[
                &INTEGER_1,
                &tlv(SET, &[&digest_algorithm])?,
                &tlv(SEQUENCE, &[&ID_DATA.to_der()?, &octets])?,
                &tlv(CONTEXT_0, &[&sorted(certificates.collect())])?,
                &tlv(SET, &[&signer_info])?,
            ],
        )?;
        tlv(SEQUENCE, &[&ID_SIGNED_DATA.to_der()?, &tlv(CONTEXT_0, &[&signed_data])?])
    }

    fn signature_algorithm(&self, hash: Hash) -> Result<Vec<u8>, SignError> {
        let oid = match (self.key.kind().is_rsa(), hash) {
            (true, _) => return tlv(SEQUENCE, &[&rfc5912::RSA_ENCRYPTION.to_der()?, &NULL]),
            (false, Hash::Sha1) => return Err(SignError::Key(KeyError::Unsupported)),
            (false, Hash::Sha256) => rfc5912::ECDSA_WITH_SHA_256,
            (false, Hash::Sha384) => rfc5912::ECDSA_WITH_SHA_384,
            (false, Hash::Sha512) => rfc5912::ECDSA_WITH_SHA_512,
        };
        tlv(SEQUENCE, &[&oid.to_der()?])
    }
}

fn attribute(oid: ObjectIdentifier, value: &[u8]) -> Result<Vec<u8>, SignError> {
    tlv(SEQUENCE, &[&oid.to_der()?, &tlv(SET, &[value])?])
}

/// The elements of a SET OF in the order that DER wants.
fn sorted(mut elements: Vec<Vec<u8>>) -> Vec<u8> {
    elements.sort();
    elements.dedup();
    elements.concat()
}

/// `Time` (RFC 5652 §11.3): UTCTime up to 2049, GeneralizedTime from 2050.
fn time(at: Timestamp) -> Result<Vec<u8>, SignError> {
    let seconds = u64::try_from(at.unix_seconds()).map_err(|_| SignError::Encoding)?;
    let moment = DateTime::from_unix_duration(std::time::Duration::from_secs(seconds))?;
    Ok(match UtcTime::from_date_time(moment) {
        Ok(utc) => utc.to_der()?,
        Err(_) => GeneralizedTime::from_date_time(moment).to_der()?,
    })
}

/// One DER element: tag, length, and these parts as the content.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Result<Vec<u8>, SignError> {
    let length = der::Length::try_from(parts.iter().map(|part| part.len()).sum::<usize>())?;
    let mut out = vec![tag];
    length.encode_to_vec(&mut out)?;
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use openssl::cms::{CMSOptions, CmsContentInfo};
    use openssl::stack::Stack;
    use openssl::x509::X509;
    use openssl::x509::store::X509StoreBuilder;
    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::*;

    fn signer(key: PrivateKey) -> (ProfileSigner, Certificate) {
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::new(vec![]).unwrap();
        root.distinguished_name.push(rcgen::DnType::CommonName, "root");
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_certificate = Certificate::from_der(root.self_signed(&root_key).unwrap().der()).unwrap();
        let pair = KeyPair::from_pem(key.to_pkcs8_pem().unwrap().expose()).unwrap();
        let mut params = CertificateParams::new(vec!["profiles.example".to_owned()]).unwrap();
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::EmailProtection];
        let made = params.signed_by(&pair, &Issuer::new(root, root_key)).unwrap();
        let certificate = Certificate::from_der(made.der()).unwrap();
        (ProfileSigner::new(key, certificate, vec![root_certificate.clone()]).unwrap(), root_certificate)
    }

    #[test]
    fn a_signed_profile_verifies_with_openssl() {
        for key in [PrivateKey::generate_rsa(2048).unwrap(), PrivateKey::generate_p256().unwrap()] {
            let (signer, root) = signer(key);
            let content = b"<plist version=\"1.0\"><dict/></plist>".repeat(300);
            let signed = signer.sign(&content, Timestamp(1_793_336_400_000)).unwrap();

            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(X509::from_der(root.der()).unwrap()).unwrap();
            let mut out = Vec::new();
            let none = Stack::<X509>::new().unwrap();
            let mut cms = CmsContentInfo::from_der(&signed).unwrap();
            cms.verify(Some(&none), Some(&store.build()), None, Some(&mut out), CMSOptions::BINARY).unwrap();
            assert_eq!(out, content);
            assert_eq!(cms.to_der().unwrap(), signed, "what is signed is DER");
        }
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (signer, _) = signer(PrivateKey::generate_p256().unwrap());
        let other = PrivateKey::generate_p256().unwrap();
        let refused = ProfileSigner::new(other, signer.certificate().clone(), vec![]);
        assert_eq!(refused.unwrap_err(), SignError::OtherKey);
    }

    #[test]
    fn from_2050_on_time_is_generalized() {
        assert_eq!(time(Timestamp::from_unix_seconds(2_524_607_999)).unwrap()[0], 0x17);
        assert_eq!(time(Timestamp::from_unix_seconds(2_524_608_000)).unwrap()[0], 0x18);
    }
}
