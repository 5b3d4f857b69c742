//! A certificate authority for rehearsals: what Apple's push service would show and what a customer would upload.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use crate::error::Result;
use crate::signature::Identity;

/// How long everything made here is valid.
const DAYS: u32 = 30;

/// The authority.
#[derive(Debug, Clone)]
pub struct Authority {
    identity: Identity,
}

/// A certificate and its key as PEM texts.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

impl Authority {
    /// A new authority with this common name.
    pub fn new(common_name: &str) -> Result<Self> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
        let name = name.build();
        let mut builder = start(&key)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { identity: Identity { certificate: builder.build(), key } })
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> Result<String> {
        text(self.identity.certificate.to_pem()?)
    }

    /// A server certificate for `localhost` and the loopback addresses.
    pub fn server(&self) -> Result<Pair> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, "localhost")?;
        let mut builder = start(&key)?;
        builder.set_subject_name(&name.build())?;
        builder.set_issuer_name(self.identity.certificate.subject_name())?;
        let context = builder.x509v3_context(Some(&self.identity.certificate), None);
        let names = SubjectAlternativeName::new().dns("localhost").ip("127.0.0.1").ip("::1").build(&context)?;
        builder.append_extension(names)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        self.finish(builder, &key)
    }

    /// A push certificate whose subject carries the topic as UID, as Apple's do.
    pub fn push(&self, topic: &str) -> Result<Pair> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::USERID, topic)?;
        let unique = topic.rsplit('.').next().unwrap_or_default();
        name.append_entry_by_nid(Nid::COMMONNAME, &format!("APSP:{unique}"))?;
        name.append_entry_by_nid(Nid::COUNTRYNAME, "US")?;
        let mut builder = start(&key)?;
        builder.set_subject_name(&name.build())?;
        builder.set_issuer_name(self.identity.certificate.subject_name())?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
        self.finish(builder, &key)
    }

    fn finish(&self, mut builder: X509Builder, key: &PKey<Private>) -> Result<Pair> {
        builder.sign(&self.identity.key, MessageDigest::sha256())?;
        let certificate: X509 = builder.build();
        Ok(Pair { certificate: text(certificate.to_pem()?)?, key: text(key.private_key_to_pem_pkcs8()?)? })
    }
}

fn start(key: &PKey<Private>) -> Result<X509Builder> {
    let mut serial = BigNum::new()?;
    serial.rand(96, MsbOption::ONE, false)?;
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(DAYS)?.as_ref())?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

fn text(pem: Vec<u8>) -> Result<String> {
    String::from_utf8(pem).map_err(|_| crate::Error::Options("PEM is text".into()))
}

/// A topic as Apple's portal makes them, from random bytes.
pub fn topic() -> Result<String> {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(format!("com.apple.mgmt.External.{}", uuid::Builder::from_random_bytes(bytes).into_uuid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_chain_to_the_authority_and_carry_the_topic() {
        let authority = Authority::new("Rehearsal").unwrap();
        let topic = topic().unwrap();
        let key = X509::from_pem(authority.pem().unwrap().as_bytes()).unwrap().public_key().unwrap();
        for pair in [authority.server().unwrap(), authority.push(&topic).unwrap()] {
            assert!(X509::from_pem(pair.certificate.as_bytes()).unwrap().verify(&key).unwrap());
        }
        let push = X509::from_pem(authority.push(&topic).unwrap().certificate.as_bytes()).unwrap();
        let uid = push.subject_name().entries_by_nid(Nid::USERID).next().unwrap();
        assert_eq!(uid.data().to_string().unwrap(), topic);
    }
}
