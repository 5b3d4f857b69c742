//! Building X.509 certificates (RFC 5280): our own CAs, and the leaves that they sign.
//!
//! What a certificate says comes from the caller's record, never from a request (TH-29). Serial numbers are 128 random bits.

use std::net::IpAddr;
use std::time::Duration;

use der::Encode;
use der::asn1::{Ia5String, OctetString};
use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameRef};
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;

use super::key::{Hash, PrivateKey, PublicKey};
use crate::random::Random;
use crate::time::Timestamp;

/// How far certificates are dated back, so that a device whose clock is slow accepts them.
const BACKDATED: Duration = Duration::from_hours(1);

/// Why a certificate could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The subject or another name does not fit a certificate.
    #[error("the name '{0}' does not fit a certificate: a common name has 1 to 64 characters")]
    Name(String),
    /// The issuer's certificate cannot be read, or has ended.
    #[error("the issuing CA's certificate cannot be used: {0}")]
    Issuer(&'static str),
    /// OpenSSL would not do it.
    #[error("the certificate could not be made")]
    Library,
}

impl From<openssl::error::ErrorStack> for IssueError {
    fn from(_: openssl::error::ErrorStack) -> Self {
        Self::Library
    }
}

/// What a CA is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaUse {
    /// Signs device identities. Name-constrained: no certificate under it is good for a DNS name or an IP address, so that
    /// a stolen key cannot impersonate a server to devices that trust this CA (TH-35).
    Identities,
    /// Signs certificates of TLS servers (the pilot's own).
    Servers,
}

/// A CA certificate to be made: self-signed, path length 0.
#[derive(Debug, Clone)]
pub struct NewCa<'a> {
    /// Common name, 1 to 64 characters.
    pub common_name: &'a str,
    /// What it is for.
    pub ca_use: CaUse,
    /// From when (dated back by an hour).
    pub now: Timestamp,
    /// For how long from `now`.
    pub valid_for: Duration,
}

/// What a leaf certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafUse {
    /// A device's identity: digitalSignature and keyEncipherment, EKU clientAuth.
    ClientIdentity,
    /// The SCEP registration authority: digitalSignature and keyEncipherment, no EKU.
    ScepRa,
    /// Signs configuration profiles: digitalSignature, no EKU.
    ProfileSigner,
    /// A TLS server: digitalSignature and keyEncipherment, EKU serverAuth.
    TlsServer,
}

/// A leaf certificate to be made.
#[derive(Debug, Clone)]
pub struct NewLeaf<'a> {
    /// Common name, 1 to 64 characters.
    pub common_name: &'a str,
    /// What it is for.
    pub leaf_use: LeafUse,
    /// DNS names of the subject alternative name.
    pub dns_names: &'a [&'a str],
    /// IP addresses of the subject alternative name.
    pub ip_addresses: &'a [IpAddr],
    /// From when (dated back by an hour).
    pub now: Timestamp,
    /// For how long, the hour that it is dated back included; cut where the CA ends sooner.
    pub valid_for: Duration,
}

/// A CA that signs: its key and its certificate.
#[derive(Debug, Clone, Copy)]
pub struct Issuer<'a> {
    /// The private key.
    pub key: &'a PrivateKey,
    /// The certificate, DER.
    pub certificate: &'a [u8],
}

/// Makes a self-signed CA certificate for `key`, as DER.
pub fn issue_ca(key: &PrivateKey, ca: &NewCa<'_>, random: &Random) -> Result<Vec<u8>, IssueError> {
    let name = name(ca.common_name)?;
    let mut builder = begin(&name, &name, key.pkey(), random)?;
    builder.set_not_before(&*asn1_time(ca.now.minus(BACKDATED))?)?;
    builder.set_not_after(&*asn1_time(ca.now.plus(ca.valid_for))?)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    if ca.ca_use == CaUse::Identities {
        builder.append_extension(no_servers()?)?;
    }
    let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(key_id)?;
    builder.sign(key.pkey(), digest(key.preferred_hash()))?;
    Ok(builder.build().to_der()?)
}

/// Makes a self-signed certificate to which others encrypt (`keyEncipherment`), as DER: what Apple's portal wants to be
/// uploaded for a server token.
pub fn issue_recipient(
    key: &PrivateKey,
    common_name: &str,
    now: Timestamp,
    valid_for: Duration,
    random: &Random,
) -> Result<Vec<u8>, IssueError> {
    let name = name(common_name)?;
    let mut builder = begin(&name, &name, key.pkey(), random)?;
    builder.set_not_before(&*asn1_time(now.minus(BACKDATED))?)?;
    builder.set_not_after(&*asn1_time(now.plus(valid_for))?)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(KeyUsage::new().critical().digital_signature().key_encipherment().build()?)?;
    let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(key_id)?;
    builder.sign(key.pkey(), digest(key.preferred_hash()))?;
    Ok(builder.build().to_der()?)
}

/// Makes a leaf certificate for `public_key`, as DER.
pub fn issue_leaf(
    issuer: Issuer<'_>,
    public_key: &PublicKey,
    leaf: &NewLeaf<'_>,
    random: &Random,
) -> Result<Vec<u8>, IssueError> {
    let ca = X509::from_der(issuer.certificate).map_err(|_| IssueError::Issuer("it is not DER"))?;
    let subject = name(leaf.common_name)?;
    let key: PKey<Public> = PKey::public_key_from_der(public_key.spki_der())?;
    let mut builder = begin(&subject, ca.subject_name(), &key, random)?;

    let start = leaf.now.minus(BACKDATED);
    builder.set_not_before(&*asn1_time(start)?)?;
    let end = asn1_time(start.plus(leaf.valid_for))?;
    if ca.not_after() <= &*asn1_time(leaf.now)? {
        return Err(IssueError::Issuer("it has ended"));
    }
    builder.set_not_after(if ca.not_after() < &*end { ca.not_after() } else { &end })?;

    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    let mut usage = KeyUsage::new();
    usage.critical().digital_signature();
    if leaf.leaf_use != LeafUse::ProfileSigner && public_key.kind().is_rsa() {
        usage.key_encipherment();
    }
    builder.append_extension(usage.build()?)?;
    match leaf.leaf_use {
        LeafUse::ClientIdentity => builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?,
        LeafUse::TlsServer => builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?,
        LeafUse::ScepRa | LeafUse::ProfileSigner => {}
    }
    let (subject_id, issuer_id) = {
        let context = builder.x509v3_context(Some(&ca), None);
        (SubjectKeyIdentifier::new().build(&context)?, AuthorityKeyIdentifier::new().keyid(true).build(&context)?)
    };
    builder.append_extension(subject_id)?;
    builder.append_extension(issuer_id)?;
    if !leaf.dns_names.is_empty() || !leaf.ip_addresses.is_empty() {
        let mut names = SubjectAlternativeName::new();
        for dns in leaf.dns_names {
            names.dns(dns);
        }
        for ip in leaf.ip_addresses {
            names.ip(&ip.to_string());
        }
        let names = names.build(&builder.x509v3_context(Some(&ca), None))?;
        builder.append_extension(names)?;
    }
    builder.sign(issuer.key.pkey(), digest(issuer.key.preferred_hash()))?;
    Ok(builder.build().to_der()?)
}

fn begin<T: openssl::pkey::HasPublic>(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &openssl::pkey::PKeyRef<T>,
    random: &Random,
) -> Result<X509Builder, IssueError> {
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial(random)?)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

/// One octet 1 and 128 random bits: positive, never 0, below the 20 octets of RFC 5280 §4.1.2.2.
fn serial(random: &Random) -> Result<Asn1Integer, IssueError> {
    let number = [&[1], &random.bytes::<16>()[..]].concat();
    Ok(Asn1Integer::from_bn(&*BigNum::from_slice(&number)?)?)
}

fn name(common_name: &str) -> Result<X509Name, IssueError> {
    let refused = || IssueError::Name(common_name.to_owned());
    if common_name.is_empty() || common_name.chars().any(char::is_control) {
        return Err(refused());
    }
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name).map_err(|_| refused())?;
    Ok(name.build())
}

fn asn1_time(at: Timestamp) -> Result<Asn1Time, IssueError> {
    Ok(Asn1Time::from_unix(at.unix_seconds())?)
}

fn digest(hash: Hash) -> MessageDigest {
    match hash {
        // A certificate is never signed with SHA-1.
        Hash::Sha1 | Hash::Sha256 => MessageDigest::sha256(),
        Hash::Sha384 => MessageDigest::sha384(),
        Hash::Sha512 => MessageDigest::sha512(),
    }
}

/// `nameConstraints` (RFC 5280 §4.2.1.10) that exclude every DNS name and every IP address.
///
/// Not critical, although the RFC wants that: those who know the extension apply it all the same, and old clients that do not
/// know it would refuse the CA as a whole (strongSwan 5.9 does).
fn no_servers() -> Result<X509Extension, IssueError> {
    let encode = || -> der::Result<Vec<u8>> {
        let excluded = [
            GeneralName::DnsName(Ia5String::new("")?),
            GeneralName::IpAddress(OctetString::new([0; 8])?),
            GeneralName::IpAddress(OctetString::new([0; 32])?),
        ];
        let excluded = excluded.into_iter().map(|base| GeneralSubtree { base, minimum: 0, maximum: None }).collect();
        NameConstraints { permitted_subtrees: None, excluded_subtrees: Some(excluded) }.to_der()
    };
    let der = encode().map_err(|_| IssueError::Library)?;
    let oid = Asn1Object::from_str("2.5.29.30")?;
    Ok(X509Extension::new_from_der(&oid, false, &*Asn1OctetString::new_from_bytes(&der)?)?)
}

#[cfg(test)]
mod tests {
    use openssl::stack::Stack;
    use openssl::x509::X509StoreContext;
    use openssl::x509::store::X509StoreBuilder;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_320_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn ca(ca_use: CaUse) -> (PrivateKey, Vec<u8>) {
        let key = PrivateKey::generate_p256().unwrap();
        let ca = NewCa { common_name: "Test CA", ca_use, now: NOW, valid_for: DAY * 3650 };
        let der = issue_ca(&key, &ca, &Random::System).unwrap();
        (key, der)
    }

    fn public(key: &PrivateKey) -> PublicKey {
        PublicKey::from_spki_der(&key.public_spki_der().unwrap()).unwrap()
    }

    fn verifies(ca: &[u8], leaf: &[u8]) -> bool {
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(X509::from_der(ca).unwrap()).unwrap();
        let mut parameters = openssl::x509::verify::X509VerifyParam::new().unwrap();
        parameters.set_time(NOW.unix_seconds());
        store.set_param(&parameters).unwrap();
        let leaf = X509::from_der(leaf).unwrap();
        X509StoreContext::new()
            .unwrap()
            .init(&store.build(), &leaf, &Stack::new().unwrap(), X509StoreContextVerify::run)
            .unwrap()
    }

    struct X509StoreContextVerify;
    impl X509StoreContextVerify {
        fn run(context: &mut openssl::x509::X509StoreContextRef) -> Result<bool, openssl::error::ErrorStack> {
            context.verify_cert()
        }
    }

    fn leaf(leaf_use: LeafUse) -> NewLeaf<'static> {
        NewLeaf { common_name: "leaf", leaf_use, dns_names: &[], ip_addresses: &[], now: NOW, valid_for: DAY * 365 }
    }

    #[test]
    fn th_08_an_identity_is_a_client_and_no_ca() {
        let (ca_key, ca) = ca(CaUse::Identities);
        let key = PrivateKey::generate_rsa(2048).unwrap();
        let issuer = Issuer { key: &ca_key, certificate: &ca };
        let der = issue_leaf(issuer, &public(&key), &leaf(LeafUse::ClientIdentity), &Random::System).unwrap();
        assert!(verifies(&ca, &der));
        let text = String::from_utf8(X509::from_der(&der).unwrap().to_text().unwrap()).unwrap();
        for wanted in [
            "CA:FALSE",
            "TLS Web Client Authentication",
            "Digital Signature, Key Encipherment",
            "X509v3 Authority Key Identifier",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing from\n{text}");
        }
    }

    #[test]
    fn th_35_the_identity_ca_cannot_sign_for_a_server() {
        let (ca_key, ca_der) = ca(CaUse::Identities);
        let key = PrivateKey::generate_p256().unwrap();
        let made = |ca_key: &PrivateKey, ca: &[u8]| {
            let issuer = Issuer { key: ca_key, certificate: ca };
            let ips = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
            let server = NewLeaf { dns_names: &["localhost"], ip_addresses: &ips, ..leaf(LeafUse::TlsServer) };
            issue_leaf(issuer, &public(&key), &server, &Random::System).unwrap()
        };
        assert!(!verifies(&ca_der, &made(&ca_key, &ca_der)));
        let (server_key, server_ca) = ca(CaUse::Servers);
        let der = made(&server_key, &server_ca);
        assert!(verifies(&server_ca, &der));
        let names = X509::from_der(&der).unwrap().subject_alt_names().unwrap();
        assert_eq!(names.iter().filter_map(|n| n.dnsname()).collect::<Vec<_>>(), ["localhost"]);
        assert_eq!(names.iter().filter(|n| n.ipaddress().is_some()).count(), 2);
    }

    #[test]
    fn a_leaf_does_not_outlive_its_ca_and_serials_differ() {
        let key = PrivateKey::generate_p256().unwrap();
        let short = NewCa { common_name: "CA", ca_use: CaUse::Identities, now: NOW, valid_for: DAY * 30 };
        let ca = issue_ca(&key, &short, &Random::System).unwrap();
        let issuer = Issuer { key: &key, certificate: &ca };
        let one = issue_leaf(issuer, &public(&key), &leaf(LeafUse::ScepRa), &Random::System).unwrap();
        let two = issue_leaf(issuer, &public(&key), &leaf(LeafUse::ScepRa), &Random::System).unwrap();
        let (one, two) = (X509::from_der(&one).unwrap(), X509::from_der(&two).unwrap());
        assert!(one.not_after() == X509::from_der(&ca).unwrap().not_after());
        assert!(one.serial_number().to_bn().unwrap() != two.serial_number().to_bn().unwrap());

        let late = NewLeaf { now: NOW.plus(DAY * 31), ..leaf(LeafUse::ClientIdentity) };
        let refused = issue_leaf(issuer, &public(&key), &late, &Random::System);
        assert_eq!(refused, Err(IssueError::Issuer("it has ended")));
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        for bad in ["", "line\nbreak", &"x".repeat(65)] {
            assert!(matches!(name(bad), Err(IssueError::Name(_))), "{bad:?}");
        }
    }
}
