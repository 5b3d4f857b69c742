//! A SCEP client for the tests of this crate. (The simulator's client shares no code with the server.)

use std::time::Duration;

use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::enveloped::Envelope;
use mdm_core::crypto::issue::{CaUse, NewCa, issue_ca};
use mdm_core::crypto::key::PrivateKey;

use super::*;
use crate::issuance::tests::{NOW, request};

pub(crate) struct Client {
    pub(crate) key: PrivateKey,
    pub(crate) signer_key: PrivateKey,
    pub(crate) signer: Certificate,
    pub(crate) cipher: ContentCipher,
    pub(crate) hash: Hash,
    pub(crate) message_type: &'static str,
}

/// What a server answered, opened.
#[derive(Debug)]
pub(crate) enum Answer {
    Success(Box<Certificate>),
    Failure(String),
}

impl Client {
    pub(crate) fn new() -> Self {
        let key = PrivateKey::generate_rsa(2048).unwrap();
        let signer = self_signed(&key);
        Self {
            signer_key: key.clone(),
            key,
            signer,
            cipher: ContentCipher::Aes128Cbc,
            hash: Hash::Sha256,
            message_type: "19",
        }
    }

    /// As the public simulator and its SCEP client send: single DES, SHA-1, a signer key of its own.
    pub(crate) fn old() -> Self {
        let new = Self::new();
        let signer_key = PrivateKey::generate_rsa(2048).unwrap();
        let signer = self_signed(&signer_key);
        Self { signer_key, signer, cipher: ContentCipher::DesCbc, hash: Hash::Sha1, ..new }
    }

    pub(crate) fn message(&self, ra: &Certificate, challenge: Option<&str>) -> Vec<u8> {
        self.around(ra, &request(&self.key, challenge))
    }

    /// A message around these octets in place of a request.
    pub(crate) fn around(&self, ra: &Certificate, content: &[u8]) -> Vec<u8> {
        self.sign(&seal_to(ra.der(), content, self.cipher, &Random::System).unwrap())
    }

    pub(crate) fn sign(&self, envelope: &[u8]) -> Vec<u8> {
        let attributes = [
            printable(MESSAGE_TYPE, self.message_type).unwrap(),
            printable(TRANSACTION_ID, "0123456789ABCDEF").unwrap(),
            octets(SENDER_NONCE, &[9; 16]).unwrap(),
        ];
        ProfileSigner::new(self.signer_key.clone(), self.signer.clone(), Vec::new())
            .unwrap()
            .sign_with(envelope, NOW, self.hash, &attributes)
            .unwrap()
    }

    /// Checks and opens an answer as RFC 8894 §3.3.2 wants it.
    pub(crate) fn read(&self, ra: &Certificate, answer: &[u8]) -> Answer {
        let (signed, content) = verify_attached(answer, Rules { sha1: Sha1Rule::Accept }).unwrap();
        assert_eq!(signed.certificate, *ra);
        assert_eq!(signed.hash, self.hash);
        let text = |oid| {
            let der = signed.attribute(oid).unwrap();
            PrintableStringRef::from_der(&der).unwrap().as_str().to_owned()
        };
        assert_eq!(text(MESSAGE_TYPE), "3");
        assert_eq!(text(TRANSACTION_ID), "0123456789ABCDEF");
        let echoed = OctetString::from_der(&signed.attribute(RECIPIENT_NONCE).unwrap()).unwrap();
        assert_eq!(echoed.as_bytes(), [9; 16]);
        assert!(signed.attribute(SENDER_NONCE).is_some());
        if text(PKI_STATUS) != "0" {
            assert!(content.is_empty());
            return Answer::Failure(text(FAIL_INFO));
        }
        let envelope = Envelope::parse(&content).unwrap();
        assert_eq!(envelope.cipher(), self.cipher);
        let opened = envelope.open(&self.signer_key, self.signer.der(), &Random::System).unwrap();
        let [certificate] = certificates_in(opened.expose()).try_into().unwrap();
        Answer::Success(Box::new(certificate))
    }
}

pub(crate) fn certificates_in(degenerate: &[u8]) -> Vec<Certificate> {
    let info = ContentInfo::from_der(degenerate).unwrap();
    let data: SignedData = info.content.decode_as().unwrap();
    let certificates = data.certificates.unwrap().0.into_vec();
    certificates.iter().map(|choice| Certificate::from_der(&choice.to_der().unwrap()).unwrap()).collect()
}

fn self_signed(key: &PrivateKey) -> Certificate {
    let valid_for = Duration::from_hours(1);
    let ca = NewCa { common_name: "SCEP SIGNER", ca_use: CaUse::Servers, now: NOW, valid_for };
    Certificate::from_der(&issue_ca(key, &ca, &Random::System).unwrap()).unwrap()
}
