//! The choice against Apple's own words: every device of soc.csv, on both sides of each OS boundary, at every door.

use mdm_core::hardware::{AttestSupport, Platform, classify, models};
use mdm_core::profile::acme::{AcmeKeys, AcmePayload, SubjectAltName};
use policy::gate::Wish;
use proptest::prelude::*;

use super::*;
use crate::door::{Acme, Identity};

const VERSIONS: [&str; 16] = [
    "8.8", "9.0", "9.6", "10.0", "13.0", "13.1", "13.9", "14.0", "15.0", "16.0", "16.1", "17.0", "18.1", "26.0", "1.0",
    "2.0",
];

fn wish() -> impl Strategy<Value = Wish> {
    prop::sample::select(vec![Wish::Required, Wish::WhenSupported, Wish::Never])
}

fn settings() -> impl Strategy<Value = Settings> {
    let client_identifier =
        prop::sample::select(vec![ClientIdentifier::Random, ClientIdentifier::Serial, ClientIdentifier::Udid]);
    let otherwise = prop::sample::select(vec![Otherwise::Refuse, Otherwise::FallBack, Otherwise::ReportOnly]);
    let require = prop::sample::select(vec![Require::Approval, Require::SignIn, Require::Attestation]);
    (wish(), wish(), any::<bool>(), client_identifier, otherwise, require).prop_map(
        |(hardware_bound, attest, unattested, client_identifier, otherwise, require)| {
            let acme = Acme {
                directory_url: "https://ca.example.org/acme".into(),
                client_identifier,
                key_type: "ECSECPrimeRandom".into(),
                key_size: 256,
                hardware_bound,
                attest,
                ca_accepts_unattested: unattested,
                issuers: Vec::new(),
            };
            let identity = Identity { prefer: Prefer::Acme, otherwise, acme: Some(acme) };
            Settings { enabled: true, identity, require, ..Settings::default() }
        },
    )
}

fn kind() -> impl Strategy<Value = EnrollmentKind> {
    prop::sample::select(vec![
        EnrollmentKind::Device,
        EnrollmentKind::Automated,
        EnrollmentKind::User,
        EnrollmentKind::SharedIpad,
    ])
}

/// What Apple's table says of such a key on such a device: whether `HardwareBound` and `Attest` may be true.
fn allowed(product: &str, version: OsVersion) -> (bool, bool) {
    let hardware = classify(&mdm_core::hardware::Claims { product_name: Some(product), ..Default::default() });
    let bound = match hardware.platform {
        Some(Platform::Macos) => {
            version >= OsVersion::new(14, 0)
                && matches!(hardware.attest, AttestSupport::Supported | AttestSupport::Ignored)
        }
        Some(_) => true,
        None => false,
    };
    (bound, bound && hardware.attest == AttestSupport::Supported)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn th_48_whatever_the_door_the_payload_is_one_that_the_gate_allows(
        settings in settings(),
        kind in kind(),
        model in prop::sample::select(models().collect::<Vec<_>>()),
        version in prop::sample::select(VERSIONS.to_vec()),
        named in any::<bool>(),
    ) {
        let udid: Udid = "00008110-0000000000000001".parse().unwrap();
        let facts = DeviceFacts {
            product_name: Some(&model.product_name),
            os_version: Some(version),
            ..DeviceFacts::default()
        };
        let (serial, udid) = (named.then_some("C02X"), named.then_some(&udid));
        let chosen = choose(&settings, &Device { kind, facts, serial, udid });
        let acme = settings.identity.acme.as_ref().unwrap();
        match chosen {
            Ok(Choice { identity, form: Form::Acme(open) }) => {
                let (bound, attest) = allowed(&model.product_name, version.parse().unwrap());
                prop_assert!(!identity.hardware_bound || bound);
                prop_assert!(!identity.attest || attest);
                prop_assert!(identity.preferred && identity.source == Source::Acme);
                prop_assert_eq!(identity.attest, open.attest == Attest::True);
                prop_assert!(acme.hardware_bound != Wish::Required || identity.hardware_bound);
                prop_assert!(acme.attest != Wish::Required || identity.attest);
                prop_assert!(acme.ca_accepts_unattested || identity.attest);
                prop_assert!(settings.require != Require::Attestation || identity.attest);
                let by_name = acme.client_identifier != ClientIdentifier::Random;
                prop_assert!(!by_name || (named && identity.attest && kind != EnrollmentKind::User));
                let keys = AcmeKeys {
                    directory_url: acme.directory_url.clone(),
                    client_identifier: "x".into(),
                    key_type: acme.key_type.clone(),
                    key_size: acme.key_size,
                    hardware_bound: open.hardware_bound,
                    subject: vec![vec![vec!["CN".into(), "x".into()]]],
                    subject_alt_name: SubjectAltName::default(),
                    usage_flags: Some(1),
                    extended_key_usage: Vec::new(),
                    attest: open.attest,
                    mac: open.mac,
                };
                prop_assert!(AcmePayload::new(keys, open.platform).is_ok());
            }
            Ok(Choice { identity, form: Form::Scep }) => {
                prop_assert!(settings.identity.otherwise != Otherwise::Refuse);
                prop_assert!(settings.require != Require::Attestation);
                prop_assert!(!identity.preferred && !identity.notes.is_empty());
                prop_assert_eq!(identity.would.is_some(), settings.identity.otherwise == Otherwise::ReportOnly);
            }
            Err(Refused(_)) => {
                let demanded = settings.require == Require::Attestation;
                prop_assert!(settings.identity.otherwise == Otherwise::Refuse || demanded);
            }
        }
    }
}

#[test]
fn a_door_that_prefers_scep_gives_scep_to_everybody() {
    let device = Device { kind: EnrollmentKind::Device, facts: DeviceFacts::default(), serial: None, udid: None };
    let choice = choose(&Settings::default(), &device).unwrap();
    assert_eq!(choice.form, Form::Scep);
    let written = serde_json::to_string(&choice.identity).unwrap();
    let reason = r#"{"source":"scep","hardware_bound":false,"attest":false,"notes":[],"preferred":true}"#;
    assert_eq!(written, reason);
}
