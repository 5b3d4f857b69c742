use attestation::{Identity, Judged, Verdict};
use mdm_core::crypto::attestation::{AttestationError, Attested, SecureBoot};
use proptest::prelude::*;

use super::*;

fn text(s: &str) -> FactValue {
    FactValue::Text(s.into())
}

fn attested(model: &str, os: &str) -> Attested {
    Attested {
        serial_number: Some("C02ATTESTED".into()),
        udid: Some("UDID-ATTESTED".into()),
        software_update_device_id: Some(model.into()),
        os_version: Some(os.into()),
        sep_os_version: Some(os.into()),
        llb_version: None,
        freshness: Some(vec![7; 32]),
        sip_enabled: Some(true),
        secure_boot: Some(SecureBoot::Full),
        third_party_kexts: Some(false),
        key_spki: vec![],
    }
}

fn accepted(model: &str, os: &str, fresh_as_of: Option<i64>) -> Judged {
    Judged {
        verdict: Verdict::Accepted,
        identity: Identity::Matches,
        fresh_as_of: fresh_as_of.map(Timestamp),
        attested: Some(attested(model, os)),
    }
}

fn refused(error: AttestationError, identity: Identity) -> Judged {
    Judged { verdict: Verdict::Refused(error), identity, fresh_as_of: None, attested: None }
}

fn claimed(pairs: &[(FactName, &str)], at: i64) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in pairs {
        facts.learn(*name, text(value), Source::DeviceInformation, Timestamp(at));
    }
    facts
}

#[test]
fn of_two_claims_the_newer_counts() {
    let mut facts = Facts::default();
    let t = Timestamp;
    assert!(facts.learn(FactName::OsVersion, text("17.0"), Source::Authenticate, t(10)));
    assert!(facts.learn(FactName::OsVersion, text("17.1"), Source::DeviceInformation, t(20)));
    assert!(!facts.learn(FactName::OsVersion, text("16.0"), Source::DeviceInformation, t(15)), "late");
    assert_eq!(facts.text(FactName::OsVersion), Some("17.1"));
    assert!(!facts.learn(FactName::DeviceName, text(""), Source::DeviceInformation, t(30)));
}

#[test]
fn th_61_a_text_with_control_characters_is_no_claim() {
    let mut facts = Facts::default();
    for said in ["Mac14,2\u{1b}[2J", "17.0\n", "\u{9b}31m", "a\u{7f}", "a\0"] {
        assert!(!facts.learn(FactName::ProductName, text(said), Source::DeviceInformation, Timestamp(1)), "{said:?}");
    }
    assert_eq!(facts.text(FactName::ProductName), None);
    assert!(facts.learn(FactName::DeviceName, text("Ada’s Mac é"), Source::Authenticate, Timestamp(1)));
}

#[test]
fn what_cannot_change_is_taken_from_apple_and_what_can_from_the_newest() {
    let names = [
        (FactName::ProductName, "iPhone17,2"),
        (FactName::SerialNumber, "CLAIMED"),
        (FactName::Udid, "CLAIMED"),
        (FactName::OsVersion, "17.0"),
    ];
    let mut facts = claimed(&names, 10);
    facts.learn_attested(&accepted("iPhone10,3", "16.7", Some(20)), Timestamp(25));
    assert_eq!(facts.text(FactName::ProductName), Some("iPhone10,3"));
    assert_eq!(facts.text(FactName::SerialNumber), Some("C02ATTESTED"));
    assert_eq!(facts.text(FactName::Udid), Some("UDID-ATTESTED"));
    assert_eq!(facts.text(FactName::OsVersion), Some("16.7"), "attested after it was claimed");
    facts.learn(FactName::OsVersion, text("18.0"), Source::DeviceInformation, Timestamp(30));
    assert_eq!(facts.text(FactName::OsVersion), Some("18.0"), "updated since");
    assert_eq!(facts.known[&FactName::SerialNumber].value, text("CLAIMED"), "claims stay what they are");
}

#[test]
fn th_40_the_attested_udid_of_a_mac_is_its_provisioning_udid() {
    let names = [(FactName::ProductName, "Mac14,2"), (FactName::Udid, "MDM"), (FactName::ProvisioningUdid, "CLAIMED")];
    let mut facts = claimed(&names, 10);
    for model in ["J413AP", "Mac14,2"] {
        facts.learn_attested(&accepted(model, "14.5", Some(20)), Timestamp(25));
        assert_eq!(facts.text(FactName::Udid), Some("MDM"), "{model}");
        assert_eq!(facts.text(FactName::ProvisioningUdid), Some("UDID-ATTESTED"));
        assert_eq!(facts.text(FactName::ProductName), Some("Mac14,2"));
    }
}

#[test]
fn th_38_an_attestation_of_unknown_freshness_says_nothing_of_now() {
    let mut facts = claimed(&[(FactName::OsVersion, "17.0")], 10);
    facts.learn_attested(&accepted("iPhone10,3", "18.0", None), Timestamp(25));
    assert_eq!(facts.text(FactName::OsVersion), Some("17.0"));
    assert_eq!(facts.text(FactName::SerialNumber), Some("C02ATTESTED"));
    // It does not take the place of one that is known to be fresh, either.
    facts.learn_attested(&accepted("iPhone10,3", "17.5", Some(30)), Timestamp(31));
    facts.learn_attested(&accepted("iPhone10,3", "18.0", None), Timestamp(40));
    let known = facts.attested.clone().unwrap();
    assert_eq!((known.fresh_as_of, known.os_version.as_deref()), (Some(Timestamp(30)), Some("17.5")));
    assert_eq!(known.judged_at, Timestamp(40));
}

#[test]
fn a_refusal_takes_the_trust_and_leaves_the_values_and_silence_changes_nothing() {
    let mut facts = claimed(&[(FactName::SerialNumber, "CLAIMED")], 10);
    facts.learn_attested(
        &Judged { verdict: Verdict::Absent, ..refused(AttestationError::Expired, Identity::Unknown) },
        Timestamp(11),
    );
    assert_eq!(facts.attested.as_ref().unwrap().verdict, "absent");
    facts.learn_attested(&accepted("iPhone10,3", "17.5", Some(12)), Timestamp(13));
    let before = facts.clone();
    facts.learn_attested(
        &Judged { verdict: Verdict::Absent, ..refused(AttestationError::Expired, Identity::Unknown) },
        Timestamp(14),
    );
    assert_eq!(facts, before);
    facts.learn_attested(&refused(AttestationError::SerialMismatch, Identity::Mismatch), Timestamp(15));
    let known = facts.attested.as_ref().unwrap();
    assert!(!known.is_believed());
    assert_eq!((known.verdict.as_str(), known.os_version.as_deref()), ("serial_mismatch", Some("17.5")));
    assert_eq!(facts.text(FactName::SerialNumber), Some("CLAIMED"));
    facts.learn_attested(&accepted("iPhone10,3", "17.5", None), Timestamp(12));
    assert_eq!(facts.attested.as_ref().unwrap().verdict, "serial_mismatch", "a late verdict");
}

#[test]
fn th_41_what_is_not_known_to_be_this_devices_is_no_serial_number() {
    let mut facts = Facts::default();
    facts.learn_attested(
        &Judged { identity: Identity::NotAttested, ..accepted("iPhone10,3", "17.5", Some(5)) },
        Timestamp(6),
    );
    assert_eq!(facts.text(FactName::SerialNumber), None);
    assert_eq!(facts.text(FactName::ProductName), Some("iPhone10,3"));
}

#[test]
fn th_49_facts_do_not_print_the_device() {
    let mut facts = Facts::default();
    facts.learn_attested(&accepted("iPhone10,3", "17.5", Some(5)), Timestamp(6));
    let printed = format!("{:?}", facts.attested);
    assert!(!printed.contains("C02ATTESTED") && !printed.contains("UDID-ATTESTED"), "{printed}");
}

#[test]
fn the_document_reads_back_and_an_older_one_too() {
    let mut facts = Facts { asked_at: Some(Timestamp(40)), ..Facts::default() };
    facts.learn(FactName::IsAppleSilicon, FactValue::Flag(true), Source::DeviceInformation, Timestamp(40));
    let json = serde_json::to_string(&facts).unwrap();
    assert!(json.contains(r#""is_apple_silicon":{"value":true,"source":"device_information""#), "{json}");
    assert!(!json.contains("attested"), "{json}");
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
    facts.learn_attested(&accepted("J413AP", "14.5", Some(41)), Timestamp(42));
    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(mut claims in prop::collection::vec(0i64..50, 1..8)) {
        claims.sort_unstable();
        claims.dedup();
        let tell = |list: &[i64]| {
            let mut facts = Facts::default();
            for at in list {
                facts.learn(FactName::OsVersion, text(&at.to_string()), Source::DeviceInformation, Timestamp(*at));
            }
            facts
        };
        let forward = tell(&claims);
        claims.reverse();
        prop_assert_eq!(forward, tell(&claims));
    }

    #[test]
    fn freshness_never_goes_back(steps in prop::collection::vec(prop::option::of(0i64..50), 1..12)) {
        let mut facts = Facts::default();
        let mut freshest = None;
        for (n, fresh_as_of) in steps.into_iter().enumerate() {
            facts.learn_attested(&accepted("J413AP", "14.5", fresh_as_of), Timestamp(100 + i64::try_from(n).unwrap()));
            freshest = freshest.max(fresh_as_of.map(Timestamp));
            prop_assert_eq!(facts.attested.as_ref().unwrap().fresh_as_of, freshest);
        }
    }
}
