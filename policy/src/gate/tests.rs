//! The gate against a device that reads Apple's schema by itself: every row of soc.csv, on both sides of every OS
//! boundary, on every kind of enrollment and channel.

use mdm_core::hardware::Model;
use mdm_core::plist::{Dictionary, Value};
use mdm_core::profile::acme::{AcmeKeys, AcmePayload, SubjectAltName};
use uuid::Uuid;

use super::*;

const NEVER: Wish = Wish::Never;
const REQUIRED: Wish = Wish::Required;
const WHEN: Wish = Wish::WhenSupported;

/// A device as Apple's schema describes it. It knows nothing of our gate, only the published list and the YAML text.
struct Device {
    model: &'static Model,
    os: OsVersion,
    kind: EnrollmentKind,
    channel: Channel,
}

impl Device {
    fn is(&self, family: &str) -> bool {
        self.model.family == family
    }

    fn is_mac(&self) -> bool {
        self.is("Mac")
    }

    fn before(&self, major: u16, minor: u16) -> bool {
        self.os < OsVersion::new(major, minor)
    }

    /// `payload.supportedOS` of com.apple.security.acme.
    fn takes_the_payload(&self) -> Result<(), &'static str> {
        let (introduced, user_enrollment, user_channel) = match self.model.family.as_str() {
            "iPhone" | "iPad" | "iPod" => ((16, 0), true, false),
            "Mac" => ((13, 1), true, true),
            "AppleTV" => ((16, 0), false, false),
            "Vision" => ((1, 0), true, false),
            "Watch" => ((9, 0), false, false),
            other => panic!("family {other}"),
        };
        if self.before(introduced.0, introduced.1) {
            return Err("introduced");
        }
        if self.kind == EnrollmentKind::User && !user_enrollment {
            return Err("userenrollment");
        }
        if self.channel == Channel::User && (!user_channel || self.kind == EnrollmentKind::SharedIpad) {
            return Err("userchannel");
        }
        Ok(())
    }

    /// Does a profile with this payload install?
    fn accepts(&self, payload: &Dictionary) -> Result<(), &'static str> {
        self.takes_the_payload()?;
        let flag = |key: &str| payload.get(key).map(|v| v.as_boolean().expect("a boolean"));
        let text = |key: &str| payload.get(key).and_then(Value::as_string).expect("a string");
        let size = payload.get("KeySize").and_then(Value::as_signed_integer).expect("KeySize");
        let bound = flag("HardwareBound").ok_or("HardwareBound is required")?;
        match text("KeyType") {
            "RSA" if size % 8 == 0 && (1024..=4096).contains(&size) => {}
            "ECSECPrimeRandom" if [192, 256, 384, 521].contains(&size) => {}
            _ => return Err("KeyType and KeySize"),
        }
        if bound && (text("KeyType") != "ECSECPrimeRandom" || ![256, 384].contains(&size)) {
            return Err("hardware bound keys only support 256 and 384");
        }
        // "Older macOS versions or other Mac devices require this key but it must have a value of 'false'."
        if bound && self.is_mac() && (self.before(14, 0) || !self.model.hardware_bound_possible) {
            return Err("HardwareBound must be false");
        }
        let attest = flag("Attest");
        if attest.is_some() && self.is("Watch") && self.before(10, 0) {
            return Err("Attest is introduced in watchOS 10");
        }
        if attest == Some(true) && !bound {
            return Err("Attest needs HardwareBound");
        }
        // "Older macOS versions require this key but it must have a value of 'false'."
        if self.is_mac() && self.before(14, 0) && attest != Some(false) {
            return Err("Attest must be there and false before macOS 14");
        }
        if attest == Some(true) && self.model.attest == AttestSupport::MustBeFalse {
            return Err("Attest must be false: T1 and earlier");
        }
        for key in ["KeyIsExtractable", "AllowAllAppsAccess"] {
            if payload.contains_key(key) && !self.is_mac() {
                return Err("a key that is n/a here");
            }
        }
        Ok(())
    }

    /// Does the ACME server receive an attestation? "If the Attest key is false or ignored", it does not. Apple's
    /// deployment guide names iPadOS 16.1.
    fn attests(&self, payload: &Dictionary) -> bool {
        payload.get("Attest").and_then(Value::as_boolean) == Some(true)
            && self.model.attest == AttestSupport::Supported
            && !(self.is("iPad") && self.before(16, 1))
    }

    /// Assay's own limits, which no schema names: virtual machines, and the user channel without its switch.
    fn is_kept_back(&self, ask: &Ask) -> bool {
        self.channel == Channel::User && !ask.user_channel_hardware_bound
    }

    fn facts(&self) -> GateFacts<'static> {
        GateFacts {
            product_name: Some(&self.model.product_name),
            model: None,
            model_name: None,
            is_apple_silicon: self.is_mac().then(|| self.model.attest == AttestSupport::Supported),
            os_version: Some(self.os),
            kind: self.kind,
            channel: self.channel,
            asked: true,
        }
    }
}

fn payload(
    ask: &Ask,
    hardware_bound: bool,
    attest: Attest,
    mac: Option<MacKeys>,
    platform: Option<Platform>,
) -> Option<Dictionary> {
    let keys = AcmeKeys {
        directory_url: "https://ca.example.com/directory".into(),
        client_identifier: "c".into(),
        key_type: ask.key.key_type().into(),
        key_size: ask.key.key_size(),
        hardware_bound,
        subject: vec![vec![vec!["CN".into(), "c".into()]]],
        subject_alt_name: SubjectAltName::default(),
        usage_flags: None,
        extended_key_usage: vec![],
        attest,
        mac,
    };
    Some(AcmePayload::new(keys, platform).ok()?.payload("i".into(), Uuid::nil(), None).keys)
}

fn versions(family: &str) -> Vec<OsVersion> {
    let list: &[(u16, u16)] = match family {
        "Mac" => &[(11, 7), (12, 6), (13, 0), (13, 1), (13, 7), (14, 0), (15, 1), (27, 0)],
        "Vision" => &[(1, 0), (1, 1), (2, 0), (27, 0)],
        "Watch" => &[(8, 8), (9, 0), (9, 6), (10, 0), (11, 1), (27, 0)],
        _ => &[(15, 8), (16, 0), (16, 1), (17, 0), (18, 6), (27, 0)],
    };
    list.iter().map(|(major, minor)| OsVersion::new(*major, *minor)).collect()
}

/// Every ask that a policy can make.
fn asks() -> Vec<Ask> {
    let mut asks = Vec::new();
    for hardware_bound in [NEVER, WHEN, REQUIRED] {
        for attest in [NEVER, WHEN, REQUIRED] {
            for bits in 0..8u8 {
                let bit = |n: u8| bits & (1 << n) != 0;
                let ask = Ask {
                    hardware_bound,
                    attest,
                    key: KeyKind::EcsecPrimeRandom(if bit(2) { 384 } else { 256 }),
                    ca_accepts_unattested: bit(0),
                    user_channel_hardware_bound: bit(1),
                    // A policy forbids it together with a hardware-bound key; the gate must not rely on that.
                    key_is_extractable: bit(2),
                    allow_all_apps_access: bit(2),
                };
                let impossible = (hardware_bound == NEVER && attest != NEVER) || (attest == NEVER && !bit(0));
                if !impossible {
                    asks.push(ask);
                }
            }
        }
    }
    asks
}

const ALL_KINDS: [EnrollmentKind; 4] =
    [EnrollmentKind::Device, EnrollmentKind::Automated, EnrollmentKind::User, EnrollmentKind::SharedIpad];

fn every_device(mut visit: impl FnMut(&Device)) {
    for model in hardware::models() {
        for os in versions(&model.family) {
            for kind in ALL_KINDS {
                for channel in [Channel::Device, Channel::User] {
                    visit(&Device { model, os, kind, channel });
                }
            }
        }
    }
}

/// The forms of a payload that are stronger than nothing, in order of strength.
fn strength(hardware_bound: bool, attested: bool) -> u8 {
    u8::from(hardware_bound) + u8::from(attested)
}

#[test]
fn every_device_gets_the_strongest_form_that_it_accepts_and_nothing_stronger() {
    let asks = asks();
    let mut seen = 0u32;
    every_device(|device| {
        let facts = device.facts();
        // Every form, as a device would judge it.
        let mut best_bound = false;
        let mut best_attested = false;
        for (bound, attest) in [(true, Attest::LeaveOut), (true, Attest::False), (true, Attest::True)] {
            let form = payload(&asks[asks.len() - 1], bound, attest, None, None).expect("a valid payload");
            if device.accepts(&form).is_ok() {
                best_bound = true;
                best_attested |= device.attests(&form);
            }
        }
        for ask in &asks {
            seen += 1;
            let kept_back = device.is_kept_back(ask);
            let bound = best_bound && !kept_back && ask.hardware_bound != NEVER;
            let attested = best_attested && !kept_back && ask.attest != NEVER;
            let refused = device.takes_the_payload().is_err()
                || (ask.hardware_bound == REQUIRED && !bound)
                || (ask.attest == REQUIRED && !attested)
                || (!ask.ca_accepts_unattested && !attested);
            let name = &device.model.product_name;
            match gate(ask, &facts) {
                Verdict::Open(open) => {
                    let form = payload(ask, open.hardware_bound, open.attest, open.mac, open.platform)
                        .expect("a valid payload");
                    assert_eq!(device.accepts(&form), Ok(()), "{name} {} {ask:?} {open:?}", device.os);
                    assert!(!refused, "{name} {} {ask:?} should be refused, got {open:?}", device.os);
                    let given = strength(open.hardware_bound, device.attests(&form));
                    assert_eq!(
                        given,
                        strength(bound, attested),
                        "{name} {} {:?} {ask:?} {open:?}",
                        device.os,
                        device.channel
                    );
                    assert_eq!(
                        open.attest == Attest::True,
                        device.attests(&form),
                        "an Attest that is ignored is not sent"
                    );
                    assert_eq!(open.mac.is_some(), device.is_mac());
                    assert!(open.mac.is_none_or(|m| !(m.key_is_extractable && open.hardware_bound)));
                    assert!(open.mac.is_none_or(|m| m.allow_all_apps_access == ask.allow_all_apps_access));
                    let weaker = (ask.hardware_bound != NEVER && !open.hardware_bound)
                        || (ask.attest != NEVER && open.attest != Attest::True);
                    assert!(!weaker || !open.notes.is_empty(), "{name} {} weaker without a reason", device.os);
                }
                Verdict::Closed { reason, demand } => {
                    assert!(refused, "{name} {} {ask:?} is refused by {reason} for {demand:?}", device.os);
                    let payload_itself = device.takes_the_payload().is_err();
                    assert_eq!(demand == Demand::Payload, payload_itself, "{name} {} {reason}", device.os);
                }
                Verdict::NeedFacts(missing) => panic!("{name} needs {missing:?}"),
            }
        }
    });
    assert!(seen > 500_000, "{seen} cases");
}

fn ask() -> Ask {
    Ask {
        hardware_bound: WHEN,
        attest: WHEN,
        key: KeyKind::EcsecPrimeRandom(256),
        ca_accepts_unattested: true,
        user_channel_hardware_bound: false,
        key_is_extractable: false,
        allow_all_apps_access: false,
    }
}

fn facts(product_name: &'static str, os: &str) -> GateFacts<'static> {
    GateFacts {
        product_name: Some(product_name),
        model: None,
        model_name: None,
        is_apple_silicon: None,
        os_version: os.parse().ok(),
        kind: EnrollmentKind::Device,
        channel: Channel::Device,
        asked: true,
    }
}

fn form(verdict: Verdict) -> (bool, Attest) {
    match verdict {
        Verdict::Open(open) => (open.hardware_bound, open.attest),
        other => panic!("{other:?}"),
    }
}

fn refusal(verdict: Verdict) -> (ReasonCode, Demand) {
    match verdict {
        Verdict::Closed { reason, demand } => (reason, demand),
        other => panic!("{other:?}"),
    }
}

#[test]
fn apples_table_row_by_row() {
    let table = [
        ("iPhone10,3", "16.0", true, Attest::True),
        ("iPhone9,1", "16.0", true, Attest::False),
        ("iPad7,11", "18.6", true, Attest::False),
        ("iPad8,1", "16.0", true, Attest::LeaveOut),
        ("iPad8,1", "16.1", true, Attest::True),
        ("AppleTV6,2", "17.0", true, Attest::False),
        ("AppleTV14,1", "17.0", true, Attest::True),
        ("Watch3,4", "9.0", true, Attest::LeaveOut),
        ("Watch6,18", "9.6", true, Attest::LeaveOut),
        ("Watch6,18", "10.0", true, Attest::True),
        ("RealityDevice14,1", "1.0", true, Attest::True),
        ("MacBookPro14,2", "14.0", false, Attest::False),
        ("MacBookPro16,1", "13.6", false, Attest::False),
        ("MacBookPro16,1", "14.0", true, Attest::False),
        ("Mac14,2", "13.1", false, Attest::False),
        ("Mac14,2", "14.0", true, Attest::True),
        ("VirtualMac2,1", "15.0", false, Attest::False),
        ("iPhone20,1", "28.0", true, Attest::True),
        ("HomePod1,1", "18.0", false, Attest::LeaveOut),
    ];
    for (product, os, bound, attest) in table {
        assert_eq!(form(gate(&ask(), &facts(product, os))), (bound, attest), "{product} {os}");
    }
}

#[test]
fn th_48_a_required_attestation_is_never_weakened() {
    let ask = Ask { attest: REQUIRED, ..ask() };
    for (product, os, reason) in [
        ("iPhone9,1", "16.0", ReasonCode::AttestIgnoredBySilicon),
        ("MacBookPro16,1", "14.0", ReasonCode::AttestIgnoredBySilicon),
        ("MacBookPro14,2", "14.0", ReasonCode::HardwareBoundNeedsT2OrAppleSilicon),
        ("Mac14,2", "13.6", ReasonCode::HardwareBoundNeedsMacos14),
        ("VirtualMac2,1", "15.0", ReasonCode::VirtualMachine),
        ("HomePod1,1", "18.0", ReasonCode::HardwareUnknown),
        ("AppleTV8,1", "18.0", ReasonCode::HardwareUnknown),
        ("iPad8,1", "16.0", ReasonCode::AttestNeedsIpados161),
        ("Watch6,18", "9.6", ReasonCode::AttestNeedsWatchos10),
    ] {
        assert_eq!(refusal(gate(&ask, &facts(product, os))), (reason, Demand::Attest), "{product} {os}");
    }
}

#[test]
fn a_ca_that_wants_attestations_is_not_offered_devices_that_have_none() {
    let ask = Ask { ca_accepts_unattested: false, ..ask() };
    let refused = refusal(gate(&ask, &facts("MacBookPro16,1", "14.0")));
    assert_eq!(refused, (ReasonCode::AttestIgnoredBySilicon, Demand::CertificateAuthority));
    assert_eq!(form(gate(&ask, &facts("Mac14,2", "14.0"))), (true, Attest::True));
}

#[test]
fn the_payload_itself_has_its_limits() {
    let refused = |facts| refusal(gate(&ask(), &facts)).0;
    assert_eq!(refused(facts("iPhone9,1", "15.8")), ReasonCode::PayloadNeedsNewerOs);
    assert_eq!(refused(facts("Mac14,2", "13.0")), ReasonCode::PayloadNeedsNewerOs);
    assert_eq!(refused(facts("HomePod1,1", "15.0")), ReasonCode::PlatformUnknown);
    assert_eq!(
        refused(GateFacts { channel: Channel::User, ..facts("iPad8,1", "17.0") }),
        ReasonCode::UserChannelMacOnly
    );
    let shared = GateFacts { channel: Channel::User, kind: EnrollmentKind::SharedIpad, ..facts("iPad8,1", "17.0") };
    assert_eq!(refused(shared), ReasonCode::SharedIpadUserChannel);
    let tv = GateFacts { kind: EnrollmentKind::User, ..facts("AppleTV14,1", "17.0") };
    assert_eq!(refused(tv), ReasonCode::UserEnrollmentPlatform);
}

#[test]
fn what_is_missing_is_asked_for_once() {
    let nothing = GateFacts { asked: false, product_name: None, os_version: None, ..facts("", "") };
    assert_eq!(gate(&ask(), &nothing), Verdict::NeedFacts(vec![MissingFact::ProductName, MissingFact::OsVersion]));
    let mac = GateFacts { asked: false, ..facts("Mac14,2", "14.0") };
    assert_eq!(gate(&ask(), &mac), Verdict::NeedFacts(vec![MissingFact::IsAppleSilicon]));
    assert_eq!(refusal(gate(&ask(), &GateFacts { asked: true, ..nothing })).0, ReasonCode::OsVersionUnknown);
    let old = GateFacts { asked: false, ..facts("Mac14,2", "11.7") };
    assert_eq!(refusal(gate(&ask(), &old)).0, ReasonCode::PayloadNeedsNewerOs);
}

#[test]
fn the_user_channel_of_a_mac_is_hardware_bound_only_by_the_switch() {
    let user = GateFacts { channel: Channel::User, ..facts("Mac14,2", "14.0") };
    assert_eq!(form(gate(&ask(), &user)), (false, Attest::LeaveOut));
    let on = Ask { user_channel_hardware_bound: true, ..ask() };
    assert_eq!(form(gate(&on, &user)), (true, Attest::True));
}

#[test]
fn a_contradiction_takes_the_careful_side_and_is_told() {
    let odd = GateFacts { is_apple_silicon: Some(false), ..facts("Mac14,2", "14.0") };
    match gate(&ask(), &odd) {
        Verdict::Open(open) => {
            assert_eq!((open.hardware_bound, open.attest), (false, Attest::False));
            assert!(open.notes.contains(&ReasonCode::SiliconDisagrees));
        }
        other => panic!("{other:?}"),
    }
}
