//! Attestation objects of ACME: the whole order of checks.

use proptest::prelude::*;

use super::*;

/// `{"fmt": format, "attStmt": {"x5c": […]}}` in CBOR.
fn object(format: &str, chain: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"\xa2\x63fmt".to_vec();
    bytes.push(0x60 | u8::try_from(format.len()).unwrap());
    bytes.extend(format.as_bytes());
    bytes.extend(b"\x67attStmt\xa1\x63x5c");
    bytes.push(0x80 | u8::try_from(chain.len()).unwrap());
    for der in chain {
        bytes.push(0x59);
        bytes.extend(u16::try_from(der.len()).unwrap().to_be_bytes());
        bytes.extend(der);
    }
    bytes
}

fn verified(object: &[u8], device: &Device<'_>, key: &[u8]) -> Result<(Attested, Identity), AttestationError> {
    verify_object(object, TOKEN, device, key, &APPLE.roots(), NOW)
}

#[test]
fn c8_freshness_is_the_sha_256_of_the_token() {
    let (_, attested) = attested();
    let judge = |code: &[u8]| {
        let chain = APPLE.chain(&everything(code));
        verified(&object("apple", &chain), &this_mac(), &APPLE.verify(&chain).unwrap().key_spki).map(|_| ())
    };
    assert_eq!(attested.freshness.as_deref(), Some(Hash::Sha256.digest(TOKEN.as_bytes()).as_slice()));
    assert_eq!(judge(&Hash::Sha256.digest(TOKEN.as_bytes())), Ok(()));
    // Neither the token, nor a key authorization (token "." thumbprint), nor what the token encodes.
    let authorization = format!("{TOKEN}.NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, TOKEN).unwrap();
    for code in [&decoded, &Hash::Sha256.digest(authorization.as_bytes()), &Hash::Sha256.digest(&decoded)] {
        assert_eq!(judge(code), Err(AttestationError::FreshnessMismatch));
    }
}

#[test]
fn th_37_the_freshness_code_must_be_there_and_be_that_of_this_challenge() {
    let (chain, attested) = attested();
    let key = attested.key_spki.clone();
    let mac = this_mac();
    assert_eq!(verified(&object("apple", &chain), &mac, &key).unwrap(), (attested, Identity::Matches));
    let old = APPLE.chain(&everything(&Hash::Sha256.digest(b"another token")));
    assert_eq!(verified(&object("apple", &old), &mac, &key), Err(AttestationError::FreshnessMismatch));
    // The token itself is not its hash.
    let bare = APPLE.chain(&everything(&TOKEN.as_bytes()[..32]));
    assert_eq!(verified(&object("apple", &bare), &mac, &key), Err(AttestationError::FreshnessMismatch));
    for missing in [Some(&b""[..]), None] {
        let mut values = everything(b"");
        values.retain(|(value, _)| *value != Value::Freshness);
        values.extend(missing.map(|blank| (Value::Freshness, blank)));
        let chain = APPLE.chain(&values);
        assert_eq!(verified(&object("apple", &chain), &mac, &key), Err(AttestationError::FreshnessMissing));
    }
}

#[test]
fn th_41_blank_and_missing_values_match_nothing() {
    let without = |blank: bool| {
        let mut values = everything(b"");
        values.retain(|(value, _)| !matches!(value, Value::SerialNumber | Value::Udid | Value::Freshness));
        let code = fresh();
        let mut values: Vec<(Value, Vec<u8>)> =
            values.into_iter().map(|(value, bytes)| (value, bytes.to_vec())).collect();
        values.push((Value::Freshness, code));
        if blank {
            values.extend([(Value::SerialNumber, vec![]), (Value::Udid, b"\x0c\x00".to_vec())]);
        }
        let values: Vec<(Value, &[u8])> = values.iter().map(|(value, bytes)| (*value, bytes.as_slice())).collect();
        APPLE.chain(&values)
    };
    for blank in [false, true] {
        let chain = without(blank);
        let attested = APPLE.verify(&chain).unwrap();
        assert_eq!((&attested.serial_number, &attested.udid), (&None, &None));
        let nobody = Device { serial_number: Some(""), provisioning_udid: Some(""), ..this_mac() };
        for device in [this_mac(), nobody, Device::default()] {
            assert_eq!(attested.identity(&device), Ok(Identity::NotAttested));
            let result = verified(&object("apple", &chain), &device, &attested.key_spki);
            assert_eq!(result, Err(AttestationError::IdentityMissing));
        }
        // In User Enrollment that is as it should be, and says no more than: a genuine device.
        let own = Device { user_enrollment: true, ..Device::default() };
        let (_, identity) = verified(&object("apple", &chain), &own, &attested.key_spki).unwrap();
        assert_eq!(identity, Identity::NotAttested);
    }
}

#[test]
fn th_42_the_attested_key_must_be_that_of_the_request() {
    let (chain, attested) = attested();
    let stranger = key(&PKCS_ECDSA_P384_SHA384);
    let spki = Certificate::from_der(params("stranger").self_signed(&stranger).unwrap().der()).unwrap();
    let spki = spki.public_key().unwrap().spki_der().to_vec();
    let result = verified(&object("apple", &chain), &this_mac(), &spki);
    assert_eq!(result, Err(AttestationError::KeyMismatch));
    assert!(attested.is_of_key(&attested.key_spki) && !attested.is_of_key(&spki) && !attested.is_of_key(b""));
}

#[test]
fn th_47_other_formats_and_empty_statements_have_errors_of_their_own() {
    let (chain, _) = attested();
    assert_eq!(read_object(&object("apple", &chain)).unwrap(), chain);
    for format in ["packed", "tpm", "step", "Apple", ""] {
        assert_eq!(read_object(&object(format, &chain)), Err(AttestationError::Format), "{format}");
    }
    assert_eq!(read_object(&object("none", &chain)), Err(AttestationError::NoStatement));
    for bytes in [
        &b"\xa0"[..],
        b"\xa2\x63fmt\x64none\x67attStmt\xa0",
        b"\xa2\x63fmt\x65apple\x67attStmt\xa0",
        b"\xa1\x63fmt\x65apple",
    ] {
        assert_eq!(read_object(bytes), Err(AttestationError::NoStatement), "{bytes:?}");
    }
    for length in [0, 1, 6, 20] {
        let chain = vec![vec![1; 10]; length];
        assert_eq!(read_object(&object("apple", &chain)), Err(AttestationError::ChainLength), "{length}");
    }
}

#[test]
fn th_47_what_else_is_in_the_object_is_passed_over_within_limits() {
    let (chain, _) = attested();
    let plain = object("apple", &chain);
    let extra = |value: &[u8]| {
        let mut bytes = plain.clone();
        bytes[0] = 0xa3;
        bytes.extend(b"\x68authData");
        bytes.extend(value);
        read_object(&bytes)
    };
    for value in [
        &b"\x40"[..],
        b"\x18\x2a",
        b"\xf6",
        b"\x82\x01\x61x",
        b"\xa1\x01\x02",
        b"\xc1\x1a\x00\x00\x00\x00",
        b"\xfb\0\0\0\0\0\0\0\0",
    ] {
        assert_eq!(extra(value).as_ref(), Ok(&chain), "{value:?}");
    }
    let nested = |depth: usize| [vec![0x81; depth], vec![0]].concat();
    assert!(extra(&nested(6)).is_ok());
    for bomb in [
        nested(7),
        nested(60_000),
        b"\x9f\x01\xff".to_vec(),
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x1c".to_vec(),
        vec![],
    ] {
        assert_eq!(extra(&bomb), Err(AttestationError::Malformed), "{:?}", &bomb[..bomb.len().min(9)]);
    }
    assert_eq!(read_object(&vec![0; 64 * 1024 + 1]), Err(AttestationError::TooLarge));
    assert_eq!(read_object(&[plain.clone(), vec![0]].concat()), Err(AttestationError::Malformed));
    for end in 0..plain.len() {
        assert!(read_object(&plain[..end]).is_err(), "cut at {end}");
    }
    // A key twice would let two readers see two statements.
    let mut twice = plain.clone();
    twice[0] = 0xa3;
    twice.extend(b"\x63fmt\x65apple");
    assert_eq!(read_object(&twice), Err(AttestationError::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No octet of a good statement can be another one, and no octet can be missing.
    #[test]
    fn th_37_th_39_no_altered_octet_passes(at in any::<prop::sample::Index>(), flip in 1u8..=255, cut: bool) {
        static GOOD: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
            let (chain, attested) = attested();
            (object("apple", &chain), attested.key_spki)
        });
        let (good, key) = &*GOOD;
        prop_assert!(verified(good, &this_mac(), key).is_ok());
        let mut bent = good.clone();
        let at = at.index(bent.len());
        if cut {
            bent.remove(at);
        } else {
            bent[at] ^= flip;
        }
        prop_assert!(verified(&bent, &this_mac(), key).is_err(), "octet {at}");
    }

    /// A foreign value in the leaf is found by its own error, signed by Apple or not.
    #[test]
    fn a_foreign_or_missing_value_is_found(which in 0usize..5, foreign in "[A-Z0-9]{1,20}") {
        let code = fresh();
        let (_, good) = attested();
        let mut values = everything(&code);
        let expected;
        match which {
            0 => { values[0].1 = foreign.as_bytes(); expected = AttestationError::SerialMismatch; }
            1 => { values[1].1 = foreign.as_bytes(); expected = AttestationError::UdidMismatch; }
            2 => { values[6].1 = foreign.as_bytes(); expected = AttestationError::FreshnessMismatch; }
            3 => { values.remove(6); expected = AttestationError::FreshnessMissing; }
            _ => { values.drain(..2); expected = AttestationError::IdentityMissing; }
        }
        let chain = APPLE.chain(&values);
        prop_assert_eq!(verified(&object("apple", &chain), &this_mac(), &good.key_spki).err(), Some(expected));
    }

    #[test]
    fn th_47_no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_object(&bytes);
        let mut object = b"\xa2\x63fmt\x65apple\x67attStmt\xa1\x63x5c".to_vec();
        object.extend(&bytes);
        let _ = verify_object(&object, TOKEN, &this_mac(), b"", &APPLE.roots(), NOW);
    }
}
