use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData, SanType};

use super::*;

#[test]
fn the_parts_are_read() {
    let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "device");
    params
        .distinguished_name
        .push(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), "com.apple.mgmt.External.0001");
    params.subject_alt_names.push(SanType::Rfc822Name("a@example.org".try_into().unwrap()));
    params
        .subject_alt_names
        .push(SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "user@example.org".into())));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    params.serial_number = Some(vec![0xab, 0xcd].into());
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();

    let read = Certificate::from_der(made.der()).unwrap();
    assert_eq!(read.common_name().as_deref(), Some("device"));
    assert_eq!(read.user_id().as_deref(), Some("com.apple.mgmt.External.0001"));
    assert_eq!(read.serial_hex(), "abcd");
    assert_eq!(read.not_before(), Timestamp::from_unix_seconds(1_700_000_000));
    assert_eq!(read.not_after(), Timestamp::from_unix_seconds(1_800_000_000));
    assert!(read.is_valid_at(Timestamp::from_unix_seconds(1_800_000_000)));
    assert!(!read.is_valid_at(Timestamp::from_unix_seconds(1_800_000_001)));
    assert!(read.allows_client_auth() && !read.allows_server_auth() && !read.is_ca());
    assert_eq!(
        read.alt_names(),
        [
            AltName::Dns("host.example".to_owned()),
            AltName::Email("a@example.org".to_owned()),
            AltName::UserPrincipal("user@example.org".to_owned()),
        ]
    );
    assert_eq!(read.public_key().unwrap().spki_der(), key.subject_public_key_info());
    let (algorithm, signature) = read.signature().unwrap();
    let SignatureAlgorithm::Ecdsa(hash) = algorithm else { panic!("{algorithm:?}") };
    assert_eq!(read.public_key().unwrap().verify(hash, read.tbs_der(), signature), Ok(()));
    assert_eq!(Certificate::from_pem(&read.to_pem()), Ok(read.clone()));
    assert_eq!(read.fingerprint(), Fingerprint::of(made.der()));
}

#[test]
fn a_chain_is_read_in_order_and_rubbish_is_refused() {
    let one = |name: &str| {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    };
    let (a, b) = (one("a"), one("b"));
    let chain = pem_chain(&format!("first\n{}then\n{}", a.pem(), b.pem())).unwrap();
    assert_eq!(chain.iter().map(Certificate::der).collect::<Vec<_>>(), [&a.der()[..], &b.der()[..]]);
    assert_eq!(pem_chain(""), Err(CertificateError::NoPem));
    assert_eq!(pem_chain("-----BEGIN CERTIFICATE-----\nAAAA"), Err(CertificateError::NoPem));
    let trailing = [a.der().as_ref(), &[0]].concat();
    assert_eq!(Certificate::from_der(&trailing), Err(CertificateError::Malformed));
}
