//! What a certificate says of its subject and its key, without judging whether the key is strong enough: a certificate that a
//! policy asked for may have any key that Apple's payload allows.

use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};
use der::asn1::{
    BmpString, Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, UintRef, Utf8StringRef,
};
use der::{Decode, Encode, Reader, SliceReader, Tagged};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::Certificate;
use crate::ids::Fingerprint;

/// `prime192v1` (ANSI X9.62): P-192.
const PRIME_192_V_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.1");

/// The public key of a certificate, in the words of Apple's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectKey {
    /// `KeyType`: `RSA` or `ECSECPrimeRandom`; none for any other kind.
    pub key_type: Option<&'static str>,
    /// `KeySize` in bits: the length of the modulus, or of the curve's field; none where it cannot be told.
    pub key_size: Option<u32>,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub spki_sha256: [u8; 32],
}

impl SubjectKey {
    /// Reads a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7) in DER with nothing after it.
    pub fn of_spki(der: &[u8]) -> Option<Self> {
        SubjectPublicKeyInfoOwned::from_der(der).ok().map(|info| Self::of(&info))
    }

    fn of(info: &SubjectPublicKeyInfoOwned) -> Self {
        let bits = info.subject_public_key.as_bytes().unwrap_or_default();
        let (key_type, key_size) = if info.algorithm.oid == RSA_ENCRYPTION {
            (Some("RSA"), modulus_bits(bits))
        } else if info.algorithm.oid == ID_EC_PUBLIC_KEY {
            let curve = info.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
            let size = match curve {
                Some(PRIME_192_V_1) => Some(192),
                Some(SECP_256_R_1) => Some(256),
                Some(SECP_384_R_1) => Some(384),
                Some(SECP_521_R_1) => Some(521),
                _ => None,
            };
            (Some("ECSECPrimeRandom"), size)
        } else {
            (None, None)
        };
        let spki = info.to_der().unwrap_or_default();
        Self { key_type, key_size, spki_sha256: Fingerprint::of(&spki).0 }
    }

    /// Such as `ECSECPrimeRandom 256`, for people and for the column of that name.
    pub fn words(&self) -> String {
        match (self.key_type, self.key_size) {
            (Some(kind), Some(size)) => format!("{kind} {size}"),
            (Some(kind), None) => kind.to_owned(),
            (None, _) => "unknown".to_owned(),
        }
    }
}

impl Certificate {
    /// What kind of key the certificate is for.
    pub fn subject_key(&self) -> SubjectKey {
        SubjectKey::of(&self.parsed().tbs_certificate.subject_public_key_info)
    }

    /// Every attribute of the subject, in order: the dotted identifier of its type, and its value where that is text.
    pub fn subject_attributes(&self) -> Vec<(String, String)> {
        let names = self.parsed().tbs_certificate.subject.0.iter().flat_map(|rdn| rdn.0.iter());
        names.filter_map(|attribute| Some((attribute.oid.to_string(), text(&attribute.value)?))).collect()
    }
}

/// Reads a distinguished name, DER: the dotted identifier of each attribute's type in order, and its value where that is text. Nothing
/// where it is not a name.
pub fn read_name(der: &[u8]) -> Option<Vec<(String, Option<String>)>> {
    let name = Name::from_der(der).ok()?;
    let attributes = name.0.iter().flat_map(|rdn| rdn.0.iter());
    Some(attributes.map(|attribute| (attribute.oid.to_string(), text(&attribute.value))).collect())
}

/// The length in bits of the modulus of an `RSAPublicKey` (RFC 8017 A.1.1).
fn modulus_bits(key: &[u8]) -> Option<u32> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus = reader.sequence(|inner| {
        let modulus = UintRef::decode(inner)?.as_bytes().to_vec();
        UintRef::decode(inner)?;
        Ok::<_, der::Error>(modulus)
    });
    let modulus = modulus.ok()?;
    let first = modulus.first()?;
    u32::try_from(modulus.len()).ok()?.checked_mul(8)?.checked_sub(first.leading_zeros())
}

fn text(value: &der::Any) -> Option<String> {
    match value.tag() {
        der::Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|s| s.to_string()),
        der::Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|s| s.to_string()),
        der::Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok().map(|s| s.to_string()),
        der::Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok().map(|s| s.to_string()),
        der::Tag::BmpString => value.decode_as::<BmpString>().ok().map(|s| s.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;
    use crate::crypto::key::PrivateKey;

    fn certificate(key: &KeyPair, subject: &[(DnType, DnValue)]) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        Certificate::from_der(params.self_signed(key).unwrap().der()).unwrap()
    }

    #[test]
    fn a_key_is_told_in_apples_words() {
        let p256 = certificate(&KeyPair::generate().unwrap(), &[]).subject_key();
        assert_eq!((p256.key_type, p256.key_size), (Some("ECSECPrimeRandom"), Some(256)));
        assert_eq!(p256.words(), "ECSECPrimeRandom 256");
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(certificate(&p384, &[]).subject_key().key_size, Some(384));
        let pem = PrivateKey::generate_rsa(2048).unwrap().to_pkcs8_pem().unwrap();
        let rsa = certificate(&KeyPair::from_pem(pem.expose()).unwrap(), &[]).subject_key();
        assert_eq!((rsa.key_type, rsa.key_size), (Some("RSA"), Some(2048)));
        let ed25519 = certificate(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), &[]).subject_key();
        assert_eq!((ed25519.key_type, ed25519.words().as_str()), (None, "unknown"));
    }

    #[test]
    fn the_key_is_named_by_its_spki() {
        let key = KeyPair::generate().unwrap();
        let certificate = certificate(&key, &[]);
        let public = certificate.public_key().unwrap();
        assert_eq!(certificate.subject_key().spki_sha256, Fingerprint::of(public.spki_der()).0);
        assert_eq!(SubjectKey::of_spki(public.spki_der()), Some(certificate.subject_key()));
        assert_eq!(SubjectKey::of_spki(&[public.spki_der(), b"x"].concat()), None);
    }

    #[test]
    fn the_attributes_of_a_subject_keep_their_order_and_their_text() {
        let key = KeyPair::generate().unwrap();
        let custom = DnType::from_oid(&[1, 2, 5, 3]);
        let subject = [
            (DnType::CountryName, DnValue::PrintableString("US".try_into().unwrap())),
            (DnType::OrganizationName, DnValue::BmpString("Exämple".try_into().unwrap())),
            (custom, DnValue::Utf8String("bar".into())),
            (DnType::CommonName, DnValue::Utf8String("Ada".into())),
        ];
        let attributes = certificate(&key, &subject).subject_attributes();
        let expected = [("2.5.4.6", "US"), ("2.5.4.10", "Exämple"), ("1.2.5.3", "bar"), ("2.5.4.3", "Ada")];
        assert_eq!(attributes, expected.map(|(kind, value)| (kind.to_owned(), value.to_owned())));
    }
}
