use mdm_core::crypto::issue::{CaUse, NewCa, issue_ca};
use mdm_core::crypto::key::PrivateKey;
use mdm_core::enrollment::UnenrolledWhy;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;

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
    Question { device, serial: Some("VICTIM1"), permission, pinned: None, same_device: None, same_serial: None }
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
