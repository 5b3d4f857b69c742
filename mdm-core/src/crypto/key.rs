//! Private and public keys: RSA of 2048 bits or more with e = 65537, and ECDSA on P-256, P-384 and P-521. Nothing weaker (TH-18).

use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode, Encode, Reader, SliceReader};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::secret::Secret;

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not a key in the form that was expected.
    #[error("this is not a readable key")]
    Malformed,
    /// The kind of key is not one of RSA, P-256, P-384, P-521.
    #[error("only RSA and ECDSA keys on P-256, P-384 and P-521 are used")]
    Unsupported,
    /// RSA below 2048 bits (or above 8192), or with a public exponent other than 65537.
    #[error("an RSA key must have 2048 to 8192 bits and the public exponent 65537; this one has {bits} bits")]
    Weak {
        /// The length of the modulus.
        bits: usize,
    },
    /// OpenSSL would not do it.
    #[error("the cryptographic library refused")]
    Library,
}

impl From<openssl::error::ErrorStack> for KeyError {
    fn from(_: openssl::error::ErrorStack) -> Self {
        Self::Library
    }
}

/// A hash function that a signature is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-1: read only where a rule allows it, written only to a client that itself speaks nothing else.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// The OID of the hash function (RFC 3370, RFC 5754).
    pub fn oid(self) -> ObjectIdentifier {
        use const_oid::db::{rfc5912, rfc5912::ID_SHA_1};
        match self {
            Self::Sha1 => ID_SHA_1,
            Self::Sha256 => rfc5912::ID_SHA_256,
            Self::Sha384 => rfc5912::ID_SHA_384,
            Self::Sha512 => rfc5912::ID_SHA_512,
        }
    }

    /// The hash function that an OID names; MD5 and all others are `None`.
    pub fn from_oid(oid: ObjectIdentifier) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|hash| hash.oid() == oid)
    }

    /// The digest of `message`.
    pub fn digest(self, message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &ring::digest::SHA256,
            Self::Sha384 => &ring::digest::SHA384,
            Self::Sha512 => &ring::digest::SHA512,
        };
        ring::digest::digest(algorithm, message).as_ref().to_vec()
    }

    fn openssl(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }
}

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA with a modulus of this many bits.
    Rsa {
        /// 2048 to 8192.
        bits: usize,
    },
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// ECDSA on NIST P-521.
    P521,
}

impl KeyKind {
    /// Whether it is an RSA key.
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa { .. })
    }
}

/// A private key, held by OpenSSL. `Debug` shows the kind only; clones share the key.
#[derive(Clone)]
pub struct PrivateKey {
    pkey: PKey<Private>,
    kind: KeyKind,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// A new RSA key of `bits` (2048 to 8192) with the public exponent 65537.
    pub fn generate_rsa(bits: u32) -> Result<Self, KeyError> {
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::Weak { bits: bits as usize });
        }
        Self::new(PKey::from_rsa(Rsa::generate(bits)?)?)
    }

    /// A new ECDSA key on P-256.
    pub fn generate_p256() -> Result<Self, KeyError> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        Self::new(PKey::from_ec_key(EcKey::generate(&group)?)?)
    }

    /// Reads the first private key of a PEM text (PKCS#8, PKCS#1 or SEC 1); encrypted PEM is refused.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        // The callback answers an encrypted key with an empty password, so that OpenSSL never asks a terminal.
        let pkey = PKey::private_key_from_pem_callback(pem, |_| Ok(0)).map_err(|_| KeyError::Malformed)?;
        Self::new(pkey)
    }

    /// Reads an unencrypted PKCS#8 `PrivateKeyInfo`.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        Self::new(PKey::private_key_from_pkcs8(der).map_err(|_| KeyError::Malformed)?)
    }

    pub(in crate::crypto) fn new(pkey: PKey<Private>) -> Result<Self, KeyError> {
        let kind = PublicKey::from_spki_der(&pkey.public_key_to_der()?)?.kind;
        Ok(Self { pkey, kind })
    }

    /// OpenSSL's handle, for the other files of this folder.
    pub(in crate::crypto) fn pkey(&self) -> &PKey<Private> {
        &self.pkey
    }

    /// The key as PKCS#8 in PEM, not encrypted.
    pub fn to_pkcs8_pem(&self) -> Result<Secret<String>, KeyError> {
        let pem = self.pkey.private_key_to_pem_pkcs8()?;
        String::from_utf8(pem).map(Secret::new).map_err(|_| KeyError::Library)
    }

    /// The key as PKCS#8 in DER, not encrypted.
    pub fn to_pkcs8_der(&self) -> Result<Secret<Vec<u8>>, KeyError> {
        Ok(Secret::new(self.pkey.private_key_to_pkcs8()?))
    }

    /// The `SubjectPublicKeyInfo` of the public half.
    pub fn public_spki_der(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.pkey.public_key_to_der()?)
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The hash that suits this key where nobody asks for another one: that of the curve, SHA-256 for RSA.
    pub fn preferred_hash(&self) -> Hash {
        match self.kind {
            KeyKind::Rsa { .. } | KeyKind::P256 => Hash::Sha256,
            KeyKind::P384 => Hash::Sha384,
            KeyKind::P521 => Hash::Sha512,
        }
    }

    /// Signs `message` (not its digest) with PKCS#1 v1.5 or ECDSA (in DER form, as X.509 and CMS have it).
    pub fn sign(&self, hash: Hash, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signer = openssl::sign::Signer::new(hash.openssl(), &self.pkey)?;
        Ok(signer.sign_oneshot_to_vec(message)?)
    }
}

/// A public key that is strong enough to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Vec<u8>,
    /// What ring reads: `RSAPublicKey` in DER, or the uncompressed point.
    bits: Vec<u8>,
}

/// A signature did not verify, or its algorithm is not one for this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` and refuses weak and unusual keys.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Malformed)?;
        let bits = spki.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
        let kind = if spki.algorithm.oid == RSA_ENCRYPTION {
            // NULL by RFC 3279 §2.3.1; nothing else may make two texts of one key.
            if !spki.algorithm.parameters.is_none_or(der::asn1::AnyRef::is_null) {
                return Err(KeyError::Malformed);
            }
            rsa_kind(bits)?
        } else if spki.algorithm.oid == ID_EC_PUBLIC_KEY {
            let (kind, length) = match spki.algorithm.parameters_oid().map_err(|_| KeyError::Unsupported)? {
                SECP_256_R_1 => (KeyKind::P256, 65),
                SECP_384_R_1 => (KeyKind::P384, 97),
                SECP_521_R_1 => (KeyKind::P521, 133),
                _ => return Err(KeyError::Unsupported),
            };
            if bits.len() != length || bits.first() != Some(&4) {
                return Err(KeyError::Malformed);
            }
            kind
        } else {
            return Err(KeyError::Unsupported);
        };
        Ok(Self { kind, spki: der.to_vec(), bits: bits.to_vec() })
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The `SubjectPublicKeyInfo`, octet for octet as it was read.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Checks a PKCS#1 v1.5 or ECDSA (DER) signature over `message`.
    pub fn verify(&self, hash: Hash, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let algorithm: &dyn VerificationAlgorithm = match (self.kind, hash) {
            (KeyKind::Rsa { .. }, Hash::Sha1) => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            (KeyKind::Rsa { .. }, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (KeyKind::Rsa { .. }, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (KeyKind::Rsa { .. }, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (KeyKind::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
            (KeyKind::P256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
            (KeyKind::P384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
            (KeyKind::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
            _ => return self.verify_with_openssl(hash, message, signature),
        };
        UnparsedPublicKey::new(algorithm, &self.bits).verify(message, signature).map_err(|_| BadSignature)
    }

    /// For the pairs that ring does not have: P-521, and ECDSA with SHA-1 or SHA-512.
    fn verify_with_openssl(&self, hash: Hash, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let verified = PKey::public_key_from_der(&self.spki)
            .and_then(|key| openssl::sign::Verifier::new(hash.openssl(), &key)?.verify_oneshot(signature, message));
        if matches!(verified, Ok(true)) { Ok(()) } else { Err(BadSignature) }
    }
}

pub(super) fn rsa_kind(rsa_public_key: &[u8]) -> Result<KeyKind, KeyError> {
    let parse = || -> der::Result<(usize, Vec<u8>)> {
        let mut outer = SliceReader::new(rsa_public_key)?;
        let numbers = outer.sequence(|inner| {
            let modulus = UintRef::decode(inner)?;
            let exponent = UintRef::decode(inner)?;
            let first = modulus.as_bytes().first().copied().unwrap_or(0);
            let bits = modulus.as_bytes().len() * 8 - first.leading_zeros() as usize;
            Ok((bits, exponent.as_bytes().to_vec()))
        })?;
        outer.finish(numbers)
    };
    let (bits, exponent) = parse().map_err(|_| KeyError::Malformed)?;
    if (2048..=8192).contains(&bits) && exponent == [1, 0, 1] {
        Ok(KeyKind::Rsa { bits })
    } else {
        Err(KeyError::Weak { bits })
    }
}

/// The algorithm of a signature, as X.509 and CMS name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// `rsaEncryption` (CMS only): the hash is the one of the digest algorithm beside it.
    RsaAnyHash,
    /// `sha…WithRSAEncryption` (PKCS#1 v1.5).
    Rsa(Hash),
    /// `ecdsa-with-SHA…`.
    Ecdsa(Hash),
}

impl SignatureAlgorithm {
    /// Reads an `AlgorithmIdentifier` whose parameters are absent or NULL (real clients send both).
    pub fn from_identifier(id: &x509_cert::spki::AlgorithmIdentifierOwned) -> Option<Self> {
        use const_oid::db::rfc5912 as oid;
        plain_parameters(id).then_some(())?;
        Some(match id.oid {
            oid::RSA_ENCRYPTION => Self::RsaAnyHash,
            oid::SHA_1_WITH_RSA_ENCRYPTION => Self::Rsa(Hash::Sha1),
            oid::SHA_256_WITH_RSA_ENCRYPTION => Self::Rsa(Hash::Sha256),
            oid::SHA_384_WITH_RSA_ENCRYPTION => Self::Rsa(Hash::Sha384),
            oid::SHA_512_WITH_RSA_ENCRYPTION => Self::Rsa(Hash::Sha512),
            oid::ECDSA_WITH_SHA_256 => Self::Ecdsa(Hash::Sha256),
            oid::ECDSA_WITH_SHA_384 => Self::Ecdsa(Hash::Sha384),
            oid::ECDSA_WITH_SHA_512 => Self::Ecdsa(Hash::Sha512),
            _ => return None,
        })
    }

    /// Whether a key of this kind can make such a signature.
    pub fn suits(self, kind: KeyKind) -> bool {
        matches!(self, Self::RsaAnyHash | Self::Rsa(_)) == kind.is_rsa()
    }
}

/// Whether the parameters of an `AlgorithmIdentifier` are absent or NULL.
pub fn plain_parameters(id: &x509_cert::spki::AlgorithmIdentifierOwned) -> bool {
    id.parameters.as_ref().is_none_or(|any| any.to_der().is_ok_and(|der| der == [5, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_signs_what_its_public_half_verifies() {
        for key in [PrivateKey::generate_rsa(2048).unwrap(), PrivateKey::generate_p256().unwrap()] {
            let public = PublicKey::from_spki_der(&key.public_spki_der().unwrap()).unwrap();
            for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
                let signature = key.sign(hash, b"message").unwrap();
                assert_eq!(public.verify(hash, b"message", &signature), Ok(()));
                assert_eq!(public.verify(hash, b"another", &signature), Err(BadSignature));
            }
        }
    }

    #[test]
    fn pem_goes_there_and_back() {
        let key = PrivateKey::generate_p256().unwrap();
        let pem = key.to_pkcs8_pem().unwrap();
        let again = PrivateKey::from_pem(pem.expose().as_bytes()).unwrap();
        assert_eq!(again.public_spki_der(), key.public_spki_der());
        assert_eq!(again.kind(), KeyKind::P256);
    }

    #[test]
    fn th_18_weak_and_unusual_keys_are_refused() {
        assert_eq!(PrivateKey::generate_rsa(1024).unwrap_err(), KeyError::Weak { bits: 1024 });
        let short = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
        assert_eq!(PrivateKey::new(short).unwrap_err(), KeyError::Weak { bits: 1024 });
        let three = openssl::bn::BigNum::from_u32(3).unwrap();
        let low_exponent = PKey::from_rsa(Rsa::generate_with_e(2048, &three).unwrap()).unwrap();
        assert_eq!(PrivateKey::new(low_exponent).unwrap_err(), KeyError::Weak { bits: 2048 });
        let p192 = EcGroup::from_curve_name(Nid::X9_62_PRIME192V1).unwrap();
        let small_curve = PKey::from_ec_key(EcKey::generate(&p192).unwrap()).unwrap();
        assert_eq!(PrivateKey::new(small_curve).unwrap_err(), KeyError::Unsupported);
        assert_eq!(PrivateKey::new(PKey::generate_ed25519().unwrap()).unwrap_err(), KeyError::Unsupported);
    }

    #[test]
    fn debug_shows_the_kind_only() {
        let key = PrivateKey::generate_p256().unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey { kind: P256, .. }");
    }

    #[test]
    fn an_encrypted_pem_is_refused_without_asking_for_a_password() {
        let key = PrivateKey::generate_p256().unwrap();
        let pem =
            key.pkey().private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"secret").unwrap();
        assert_eq!(PrivateKey::from_pem(&pem).unwrap_err(), KeyError::Malformed);
    }
}
