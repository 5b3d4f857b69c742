//! CMS `EnvelopedData` (RFC 5652 §6) with RSA key transport (PKCS#1 v1.5), as SCEP uses it.
//!
//! **Implicit rejection (TH-31).** The RSA operation is done without padding, and the padding is checked here in constant
//! time against the one layout that the content cipher's key length allows. Where it does not fit, decryption goes on with a
//! random content key, so that bad padding, a key of another length, a message for somebody else and a damaged content all
//! end in the same place, by the same way, with the same error. The `rsa` crate is not used for this (RUSTSEC-2023-0071).
//!
//! **Single DES without the legacy provider.** DES with key K is triple DES with keys K, K, K, which OpenSSL's default
//! provider has. So old clients are read with any OpenSSL 3, built from source or not.

use std::borrow::Cow;

use cms::cert::IssuerAndSerialNumber;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::enveloped_data::{
    EncryptedContentInfo, EnvelopedData, KeyTransRecipientInfo, RecipientIdentifier, RecipientInfo, RecipientInfos,
};
use const_oid::db::rfc5911::{ID_DATA, ID_ENVELOPED_DATA};
use const_oid::db::rfc5912::RSA_ENCRYPTION;
use const_oid::{AssociatedOid, ObjectIdentifier};
use der::asn1::{Any, OctetString, SetOfVec};
use der::{Decode, Encode};
use openssl::cms::CmsContentInfo;
use openssl::pkey::PKey;
use openssl::rsa::Padding;
use openssl::symm::Cipher;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use super::key::{KeyKind, PrivateKey, PublicKey};
use crate::random::Random;
use crate::secret::Secret;

/// Recipients of one message that are looked at; real clients write to one or two.
const MAX_RECIPIENTS: usize = 8;

/// Why an envelope cannot be read or made. Nothing in it depends on a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is not CMS `EnvelopedData` with RSA recipients.
    #[error("this is not CMS EnvelopedData")]
    Malformed,
    /// Its content cipher is not one of [`ContentCipher`].
    #[error("the content cipher is not one of AES-CBC, triple DES and DES")]
    Cipher,
    /// The recipient's certificate has no RSA key of 2048 bits or more.
    #[error("the recipient's certificate cannot be written to: an RSA key of 2048 bits or more is needed")]
    Recipient,
    /// OpenSSL would not do it.
    #[error("the cryptographic library refused")]
    Library,
}

/// The envelope does not open. There is one such error on purpose (TH-31).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the envelope does not open")]
pub struct DoesNotOpen;

/// The cipher of an envelope's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentCipher {
    /// Single DES: broken, for old clients only.
    DesCbc,
    /// Triple DES with three keys: for old clients only.
    TripleDesCbc,
    /// AES-128.
    Aes128Cbc,
    /// AES-192.
    Aes192Cbc,
    /// AES-256.
    Aes256Cbc,
}

impl ContentCipher {
    const ALL: [Self; 5] = [Self::DesCbc, Self::TripleDesCbc, Self::Aes128Cbc, Self::Aes192Cbc, Self::Aes256Cbc];

    /// Whether it is below today's practice.
    pub fn is_legacy(self) -> bool {
        matches!(self, Self::DesCbc | Self::TripleDesCbc)
    }

    /// The name that people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::DesCbc => "DES",
            Self::TripleDesCbc => "triple DES",
            Self::Aes128Cbc => "AES-128",
            Self::Aes192Cbc => "AES-192",
            Self::Aes256Cbc => "AES-256",
        }
    }

    fn oid(self) -> ObjectIdentifier {
        use const_oid::db::rfc5911::{DES_EDE_3_CBC, ID_AES_128_CBC, ID_AES_192_CBC, ID_AES_256_CBC};
        match self {
            Self::DesCbc => ObjectIdentifier::new_unwrap("1.3.14.3.2.7"),
            Self::TripleDesCbc => DES_EDE_3_CBC,
            Self::Aes128Cbc => ID_AES_128_CBC,
            Self::Aes192Cbc => ID_AES_192_CBC,
            Self::Aes256Cbc => ID_AES_256_CBC,
        }
    }

    fn key_length(self) -> usize {
        match self {
            Self::DesCbc => 8,
            Self::TripleDesCbc | Self::Aes192Cbc => 24,
            Self::Aes128Cbc => 16,
            Self::Aes256Cbc => 32,
        }
    }

    fn block_length(self) -> usize {
        if self.is_legacy() { 8 } else { 16 }
    }

    /// OpenSSL's cipher and the key as it wants it.
    fn keyed(self, key: &[u8]) -> (Cipher, Zeroizing<Vec<u8>>) {
        let (cipher, key) = match self {
            Self::DesCbc => (Cipher::des_ede3_cbc(), key.repeat(3)),
            Self::TripleDesCbc => (Cipher::des_ede3_cbc(), key.to_vec()),
            Self::Aes128Cbc => (Cipher::aes_128_cbc(), key.to_vec()),
            Self::Aes192Cbc => (Cipher::aes_192_cbc(), key.to_vec()),
            Self::Aes256Cbc => (Cipher::aes_256_cbc(), key.to_vec()),
        };
        (cipher, Zeroizing::new(key))
    }
}

/// A received envelope, parsed but closed.
#[derive(Debug)]
pub struct Envelope {
    recipients: Vec<KeyTransRecipientInfo>,
    cipher: ContentCipher,
    iv: Vec<u8>,
    content: Vec<u8>,
}

impl Envelope {
    /// Parses a `ContentInfo` with `EnvelopedData`, in DER or BER.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let der = to_der(bytes).ok_or(EnvelopeError::Malformed)?;
        let info = ContentInfo::from_der(&der).map_err(|_| EnvelopeError::Malformed)?;
        if info.content_type != ID_ENVELOPED_DATA {
            return Err(EnvelopeError::Malformed);
        }
        let data: EnvelopedData = info.content.decode_as().map_err(|_| EnvelopeError::Malformed)?;
        let algorithm = data.encrypted_content.content_enc_alg;
        let cipher =
            ContentCipher::ALL.into_iter().find(|cipher| cipher.oid() == algorithm.oid).ok_or(EnvelopeError::Cipher)?;
        let iv =
            algorithm.parameters.and_then(|p| p.decode_as::<OctetString>().ok()).ok_or(EnvelopeError::Malformed)?;
        if iv.as_bytes().len() != cipher.block_length() {
            return Err(EnvelopeError::Malformed);
        }
        let content = data.encrypted_content.encrypted_content.ok_or(EnvelopeError::Malformed)?;
        let recipients: Vec<_> = data
            .recip_infos
            .0
            .into_vec()
            .into_iter()
            .filter_map(|recipient| match recipient {
                RecipientInfo::Ktri(ktri) if ktri.key_enc_alg.oid == RSA_ENCRYPTION => Some(ktri),
                _ => None,
            })
            .take(MAX_RECIPIENTS)
            .collect();
        Ok(Self { recipients, cipher, iv: iv.into_bytes(), content: content.into_bytes() })
    }

    /// The cipher of the content, which is not secret.
    pub fn cipher(&self) -> ContentCipher {
        self.cipher
    }

    /// Opens it with the recipient's key and certificate (DER).
    pub fn open(&self, key: &PrivateKey, certificate: &[u8], random: &Random) -> Result<Secret<Vec<u8>>, DoesNotOpen> {
        let certificate = Certificate::from_der(certificate).map_err(|_| DoesNotOpen)?;
        let spare = Zeroizing::new(random.bytes::<32>());
        let spare = spare.get(..self.cipher.key_length()).ok_or(DoesNotOpen)?;
        let sent = self.recipients.iter().find(|recipient| names(&recipient.rid, &certificate));
        let encrypted = sent.map(|recipient| recipient.enc_key.as_bytes()).unwrap_or_default();
        let content_key = unwrap_key(key, encrypted, spare);
        let (cipher, content_key) = self.cipher.keyed(&content_key);
        openssl::symm::decrypt(cipher, &content_key, Some(&self.iv), &self.content)
            .map(Secret::new)
            .map_err(|_| DoesNotOpen)
    }
}

/// Encrypts `content` to the RSA key of a certificate (DER), as a `ContentInfo` in DER.
pub fn seal_to(
    certificate: &[u8],
    content: &[u8],
    cipher: ContentCipher,
    random: &Random,
) -> Result<Vec<u8>, EnvelopeError> {
    let certificate = Certificate::from_der(certificate).map_err(|_| EnvelopeError::Recipient)?;
    let tbs = &certificate.tbs_certificate;
    let spki = tbs.subject_public_key_info.to_der().map_err(|_| EnvelopeError::Recipient)?;
    let public = PublicKey::from_spki_der(&spki).map_err(|_| EnvelopeError::Recipient)?;
    if !public.kind().is_rsa() {
        return Err(EnvelopeError::Recipient);
    }
    let key = Zeroizing::new(random.bytes::<32>());
    let key = key.get(..cipher.key_length()).ok_or(EnvelopeError::Library)?;
    let iv = random.bytes::<16>();
    let iv = iv.get(..cipher.block_length()).ok_or(EnvelopeError::Library)?;
    let (with, keyed) = cipher.keyed(key);
    let encrypted = openssl::symm::encrypt(with, &keyed, Some(iv), content).map_err(|_| EnvelopeError::Library)?;
    let wrapped = wrap_key(&spki, key).map_err(|_| EnvelopeError::Library)?;

    let rid = RecipientIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
        issuer: tbs.issuer.clone(),
        serial_number: tbs.serial_number.clone(),
    });
    let encode = || -> der::Result<Vec<u8>> {
        let recipient = RecipientInfo::Ktri(KeyTransRecipientInfo {
            version: CmsVersion::V0,
            rid,
            key_enc_alg: AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(Any::null()) },
            enc_key: OctetString::new(wrapped)?,
        });
        let data = EnvelopedData {
            version: CmsVersion::V0,
            originator_info: None,
            recip_infos: RecipientInfos(SetOfVec::try_from(vec![recipient])?),
            encrypted_content: EncryptedContentInfo {
                content_type: ID_DATA,
                content_enc_alg: AlgorithmIdentifierOwned {
                    oid: cipher.oid(),
                    parameters: Some(Any::encode_from(&OctetString::new(iv)?)?),
                },
                encrypted_content: Some(OctetString::new(encrypted)?),
            },
            unprotected_attrs: None,
        };
        ContentInfo { content_type: ID_ENVELOPED_DATA, content: Any::encode_from(&data)? }.to_der()
    };
    encode().map_err(|_| EnvelopeError::Library)
}

/// CMS in DER: as it is, or re-encoded by OpenSSL where it was BER (Apple's SCEP client sends indefinite lengths).
pub fn to_der(cms: &[u8]) -> Option<Cow<'_, [u8]>> {
    if ContentInfo::from_der(cms).is_ok() {
        return Some(Cow::Borrowed(cms));
    }
    CmsContentInfo::from_der(cms).and_then(|info| info.to_der()).ok().map(Cow::Owned)
}

fn names(recipient: &RecipientIdentifier, certificate: &Certificate) -> bool {
    let tbs = &certificate.tbs_certificate;
    match recipient {
        RecipientIdentifier::IssuerAndSerialNumber(named) => {
            named.issuer == tbs.issuer && named.serial_number == tbs.serial_number
        }
        RecipientIdentifier::SubjectKeyIdentifier(named) => {
            tbs.extensions.iter().flatten().filter(|extension| extension.extn_id == SubjectKeyIdentifier::OID).any(
                |extension| {
                    SubjectKeyIdentifier::from_der(extension.extn_value.as_bytes()).is_ok_and(|id| id == *named)
                },
            )
        }
    }
}

/// The content key, or `spare` where the padding does not fit; in constant time over the decrypted octets.
fn unwrap_key(key: &PrivateKey, encrypted: &[u8], spare: &[u8]) -> Zeroizing<Vec<u8>> {
    let KeyKind::Rsa { bits } = key.kind() else { return Zeroizing::new(spare.to_vec()) };
    let size = bits.div_ceil(8);
    let mut message = Zeroizing::new(vec![0; size]);
    // Whether the ciphertext is a number below the modulus is no secret; where it is not, `message` stays all zero and fails
    // the check below like any other bad padding.
    let decrypted = key.pkey().rsa().is_ok_and(|rsa| {
        rsa.private_decrypt(encrypted, &mut message, Padding::NONE).is_ok_and(|length| length == size)
    });
    let padding = size.saturating_sub(spare.len());
    let mut fits = Choice::from(u8::from(decrypted));
    for (at, octet) in message.iter().take(padding).enumerate() {
        fits &= match at {
            0 => octet.ct_eq(&0),
            1 => octet.ct_eq(&2),
            at if at + 1 == padding => octet.ct_eq(&0),
            _ => !octet.ct_eq(&0),
        };
    }
    let found = message.iter().skip(padding);
    Zeroizing::new(spare.iter().zip(found).map(|(spare, found)| u8::conditional_select(spare, found, fits)).collect())
}

fn wrap_key(spki: &[u8], key: &[u8]) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let rsa = PKey::public_key_from_der(spki)?.rsa()?;
    let mut wrapped = vec![0; rsa.size() as usize];
    let length = rsa.public_encrypt(key, &mut wrapped, Padding::PKCS1)?;
    wrapped.truncate(length);
    Ok(wrapped)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openssl::cms::CMSOptions;
    use openssl::stack::Stack;
    use openssl::x509::X509;

    use super::super::issue::{CaUse, NewCa, issue_ca};
    use super::*;
    use crate::time::Timestamp;

    fn recipient() -> (PrivateKey, Vec<u8>) {
        let key = PrivateKey::generate_rsa(2048).unwrap();
        let ca = NewCa {
            common_name: "Recipient",
            ca_use: CaUse::Identities,
            now: Timestamp(1_795_320_000_000),
            valid_for: Duration::from_hours(24),
        };
        let certificate = issue_ca(&key, &ca, &Random::System).unwrap();
        (key, certificate)
    }

    #[test]
    fn every_cipher_goes_there_and_back() {
        let (key, certificate) = recipient();
        for cipher in ContentCipher::ALL {
            let sealed = seal_to(&certificate, b"the content", cipher, &Random::System).unwrap();
            let envelope = Envelope::parse(&sealed).unwrap();
            assert_eq!(envelope.cipher(), cipher);
            let opened = envelope.open(&key, &certificate, &Random::System).unwrap();
            assert_eq!(opened.expose(), b"the content", "{}", cipher.name());
        }
    }

    #[test]
    fn single_des_is_the_des_of_the_standard() {
        // FIPS 81, appendix C, table C1 (CBC): "Now is the time for all " under 0123456789abcdef.
        let (cipher, key) = ContentCipher::DesCbc.keyed(&hex::decode("0123456789abcdef").unwrap());
        let iv = hex::decode("1234567890abcdef").unwrap();
        let out = openssl::symm::encrypt(cipher, &key, Some(&iv), b"Now is the time for all ").unwrap();
        assert_eq!(hex::encode(&out[..24]), "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6");
    }

    #[test]
    fn openssl_and_this_read_each_other() {
        let (key, certificate) = recipient();
        let x509 = X509::from_der(&certificate).unwrap();
        for cipher in [ContentCipher::Aes128Cbc, ContentCipher::Aes256Cbc, ContentCipher::TripleDesCbc] {
            let ours = seal_to(&certificate, b"hello", cipher, &Random::System).unwrap();
            let read = CmsContentInfo::from_der(&ours).unwrap().decrypt(key.pkey(), &x509).unwrap();
            assert_eq!(read, b"hello");

            let mut stack = Stack::new().unwrap();
            stack.push(x509.clone()).unwrap();
            let theirs =
                CmsContentInfo::encrypt(&stack, b"hello", cipher.keyed(&[0; 32]).0, CMSOptions::BINARY).unwrap();
            let opened = Envelope::parse(&theirs.to_der().unwrap()).unwrap().open(&key, &certificate, &Random::System);
            assert_eq!(opened.unwrap().expose(), b"hello");
        }
    }

    #[test]
    fn th_31_bad_padding_bad_key_and_bad_content_end_alike() {
        let (key, certificate) = recipient();
        let (_, stranger) = recipient();
        let sealed = seal_to(&certificate, &[7; 64], ContentCipher::Aes128Cbc, &Random::System).unwrap();
        let garbled = |f: &dyn Fn(&mut Envelope)| {
            let mut envelope = Envelope::parse(&sealed).unwrap();
            f(&mut envelope);
            envelope
        };
        let with_key = |wrapped: Vec<u8>| {
            garbled(&|envelope| envelope.recipients[0].enc_key = OctetString::new(wrapped.clone()).unwrap())
        };
        let spki = key.public_spki_der().unwrap();
        let cases = [
            garbled(&|e| e.content.iter_mut().for_each(|b| *b ^= 1)),
            with_key(vec![9; 256]),
            with_key(vec![0xff; 256]),
            with_key(vec![1; 3]),
            with_key(wrap_key(&spki, &[1; 24]).unwrap()),
            Envelope::parse(&seal_to(&stranger, &[7; 64], ContentCipher::Aes128Cbc, &Random::System).unwrap()).unwrap(),
        ];
        for envelope in cases {
            // A random key can by chance end in valid padding (1 in 256): then the content is noise, never the message.
            match envelope.open(&key, &certificate, &Random::System) {
                Err(DoesNotOpen) => {}
                Ok(noise) => assert_ne!(noise.expose(), &[7; 64]),
            }
        }
    }

    #[test]
    fn an_envelope_of_indefinite_lengths_is_read() {
        let (key, certificate) = recipient();
        let sealed = seal_to(&certificate, b"hello", ContentCipher::Aes128Cbc, &Random::System).unwrap();
        // ContentInfo, as Apple's client has it: SEQUENCE with an open length, two zero octets at its end.
        assert_eq!(sealed[..2], [0x30, 0x82]);
        let ber = [&[0x30, 0x80], &sealed[4..], &[0, 0]].concat();
        assert!(ContentInfo::from_der(&ber).is_err());
        let opened = Envelope::parse(&ber).unwrap().open(&key, &certificate, &Random::System).unwrap();
        assert_eq!(opened.expose(), b"hello");
    }

    #[test]
    fn an_unknown_cipher_and_what_is_no_envelope_are_refused() {
        let (_, certificate) = recipient();
        let sealed = seal_to(&certificate, b"x", ContentCipher::Aes128Cbc, &Random::System).unwrap();
        let oid = ContentCipher::Aes128Cbc.oid();
        let at = sealed.windows(9).position(|w| w == oid.as_bytes()).unwrap();
        let mut unknown = sealed.clone();
        unknown[at + 8] = 0x30;
        assert_eq!(Envelope::parse(&unknown).unwrap_err(), EnvelopeError::Cipher);
        assert_eq!(Envelope::parse(&certificate).unwrap_err(), EnvelopeError::Malformed);
        for length in 0..sealed.len() {
            assert!(Envelope::parse(&sealed[..length]).is_err());
        }
    }
}
