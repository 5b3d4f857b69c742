//! The key that the signature of a message is checked with.

use super::CmsError;
use crate::certificate::Certificate;
use crate::crypto::factory_key::FactoryKey;
use crate::crypto::key::{BadSignature, Hash, PublicKey, SignatureAlgorithm};

/// The key that a signature is checked with.
pub(super) enum SignerKey {
    Usual(PublicKey),
    Factory(FactoryKey),
}

impl SignerKey {
    /// The key of a certificate that is strong enough.
    pub(super) fn usual(certificate: &Certificate) -> Result<Self, CmsError> {
        certificate.public_key().map(Self::Usual).map_err(|_| CmsError::Key)
    }

    /// The same, or an RSA key of 1024 bits or more.
    pub(super) fn also_factory(certificate: &Certificate) -> Result<Self, CmsError> {
        Self::usual(certificate).or_else(|error| certificate.factory_key().map(Self::Factory).map_err(|_| error))
    }

    /// Whether it can make such a signature.
    pub(super) fn suits(&self, algorithm: SignatureAlgorithm) -> bool {
        match self {
            Self::Usual(key) => algorithm.suits(key.kind()),
            Self::Factory(_) => !matches!(algorithm, SignatureAlgorithm::Ecdsa(_)),
        }
    }

    /// Checks a signature over `message`.
    pub(super) fn verify(&self, hash: Hash, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match self {
            Self::Usual(key) => key.verify(hash, message, signature),
            Self::Factory(key) => key.verify(hash, message, signature),
        }
    }
}
