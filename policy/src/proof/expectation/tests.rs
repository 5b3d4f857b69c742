use mdm_core::profile::acme::{AcmeKeys, SubjectAltName};

use super::*;
use crate::proof::tests::{Issue, authority, permanent_identifier};

const SECRET: &str = "fKx0v1uYy8mZqJ4nWl2pTtRrEe3sSdDfGgHhJjKkLlA";

fn payload(identifier: &str, subject: &[(&str, &str)], names: SubjectAltName) -> AcmePayload {
    let keys = AcmeKeys {
        directory_url: "https://ca.example.com/acme/directory".into(),
        client_identifier: identifier.into(),
        key_type: "ECSECPrimeRandom".into(),
        key_size: 256,
        hardware_bound: true,
        subject: subject.iter().map(|(kind, value)| vec![vec![(*kind).to_owned(), (*value).to_owned()]]).collect(),
        subject_alt_name: names,
        usage_flags: None,
        extended_key_usage: vec![],
        attest: Attest::True,
        mac: None,
    };
    AcmePayload::new(keys, None).unwrap()
}

fn expects(identifier: &str, subject: &[(&str, &str)]) -> Expectation {
    Expectation::of(&payload(identifier, subject, SubjectAltName::default()), Some("C02XX"), Some("UDID-1"), None)
}

#[test]
fn th_43_a_one_time_identifier_is_in_no_expectation() {
    let names = SubjectAltName { dns_name: Some(format!("x{SECRET}.example.com")), ..SubjectAltName::default() };
    let subject = [("CN", SECRET), ("O", "Example"), ("OU", &SECRET[3..30])];
    let expectation = Expectation::of(&payload(SECRET, &subject, names), Some("C02XX"), None, None);
    let json = serde_json::to_string(&expectation).unwrap();
    for piece in SECRET.as_bytes().windows(16) {
        assert!(!json.contains(std::str::from_utf8(piece).unwrap()), "{json}");
    }
    assert!(json.contains("Example") && !expectation.names_device);
    assert_eq!(serde_json::from_str::<Expectation>(&json).unwrap(), expectation);
}

#[test]
fn an_identifier_that_names_the_device_is_kept_in_clear() {
    for identifier in ["C02XX", "UDID-1"] {
        let expectation = expects(identifier, &[("CN", identifier)]);
        assert!(expectation.names_device);
        assert_eq!(expectation.subject[0].value, Expected::Text(identifier.into()));
        assert_eq!(expectation.subject[0].kind, "2.5.4.3");
    }
}

#[test]
fn names_agree_by_the_common_name_the_subject_or_an_alternative_name() {
    let ca = authority();
    let both = [("O", "Example"), ("CN", "C02XX")];
    let agree = |expectation: &Expectation, issue: Issue| expectation.names_agree(&issue.by(&ca));
    let expectation = expects(SECRET, &both);
    assert_eq!(agree(&expectation, Issue::default().subject(&both)), Ok(Agreement::Names));
    assert_eq!(agree(&expectation, Issue::default().subject(&[("CN", "C02XX")])), Ok(Agreement::Names), "O left out");
    let more = [("O", "Example"), ("CN", "C02XX"), ("L", "Cork")];
    assert_eq!(agree(&expectation, Issue::default().subject(&more)), Ok(Agreement::Names), "L added");
    let without = expects(SECRET, &[("O", "Example")]);
    assert_eq!(agree(&without, Issue::default().subject(&[("O", "Example")])), Ok(Agreement::Names));
    let dns = |name: &str| SubjectAltName { dns_name: Some(name.into()), ..SubjectAltName::default() };
    let named = Expectation::of(&payload(SECRET, &[("CN", "a")], dns("a.example.com")), None, None, None);
    assert_eq!(agree(&named, Issue::default().dns("a.example.com")), Ok(Agreement::Names));
    assert!(agree(&named, Issue::default().dns("b.example.com")).unwrap_err().contains("b.example.com"));
}

#[test]
fn th_44_a_name_that_differs_in_one_letter_or_its_case_is_another_name() {
    let ca = authority();
    let expectation = expects(SECRET, &[("CN", "C02XX")]);
    for other in ["c02xx", "C02XX ", " C02XX", "C02X", "C02XXX", "C02XX\u{0}"] {
        let why = expectation.names_agree(&Issue::default().subject(&[("CN", other)]).by(&ca)).unwrap_err();
        assert!(why.starts_with("its CN is"), "{other:?}: {why}");
    }
}

#[test]
fn a_dns_name_is_the_same_in_small_letters() {
    let ca = authority();
    let names = SubjectAltName { dns_name: Some("C02XX.Example.com".into()), ..SubjectAltName::default() };
    let expectation = Expectation::of(&payload(SECRET, &[("CN", "C02XX")], names), Some("C02XX"), None, None);
    let agree = |name: &str| expectation.names_agree(&Issue::default().dns(name).by(&ca));
    assert_eq!(agree("c02xx.example.com"), Ok(Agreement::Names));
    assert_eq!(agree("C02XX.Example.com"), Ok(Agreement::Names));
    for other in ["c02xy.example.com", "c02xx.example.com.", "xc02xx.example.com"] {
        assert!(agree(other).unwrap_err().starts_with("its dNSName is"), "{other}");
    }
}

#[test]
fn a_permanent_identifier_is_enough_and_tells_a_one_time_value() {
    let ca = authority();
    let issue = |value: &str| Issue::default().san(permanent_identifier(value)).by(&ca);
    let one_time = expects(SECRET, &[("O", "Example")]);
    assert_eq!(one_time.names_agree(&issue(SECRET)), Ok(Agreement::OneTime));
    assert!(one_time.names_agree(&issue("C02XX")).is_err());
    let device = expects("C02XX", &[("O", "Example")]);
    assert_eq!(device.names_agree(&issue("C02XX")), Ok(Agreement::Names));
}

#[test]
fn nothing_in_common_and_a_contradiction_are_told_apart() {
    let ca = authority();
    let expectation = expects(SECRET, &[("O", "Example"), ("CN", "C02XX")]);
    let why =
        |subject: &[(&str, &str)]| expectation.names_agree(&Issue::default().subject(subject).by(&ca)).unwrap_err();
    assert!(why(&[]).contains("neither"));
    let other = why(&[("O", "Another"), ("CN", "C02XX")]);
    assert!(other.contains("its O is \"Another\"") && other.contains("\"Example\""), "{other}");
    let random = expects(SECRET, &[("CN", SECRET)]);
    let told = random.names_agree(&Issue::default().subject(&[("CN", "x")]).by(&ca)).unwrap_err();
    assert!(told.contains("a one-time value") && !told.contains(SECRET));
}

#[test]
fn the_kind_and_the_size_of_the_key_are_compared() {
    let ca = authority();
    let certificate = Issue::default().by(&ca);
    let mut expectation = expects(SECRET, &[("CN", "C02XX")]);
    assert_eq!(expectation.key_differs(&certificate), None);
    expectation.key_size = 384;
    assert!(expectation.key_differs(&certificate).unwrap().contains("ECSECPrimeRandom 256"));
    (expectation.key_type, expectation.key_size) = ("RSA".into(), 256);
    assert!(expectation.key_differs(&certificate).is_some());
}
