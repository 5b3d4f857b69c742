//! A device CA like Apple's (RSA-1024, SHA-1, expired) and one as it would be built today, both made here.

use openssl::asn1::Asn1Time;
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

use super::*;
use crate::crypto::cms_sign::ProfileSigner;
use crate::crypto::key::PrivateKey;

const NOW: Timestamp = Timestamp(1_795_320_000_000);
const PLIST: &str = "<plist version=\"1.0\"><dict>\
    <key>UDID</key><string>00008110-0000000000000001</string><key>SERIAL</key><string>C02XYZ</string>\
    <key>PRODUCT</key><string>iPhone17,2</string><key>VERSION</key><string>22B83</string>\
    <key>OS_VERSION</key><string>18.1</string><key>LANGUAGE</key><string>en-US</string>\
    <key>MDM_CAN_REQUEST_SOFTWARE_UPDATE</key><true/></dict></plist>";

#[derive(Clone)]
struct Party {
    key: PKey<Private>,
    certificate: X509,
}

struct Shape<'a> {
    name: &'a str,
    bits: u32,
    sha1: bool,
    ca: bool,
    /// First and last day.
    valid: (&'a str, &'a str),
}

const LEGACY_CA: Shape<'static> = Shape {
    name: "Apple iPhone Device CA",
    bits: 1024,
    sha1: true,
    ca: true,
    valid: ("20070416225446Z", "20140416225446Z"),
};
const ROOT: Shape<'static> =
    Shape { name: "Test Root CA", bits: 2048, sha1: false, ca: true, valid: ("20200101000000Z", "20490101000000Z") };
const DEVICE: Shape<'static> =
    Shape { name: "a device", bits: 1024, sha1: true, ca: false, valid: ("20240101000000Z", "20490101000000Z") };

fn name(text: &str) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("O", "Apple Inc.").unwrap();
    name.append_entry_by_text("CN", text).unwrap();
    name.build()
}

fn party(shape: &Shape<'_>, issuer: Option<&Party>) -> Party {
    let key = PKey::from_rsa(Rsa::generate(shape.bits).unwrap()).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let serial = openssl::bn::BigNum::from_u32(rand_serial()).unwrap();
    builder.set_serial_number(serial.to_asn1_integer().unwrap().as_ref()).unwrap();
    builder.set_subject_name(&name(shape.name)).unwrap();
    match issuer {
        Some(issuer) => builder.set_issuer_name(issuer.certificate.subject_name()).unwrap(),
        None => builder.set_issuer_name(&name(shape.name)).unwrap(),
    }
    builder.set_not_before(Asn1Time::from_str(shape.valid.0).unwrap().as_ref()).unwrap();
    builder.set_not_after(Asn1Time::from_str(shape.valid.1).unwrap().as_ref()).unwrap();
    builder.set_pubkey(&key).unwrap();
    if shape.ca {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    }
    let digest = if shape.sha1 { MessageDigest::sha1() } else { MessageDigest::sha256() };
    builder.sign(issuer.map_or(&key, |issuer| &issuer.key), digest).unwrap();
    Party { key, certificate: builder.build() }
}

fn rand_serial() -> u32 {
    u32::from_be_bytes(crate::random::Random::System.bytes()) >> 1
}

fn own(party: &Party) -> Certificate {
    Certificate::from_der(&party.certificate.to_der().unwrap()).unwrap()
}

/// A message as OpenSSL signs it: SHA-256.
fn message(device: &Party, others: &[&Party], content: &str) -> Vec<u8> {
    let mut chain = Stack::new().unwrap();
    for other in others {
        chain.push(other.certificate.clone()).unwrap();
    }
    let (certificate, key) = (Some(&device.certificate), Some(&device.key));
    let signed = CmsContentInfo::sign(
        certificate.map(std::ops::Deref::deref),
        key.map(std::ops::Deref::deref),
        Some(&chain),
        Some(content.as_bytes()),
        CMSOptions::BINARY,
    );
    signed.unwrap().to_der().unwrap()
}

fn pinned(ca: &Party, sha1_digest: bool) -> DeviceAuthorities {
    DeviceAuthorities::new(vec![own(ca)], sha1_digest).unwrap()
}

fn refused(cms: &[u8], authorities: &DeviceAuthorities) -> &'static str {
    verify(cms, authorities, NOW).unwrap_err().code()
}

#[test]
fn th_16_only_the_link_to_a_pinned_device_ca_may_be_old_and_weak() {
    let ca = party(&LEGACY_CA, None);
    let device = party(&DEVICE, Some(&ca));
    let good = message(&device, &[&ca], PLIST);
    let info = verify(&good, &pinned(&ca, false), NOW).unwrap();
    assert_eq!((info.serial.as_deref(), info.product.as_str()), (Some("C02XYZ"), "iPhone17,2"));
    assert_eq!((info.os_version.as_deref(), info.can_request_software_update), (Some("18.1"), true));

    // Apple's own device CA is pinned, by its key: a CA of the same name is nobody.
    let apple = DeviceAuthorities::new(Vec::new(), false).unwrap();
    assert_eq!(apple.pinned().count(), 1);
    assert_eq!(refused(&good, &apple), "machine_info_foreign");
    // Nothing below the leaf of a pinned CA is believed, nor the CA itself as a signer.
    let below = party(&Shape { ca: true, ..DEVICE }, Some(&ca));
    let forged = party(&DEVICE, Some(&below));
    assert_eq!(refused(&message(&forged, &[&below, &ca], PLIST), &pinned(&ca, false)), "machine_info_foreign");
    assert_eq!(refused(&message(&below, &[&ca], PLIST), &pinned(&ca, false)), "machine_info_foreign");
    // The expired CA is tolerated, an expired leaf is not.
    let expired = party(&Shape { valid: ("20100101000000Z", "20130101000000Z"), ..DEVICE }, Some(&ca));
    assert_eq!(refused(&message(&expired, &[], PLIST), &pinned(&ca, false)), "machine_info_foreign");
}

#[test]
fn th_16_the_message_itself_is_sha_2() {
    let ca = party(&LEGACY_CA, None);
    let device = party(&Shape { bits: 2048, ..DEVICE }, Some(&ca));
    let key = PrivateKey::from_pkcs8_der(&device.key.private_key_to_pkcs8().unwrap()).unwrap();
    let signer = ProfileSigner::new(key, own(&device), vec![own(&ca)]).unwrap();
    let sha1 = signer.sign_with(PLIST.as_bytes(), NOW, Hash::Sha1, &[]).unwrap();
    assert_eq!(refused(&sha1, &pinned(&ca, false)), "machine_info_sha1");
    assert!(verify(&sha1, &pinned(&ca, true), NOW).is_ok(), "an operator may allow it, under a pinned CA");
    let unpinned = DeviceAuthorities::new(Vec::new(), true).unwrap();
    assert_eq!(refused(&sha1, &unpinned), "machine_info_sha1");
    let sha256 = signer.sign(PLIST.as_bytes(), NOW).unwrap();
    assert_eq!(verify(&sha256, &pinned(&ca, false), NOW).unwrap().signed_at, Some(NOW));
}

#[test]
fn th_52_under_apples_root_only_device_cas_count() {
    let root = party(&ROOT, None);
    let authorities =
        DeviceAuthorities { pinned: Vec::new(), roots: Trust::new(vec![own(&root)]).unwrap(), sha1_digest: false };
    let strong = Shape { bits: 2048, sha1: false, ..DEVICE };
    let judged = |ca: &Shape<'_>, leaf: &Shape<'_>| {
        let ca = party(ca, Some(&root));
        verify(&message(&party(leaf, Some(&ca)), &[&ca], PLIST), &authorities, NOW).map(drop).map_err(|e| e.code())
    };
    assert_eq!(judged(&Shape { name: "Apple Device CA 5", ..ROOT }, &strong), Ok(()));
    let developers = "Apple Worldwide Developer Relations Certification Authority";
    assert_eq!(judged(&Shape { name: developers, ..ROOT }, &strong), Err("machine_info_foreign"));
    let old = Shape { name: "Apple Device CA 5", valid: ("20070101000000Z", "20140101000000Z"), ..ROOT };
    assert_eq!(judged(&old, &strong), Err("machine_info_foreign"), "its validity counts where it is not pinned");
    let weak = Shape { name: "Apple Device CA 5", ..ROOT };
    assert_eq!(judged(&weak, &Shape { bits: 2048, ..DEVICE }), Err("machine_info_foreign"), "SHA-1");
    assert_eq!(judged(&weak, &Shape { sha1: false, ..DEVICE }), Err("machine_info_foreign"), "RSA-1024");
}

#[test]
fn th_52_what_is_unsigned_changed_or_too_long_is_refused() {
    let ca = party(&LEGACY_CA, None);
    let device = party(&DEVICE, Some(&ca));
    let authorities = pinned(&ca, false);
    assert_eq!(refused(PLIST.as_bytes(), &authorities), "machine_info_signature");
    let mut changed = message(&device, &[&ca], PLIST);
    let at = changed.windows(6).position(|window| window == b"C02XYZ").unwrap();
    changed[at] = b'D';
    assert_eq!(refused(&changed, &authorities), "machine_info_signature");
    assert_eq!(refused(&vec![0x30; 64 * 1024 + 1], &authorities), "machine_info_signature");
    let no_product = PLIST.replace("PRODUCT", "OTHER");
    assert_eq!(refused(&message(&device, &[&ca], &no_product), &authorities), "machine_info_content");
    let long = PLIST.replace("C02XYZ", &"X".repeat(65));
    assert_eq!(refused(&message(&device, &[&ca], &long), &authorities), "machine_info_content");
}

#[test]
fn user_enrollment_says_neither_serial_number_nor_udid() {
    let ca = party(&LEGACY_CA, None);
    let device = party(&DEVICE, Some(&ca));
    let text = "<plist version=\"1.0\"><dict><key>LANGUAGE</key><string>de</string><key>PRODUCT</key>\
        <string>Mac15,3</string><key>VERSION</key><string>24A1</string></dict></plist>";
    let info = verify(&message(&device, &[&ca], text), &pinned(&ca, false), NOW).unwrap();
    assert_eq!((info.udid, info.serial, info.os_version), (None, None, None));
    let stranger = party(&DEVICE, Some(&party(&LEGACY_CA, None)));
    assert!(verify_signature_only(&message(&stranger, &[], text)).is_ok());
    assert!(verify_signature_only(text.as_bytes()).is_err());
}
