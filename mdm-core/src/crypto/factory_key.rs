//! The keys of factory certificates, which may be weaker than any other key that is believed.

use const_oid::db::rfc5912::RSA_ENCRYPTION;
use der::Decode;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::key::{BadSignature, Hash, KeyError, rsa_kind};

/// An RSA key of 1024 bits or more: for the one place where a weak key is known and cannot be replaced, the factory
/// certificates of Apple devices (TH-16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FactoryKey {
    bits: Vec<u8>,
}

impl FactoryKey {
    /// Reads a `SubjectPublicKeyInfo`.
    pub(crate) fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Malformed)?;
        let bits = spki.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
        if spki.algorithm.oid != RSA_ENCRYPTION {
            return Err(KeyError::Unsupported);
        }
        match rsa_kind(bits) {
            Ok(_) | Err(KeyError::Weak { bits: 1024.. }) => Ok(Self { bits: bits.to_vec() }),
            Err(error) => Err(error),
        }
    }

    /// Checks a PKCS#1 v1.5 signature over `message`.
    pub(crate) fn verify(&self, hash: Hash, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let algorithm: &dyn VerificationAlgorithm = match hash {
            Hash::Sha1 => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Hash::Sha512 => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        };
        UnparsedPublicKey::new(algorithm, &self.bits).verify(message, signature).map_err(|_| BadSignature)
    }
}
