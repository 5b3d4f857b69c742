use std::time::Duration;

use mdm_core::ids::Fingerprint;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use store::anchors::Group;

use super::*;
use crate::trust::facts::{Ending, Stale};

const NOW: Timestamp = Timestamp(1_795_320_000_000);
const HOST: &str = "mdm.example.com";

struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn dated(name: &str, from: Timestamp, days: u32) -> CertificateParams {
    let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(from);
    params.not_after = moment(from.plus(days * DAY));
    params
}

fn ca_params(name: &str, from: Timestamp, days: u32) -> CertificateParams {
    let mut params = dated(name, from, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A root that began a year ago and lives so many days from then.
fn root_for(name: &str, days: u32) -> Ca {
    let params = ca_params(name, NOW.minus(365 * DAY), days);
    let key = KeyPair::generate().unwrap();
    let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    Ca { certificate, issuer: Issuer::new(params, key) }
}

fn root(name: &str) -> Ca {
    root_for(name, 3650)
}

fn middle(above: &Ca) -> Ca {
    let params = ca_params("Middle", NOW.minus(100 * DAY), 1000);
    let key = KeyPair::generate().unwrap();
    let certificate = Certificate::from_der(params.signed_by(&key, &above.issuer).unwrap().der()).unwrap();
    Ca { certificate, issuer: Issuer::new(params, key) }
}

fn leaf_params(host: &str, days: u32) -> CertificateParams {
    let mut params = dated("server", NOW.minus(DAY), days);
    params.subject_alt_names = vec![rcgen::SanType::DnsName(host.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn signed(above: &Ca, params: CertificateParams) -> Certificate {
    let key = KeyPair::generate().unwrap();
    Certificate::from_der(params.signed_by(&key, &above.issuer).unwrap().der()).unwrap()
}

fn leaf(above: &Ca) -> Certificate {
    signed(above, leaf_params(HOST, 365))
}

/// A server with a private CA, as it should be.
fn private(chain: Vec<Certificate>, root: &Ca) -> Facts {
    Facts {
        public_url: format!("https://{HOST}").parse().unwrap(),
        kind: ServerKind::PrivateCa,
        preinstalled: false,
        pinned: true,
        pilot: false,
        chain,
        files_trouble: None,
        held_back: None,
        anchors: vec![root.certificate.clone()],
        next_anchors: Vec::new(),
        former_anchors: Vec::new(),
        public_roots: Vec::new(),
        groups: Vec::new(),
        ends: Vec::new(),
        stale: Vec::new(),
        seen: Seen::NotLooked,
    }
}

/// A server with a certificate of a public CA, as it should be.
fn public(chain: Vec<Certificate>, root: &Ca) -> Facts {
    Facts {
        kind: ServerKind::Public,
        pinned: false,
        anchors: Vec::new(),
        public_roots: vec![root.certificate.clone()],
        ..private(chain, root)
    }
}

fn holding(anchors: &[&Ca], enrollments: i64) -> Group {
    let anchors: Vec<Fingerprint> = anchors.iter().map(|ca| ca.certificate.fingerprint()).collect();
    Group { server_url: Some(format!("https://{HOST}/mdm")), anchors: Some(anchors), enrollments }
}

fn codes(facts: &Facts) -> Vec<Code> {
    examine(facts, NOW).iter().map(|finding| finding.code).collect()
}

fn text(facts: &Facts, code: Code) -> String {
    examine(facts, NOW).iter().find(|finding| finding.code == code).unwrap().to_string()
}

#[test]
fn a_good_set_up_has_no_finding() {
    let ca = root("Root");
    let between = middle(&ca);
    assert_eq!(codes(&private(vec![leaf(&ca)], &ca)), []);
    assert_eq!(codes(&private(vec![leaf(&between), between.certificate.clone()], &ca)), []);
    assert_eq!(codes(&public(vec![leaf(&between), between.certificate.clone()], &ca)), []);
}

#[test]
fn e1_the_host_is_not_named() {
    let ca = root("Root");
    let facts = private(vec![signed(&ca, leaf_params("other.example.com", 365))], &ca);
    assert_eq!(codes(&facts), [Code::E1]);
    assert!(text(&facts, Code::E1).contains("other.example.com"));
    let mut by_address = private(vec![leaf(&ca)], &ca);
    by_address.public_url = "https://[::1]:8443".parse().unwrap();
    assert_eq!(codes(&by_address), [Code::E1]);
}

#[test]
fn e2_the_chain_is_not_complete_or_the_files_do_not_fit() {
    let ca = root("Root");
    let between = middle(&ca);
    assert_eq!(codes(&private(vec![leaf(&between)], &ca)), [Code::E2]);
    assert_eq!(codes(&public(vec![leaf(&between)], &ca)), [Code::E2]);
    let good = private(vec![leaf(&ca)], &ca);
    let facts = Facts { files_trouble: Some("key.pem is not the key of cert.pem".into()), ..good };
    assert_eq!(codes(&facts), [Code::E2]);
    assert!(text(&facts, Code::E2).contains("key.pem"));
}

#[test]
fn e3_something_has_ended_or_has_not_begun() {
    let ca = root("Root");
    let ended = Certificate::from_der(leaf(&ca).der()).unwrap();
    let facts = private(vec![ended], &ca);
    let late = examine(&facts, NOW.plus(400 * DAY));
    assert_eq!(late.iter().map(|f| f.code).collect::<Vec<_>>(), [Code::E3]);
    let early = examine(&facts, NOW.minus(2 * DAY));
    assert!(early.iter().any(|f| f.code == Code::E3 && f.what_to_do.contains("NTP")));
    // An anchor that has ended.
    let short = root_for("Short", 300);
    let facts = private(vec![leaf(&ca)], &ca);
    let facts = Facts { anchors: vec![ca.certificate.clone(), short.certificate], ..facts };
    assert_eq!(codes(&facts), [Code::E3]);
}

#[test]
fn e4_what_apple_refuses() {
    let ca = root("Root");
    let weak = Certificate::from_pem(include_str!("weak.pem")).unwrap();
    let found = examine(&private(vec![weak], &ca), NOW);
    let said: Vec<&str> = found.iter().filter(|f| f.code == Code::E4).map(|f| f.text.as_str()).collect();
    for word in ["1024 bits", "SHA-1", "serverAuth", "3650 days"] {
        assert!(said.iter().any(|text| text.contains(word)), "{word}: {said:?}");
    }
    let long = |days| vec![signed(&ca, leaf_params(HOST, days))];
    assert_eq!(codes(&private(long(825), &ca)), []);
    assert_eq!(codes(&private(long(826), &ca)), [Code::E4]);
    assert_eq!(codes(&public(long(398), &ca)), []);
    assert_eq!(codes(&public(long(399), &ca)), [Code::E4]);
}

#[test]
fn e5_what_is_said_contradicts_the_chain() {
    let ca = root("Root");
    let chain = vec![leaf(&ca), ca.certificate.clone()];
    let (private_ca, public_ca) = (private(chain.clone(), &ca), public(chain, &ca));
    // A private chain said to be public, a public one said to be private.
    assert_eq!(codes(&Facts { public_roots: Vec::new(), ..public_ca.clone() }), [Code::E5]);
    let other = root("Other");
    let wrong = Facts { kind: ServerKind::PrivateCa, anchors: vec![other.certificate.clone()], ..public_ca.clone() };
    assert_eq!(codes(&wrong), [Code::E5]);
    assert!(text(&wrong, Code::E5).contains("Changing the CA"), "it must not lead to a fleet that is cut off");
    // Self-signed or not.
    assert_eq!(codes(&Facts { kind: ServerKind::SelfSigned, ..private_ca.clone() }), [Code::E5]);
    let key = KeyPair::generate().unwrap();
    let own = Certificate::from_der(leaf_params(HOST, 365).self_signed(&key).unwrap().der()).unwrap();
    let own_facts = Facts {
        kind: ServerKind::SelfSigned,
        chain: vec![own.clone()],
        anchors: vec![own.clone()],
        ..private_ca.clone()
    };
    assert_eq!(codes(&own_facts), []);
    assert_eq!(codes(&Facts { kind: ServerKind::PrivateCa, ..own_facts.clone() }), [Code::E5]);
    assert_eq!(codes(&Facts { kind: ServerKind::Public, pinned: false, anchors: Vec::new(), ..own_facts }), [Code::E5]);
    // A public CA that is pinned, but by another root.
    assert_eq!(codes(&Facts { pinned: true, anchors: vec![other.certificate], ..public_ca }), [Code::E5]);
}

#[test]
fn e6_the_url_is_not_https_or_not_the_devices() {
    let ca = root("Root");
    let good = Facts { groups: vec![holding(&[&ca], 3)], ..private(vec![leaf(&ca)], &ca) };
    assert_eq!(codes(&good), []);
    let mut moved = good.clone();
    moved.groups[0].server_url = Some("https://old.example.com/mdm".into());
    assert_eq!(codes(&moved), [Code::E6]);
    assert!(text(&moved, Code::E6).contains("3 enrolled devices"));
    let mut port = good.clone();
    port.groups[0].server_url = Some(format!("https://{HOST}:8443/mdm"));
    assert_eq!(codes(&port), [Code::E6]);
    let mut plain = good;
    plain.public_url = format!("http://{HOST}").parse().unwrap();
    plain.groups.clear();
    assert_eq!(codes(&plain), [Code::E6]);
}

#[test]
fn e7_enrolled_devices_do_not_accept_the_chain() {
    let (old, next) = (root("Old"), root("Next"));
    let served = Facts {
        next_anchors: vec![next.certificate.clone()],
        groups: vec![holding(&[&old], 7), holding(&[&old, &next], 2)],
        ..private(vec![leaf(&old)], &old)
    };
    assert_eq!(codes(&served), []);
    let too_early = Facts { chain: vec![leaf(&next)], ..served.clone() };
    assert_eq!(codes(&too_early), [Code::E7]);
    assert!(text(&too_early, Code::E7).contains("7 of 9 enrolled devices"));
    let in_time = Facts { groups: vec![holding(&[&old, &next], 9)], ..too_early.clone() };
    assert_eq!(codes(&in_time), []);
    // Of these nothing is known: they are not counted.
    let unknown = Group { server_url: None, anchors: None, enrollments: 5 };
    assert_eq!(codes(&Facts { groups: vec![unknown], ..too_early }), []);
    // A device whose profile carried anchors is pinned to them, whatever the settings say today (N1).
    let to_public = Facts { groups: vec![holding(&[&old], 9)], ..public(vec![leaf(&next)], &next) };
    assert!(!to_public.pinned);
    assert_eq!(codes(&to_public), [Code::E7]);
    assert!(text(&to_public, Code::E7).contains("9 of 9 enrolled devices"));
    let staged = Facts { former_anchors: vec![next.certificate.clone()], ..to_public.clone() };
    assert_eq!(codes(&Facts { groups: vec![holding(&[&old, &next], 9)], ..staged }), []);
    assert_eq!(codes(&Facts { groups: vec![holding(&[], 9)], ..to_public.clone() }), []);
    // The former chain does not send its root, and the settings do not name it any more.
    let still = Facts { former_anchors: vec![old.certificate.clone()], ..to_public };
    assert_eq!(lost(&still, &[leaf(&old)], NOW).enrollments, 0);
    assert_eq!(lost(&still, &still.chain, NOW).enrollments, 9);
    // Devices that trust only what they have by themselves are lost to a private CA, unless it is there beforehand.
    let to_private = Facts { groups: vec![holding(&[], 4)], ..private(vec![leaf(&old)], &old) };
    assert_eq!(codes(&to_private), [Code::E7]);
    assert_eq!(codes(&Facts { preinstalled: true, ..to_private }), []);
    // What is held back is told of, too.
    let held = Facts { held_back: Some(Lost { enrollments: 7, of: 9 }), ..served };
    assert_eq!(codes(&held), [Code::E7]);
    assert!(text(&held, Code::E7).contains("force_switch"));
}

#[test]
fn w1_an_end_is_near() {
    let ca = root("Root");
    let facts = private(vec![leaf(&ca)], &ca);
    let at = |left: u32| {
        let found = examine(&facts, facts.chain[0].not_after().minus(left * DAY));
        found.iter().map(|f| (f.code, f.urgent)).collect::<Vec<_>>()
    };
    assert_eq!(at(31), []);
    assert_eq!(at(29), [(Code::W1, false)]);
    assert_eq!(at(6), [(Code::W1, true)]);
    // One of ten days is new for most of its life.
    assert_eq!(codes(&private(vec![signed(&ca, leaf_params(HOST, 10))], &ca)), []);
}

#[test]
fn w2_apple_has_other_anchors() {
    let ca = root("Root");
    let stale = Stale { server: "Main".into(), profile: "Laptops".into() };
    let facts = Facts { stale: vec![stale], ..private(vec![leaf(&ca)], &ca) };
    assert_eq!(codes(&facts), [Code::W2]);
    assert!(text(&facts, Code::W2).contains("Laptops"));
}

#[test]
fn w3_another_certificate_is_seen() {
    let ca = root("Root");
    let good = private(vec![leaf(&ca)], &ca);
    let seen = |chain: Vec<Certificate>| Facts { seen: Seen::Chain(chain), ..good.clone() };
    assert_eq!(codes(&seen(good.chain.clone())), []);
    assert_eq!(codes(&seen(vec![leaf(&root("Inspector"))])), [Code::W3]);
    // A network in which the server does not reach itself is no finding, unless nothing is known then.
    let nothing = Seen::Unreachable("refused".into());
    assert_eq!(codes(&Facts { seen: nothing.clone(), ..good.clone() }), []);
    assert_eq!(codes(&Facts { seen: nothing, chain: Vec::new(), ..good.clone() }), [Code::W3]);
    // Behind a proxy, what is seen is what is judged.
    let proxied = Facts { chain: Vec::new(), seen: Seen::Chain(vec![leaf(&root("Else"))]), ..good };
    assert_eq!(codes(&proxied), [Code::E2]);
}

#[test]
fn w4_other_things_end() {
    let ca = root("Root");
    let ending = |days: i64| Ending {
        about: "push certificate",
        name: "com.apple.mgmt.External.1".into(),
        not_after: Timestamp(NOW.0 + days * 86_400_000),
        notice: Duration::from_secs(30 * 86_400),
        what_to_do: "renew it",
    };
    let with = |days| Facts { ends: vec![ending(days)], ..private(vec![leaf(&ca)], &ca) };
    assert_eq!(codes(&with(31)), []);
    assert_eq!(codes(&with(20)), [Code::W4]);
    assert!(text(&with(-1), Code::W4).contains("ended on"));
}

#[test]
fn w5_a_pilot_says_so() {
    let ca = root("Root");
    assert_eq!(codes(&Facts { pilot: true, ..private(vec![leaf(&ca)], &ca) }), [Code::W5]);
}

#[test]
fn w6_no_next_anchor_is_staged() {
    let short = root_for("Ends in 80 days", 365 + 80);
    let next = root("Next");
    let facts = private(vec![signed(&short, leaf_params(HOST, 60))], &short);
    assert_eq!(codes(&facts), [Code::W6]);
    assert_eq!(codes(&Facts { next_anchors: vec![next.certificate], ..facts.clone() }), []);
    assert!(text(&facts, Code::W6).contains("next_anchors"));
}

#[test]
fn errors_come_first_and_every_code_has_its_word() {
    let ca = root("Root");
    let facts = Facts { pilot: true, ..private(vec![signed(&ca, leaf_params("other.example.com", 365))], &ca) };
    assert_eq!(codes(&facts), [Code::E1, Code::W5]);
    assert_eq!(Code::ALL.map(Code::is_error).iter().filter(|error| **error).count(), 7);
    let words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(words, ["E1", "E2", "E3", "E4", "E5", "E6", "E7", "W1", "W2", "W3", "W4", "W5", "W6"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever good set-up an administrator has: of either kind, with or without intermediates, however long its certificates
    /// live within Apple's bounds, whichever of its anchors devices hold, at any time of its validity, nothing is wrong.
    #[test]
    fn a_good_configuration_has_no_error(
        is_public: bool,
        between in 0_usize..3,
        days in 2_u32..=398,
        elapsed in 0_u32..=100,
        staged: bool,
        behind_proxy: bool,
        groups in proptest::collection::vec((1_i64..500, 0_usize..3), 0..4),
    ) {
        let (ca, next) = (root("Root"), root("Next"));
        let mut middles = Vec::new();
        for _ in 0..between {
            middles.push(middle(middles.last().unwrap_or(&ca)));
        }
        let mut chain = vec![signed(middles.last().unwrap_or(&ca), leaf_params(HOST, days))];
        chain.extend(middles.iter().rev().map(|m| m.certificate.clone()));
        let facts = if is_public { public(chain, &ca) } else { private(chain, &ca) };
        let mut facts = Facts {
            groups: groups.into_iter().map(|(count, holds)| match holds {
                _ if is_public => holding(&[], count),
                0 => holding(&[&ca], count),
                1 => holding(&[&ca, &next], count),
                _ => Group { server_url: None, anchors: None, enrollments: count },
            }).collect(),
            ..facts
        };
        if staged && !is_public {
            facts.next_anchors.push(next.certificate.clone());
        }
        if behind_proxy {
            facts.seen = Seen::Chain(std::mem::take(&mut facts.chain));
        }
        // From its first day to an hour before its end.
        let life = Duration::from_secs(u64::from(days - 1) * 86_400 - 3600);
        let now = NOW.plus(life * elapsed / 100);
        let errors: Vec<Finding> = examine(&facts, now).into_iter().filter(|f| f.code.is_error()).collect();
        prop_assert!(errors.is_empty(), "{errors:?}");
    }
}
