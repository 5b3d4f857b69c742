mod objects;

use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm,
};

use super::*;

const NOW: Timestamp = Timestamp(1_750_000_000_000);
const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";

pub(super) struct Ca {
    pub(super) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn root() -> Ca {
    let (params, key) = (ca_params("Test root"), key(&PKCS_ECDSA_P384_SHA384));
    let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    Ca { certificate, issuer: Issuer::new(params, key) }
}

fn below(ca: &Ca, params: CertificateParams, key: KeyPair) -> Ca {
    let certificate = Certificate::from_der(params.signed_by(&key, &ca.issuer).unwrap().der()).unwrap();
    Ca { certificate, issuer: Issuer::new(params, key) }
}

/// A pretend Apple: a root, and an authority below it.
struct Apple {
    root: Ca,
    sub: Ca,
}

impl Apple {
    fn new() -> Self {
        let root = root();
        let sub = below(&root, ca_params("Test sub CA"), key(&PKCS_ECDSA_P384_SHA384));
        Self { root, sub }
    }

    fn roots(&self) -> Roots {
        Roots::with_test_roots(std::slice::from_ref(&self.root.certificate)).unwrap()
    }

    fn leaf(&self, params: CertificateParams) -> Vec<u8> {
        below(&self.sub, params, key(&PKCS_ECDSA_P384_SHA384)).certificate.der().to_vec()
    }

    fn chain_of(&self, params: CertificateParams) -> Vec<Vec<u8>> {
        vec![self.leaf(params), self.sub.certificate.der().to_vec()]
    }

    fn chain(&self, values: &[(Value, &[u8])]) -> Vec<Vec<u8>> {
        self.chain_of(with(values))
    }

    fn verify(&self, chain: &[Vec<u8>]) -> Result<Attested, AttestationError> {
        verify_chain(chain, &self.roots(), NOW)
    }
}

static APPLE: LazyLock<Apple> = LazyLock::new(Apple::new);

fn oid(value: Value) -> Vec<u64> {
    value.oid().split('.').map(|n| n.parse().unwrap()).collect()
}

fn with(values: &[(Value, &[u8])]) -> CertificateParams {
    let mut params = params("attested key");
    for (value, bytes) in values {
        params.custom_extensions.push(CustomExtension::from_oid_content(&oid(*value), bytes.to_vec()));
    }
    params
}

/// All values, as a Mac has them.
fn everything(freshness: &[u8]) -> Vec<(Value, &[u8])> {
    vec![
        (Value::SerialNumber, b"C02TEST"),
        (Value::Udid, b"00008112-0001"),
        (Value::SoftwareUpdateDeviceId, b"J413AP"),
        (Value::OsVersion, b"14.6"),
        (Value::SepOsVersion, b"14.6"),
        (Value::LlbVersion, b"10151.140.19"),
        (Value::Freshness, freshness),
        (Value::SipStatus, &[2, 1, 0]),
        (Value::SecureBootStatus, b"Full Security"),
        (Value::ThirdPartyKexts, b"0"),
    ]
}

fn fresh() -> Vec<u8> {
    Hash::Sha256.digest(TOKEN.as_bytes())
}

fn this_mac() -> Device<'static> {
    Device {
        platform: Some(Platform::Macos),
        serial_number: Some("C02TEST"),
        udid: Some("MDM-UDID"),
        provisioning_udid: Some("00008112-0001"),
        ..Device::default()
    }
}

fn attested() -> (Vec<Vec<u8>>, Attested) {
    let chain = APPLE.chain(&everything(&fresh()));
    let attested = APPLE.verify(&chain).unwrap();
    (chain, attested)
}

#[test]
fn th_36_the_pinned_root_is_apples() {
    let root = apple_root().unwrap();
    assert_eq!(root.common_name().as_deref(), Some("Apple Enterprise Attestation Root CA"));
    assert_eq!(root.public_key().unwrap().kind(), KeyKind::P384);
    assert_eq!(Roots::apple().trust.authorities().count(), 1);
    assert_eq!(Roots::apple().trust.authorities().next(), Some(&root));
}

#[test]
fn th_36_only_a_path_to_a_believed_root_counts() {
    let (chain, _) = attested();
    assert_eq!(verify_chain(&chain, &Roots::apple(), NOW), Err(AttestationError::Untrusted));
    let other = Apple::new();
    assert_eq!(other.verify(&chain), Err(AttestationError::Untrusted));
    // A foreign root that comes along in the chain is no root of ours.
    let mut brought = chain.clone();
    brought.push(APPLE.root.certificate.der().to_vec());
    assert_eq!(verify_chain(&brought, &Roots::apple(), NOW), Err(AttestationError::Untrusted));
    assert!(APPLE.verify(&brought).is_ok());
    // Nor is one that bears Apple's name.
    let mut named = ca_params("Apple Enterprise Attestation Root CA");
    named.distinguished_name.push(DnType::OrganizationName, "Apple Inc.");
    named.distinguished_name.push(DnType::CountryName, "US");
    let key = key(&PKCS_ECDSA_P384_SHA384);
    let certificate = Certificate::from_der(named.self_signed(&key).unwrap().der()).unwrap();
    let fake = Ca { certificate, issuer: Issuer::new(named, key) };
    let leaf = below(&fake, with(&everything(&fresh())), super::tests::key(&PKCS_ECDSA_P384_SHA384));
    let chain = [leaf.certificate.der().to_vec(), fake.certificate.der().to_vec()];
    assert_eq!(verify_chain(&chain, &Roots::apple(), NOW), Err(AttestationError::Untrusted));
    assert!(matches!(Roots::with_test_roots(&[leaf.certificate]), Err(TrustError::WrongUse)));
}

#[test]
fn everything_that_apple_signed_is_read() {
    let (_, attested) = attested();
    assert_eq!(attested.serial_number.as_deref(), Some("C02TEST"));
    assert_eq!(attested.udid.as_deref(), Some("00008112-0001"));
    assert_eq!(attested.software_update_device_id.as_deref(), Some("J413AP"));
    assert_eq!(attested.os_version.as_deref(), Some("14.6"));
    assert_eq!(attested.sep_os_version.as_deref(), Some("14.6"));
    assert_eq!(attested.llb_version.as_deref(), Some("10151.140.19"));
    assert_eq!(attested.freshness, Some(fresh()));
    assert_eq!(attested.sip_enabled, Some(true));
    assert_eq!(attested.secure_boot, Some(SecureBoot::Full));
    assert_eq!(attested.third_party_kexts, Some(false));
}

#[test]
fn values_have_one_reading_in_each_form_and_unknown_forms_say_nothing() {
    let one = |value: Value, bytes: &[u8]| APPLE.verify(&APPLE.chain(&[(value, bytes)]));
    for bytes in [&b"C02"[..], b"\x0c\x03C02", b"\x13\x03C02", b"\x16\x03C02"] {
        assert_eq!(one(Value::SerialNumber, bytes).unwrap().serial_number.as_deref(), Some("C02"), "{bytes:?}");
    }
    for (bytes, sip) in [
        (&[2, 1, 0][..], Some(true)),
        (&[0], Some(true)),
        (b"0", Some(true)),
        (b"\x0c\x010", Some(true)),
        (&[2, 1, 1], Some(false)),
        (&[1], Some(false)),
        (b"1", Some(false)),
        (b"7", Some(false)),
        (&[2, 1], None),
        (&[2, 2, 0, 0], None),
        (&[1, 1, 255], None),
        (b"", None),
        (b"-0", None),
        (b"zero", None),
        (&[9], None),
    ] {
        assert_eq!(one(Value::SipStatus, bytes).unwrap().sip_enabled, sip, "{bytes:?}");
    }
    for (bytes, boot) in [
        (&b"Full Security"[..], Some(SecureBoot::Full)),
        (b"\x0c\x10Reduced Security", Some(SecureBoot::Reduced)),
        (b"Permissive Security", Some(SecureBoot::Permissive)),
        (b"full security", None),
        (b"Full Security ", None),
    ] {
        assert_eq!(one(Value::SecureBootStatus, bytes).unwrap().secure_boot, boot, "{bytes:?}");
    }
    let wrapped = [&[4, 32][..], &fresh()].concat();
    assert!(one(Value::Freshness, &wrapped).unwrap().is_fresh_for(&fresh()));
    // 32 bytes that happen to look like an octet string are the code itself.
    let mut looks = vec![4, 30];
    looks.resize(32, 9);
    assert!(one(Value::Freshness, &looks).unwrap().is_fresh_for(&looks));
}

#[test]
fn a_value_that_is_no_text_is_refused_by_its_name() {
    for value in
        [Value::SerialNumber, Value::Udid, Value::SoftwareUpdateDeviceId, Value::OsVersion, Value::SecureBootStatus]
    {
        for bytes in [&b"C02\n"[..], b"\xff\xfe", "Müller".as_bytes(), b"\x0c\x04C02", &[b'x'; 129]] {
            let result = APPLE.verify(&APPLE.chain(&[(value, bytes)]));
            assert_eq!(result, Err(AttestationError::Value(value)), "{bytes:?}");
        }
    }
    let long = APPLE.verify(&APPLE.chain(&[(Value::Freshness, &[1; 33])]));
    assert_eq!(long, Err(AttestationError::Value(Value::Freshness)));
}

#[test]
fn a_chain_has_two_to_five_certificates_and_a_leaf_that_is_none_of_an_authority() {
    let (chain, _) = attested();
    assert_eq!(APPLE.verify(&[]), Err(AttestationError::ChainLength));
    assert_eq!(APPLE.verify(&chain[..1]), Err(AttestationError::ChainLength));
    let sub = &chain[1];
    let many = [&chain[..], &[sub.clone(), sub.clone(), sub.clone()]].concat();
    assert!(APPLE.verify(&many).is_ok());
    assert_eq!(APPLE.verify(&[&many[..], std::slice::from_ref(sub)].concat()), Err(AttestationError::ChainLength));
    assert_eq!(APPLE.verify(&[vec![0; MAX_CERTIFICATE + 1], sub.clone()]), Err(AttestationError::TooLarge));
    assert_eq!(APPLE.verify(&[chain[0].clone(), b"junk".to_vec()]), Err(AttestationError::Certificate));
    // CA:TRUE, with a key usage that does not go with it.
    let mut ca = with(&everything(&fresh()));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    assert_eq!(APPLE.verify(&APPLE.chain_of(ca)), Err(AttestationError::LeafIsAuthority));
    // An attested key is no authority: nothing below it is believed.
    let leaf = below(&APPLE.sub, with(&everything(&fresh())), key(&PKCS_ECDSA_P384_SHA384));
    let forged = below(&leaf, with(&everything(&fresh())), key(&PKCS_ECDSA_P384_SHA384));
    let chain = [&forged, &leaf, &APPLE.sub].map(|ca| ca.certificate.der().to_vec());
    assert_eq!(APPLE.verify(&chain), Err(AttestationError::Untrusted));
}

#[test]
fn only_p_384_with_sha_384_signs_an_attestation() {
    let sub = below(&APPLE.root, ca_params("small"), key(&PKCS_ECDSA_P256_SHA256));
    let leaf = below(&sub, with(&everything(&fresh())), key(&PKCS_ECDSA_P256_SHA256));
    let chain = [leaf.certificate.der().to_vec(), sub.certificate.der().to_vec()];
    assert_eq!(APPLE.verify(&chain), Err(AttestationError::Algorithm));
    // The attested key itself may be P-256.
    let leaf = below(&APPLE.sub, with(&everything(&fresh())), key(&PKCS_ECDSA_P256_SHA256));
    assert!(APPLE.verify(&[leaf.certificate.der().to_vec(), APPLE.sub.certificate.der().to_vec()]).is_ok());
}

#[test]
fn validity_and_extensions_are_looked_at() {
    let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let mut ended = with(&everything(&fresh()));
    ended.not_after = at(1_740_000_000);
    assert_eq!(APPLE.verify(&APPLE.chain_of(ended)), Err(AttestationError::Expired));
    let mut early = with(&everything(&fresh()));
    early.not_before = at(1_760_000_000);
    assert_eq!(APPLE.verify(&APPLE.chain_of(early)), Err(AttestationError::NotYetValid));
    let mut critical = with(&everything(&fresh()));
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    critical.custom_extensions.push(extension);
    assert_eq!(APPLE.verify(&APPLE.chain_of(critical)), Err(AttestationError::Extension));
    let mut twice = everything(b"");
    twice.push((Value::SerialNumber, b"C02OTHER"));
    assert_eq!(APPLE.verify(&APPLE.chain(&twice)), Err(AttestationError::Extension));
}

#[test]
fn th_39_whatever_names_a_device_must_name_this_one() {
    let (_, attested) = attested();
    let mac = this_mac();
    assert_eq!(attested.identity(&mac), Ok(Identity::Matches));
    let other = Device { serial_number: Some("C02OTHER"), ..mac };
    assert_eq!(attested.identity(&other), Err(AttestationError::SerialMismatch));
    // The right serial number does not make up for the wrong UDID.
    let other = Device { provisioning_udid: Some("00008112-0002"), ..mac };
    assert_eq!(attested.identity(&other), Err(AttestationError::UdidMismatch));
    // Octet for octet: no folding, no trimming (TH-44).
    for serial in ["c02test", "C02TEST ", " C02TEST"] {
        let device = Device { serial_number: Some(serial), ..mac };
        assert_eq!(attested.identity(&device), Err(AttestationError::SerialMismatch), "{serial:?}");
    }
}

#[test]
fn th_40_the_udid_of_a_mac_is_compared_with_its_provisioning_udid() {
    let (_, attested) = attested();
    let no_serial = Attested { serial_number: None, ..attested };
    let mac = this_mac();
    assert_eq!(no_serial.identity(&mac), Ok(Identity::Matches));
    // The MDM UDID of a Mac is another one and is not compared, not even where the other is not known.
    assert_eq!(no_serial.identity(&Device { provisioning_udid: None, ..mac }), Ok(Identity::NotAttested));
    let claims_it = Device { udid: Some("00008112-0001"), provisioning_udid: None, ..mac };
    assert_eq!(no_serial.identity(&claims_it), Ok(Identity::NotAttested));
    // A phone has one UDID; a ProvisioningUDID that it claims is not looked at.
    let phone = Device { platform: Some(Platform::Ios), udid: Some("00008112-0001"), ..mac };
    assert_eq!(no_serial.identity(&phone), Ok(Identity::Matches));
    let phone = Device { udid: Some("OTHER"), ..phone };
    assert_eq!(no_serial.identity(&phone), Err(AttestationError::UdidMismatch));
}

#[test]
fn th_49_debug_shows_no_serial_number_and_no_udid() {
    let (_, attested) = attested();
    let printed = format!("{attested:?}");
    assert!(!printed.contains("C02TEST") && !printed.contains("00008112"), "{printed}");
}

#[test]
fn every_error_has_a_word_of_its_own() {
    use AttestationError as E;
    let all = [
        E::TooLarge,
        E::Malformed,
        E::Format,
        E::NoStatement,
        E::ChainLength,
        E::Certificate,
        E::Algorithm,
        E::Untrusted,
        E::Expired,
        E::NotYetValid,
        E::LeafIsAuthority,
        E::Extension,
        E::Value(Value::Udid),
        E::FreshnessMissing,
        E::FreshnessMismatch,
        E::FreshnessForeign,
        E::IdentityMissing,
        E::SerialMismatch,
        E::UdidMismatch,
        E::KeyMismatch,
    ];
    let words: std::collections::BTreeSet<&str> = all.iter().map(|error| error.as_str()).collect();
    assert_eq!(words.len(), all.len());
    let mut oids: Vec<&str> = Value::ALL.iter().map(|value| value.oid()).collect();
    oids.dedup();
    assert_eq!(oids.len(), 10);
    assert!(oids.iter().all(|oid| oid.starts_with("1.2.840.113635.100.8.")));
}
