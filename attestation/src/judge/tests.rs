use proptest::prelude::*;

use super::*;

const SENT: Timestamp = Timestamp(1_000);

fn attested(serial: Option<&str>, udid: Option<&str>) -> Attested {
    Attested {
        serial_number: serial.map(str::to_owned),
        udid: udid.map(str::to_owned),
        software_update_device_id: Some("iPhone15,2".into()),
        os_version: Some("17.5".into()),
        sep_os_version: None,
        llb_version: None,
        freshness: Some(vec![1; 32]),
        sip_enabled: None,
        secure_boot: None,
        third_party_kexts: None,
        key_spki: vec![1],
    }
}

fn phone() -> Device<'static> {
    Device { platform: Some(Platform::Ios), serial_number: Some("S"), udid: Some("U"), ..Device::default() }
}

#[test]
fn th_38_fresh_is_what_carries_a_nonce_of_ours_as_of_when_it_was_sent() {
    let good = || Ok(attested(Some("S"), Some("U")));
    let fresh = verdict(good(), Carries::Ours(SENT), &phone());
    assert_eq!((fresh.verdict, fresh.identity, fresh.fresh_as_of), (Verdict::Accepted, Identity::Matches, Some(SENT)));
    // A device that answers with an attestation that it had is no attacker, and not fresh.
    let cached = verdict(good(), Carries::Unknown, &phone());
    assert_eq!((cached.verdict, cached.identity, cached.fresh_as_of), (Verdict::Accepted, Identity::Matches, None));
}

#[test]
fn th_37_no_freshness_code_is_no_attestation() {
    let none = Attested { freshness: None, ..attested(Some("S"), Some("U")) };
    let judged = verdict(Ok(none), Carries::Unknown, &phone());
    assert_eq!(judged, Judged::refused(AttestationError::FreshnessMissing));
    assert_eq!(judged.identity, Identity::Unknown);
}

#[test]
fn th_39_the_nonce_or_the_name_of_another_device_is_a_mismatch() {
    for (attested, carries, error) in [
        (attested(Some("S"), Some("U")), Carries::Foreign, AttestationError::FreshnessForeign),
        (attested(Some("X"), Some("U")), Carries::Ours(SENT), AttestationError::SerialMismatch),
        (attested(Some("S"), Some("X")), Carries::Ours(SENT), AttestationError::UdidMismatch),
        (attested(Some("X"), None), Carries::Unknown, AttestationError::SerialMismatch),
    ] {
        let judged = verdict(Ok(attested), carries, &phone());
        assert_eq!((judged.verdict, judged.identity), (Verdict::Refused(error), Identity::Mismatch));
        assert!(judged.attested.is_none() && judged.fresh_as_of.is_none());
    }
    // User Enrollment names nobody: there the nonce alone tells.
    let own = Device { user_enrollment: true, ..Device::default() };
    let judged = verdict(Ok(attested(None, None)), Carries::Foreign, &own);
    assert_eq!(judged.verdict, Verdict::Refused(AttestationError::FreshnessForeign));
}

#[test]
fn th_41_only_in_user_enrollment_may_an_attestation_name_nobody() {
    let own = Device { user_enrollment: true, ..Device::default() };
    let judged = verdict(Ok(attested(None, None)), Carries::Ours(SENT), &own);
    assert_eq!((judged.verdict, judged.identity), (Verdict::Accepted, Identity::NotAttested));
    // Elsewhere it may be that of any machine in User Enrollment which our nonce was handed on to.
    for carries in [Carries::Ours(SENT), Carries::Unknown] {
        let judged = verdict(Ok(attested(None, None)), carries, &phone());
        assert_eq!(judged, Judged::refused(AttestationError::IdentityMissing));
        assert_eq!((judged.identity, judged.fresh_as_of), (Identity::Unknown, None));
    }
}

#[test]
fn th_36_what_is_not_believed_says_nothing() {
    for error in [AttestationError::Untrusted, AttestationError::Expired, AttestationError::ChainLength] {
        let judged = verdict(Err(error), Carries::Unknown, &phone());
        assert_eq!((judged.verdict.as_str(), judged.identity), (error.as_str(), Identity::Unknown));
        assert_eq!(judged.values(), crate::Values::default());
    }
}

#[test]
fn th_49_the_kept_values_name_no_device() {
    let device = Device { serial_number: Some("SERIALSECRET"), udid: Some("UDIDSECRET"), ..phone() };
    let judged = verdict(Ok(attested(device.serial_number, device.udid)), Carries::Unknown, &device);
    let body = serde_json::to_string(&judged.values()).unwrap();
    assert!(!body.contains("SECRET"), "{body}");
    assert!(body.contains(r#""serial_number_attested":true"#), "{body}");
}

fn value() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[ab]?")
}

proptest! {
    /// Fresh and matching are said only of what carries our nonce and names this device by something, and by nothing else.
    #[test]
    fn nothing_foreign_is_ever_taken_for_this_devices(
        serial in value(), udid in value(), own_serial in value(), own_udid in value(), provisioning in value(),
        user_enrollment: bool, mac: bool, carries in 0usize..3,
    ) {
        let platform = Some(if mac { Platform::Macos } else { Platform::Ios });
        let device = Device {
            platform, user_enrollment,
            serial_number: own_serial.as_deref(), udid: own_udid.as_deref(), provisioning_udid: provisioning.as_deref(),
        };
        // As the verifier gives them: blank is none.
        let said = attested(serial.as_deref().filter(|s| !s.is_empty()), udid.as_deref().filter(|u| !u.is_empty()));
        let carries = [Carries::Unknown, Carries::Ours(SENT), Carries::Foreign][carries];
        let judged = verdict(Ok(said.clone()), carries, &device);
        if judged.identity == Identity::Matches {
            let own = if mac { &provisioning } else { &own_udid };
            let same = |said: &Option<String>, own: &Option<String>| {
                said.is_some() && own.as_deref().is_some_and(|own| !own.is_empty()) && said == own
            };
            prop_assert!(!user_enrollment && carries != Carries::Foreign);
            prop_assert!(same(&said.serial_number, &own_serial) || same(&said.udid, own));
        }
        if judged.fresh_as_of.is_some() {
            prop_assert_eq!(carries, Carries::Ours(SENT));
            prop_assert_eq!(judged.verdict, Verdict::Accepted);
        }
        prop_assert_eq!(judged.attested.is_some(), judged.verdict == Verdict::Accepted);
        prop_assert_eq!(judged.identity == Identity::NotAttested, user_enrollment && judged.verdict == Verdict::Accepted);
    }
}
