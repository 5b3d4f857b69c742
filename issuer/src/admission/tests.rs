use mdm_core::crypto::issue::{CaUse, NewCa, issue_ca};
use mdm_core::crypto::key::PrivateKey;
use mdm_core::enrollment::UnenrolledWhy;
use mdm_core::ids::{Fingerprint, IssuanceId, LinkId};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use proptest::prelude::*;
use store::issuance::{Flow, Source};

use super::*;

const AT: Timestamp = Timestamp(1_795_320_000_000);
const VICTIM: &str = "00008110-000A1B2C3D4E801E";
const OTHER: &str = "00008110-000000000000001E";

fn udid(text: &str) -> DeviceKey {
    DeviceKey::Udid(text.parse().unwrap())
}

fn id(n: u128) -> EnrollmentId {
    EnrollmentId(format!("{n:032x}").parse().map(|id: EnrollmentId| id.0).unwrap())
}

fn permission() -> Permission {
    Permission {
        purpose: Purpose::Enrollment,
        kind: Some(EnrollmentKind::Device),
        state: State::Issued,
        expected_serial: None,
        expected_device: None,
        enrollment: None,
        issued_at: Some(AT),
    }
}

fn known(n: u128, device: &str, serial: &str) -> Known {
    Known {
        id: id(n),
        state: EnrollmentState::Enrolled { since: AT },
        device: udid(device),
        serial: Some(serial.to_owned()),
    }
}

fn ask<'a>(device: &'a DeviceKey, permission: Option<&'a Permission>) -> Question<'a> {
    Question {
        device,
        serial: Some("VICTIM1"),
        permission,
        pinned: None,
        same_device: None,
        same_serial: None,
        approved: false,
        now: AT,
    }
}

#[test]
fn a_new_device_enrolls_by_its_record_and_by_nothing_else() {
    let device = udid(VICTIM);
    let fits = Permission {
        expected_serial: Some("victim1".into()),
        expected_device: Some(VICTIM.to_lowercase()),
        ..permission()
    };
    for good in [permission(), fits] {
        assert_eq!(admit(&ask(&device, Some(&good))), Ok(Admission::Enroll { again: None, replaces: None }));
    }
    assert_eq!(admit(&ask(&device, None)), Err(Refusal::NoRecord));
    for (state, refusal) in [
        (State::Open, Refusal::NoRecord),
        (State::Void, Refusal::NoRecord),
        (State::Used, Refusal::Used),
        (State::Revoked, Refusal::Revoked),
    ] {
        assert_eq!(admit(&ask(&device, Some(&Permission { state, ..permission() }))), Err(refusal));
    }
}

#[test]
fn th_52_a_certificate_for_a_new_enrollment_is_used_at_once_or_never() {
    let device = udid(VICTIM);
    let of_record = permission();
    let late = |permission: &Permission, approved| {
        admit(&Question { now: AT.plus(USE_WITHIN * 2), approved, ..ask(&device, Some(permission)) })
    };
    let good = Ok(Admission::Enroll { again: None, replaces: None });
    assert_eq!(admit(&Question { now: AT.plus(USE_WITHIN), ..ask(&device, Some(&of_record)) }), good);
    assert_eq!(late(&of_record, false), Err(Refusal::TooLate));
    assert_eq!(late(&of_record, true), good, "an operator looked at it");
    assert_eq!(late(&Permission { issued_at: None, ..permission() }, false), good, "imported");
}

#[test]
fn th_02_the_expected_serial_and_udid_must_match() {
    let device = udid(VICTIM);
    let serial = Permission { expected_serial: Some("OTHER1".into()), ..permission() };
    assert_eq!(admit(&ask(&device, Some(&serial))), Err(Refusal::Serial));
    assert_eq!(admit(&Question { serial: None, ..ask(&device, Some(&serial)) }), Err(Refusal::Serial));
    let wrong = Permission { expected_device: Some(OTHER.into()), ..permission() };
    assert_eq!(admit(&ask(&device, Some(&wrong))), Err(Refusal::Udid));
}

#[test]
fn th_02_an_enrolled_device_is_replaced_only_by_a_record_that_is_bound_to_it() {
    let device = udid(VICTIM);
    let live = known(1, VICTIM, "VICTIM1");
    let with = |permission: &Permission, serial: &str| {
        admit(&Question { serial: Some(serial), same_device: Some(&live), ..ask(&device, Some(permission)) })
    };
    assert_eq!(with(&permission(), "VICTIM1"), Err(Refusal::DeviceEnrolled));
    assert!(Refusal::DeviceEnrolled.is_quarantine());

    // An attacker has a record for his own serial number, claims the victim's UDID, and says his own serial number.
    let his_own = Permission { expected_serial: Some("ATTACKER1".into()), ..permission() };
    assert_eq!(with(&his_own, "ATTACKER1"), Err(Refusal::DeviceEnrolled));
    assert_eq!(with(&his_own, "VICTIM1"), Err(Refusal::Serial));

    let again = Ok(Admission::Enroll { again: Some(id(1)), replaces: None });
    for bound in [
        Permission { expected_serial: Some("VICTIM1".into()), ..permission() },
        Permission { expected_device: Some(VICTIM.into()), ..permission() },
        Permission { enrollment: Some(id(1)), ..permission() },
    ] {
        assert_eq!(with(&bound, "VICTIM1"), again, "{bound:?}");
    }
    assert_eq!(with(&Permission { enrollment: Some(id(2)), ..permission() }, "VICTIM1"), Err(Refusal::DeviceEnrolled));
}

#[test]
fn th_02_a_serial_number_that_is_enrolled_is_not_claimed_under_another_udid() {
    let device = udid(OTHER);
    let live = known(1, VICTIM, "VICTIM1");
    let with =
        |permission: &Permission| admit(&Question { same_serial: Some(&live), ..ask(&device, Some(permission)) });
    assert_eq!(with(&permission()), Err(Refusal::SerialEnrolled));
    // A logic board was exchanged: the operator made a link for the serial number.
    let bound = Permission { expected_serial: Some("VICTIM1".into()), ..permission() };
    assert_eq!(with(&bound), Ok(Admission::Enroll { again: None, replaces: Some(id(1)) }));
}

#[test]
fn th_02_the_same_certificate_again_does_nothing_new() {
    let device = udid(VICTIM);
    let used = Permission { state: State::Used, ..permission() };
    let with = |state, live, key: &DeviceKey| {
        let pinned = Pinned { enrollment: Known { state, ..known(1, VICTIM, "VICTIM1") }, live };
        admit(&Question { pinned: Some(&pinned), ..ask(key, Some(&used)) })
    };
    let authenticated = EnrollmentState::Authenticated { at: AT };
    let enrolled = EnrollmentState::Enrolled { since: AT };
    let ended = EnrollmentState::Unenrolled { at: AT, why: UnenrolledWhy::CheckOut };
    assert_eq!(with(authenticated, true, &device), Ok(Admission::Repeat { enrollment: id(1) }));
    assert_eq!(with(enrolled, true, &device), Ok(Admission::Unchanged { enrollment: id(1) }));
    assert_eq!(with(enrolled, false, &device), Err(Refusal::Retired));
    assert_eq!(with(ended, true, &device), Err(Refusal::Ended));
    // TH-01: the certificate of this device with the UDID of another one.
    assert_eq!(with(enrolled, true, &udid(OTHER)), Err(Refusal::OtherDevice));
}

#[test]
fn th_03_the_kind_of_identifier_is_that_of_the_record() {
    let user = DeviceKey::EnrollmentId(VICTIM.parse().unwrap());
    let for_user = Permission { kind: Some(EnrollmentKind::User), ..permission() };
    assert_eq!(admit(&ask(&user, Some(&permission()))), Err(Refusal::Kind));
    assert_eq!(admit(&ask(&udid(VICTIM), Some(&for_user))), Err(Refusal::Kind));
    assert!(admit(&ask(&user, Some(&for_user))).is_ok());
    // The same text as EnrollmentID does not speak for the device that has it as UDID.
    let pinned = Pinned { enrollment: known(1, VICTIM, "VICTIM1"), live: true };
    let question = Question { pinned: Some(&pinned), ..ask(&user, Some(&for_user)) };
    assert_eq!(admit(&question), Err(Refusal::OtherDevice));
}

#[test]
fn th_10_a_renewal_goes_on_with_the_enrollment_that_it_names() {
    let device = udid(VICTIM);
    let renewal = Permission { purpose: Purpose::Renewal, enrollment: Some(id(1)), ..permission() };
    let (mine, other) = (known(1, VICTIM, "VICTIM1"), known(2, VICTIM, "VICTIM1"));
    let with = |same_device| admit(&Question { same_device, ..ask(&device, Some(&renewal)) });
    assert_eq!(with(Some(&mine)), Ok(Admission::Renew { enrollment: id(1) }));
    assert_eq!(with(Some(&other)), Err(Refusal::OtherRenewal));
    assert_eq!(with(None), Err(Refusal::OtherRenewal));
}

#[test]
fn th_08_an_external_certificate_speaks_for_the_device_that_it_names() {
    let named = |common_name: &str| {
        let key = PrivateKey::generate_p256().unwrap();
        let valid_for = std::time::Duration::from_hours(24);
        let ca = NewCa { common_name, ca_use: CaUse::Servers, now: AT, valid_for };
        Certificate::from_der(&issue_ca(&key, &ca, &Random::System).unwrap()).unwrap()
    };
    let device = udid(VICTIM);
    let by = |name: &str, serial| Permission::by_subject(&named(name), &device, serial);
    assert_eq!(by(VICTIM, None).unwrap().expected_device.as_deref(), Some(VICTIM));
    assert_eq!(by("VICTIM1", Some("VICTIM1")).unwrap().expected_serial.as_deref(), Some("VICTIM1"));
    assert_eq!(by("Wi-Fi", Some("VICTIM1")), None);
    assert_eq!(by("Wi-Fi", Some("")), None);

    let live = known(1, VICTIM, "VICTIM1");
    let permission = by("ATTACKER1", Some("ATTACKER1")).unwrap();
    let question = Question { serial: Some("ATTACKER1"), same_device: Some(&live), ..ask(&device, Some(&permission)) };
    assert_eq!(admit(&question), Err(Refusal::DeviceEnrolled));
}

fn record(n: u128, flow: Flow) -> Issuance {
    Issuance {
        id: IssuanceId(id(n).0),
        flow,
        purpose: Purpose::Enrollment,
        kind: EnrollmentKind::Device,
        link: None,
        enrollment: None,
        expected_serial: None,
        expected_udid: None,
        label: None,
        common_name: "device".into(),
        state: State::Issued,
        challenge_expires_at: None,
        csr_key_sha256: None,
        fingerprint: Some(Fingerprint([0; 32])),
        certificate: None,
        cert_serial: None,
        cert_not_after: None,
        source: Source::Scep,
        identity_reason: None,
        account_token: None,
        managed_apple_account: None,
        anchors: None,
        transaction_id: None,
        created_at: AT,
        issued_at: None,
        used_at: None,
        revoked_at: None,
    }
}

#[test]
fn th_02_an_approval_covers_one_device_under_its_certificate_or_a_newer_one_of_the_same_origin() {
    let (old, new, other) = (Fingerprint([1; 32]), Fingerprint([2; 32]), LinkId(id(9).0));
    let link = Issuance { link: Some(LinkId(id(8).0)), ..record(1, Flow::Link) };
    let approval = Approval {
        certificate: old,
        device: udid(VICTIM),
        serial: Some("VICTIM1".into()),
        record: Some(link.clone()),
        one_device: true,
        until: AT.plus(std::time::Duration::from_hours(24)),
    };
    let covers = |device: &DeviceKey, serial, certificate, record: Option<&Issuance>| {
        approval.covers(device, serial, certificate, record, AT)
    };
    let device = udid(VICTIM);
    assert!(covers(&device, Some("victim1"), old, None));
    assert!(covers(&device, Some("VICTIM1"), new, Some(&link)));
    assert!(!covers(&device, Some("VICTIM1"), new, None));
    assert!(!covers(&device, None, old, Some(&link)), "the serial number is part of what was looked at");
    assert!(!covers(&udid(OTHER), Some("VICTIM1"), old, Some(&link)));
    assert!(!covers(&DeviceKey::EnrollmentId(VICTIM.parse().unwrap()), Some("VICTIM1"), old, Some(&link)));
    let long = std::time::Duration::from_hours(24);
    assert!(!approval.covers(&device, Some("VICTIM1"), old, Some(&link), AT.plus(long)));
    for foreign in [
        Issuance { link: Some(other), ..link.clone() },
        Issuance { link: None, ..link.clone() },
        Issuance { flow: Flow::Ade, ..link.clone() },
        Issuance { kind: EnrollmentKind::User, ..link.clone() },
        Issuance { purpose: Purpose::Renewal, ..link.clone() },
        Issuance { created_at: AT.minus(std::time::Duration::from_secs(1)), ..link.clone() },
    ] {
        assert!(!covers(&device, Some("VICTIM1"), new, Some(&foreign)), "{foreign:?}");
    }
    let for_many = Approval { one_device: false, ..approval.clone() };
    assert!(for_many.covers(&device, Some("VICTIM1"), old, Some(&link), AT), "the same certificate");
    assert!(!for_many.covers(&device, Some("VICTIM1"), new, Some(&link), AT), "anybody with the link has one");
    let of = |record: Issuance| Approval { record: Some(record), ..approval.clone() };
    let ade = |serial: Option<&str>| Issuance { expected_serial: serial.map(Into::into), ..record(2, Flow::Ade) };
    let asks =
        |approval: &Approval, record: &Issuance| approval.covers(&device, Some("VICTIM1"), new, Some(record), AT);
    assert!(asks(&of(ade(Some("VICTIM1"))), &ade(Some("VICTIM1"))));
    assert!(!asks(&of(ade(None)), &ade(None)), "nothing in common is no origin");
    let account = |name: &str| Issuance { managed_apple_account: Some(name.into()), ..record(3, Flow::Adde) };
    assert!(asks(&of(account("ada@example.com")), &account("ada@example.com")));
    assert!(!asks(&of(account("ada@example.com")), &account("eve@example.com")));
    assert!(!asks(&of(record(4, Flow::Import)), &record(4, Flow::Import)));
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(vec![State::Open, State::Issued, State::Used, State::Void, State::Revoked])
}

fn any_permission() -> impl Strategy<Value = Permission> {
    let text = |words: &'static [&'static str]| prop::option::of(prop::sample::select(words).prop_map(str::to_owned));
    let purpose = prop::sample::select(vec![Purpose::Enrollment, Purpose::Renewal]);
    let kind = prop::sample::select(vec![None, Some(EnrollmentKind::Device), Some(EnrollmentKind::User)]);
    let serials: &'static [&'static str] = &["VICTIM1", "ATTACKER1"];
    let udids: &'static [&'static str] = &[VICTIM, OTHER];
    (purpose, kind, state(), text(serials), text(udids), prop::option::of(1_u128..3)).prop_map(
        |(purpose, kind, state, expected_serial, expected_device, enrollment)| Permission {
            purpose,
            kind,
            state,
            expected_serial,
            expected_device,
            enrollment: enrollment.map(id),
            issued_at: Some(AT),
        },
    )
}

fn any_known() -> impl Strategy<Value = Known> {
    let udids = prop::sample::select(vec![VICTIM, OTHER]);
    (1_u128..3, udids, prop::sample::select(vec!["VICTIM1", "ATTACKER1"]))
        .prop_map(|(n, udid, serial)| known(n, udid, serial))
}

proptest! {
    /// An operator's word lifts what an operator was asked about, and nothing else: not a missing record, a revoked or foreign
    /// certificate, an ended enrollment, nor what the record itself expects. And it takes nothing away.
    #[test]
    fn th_02_an_approval_lifts_a_quarantine_and_nothing_else(
        permission in prop::option::of(any_permission()),
        pinned in prop::option::of((any_known(), any::<bool>())),
        same_device in prop::option::of(any_known()),
        same_serial in prop::option::of(any_known()),
        device in prop::sample::select(vec![VICTIM, OTHER]),
    ) {
        let device = udid(device);
        let pinned = pinned.map(|(enrollment, live)| Pinned { enrollment, live });
        let question = Question {
            pinned: pinned.as_ref(),
            same_device: same_device.as_ref(),
            same_serial: same_serial.as_ref(),
            ..ask(&device, permission.as_ref())
        };
        let without = admit(&question);
        let with = admit(&Question { approved: true, ..question });
        match without {
            Ok(admission) => prop_assert_eq!(with, Ok(admission)),
            Err(Refusal::DeviceEnrolled | Refusal::SerialEnrolled | Refusal::OtherRenewal) => {
                let begins_anew = matches!(with, Ok(Admission::Enroll { .. }));
                prop_assert!(begins_anew, "{:?}", with);
            }
            Err(refusal) => prop_assert_eq!(with, Err(refusal)),
        }
    }
}
