use ca::{Adapter, CommonNameRule};
use mdm_core::hardware::Platform;
use policy::Known;
use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [7; 32];

fn step_ca() -> Authority {
    Authority {
        id: Some(Uuid::from_u128(1)),
        adapter: Adapter::StepCa,
        identifier: IdentifierRule::Attested,
        common_name: CommonNameRule::Identifier,
        verifies_attestation: true,
        ..Authority::bare("https://ca.example/acme/mdm/directory", false, vec![])
    }
}

fn generic() -> Authority {
    Authority { id: Some(Uuid::from_u128(1)), ..Authority::bare("https://ca.example", false, vec![]) }
}

fn key() -> SubjectKey {
    SubjectKey { key_type: Some("ECSECPrimeRandom"), key_size: Some(256), spki_sha256: KEY }
}

fn expectation(common_name: &str) -> Expectation {
    serde_json::from_value(serde_json::json!({
        "serial_number": "C02", "udid": "U", "client_identifier_sha256": "00", "names_device": true,
        "key_type": "ECSECPrimeRandom", "key_size": 256, "hardware_bound": true, "attested": true,
        "subject": [{"kind": "2.5.4.3", "value": {"text": common_name}}],
    }))
    .unwrap()
}

fn candidate() -> Candidate {
    Candidate {
        device: Uuid::from_u128(100),
        authority: Some(Uuid::from_u128(1)),
        delivered_at: 1,
        acknowledged: false,
        used_for: None,
        said_yes: false,
        enrolled: true,
        assigned: true,
        user_enrollment: false,
        one_time: false,
        names: Known {
            platform: Some(Platform::Ios),
            serial_number: Some("C02".into()),
            udid: Some("U".into()),
            provisioning_udid: None,
        },
        expectation: expectation("C02"),
        key_of_another: false,
    }
}

fn one_time() -> Candidate {
    let expectation = Expectation { names_device: false, ..expectation("C02") };
    Candidate { expectation, one_time: true, ..candidate() }
}

fn asked<'a>(authority: &'a Authority, identifier: &'a str, key: &'a SubjectKey) -> Asked<'a> {
    Asked { authority, identifier: Some(identifier), key, names: &[], shows_attestation: false }
}

fn ask(authority: &Authority, identifier: Option<&str>, candidates: &[Candidate]) -> Result<Chosen, Denial> {
    let key = key();
    decide(&Asked { identifier, ..asked(authority, "", &key) }, candidates)
}

fn no(authority: &Authority, identifier: &str, candidate: Candidate) -> Denial {
    ask(authority, Some(identifier), &[candidate]).unwrap_err()
}

#[test]
fn step_ca_may_issue_to_an_enrolled_device_under_its_own_name() {
    for name in ["C02", "U"] {
        let chosen = ask(&step_ca(), Some(name), &[candidate()]).unwrap();
        assert_eq!(chosen, Chosen { at: 0, judge_attestation: false });
    }
}

#[test]
fn the_default_is_no() {
    let ca = step_ca();
    assert_eq!(ask(&ca, None, &[candidate()]), Err(Denial::IdentifierMissing));
    assert_eq!(ask(&ca, Some(""), &[candidate()]), Err(Denial::IdentifierMissing));
    assert_eq!(ask(&ca, Some("C02"), &[]), Err(Denial::NoOpenAttempt));
    assert_eq!(no(&ca, "C02", Candidate { authority: None, ..candidate() }), Denial::OtherAuthority);
    assert_eq!(
        no(&ca, "C02", Candidate { authority: Some(Uuid::from_u128(2)), ..candidate() }),
        Denial::OtherAuthority
    );
    assert_eq!(no(&ca, "C02", Candidate { enrolled: false, ..candidate() }), Denial::NotEnrolled);
    assert_eq!(no(&ca, "C02", Candidate { assigned: false, ..candidate() }), Denial::NotAssigned);
    let nameless = Authority { id: None, ..generic() };
    assert_eq!(
        no(&nameless, "C02", Candidate { authority: None, ..one_time() }),
        Denial::OtherAuthority,
        "no id is no id"
    );
}

#[test]
fn th_39_the_name_of_another_device_is_not_its_own() {
    let other = Known { serial_number: Some("C03".into()), udid: Some("V".into()), ..candidate().names };
    assert_eq!(no(&step_ca(), "C02", Candidate { names: other, ..candidate() }), Denial::IdentifierNotTheDevices);
    assert_eq!(no(&step_ca(), "one-time", one_time()), Denial::IdentifierNotTheDevices);
    assert_eq!(no(&step_ca(), "c02", candidate()), Denial::IdentifierNotTheDevices);
}

#[test]
fn th_40_a_mac_is_known_by_its_provisioning_udid() {
    let names = Known { platform: Some(Platform::Macos), provisioning_udid: Some("P".into()), ..candidate().names };
    let mac = Candidate { names, ..candidate() };
    assert_eq!(no(&step_ca(), "U", mac.clone()), Denial::IdentifierNotTheDevices);
    assert!(ask(&step_ca(), Some("P"), &[mac]).is_ok());
}

#[test]
fn th_41_a_user_enrollment_has_no_attested_name() {
    let user = Candidate { user_enrollment: true, ..candidate() };
    assert_eq!(no(&step_ca(), "C02", user), Denial::IdentifierNotTheDevices);
    let blank = Known { serial_number: Some(String::new()), udid: None, ..candidate().names };
    assert_eq!(no(&step_ca(), "C02", Candidate { names: blank, ..candidate() }), Denial::IdentifierNotTheDevices);
}

#[test]
fn th_42_a_key_is_of_the_kind_that_was_asked_for_and_of_nobody_else() {
    let rsa = Expectation { key_type: "RSA".into(), key_size: 2048, ..expectation("C02") };
    assert_eq!(no(&step_ca(), "C02", Candidate { expectation: rsa, ..candidate() }), Denial::KeyDiffers);
    let p384 = Expectation { key_size: 384, ..expectation("C02") };
    assert_eq!(no(&step_ca(), "C02", Candidate { expectation: p384, ..candidate() }), Denial::KeyDiffers);
    assert_eq!(no(&step_ca(), "C02", Candidate { key_of_another: true, ..candidate() }), Denial::KeyOfAnother);
}

#[test]
fn th_44_a_malformed_identifier_is_refused_before_anything_is_looked_up() {
    for bad in ["C02/x", " C02", "a\u{0}", &"x".repeat(256)] {
        assert_eq!(ask(&step_ca(), Some(bad), &[]), Err(Denial::IdentifierMalformed));
    }
}

#[test]
fn th_45_a_permission_is_used_once_and_for_one_key() {
    let used = Candidate { used_for: Some(vec![8; 32]), ..candidate() };
    assert_eq!(no(&step_ca(), "C02", used), Denial::AlreadyUsed);
    let same_key = Candidate { used_for: Some(KEY.to_vec()), ..candidate() };
    assert!(
        ask(&step_ca(), Some("C02"), std::slice::from_ref(&same_key)).is_ok(),
        "ENRICHING was told yes, AUTHORIZING asks"
    );
    assert_eq!(no(&step_ca(), "C02", Candidate { said_yes: true, ..same_key }), Denial::AlreadyUsed);
}

#[test]
fn an_authority_that_verifies_nothing_must_show_the_attestation() {
    assert_eq!(no(&generic(), "one-time", one_time()), Denial::NotAttested);
    let key = key();
    let authority = generic();
    let shows = Asked { shows_attestation: true, ..asked(&authority, "one-time", &key) };
    assert_eq!(decide(&shows, &[one_time()]), Ok(Chosen { at: 0, judge_attestation: true }));
    let verifies = Authority { verifies_attestation: true, ..generic() };
    let unattested = Candidate { expectation: Expectation { attested: false, ..one_time().expectation }, ..one_time() };
    assert_eq!(no(&verifies, "one-time", unattested.clone()), Denial::NotAttested);
    let open = Authority { accepts_unattested: true, ..generic() };
    assert!(ask(&open, Some("one-time"), &[unattested]).is_ok());
}

#[test]
fn th_39_an_authority_that_verifies_compares_the_identifier_or_shows_the_attestation() {
    let verifies = Authority { verifies_attestation: true, ..generic() };
    assert_eq!(no(&verifies, "one-time", one_time()), Denial::NotAttested, "whose attestation it was, nobody has seen");
    assert_eq!(no(&verifies, "C02", candidate()), Denial::NotAttested, "it takes any identifier: it compares none");
    let compares = Authority { identifier: IdentifierRule::Attested, ..verifies.clone() };
    assert_eq!(ask(&compares, Some("C02"), &[candidate()]), Ok(Chosen { at: 0, judge_attestation: false }));
    let key = key();
    let shows = Asked { shows_attestation: true, ..asked(&verifies, "one-time", &key) };
    assert_eq!(decide(&shows, &[one_time()]), Ok(Chosen { at: 0, judge_attestation: true }));
}

#[test]
fn th_39_a_name_that_was_not_delivered_is_not_allowed() {
    let (ca, key) = (step_ca(), key());
    let asks = |names: &[Told]| decide(&Asked { names, ..asked(&ca, "C02", &key) }, &[candidate()]);
    let common = |name: &str| Told::Common(name.to_owned());
    let (own, dns) = (Told::Permanent("C02".into()), Told::Alternative("dNSName", "ceo.example.com".into()));
    assert!(asks(&[common("C02"), own.clone()]).is_ok());
    assert!(asks(&[common("")]).is_ok());
    for names in
        [vec![common("ceo")], vec![own.clone(), dns], vec![Told::Permanent("C03".into())], vec![own, Told::Other]]
    {
        assert_eq!(asks(&names), Err(Denial::NamesDiffer), "{names:?}");
    }
}

#[test]
fn th_43_a_name_that_is_no_secret_is_no_permission_for_a_device_without_attestation() {
    let open = Authority { accepts_unattested: true, ..generic() };
    let unattested = |of: Candidate| Candidate { expectation: Expectation { attested: false, ..of.expectation }, ..of };
    for name in ["C02", "U"] {
        assert_eq!(no(&open, name, unattested(candidate())), Denial::IdentifierNoSecret, "anybody can read it");
    }
    // `mac-{serial}`: not the serial number itself, and no secret either.
    let prefixed = Expectation { names_device: false, ..candidate().expectation };
    let prefixed = unattested(Candidate { expectation: prefixed, ..candidate() });
    assert_eq!(no(&open, "mac-C02", prefixed), Denial::IdentifierNoSecret);
    assert!(ask(&open, Some("one-time"), &[unattested(one_time())]).is_ok());
    let key = key();
    let shows = Asked { shows_attestation: true, ..asked(&open, "C02", &key) };
    assert_eq!(decide(&shows, &[unattested(candidate())]), Ok(Chosen { at: 0, judge_attestation: true }));
}

#[test]
fn th_39_an_identifier_that_several_devices_were_sent_is_nobodys_permission() {
    let open = Authority { accepts_unattested: true, ..generic() };
    let of = |device: u128| Candidate { device: Uuid::from_u128(device), delivered_at: 2, ..one_time() };
    for all in [[of(100), of(101)], [of(101), of(100)]] {
        assert_eq!(ask(&open, Some("corp"), &all), Err(Denial::IdentifierOfSeveral));
    }
    let key = key();
    let shows = Asked { shows_attestation: true, ..asked(&open, "corp", &key) };
    assert_eq!(decide(&shows, &[of(100), of(101)]), Err(Denial::IdentifierOfSeveral), "shown or not");
    // Two channels or two profiles of one device, and a device that could not be told yes anyway.
    assert!(decide(&shows, &[of(100), of(100)]).is_ok());
    for gone in [Candidate { enrolled: false, ..of(101) }, Candidate { assigned: false, ..of(101) }] {
        assert!(decide(&shows, &[gone, of(100)]).is_ok());
    }
    assert_eq!(decide(&shows, &vec![of(100); store::attempts::MOST_OPEN]).unwrap().at, 0);
    assert_eq!(decide(&shows, &vec![of(100); store::attempts::MOST_OPEN + 1]), Err(Denial::IdentifierOfSeveral));
}

#[test]
fn of_several_profiles_under_way_the_right_one_is_chosen() {
    let old = Candidate { delivered_at: 1, acknowledged: true, ..candidate() };
    let busy = Candidate { delivered_at: 2, expectation: expectation("wifi"), ..candidate() };
    let newer = Candidate { delivered_at: 3, expectation: expectation("vpn"), ..candidate() };
    let all = [old, busy, newer];
    let key = key();
    let authority = step_ca();
    let asked = asked(&authority, "C02", &key);
    assert_eq!(decide(&asked, &all).unwrap().at, 2, "the newest that the device has not acknowledged");
    let named = |name: &str| [Told::Common(name.to_owned())];
    assert_eq!(decide(&Asked { names: &named("wifi"), ..asked }, &all).unwrap().at, 1);
    // The identifier is everybody's name; the one that has it as its common name goes first.
    assert_eq!(decide(&Asked { names: &named("C02"), ..asked }, &all).unwrap().at, 0);
    let [old, busy, newer] = all;
    let bound = Candidate { used_for: Some(KEY.to_vec()), ..old };
    assert_eq!(decide(&asked, &[bound, busy, newer]).unwrap().at, 0);
    let foreign = Candidate { authority: Some(Uuid::from_u128(9)), delivered_at: 9, ..candidate() };
    assert_eq!(decide(&asked, &[foreign, candidate()]).unwrap().at, 1);
}

proptest! {
    #[test]
    fn a_yes_has_all_that_it_needs(
        step: bool, ours: bool, enrolled: bool, assigned: bool, user: bool, used in prop::option::of(prop::sample::select(vec![7u8, 8])),
        said_yes: bool, of_another: bool, attested: bool, names_device: bool, open: bool, verifies: bool, compares: bool, shows: bool, one_time: bool,
        identifier in prop::sample::select(vec!["C02", "U", "c02", "one-time", "", "a/b"]), size in prop::sample::select(vec![256u32, 384]),
    ) {
        let mut authority = if step { step_ca() } else { generic() };
        if !step {
            authority.accepts_unattested = open;
            authority.verifies_attestation = verifies;
            authority.identifier = if compares { IdentifierRule::Attested } else { IdentifierRule::Any };
        }
        let candidate = Candidate {
            authority: ours.then(|| Uuid::from_u128(1)), enrolled, assigned, user_enrollment: user, one_time,
            used_for: used.map(|byte| vec![byte; 32]), said_yes, key_of_another: of_another,
            expectation: Expectation { attested, names_device, key_size: size, ..expectation("C02") },
            ..candidate()
        };
        let key = key();
        let asked = Asked { shows_attestation: shows, ..asked(&authority, identifier, &key) };
        let decided = decide(&asked, std::slice::from_ref(&candidate));
        prop_assert_eq!(decided, decide(&asked, std::slice::from_ref(&candidate)));
        if let Ok(chosen) = decided {
            prop_assert!(ours && enrolled && assigned && !said_yes && !of_another && used != Some(8) && size == 256);
            prop_assert!(attested || (open && !step));
            prop_assert!(!step || (!user && ["C02", "U"].contains(&identifier)));
            prop_assert!(!names_device || ["C02", "U"].contains(&identifier));
            let compared = step || (verifies && compares && ["C02", "U"].contains(&identifier));
            prop_assert!(!attested || compared || chosen.judge_attestation);
            let secret = one_time && !["C02", "U"].contains(&identifier);
            prop_assert!(attested || secret || chosen.judge_attestation);
            prop_assert_eq!(chosen.judge_attestation, shows);
        }
    }
}
