use attestation::{Judged, Verdict};
use mdm_core::crypto::attestation::{AttestationError, Attested};
use mdm_core::enrollment::Channel;
use proptest::prelude::*;

use super::*;
use crate::facts::{FactName, FactValue, Source};

const DAY: i64 = 86_400_000;
const NOW: Timestamp = Timestamp(100 * DAY);

fn mac() -> Attested {
    Attested {
        serial_number: Some("C02".into()),
        udid: Some("U".into()),
        software_update_device_id: Some("J413AP".into()),
        os_version: Some("14.6".into()),
        sep_os_version: Some("14.6".into()),
        llb_version: Some("10151.140.19".into()),
        freshness: Some(vec![1; 32]),
        sip_enabled: Some(true),
        secure_boot: Some(SecureBoot::Full),
        third_party_kexts: Some(false),
        key_spki: vec![],
    }
}

fn phone() -> Attested {
    Attested {
        software_update_device_id: Some("iPhone15,2".into()),
        os_version: Some("17.5".into()),
        sip_enabled: None,
        secure_boot: None,
        third_party_kexts: None,
        ..mac()
    }
}

fn judged(attested: Attested, fresh_as_of: Option<Timestamp>) -> Judged {
    Judged { verdict: Verdict::Accepted, identity: Identity::Matches, fresh_as_of, attested: Some(attested) }
}

fn refused(verdict: Verdict, identity: Identity) -> Judged {
    Judged { verdict, identity, fresh_as_of: None, attested: None }
}

fn facts(product: &str, os: &str, judged: Option<&Judged>) -> Facts {
    let mut facts = Facts::default();
    for (name, text) in [(FactName::ProductName, product), (FactName::OsVersion, os)] {
        facts.learn(name, FactValue::Text(text.into()), Source::DeviceInformation, NOW);
    }
    if let Some(judged) = judged {
        facts.learn_attested(judged, NOW);
    }
    facts
}

fn reason(required: &Requirements, facts: &Facts) -> Option<ReasonCode> {
    unmet(required, EnrollmentKind::Device, facts, NOW).map(|(reason, _)| reason)
}

fn strict() -> Requirements {
    Requirements {
        identity: true,
        sip_enabled: true,
        secure_boot: Some(SecureBoot::Full),
        no_third_party_kexts: true,
        os_at_least: BTreeMap::from([(Platform::Macos, "14.2".to_owned()), (Platform::Ios, "17.2".to_owned())]),
        models: vec!["J413AP".into(), "iPhone15,2".into()],
        max_age_hours: None,
    }
}

fn of_mac(attested: Attested) -> Option<ReasonCode> {
    reason(&strict(), &facts("Mac14,2", "14.6", Some(&judged(attested, Some(NOW)))))
}

#[test]
fn a_policy_without_requirements_asks_for_nothing() {
    assert_eq!(reason(&Requirements::default(), &Facts::default()), None);
    assert!(Requirements::default().is_empty());
}

#[test]
fn what_apple_attests_as_required_is_met() {
    assert_eq!(of_mac(mac()), None);
    assert_eq!(reason(&strict(), &facts("iPhone15,2", "17.5", Some(&judged(phone(), Some(NOW))))), None);
}

#[test]
fn each_requirement_has_its_own_reason_and_what_is_missing_is_not_good() {
    for (attested, expected) in [
        (Attested { sip_enabled: Some(false), ..mac() }, ReasonCode::SipDisabled),
        (Attested { sip_enabled: None, ..mac() }, ReasonCode::ValueNotAttested),
        (Attested { secure_boot: Some(SecureBoot::Reduced), ..mac() }, ReasonCode::SecureBootTooWeak),
        (Attested { secure_boot: None, ..mac() }, ReasonCode::ValueNotAttested),
        (Attested { third_party_kexts: Some(true), ..mac() }, ReasonCode::ThirdPartyKextsAllowed),
        (Attested { third_party_kexts: None, ..mac() }, ReasonCode::ValueNotAttested),
        (Attested { os_version: Some("14.1".into()), ..mac() }, ReasonCode::AttestedOsTooOld),
        (Attested { os_version: Some("new".into()), ..mac() }, ReasonCode::ValueNotAttested),
        (Attested { os_version: None, ..mac() }, ReasonCode::ValueNotAttested),
        (Attested { software_update_device_id: Some("J414AP".into()), ..mac() }, ReasonCode::ModelNotAllowed),
        (Attested { software_update_device_id: None, ..mac() }, ReasonCode::ValueNotAttested),
    ] {
        assert_eq!(of_mac(attested.clone()), Some(expected), "{attested:?}");
    }
    let reduced = Requirements { secure_boot: Some(SecureBoot::Reduced), ..Requirements::default() };
    let with = |secure_boot| {
        let judged = judged(Attested { secure_boot: Some(secure_boot), ..mac() }, Some(NOW));
        reason(&reduced, &facts("Mac14,2", "14.6", Some(&judged)))
    };
    assert_eq!(with(SecureBoot::Full), None);
    assert_eq!(with(SecureBoot::Reduced), None);
    assert_eq!(with(SecureBoot::Permissive), Some(ReasonCode::SecureBootTooWeak));
}

#[test]
fn claims_never_meet_a_requirement() {
    // Newer than attested, and still the attested one decides.
    let attested = Attested { os_version: Some("14.1".into()), ..mac() };
    assert_eq!(
        reason(&strict(), &facts("Mac14,2", "26.0", Some(&judged(attested, Some(NOW))))),
        Some(ReasonCode::AttestedOsTooOld)
    );
    assert_eq!(reason(&strict(), &facts("Mac14,2", "26.0", None)), Some(ReasonCode::AttestationMissing));
}

#[test]
fn a_mac_that_says_it_is_a_phone_is_still_a_mac() {
    let bent = Attested { sip_enabled: Some(false), ..mac() };
    assert_eq!(
        reason(&strict(), &facts("iPhone15,2", "17.5", Some(&judged(bent, Some(NOW))))),
        Some(ReasonCode::SipDisabled)
    );
    let sip = Requirements { sip_enabled: true, ..Requirements::default() };
    let nameless = Attested { software_update_device_id: None, sip_enabled: None, ..mac() };
    assert_eq!(
        reason(&sip, &facts("iPhone15,2", "17.5", Some(&judged(nameless.clone(), Some(NOW))))),
        Some(ReasonCode::ValueNotAttested)
    );
    let macs =
        Requirements { os_at_least: BTreeMap::from([(Platform::Macos, "14.2".to_owned())]), ..Requirements::default() };
    assert_eq!(
        reason(&macs, &facts("iPhone15,2", "17.5", Some(&judged(nameless, Some(NOW))))),
        Some(ReasonCode::ValueNotAttested)
    );
    assert_eq!(reason(&macs, &facts("iPhone15,2", "17.5", Some(&judged(phone(), Some(NOW))))), None);
}

#[test]
fn th_38_age_counts_from_the_nonce_and_an_unknown_one_is_too_old() {
    let any = Requirements { max_age_hours: Some(24), ..Requirements::default() };
    let aged = |required: &Requirements, fresh: Option<i64>| {
        let judged = judged(mac(), fresh.map(|ago| Timestamp(NOW.0 - ago)));
        reason(required, &facts("Mac14,2", "14.6", Some(&judged)))
    };
    assert_eq!(aged(&any, Some(DAY)), None);
    assert_eq!(aged(&any, Some(DAY + 1)), Some(ReasonCode::AttestationStale));
    assert_eq!(aged(&any, None), Some(ReasonCode::AttestationStale), "received a moment ago, all the same");
    assert_eq!(aged(&strict(), Some(8 * DAY)), None);
    assert_eq!(aged(&strict(), Some(8 * DAY + 1)), Some(ReasonCode::AttestationStale));
}

#[test]
fn th_39_another_devices_attestation_is_its_own_reason() {
    for (judged, expected) in [
        (
            refused(Verdict::Refused(AttestationError::SerialMismatch), Identity::Mismatch),
            ReasonCode::AttestationMismatch,
        ),
        (refused(Verdict::Refused(AttestationError::Untrusted), Identity::Unknown), ReasonCode::AttestationRefused),
        (refused(Verdict::Absent, Identity::Unknown), ReasonCode::AttestationMissing),
    ] {
        assert_eq!(reason(&strict(), &facts("Mac14,2", "14.6", Some(&judged))), Some(expected), "{judged:?}");
        // Also after a good one.
        let mut known = facts("Mac14,2", "14.6", Some(&super::tests::judged(mac(), Some(NOW))));
        known.learn_attested(&judged, Timestamp(NOW.0 + 1));
        let still = (judged.verdict != Verdict::Absent).then_some(expected);
        assert_eq!(reason(&strict(), &known), still, "{judged:?}");
    }
}

#[test]
fn th_41_user_enrollment_cannot_meet_a_demand_for_identity() {
    let own = Judged { identity: Identity::NotAttested, ..judged(phone(), Some(NOW)) };
    let facts = facts("iPhone15,2", "17.5", Some(&own));
    assert_eq!(reason(&strict(), &facts), Some(ReasonCode::IdentityNotAttested));
    assert_eq!(reason(&Requirements { identity: false, ..strict() }, &facts), None);
    // It is said at once, and nobody is asked in vain.
    let mut unasked = self::facts("iPhone15,2", "17.5", None);
    unasked.asked_at = Some(NOW);
    let never = unmet(&strict(), EnrollmentKind::User, &unasked, NOW).map(|(reason, _)| reason);
    assert_eq!(never, Some(ReasonCode::IdentityNotAttested));
    assert!(!ask_first(&strict(), EnrollmentKind::User, &unasked));
    assert!(ask_first(&Requirements { identity: false, ..strict() }, EnrollmentKind::User, &unasked));
}

#[test]
fn hardware_that_cannot_attest_is_said_to_be_so() {
    for (product, os) in [("MacBookPro16,1", "14.6"), ("iPad7,5", "17.5"), ("Mac14,2", "13.6"), ("Fridge1,1", "1.0")] {
        assert_eq!(reason(&strict(), &facts(product, os, None)), Some(ReasonCode::AttestationUnsupported), "{product}");
    }
}

#[test]
fn who_was_not_asked_for_want_of_knowledge_is_asked_once_more_and_no_more() {
    // Nothing is known, and the first question goes without a nonce.
    let mut known = Facts::default();
    known.note_asked(Channel::Device, NOW);
    let answer = facts("Mac14,2", "14.6", None);
    known.merge(answer.clone());
    assert!(ask_first(&strict(), EnrollmentKind::Device, &known));
    assert!(!ask_first(&Requirements::default(), EnrollmentKind::Device, &known), "where nothing is required");
    // Whatever becomes of the second question: it was asked.
    known.note_asked(Channel::Device, NOW);
    assert!(!ask_first(&strict(), EnrollmentKind::Device, &known));
    assert_eq!(reason(&strict(), &known), Some(ReasonCode::AttestationMissing));
    // Who was known from the start is asked with the first question.
    let mut known = answer;
    known.note_asked(Channel::Device, NOW);
    assert!(!ask_first(&strict(), EnrollmentKind::Device, &known));
    // A user channel is never asked for one: whatever it answers, even nothing, it is not asked again.
    let mut user = Facts::default();
    user.note_asked(Channel::User, NOW);
    assert!(!ask_first(
        &strict(),
        EnrollmentKind::Device,
        &crate::target::of_user(facts("Mac14,2", "14.6", None), user)
    ));
    // Who cannot is not asked.
    let mut intel = Facts::default();
    intel.note_asked(Channel::Device, NOW);
    intel.merge(facts("MacBookPro16,1", "14.6", None));
    assert!(!ask_first(&strict(), EnrollmentKind::Device, &intel));
    // An answer that was not asked for by us counts as well.
    let mut told = facts("Mac14,2", "14.6", Some(&judged(mac(), Some(NOW))));
    told.asked_at = Some(NOW);
    assert!(!ask_first(&strict(), EnrollmentKind::Device, &told));
}

#[test]
fn wrong_requirements_are_named() {
    let wrong = |r: Requirements| r.check().into_iter().map(|e| e.field).collect::<Vec<_>>();
    assert_eq!(wrong(strict()), Vec::<String>::new());
    assert_eq!(wrong(Requirements { max_age_hours: Some(0), ..strict() }), ["require.max_age_hours"]);
    assert_eq!(wrong(Requirements { models: vec![String::new()], ..strict() }), ["require.models"]);
    let os_at_least = BTreeMap::from([(Platform::Ios, "seventeen".to_owned())]);
    assert_eq!(wrong(Requirements { os_at_least, ..strict() }), ["require.os_at_least.iOS"]);
    for json in [r#"{"sip": true}"#, r#"{"secure_boot": "Full Security"}"#, r#"{"os_at_least": {"windows": "11"}}"#] {
        assert!(serde_json::from_str::<Requirements>(json).is_err(), "{json}");
    }
    let json = serde_json::to_string(&strict()).unwrap();
    assert_eq!(serde_json::from_str::<Requirements>(&json).unwrap(), strict());
}

proptest! {
    /// Whatever one value is taken away or bent, what was met is met no more; nothing that is missing makes it better.
    #[test]
    fn nothing_missing_is_good(
        sip in prop::option::of(any::<bool>()), kexts in prop::option::of(any::<bool>()), boot in 0usize..4,
        os in prop::option::of(0u8..30), model in prop::option::of(any::<bool>()), fresh in prop::option::of(0i64..20), identity in 0usize..4,
    ) {
        let boots = [None, Some(SecureBoot::Full), Some(SecureBoot::Reduced), Some(SecureBoot::Permissive)];
        let identities = [Identity::Matches, Identity::NotAttested, Identity::Mismatch, Identity::Unknown];
        let attested = Attested {
            sip_enabled: sip, third_party_kexts: kexts, secure_boot: boots[boot],
            os_version: os.map(|major| format!("{major}.0")),
            software_update_device_id: model.map(|right| if right { "J413AP" } else { "J999AP" }.to_owned()),
            ..mac()
        };
        let judged = Judged {
            identity: identities[identity],
            ..judged(attested, fresh.map(|days| Timestamp(NOW.0 - days * DAY)))
        };
        let met = reason(&strict(), &facts("Mac14,2", "14.6", Some(&judged))).is_none();
        let good = sip == Some(true) && kexts == Some(false) && boot == 1 && os.is_some_and(|major| major >= 15)
            && model == Some(true) && fresh.is_some_and(|days| days <= 8) && identity == 0;
        prop_assert_eq!(met, good);
    }
}
