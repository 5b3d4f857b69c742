//! Messages forged part by part, so that each rule of the profile is tried alone (TH-15).

use std::sync::OnceLock;

use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5911, rfc5912};
use der::Encode;
use rcgen::{CertificateParams, KeyIdMethod, KeyPair};

use super::*;
use crate::crypto::cms_sign::{CONTEXT_0, OCTET_STRING, SEQUENCE, SET, tlv};
use crate::crypto::key::PrivateKey;

const CONTENT: &[u8] = b"<plist version=\"1.0\"><dict/></plist>";
const STRICT: Rules = Rules { sha1: Sha1Rule::Refuse };
const LAX: Rules = Rules { sha1: Sha1Rule::Accept };
const NULL: [u8; 2] = [5, 0];
const MD5: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.5");

struct Person {
    key: PrivateKey,
    certificate: Certificate,
}

impl Person {
    fn with(key: PrivateKey, serial: u8) -> Self {
        let pair = KeyPair::from_pem(key.to_pkcs8_pem().unwrap().expose()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "device");
        params.serial_number = Some(vec![serial].into());
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![serial; 20]);
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        let made = params.self_signed(&pair).unwrap();
        Self { key, certificate: Certificate::from_der(made.der()).unwrap() }
    }
}

fn device() -> &'static Person {
    static DEVICE: OnceLock<Person> = OnceLock::new();
    DEVICE.get_or_init(|| Person::with(PrivateKey::generate_rsa(2048).unwrap(), 1))
}

fn stranger() -> &'static Person {
    static STRANGER: OnceLock<Person> = OnceLock::new();
    STRANGER.get_or_init(|| Person::with(PrivateKey::generate_rsa(2048).unwrap(), 2))
}

fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, parts).unwrap()
}

fn oid(oid: ObjectIdentifier) -> Vec<u8> {
    oid.to_der().unwrap()
}

fn attribute(kind: ObjectIdentifier, values: &[&[u8]]) -> Vec<u8> {
    seq(&[&oid(kind), &tlv(SET, values).unwrap()])
}

fn content_type(kind: ObjectIdentifier) -> Vec<u8> {
    attribute(ID_CONTENT_TYPE, &[&oid(kind)])
}

fn message_digest(digest: &[u8]) -> Vec<u8> {
    attribute(ID_MESSAGE_DIGEST, &[&tlv(OCTET_STRING, &[digest]).unwrap()])
}

/// 2010-01-01T00:00:00Z.
fn signing_time() -> Vec<u8> {
    attribute(ID_SIGNING_TIME, &[b"\x17\x0d100101000000Z"])
}

/// A message and everything in it that a test may wish otherwise.
#[derive(Clone)]
struct Forge<'a> {
    signer: &'a Person,
    /// Whom the signer identifier names.
    named: &'a Certificate,
    by_key_id: bool,
    hash: Hash,
    digest_algorithm: Vec<u8>,
    signature_algorithm: Vec<u8>,
    attributes: Option<Vec<Vec<u8>>>,
    content_type: ObjectIdentifier,
    content: Option<&'a [u8]>,
    certificates: Vec<&'a Certificate>,
    signers: usize,
}

impl<'a> Forge<'a> {
    fn good(signer: &'a Person, hash: Hash) -> Self {
        let signature = match (signer.key.kind().is_rsa(), hash) {
            (true, _) => rfc5912::RSA_ENCRYPTION,
            (false, Hash::Sha256) => rfc5912::ECDSA_WITH_SHA_256,
            (false, Hash::Sha384) => rfc5912::ECDSA_WITH_SHA_384,
            (false, _) => rfc5912::ECDSA_WITH_SHA_512,
        };
        Self {
            signer,
            named: &signer.certificate,
            by_key_id: false,
            hash,
            digest_algorithm: seq(&[&oid(hash.oid())]),
            signature_algorithm: seq(&[&oid(signature)]),
            attributes: Some(vec![content_type(ID_DATA), signing_time(), message_digest(&hash.digest(CONTENT))]),
            content_type: ID_DATA,
            content: None,
            certificates: vec![&signer.certificate],
            signers: 1,
        }
    }

    /// The message, and what was signed in it.
    fn build_parts(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let attributes = self.attributes.clone().map(|mut attributes| {
            attributes.sort();
            attributes.concat()
        });
        let signed = attributes.as_ref().map_or(CONTENT.to_vec(), |a| tlv(SET, &[a]).unwrap());
        let signature = self.signer.key.sign(self.hash, &signed).unwrap();
        (self.assemble(attributes.as_deref(), &signature), signed, signature)
    }

    fn build(&self) -> Vec<u8> {
        self.build_parts().0
    }

    fn assemble(&self, attributes: Option<&[u8]>, signature: &[u8]) -> Vec<u8> {
        let tbs = &self.named.parsed().tbs_certificate;
        let sid = if self.by_key_id {
            tlv(0x80, &[self.named.subject_key_id().unwrap()]).unwrap()
        } else {
            seq(&[&tbs.issuer.to_der().unwrap(), &tbs.serial_number.to_der().unwrap()])
        };
        let version = if self.by_key_id { [2, 1, 3] } else { [2, 1, 1] };
        let attributes = attributes.map_or(vec![], |a| tlv(CONTEXT_0, &[a]).unwrap());
        let signer_info = seq(&[
            &version,
            &sid,
            &self.digest_algorithm,
            &attributes,
            &self.signature_algorithm,
            &tlv(OCTET_STRING, &[signature]).unwrap(),
        ]);
        let content =
            self.content.map_or(vec![], |content| tlv(CONTEXT_0, &[&tlv(OCTET_STRING, &[content]).unwrap()]).unwrap());
        let certificates: Vec<&[u8]> = self.certificates.iter().map(|certificate| certificate.der()).collect();
        let signed_data = seq(&[
            &[2, 1, 1],
            &tlv(SET, &[&self.digest_algorithm]).unwrap(),
            &seq(&[&oid(self.content_type), &content]),
            &tlv(CONTEXT_0, &certificates).unwrap(),
            &tlv(SET, &vec![signer_info.as_slice(); self.signers]).unwrap(),
        ]);
        seq(&[&oid(ID_SIGNED_DATA), &tlv(CONTEXT_0, &[&signed_data]).unwrap()])
    }
}

fn good() -> Forge<'static> {
    Forge::good(device(), Hash::Sha256)
}

/// Refused under both rules: SHA-1 being allowed opens nothing else.
fn refused(cms: &[u8]) -> CmsError {
    let strict = verify_detached(cms, CONTENT, STRICT).unwrap_err();
    assert_eq!(verify_detached(cms, CONTENT, LAX).unwrap_err(), strict);
    strict
}

#[test]
fn good_messages_are_accepted() {
    let p256 = Person::with(PrivateKey::generate_p256().unwrap(), 3);
    for signer in [device(), &p256] {
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            let by = verify_detached(&Forge::good(signer, hash).build(), CONTENT, STRICT).unwrap();
            assert_eq!(by.certificate, signer.certificate);
            assert_eq!(by.signing_time, Some(Timestamp::from_unix_seconds(1_262_304_000)));
            assert!(!by.sha1 && by.others.is_empty() && by.hash == hash);
        }
    }
}

/// Whether OpenSSL's own check of the whole message passes; who the signer is, is not asked.
fn openssl_accepts(cms: &[u8]) -> bool {
    use openssl::cms::CMSOptions;
    let flags = CMSOptions::BINARY | CMSOptions::DETACHED | CMSOptions::NO_SIGNER_CERT_VERIFY;
    CmsContentInfo::from_der(cms).is_ok_and(|mut cms| cms.verify(None, None, Some(CONTENT), None, flags).is_ok())
}

#[test]
fn what_is_accepted_here_is_accepted_by_openssl() {
    let p256 = Person::with(PrivateKey::generate_p256().unwrap(), 3);
    for signer in [device(), &p256] {
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            assert!(openssl_accepts(&Forge::good(signer, hash).build()), "{hash:?}");
        }
    }
    assert!(!openssl_accepts(&Forge { signer: stranger(), named: &device().certificate, ..good() }.build()));
}

#[test]
fn named_algorithms_null_parameters_and_key_ids_are_accepted() {
    let mut forge = good();
    forge.digest_algorithm = seq(&[&oid(rfc5912::ID_SHA_256), &NULL]);
    forge.signature_algorithm = seq(&[&oid(rfc5912::SHA_256_WITH_RSA_ENCRYPTION), &NULL]);
    forge.by_key_id = true;
    assert!(verify_detached(&forge.build(), CONTENT, STRICT).is_ok());
}

#[test]
fn a_missing_signing_time_is_told_to_the_caller() {
    let mut forge = good();
    forge.attributes = Some(vec![content_type(ID_DATA), message_digest(&Hash::Sha256.digest(CONTENT))]);
    assert_eq!(verify_detached(&forge.build(), CONTENT, STRICT).unwrap().signing_time, None);
}

#[test]
fn content_inside_is_given_back() {
    let mut forge = good();
    forge.content = Some(CONTENT);
    let (by, content) = verify_attached(&forge.build(), STRICT).unwrap();
    assert_eq!((by.certificate, content.as_slice()), (device().certificate.clone(), CONTENT));
}

#[test]
fn ber_with_indefinite_lengths_is_re_encoded_first() {
    let der = good().build();
    let outer = contents(&der, Tag::Sequence).unwrap();
    let ber = [&[0x30, 0x80], outer, &[0, 0]].concat();
    assert!(Parts::read(&ber).is_err(), "the strict reader alone takes DER only");
    assert_eq!(verify_detached(&ber, CONTENT, STRICT).unwrap().certificate, device().certificate);
    let trailing = [ber.as_slice(), &[0]].concat();
    assert_eq!(refused(&trailing), CmsError::Malformed);
}

#[test]
fn th_15_no_signed_attributes() {
    let mut forge = good();
    forge.attributes = None;
    assert_eq!(refused(&forge.build()), CmsError::Attributes);
}

#[test]
fn th_15_signed_attributes_replayed_as_content() {
    let (_, signed, signature) = good().build_parts();
    let replayed = good().assemble(None, &signature);
    assert_eq!(verify_detached(&replayed, &signed, LAX).unwrap_err(), CmsError::Attributes);
}

#[test]
fn th_15_md5() {
    let mut forge = good();
    forge.digest_algorithm = seq(&[&oid(MD5), &NULL]);
    assert_eq!(refused(&forge.build()), CmsError::Algorithm);
    let mut named = good();
    named.signature_algorithm = seq(&[&oid(ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4")), &NULL]);
    assert_eq!(refused(&named.build()), CmsError::Algorithm);
}

#[test]
fn th_15_sha_1_only_by_rule() {
    let mut forge = Forge::good(device(), Hash::Sha1);
    for algorithm in [rfc5912::RSA_ENCRYPTION, rfc5912::SHA_1_WITH_RSA_ENCRYPTION] {
        forge.signature_algorithm = seq(&[&oid(algorithm)]);
        let message = forge.build();
        assert_eq!(verify_detached(&message, CONTENT, STRICT).unwrap_err(), CmsError::Sha1);
        assert!(verify_detached(&message, CONTENT, LAX).unwrap().sha1);
    }
}

#[test]
fn th_15_another_content_type() {
    let mut attribute = good();
    attribute.attributes =
        Some(vec![content_type(rfc5911::ID_SIGNED_DATA), message_digest(&Hash::Sha256.digest(CONTENT))]);
    assert_eq!(refused(&attribute.build()), CmsError::ContentType);
    let mut outside = good();
    outside.content_type = rfc5911::ID_ENVELOPED_DATA;
    assert_eq!(refused(&outside.build()), CmsError::ContentType);
}

#[test]
fn th_15_none_or_two_signers() {
    for signers in [0, 2] {
        let forge = Forge { signers, ..good() };
        assert_eq!(refused(&forge.build()), CmsError::NotOneSigner);
    }
}

#[test]
fn th_15_trailing_bytes() {
    let good = good().build();
    assert_eq!(refused(&[good.as_slice(), &[0]].concat()), CmsError::Malformed);
    assert_eq!(refused(&[good.as_slice(), &good].concat()), CmsError::Malformed);
    for length in 0..good.len() {
        assert_eq!(refused(&good[..length]), CmsError::Malformed, "cut at {length}");
    }
}

#[test]
fn th_15_a_foreign_certificate_in_the_bag_is_not_the_signer() {
    // Signed by a stranger, who names the device and puts both certificates in, in either order.
    for certificates in
        [[&device().certificate, &stranger().certificate], [&stranger().certificate, &device().certificate]]
    {
        let forged =
            Forge { signer: stranger(), named: &device().certificate, certificates: certificates.to_vec(), ..good() };
        assert_eq!(refused(&forged.build()), CmsError::Signature);
        // The device itself may carry others along: it is the one who is named.
        let carried = Forge { certificates: certificates.to_vec(), ..good() };
        let by = verify_detached(&carried.build(), CONTENT, STRICT).unwrap();
        assert_eq!(by.certificate, device().certificate);
        assert_eq!(by.others, [stranger().certificate.clone()]);
    }
    let absent = Forge { certificates: vec![&stranger().certificate], ..good() };
    assert_eq!(refused(&absent.build()), CmsError::NoSignerCertificate);
    let twice = Forge { certificates: vec![&device().certificate; 2], ..good() };
    assert_eq!(refused(&twice.build()), CmsError::NoSignerCertificate);
}

#[test]
fn th_15_missing_and_repeated_attributes() {
    let digest = message_digest(&Hash::Sha256.digest(CONTENT));
    let octets = tlv(OCTET_STRING, &[&Hash::Sha256.digest(CONTENT)]).unwrap();
    let other = tlv(OCTET_STRING, &[&Hash::Sha256.digest(b"other")]).unwrap();
    for attributes in [
        vec![content_type(ID_DATA)],
        vec![digest.clone()],
        vec![content_type(ID_DATA), digest.clone(), message_digest(&Hash::Sha256.digest(b"other"))],
        vec![content_type(ID_DATA), content_type(rfc5911::ID_SIGNED_DATA), digest.clone()],
        vec![content_type(ID_DATA), attribute(ID_MESSAGE_DIGEST, &[&octets, &other])],
        vec![content_type(ID_DATA), attribute(ID_MESSAGE_DIGEST, &[])],
        vec![content_type(ID_DATA), digest.clone(), attribute(ID_SIGNING_TIME, &[&octets])],
    ] {
        let forge = Forge { attributes: Some(attributes), ..good() };
        assert_eq!(refused(&forge.build()), CmsError::Attributes);
    }
}

#[test]
fn th_15_another_content() {
    let message = good().build();
    assert_eq!(verify_detached(&message, b"another body", STRICT).unwrap_err(), CmsError::Digest);
}

#[test]
fn th_15_an_altered_signature_or_attribute() {
    let message = good().build();
    let mut altered = message.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&altered), CmsError::Signature);
    let at = message.windows(13).position(|window| window == b"100101000000Z").unwrap();
    let mut later = message;
    later[at..at + 6].copy_from_slice(b"260101");
    assert_eq!(refused(&later), CmsError::Signature);
}

#[test]
fn th_15_content_inside_a_detached_signature_and_none_inside_an_attached_one() {
    let inside = Forge { content: Some(CONTENT), ..good() };
    assert_eq!(refused(&inside.build()), CmsError::ContentPlace { detached: true });
    let outside = verify_attached(&good().build(), STRICT).unwrap_err();
    assert_eq!(outside, CmsError::ContentPlace { detached: false });
}

#[test]
fn th_15_algorithms_that_do_not_fit_each_other() {
    let mut other_hash = good();
    other_hash.signature_algorithm = seq(&[&oid(rfc5912::SHA_512_WITH_RSA_ENCRYPTION), &NULL]);
    assert_eq!(refused(&other_hash.build()), CmsError::Algorithm);
    let mut other_key = good();
    other_key.signature_algorithm = seq(&[&oid(rfc5912::ECDSA_WITH_SHA_256)]);
    assert_eq!(refused(&other_key.build()), CmsError::Algorithm);
    let mut parameters = good();
    parameters.digest_algorithm = seq(&[&oid(rfc5912::ID_SHA_256), &[2, 1, 1]]);
    assert_eq!(refused(&parameters.build()), CmsError::Algorithm);
}

#[test]
fn th_15_a_digest_that_the_message_does_not_announce() {
    let message = good().build();
    let announced = oid(rfc5912::ID_SHA_256);
    let at = message.windows(announced.len()).position(|window| window == announced).unwrap();
    let mut altered = message;
    altered[at + announced.len() - 1] = 2; // SHA-384
    assert_eq!(refused(&altered), CmsError::Algorithm);
}

#[test]
fn th_15_too_many_certificates_and_too_many_bytes() {
    let many = Forge { certificates: vec![&stranger().certificate; 11], ..good() };
    assert_eq!(refused(&many.build()), CmsError::Certificates);
    assert_eq!(refused(&[good().build(), vec![0; MAX_BYTES]].concat()), CmsError::TooLong);
}

#[test]
fn th_18_a_weak_signer_is_refused() {
    // Certificates that a weak key signed itself do not come from our own types: OpenSSL makes this one.
    use openssl::{asn1::Asn1Time, hash::MessageDigest, pkey::PKey, rsa::Rsa, x509::X509};
    let key = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
    let mut x509 = X509::builder().unwrap();
    x509.set_pubkey(&key).unwrap();
    x509.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    x509.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    x509.sign(&key, MessageDigest::sha256()).unwrap();
    let weak = Certificate::from_der(&x509.build().to_der().unwrap()).unwrap();
    let forge = Forge { named: &weak, certificates: vec![&weak], ..good() };
    assert_eq!(refused(&forge.build()), CmsError::Key);
}

#[test]
fn ber_lengths_are_followed_without_recursion() {
    assert_eq!(ber_length(&[0x30, 0x80, 0x04, 0x01, 0xff, 0, 0, 9]), Some(7));
    assert_eq!(ber_length(&[0x30, 0x82, 0, 1, 0xff]), Some(5));
    assert_eq!(ber_length(&[0x30, 0x82, 0, 2, 0xff]), None);
    assert_eq!(ber_length(&[0x04, 0x80, 0, 0]), None);
    assert_eq!(ber_length(&[0x30, 0x80].repeat(1000)), None);
    assert_eq!(ber_length(&[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1]), None);
    assert_eq!(ber_length(&[]), None);
}

proptest::proptest! {
    #[test]
    fn no_altered_octet_panics_or_passes_as_another(at in 0_usize..4000, with: u8) {
        let message = good().build();
        let mut altered = message.clone();
        let at = at % altered.len();
        altered[at] = with;
        if let Ok(by) = verify_detached(&altered, CONTENT, STRICT) {
            // An altered certificate is refused by its issuer's signature, not here.
            let unaltered = by.certificate == device().certificate;
            proptest::prop_assert!(!unaltered || openssl_accepts(&altered), "what passes here passes OpenSSL too");
            proptest::prop_assert_eq!(by.certificate.public_key().unwrap(), device().certificate.public_key().unwrap());
        }
    }
}
