//! Check-in messages as devices and foreign clients send them, and as they must not be.

use proptest::prelude::*;

use super::*;
use crate::enrollment::{Channel, DeviceKey, UserKey};

const UDID: &str = "00008110-000A1B2C3D4E801E";

fn message(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::from("<plist version=\"1.0\"><dict>");
    for (key, value) in pairs {
        text.extend(["<key>", key, "</key>", value]);
    }
    (text + "</dict></plist>").into_bytes()
}

fn s(text: &str) -> String {
    format!("<string>{text}</string>")
}

fn checked_out_by(pairs: &[(&str, String)]) -> Result<Sender, MessageError> {
    let kind = s("CheckOut");
    let mut all = vec![("MessageType", kind.as_str())];
    all.extend(pairs.iter().map(|(k, v)| (*k, v.as_str())));
    Message::decode(&message(&all)).map(|m| m.sender().clone())
}

#[test]
fn the_stored_messages_are_read() {
    let golden = |text: &str| Message::decode(text.as_bytes()).unwrap();
    let Message::Authenticate(mac) = golden(include_str!("../../tests/golden/checkin_authenticate_mac.plist")) else {
        panic!("not an Authenticate")
    };
    assert_eq!(mac.product_name.as_deref(), Some("MacBookPro18,3"));
    assert_eq!(mac.os_version.as_deref(), Some("15.1"));
    assert_eq!(mac.device_name.as_deref(), Some("Ada's Mac"));
    assert!(mac.extra.contains_key("Challenge"), "what we do not know is kept");

    let Message::Authenticate(user) =
        golden(include_str!("../../tests/golden/checkin_authenticate_user_enrollment.plist"))
    else {
        panic!("not an Authenticate")
    };
    assert!(matches!(user.sender.device, DeviceKey::EnrollmentId(_)));
    assert_eq!((user.serial_number, user.imei), (None, None));

    let Message::TokenUpdate(ipad) = golden(include_str!("../../tests/golden/checkin_token_update_shared_ipad.plist"))
    else {
        panic!("not a TokenUpdate")
    };
    assert_eq!(ipad.sender.channel(), Channel::User);
    assert!(matches!(&ipad.sender.user, Some(UserKey::SharedIpad(name)) if name.as_str() == "ada@example.org"));
    assert_eq!(ipad.token.len(), 32);
    assert_eq!(ipad.awaiting_configuration, Some(false));
}

#[test]
fn the_authenticate_of_a_public_simulator_is_read() {
    // Tabs, numeric entities, few keys.
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n\t<dict>\n\t\t<key>UDID</key>\n\t\t<string>{UDID}</string>\n\t\t<key>DeviceName</key>\n\t\t<string>Ada&#39;s&#x20;Mac</string>\n\t\t<key>MessageType</key>\n\t\t<string>Authenticate</string>\n\t\t<key>Topic</key>\n\t\t<string>com.apple.mgmt.x</string>\n\t\t<key>SerialNumber</key>\n\t\t<string></string>\n\t</dict>\n</plist>\n"
    );
    let Message::Authenticate(m) = Message::decode(text.as_bytes()).unwrap() else { panic!("not an Authenticate") };
    assert_eq!(m.device_name.as_deref(), Some("Ada's Mac"));
    assert_eq!((m.serial_number, m.os_version), (None, None));
}

#[test]
fn th_03_exactly_one_of_udid_and_enrollment_id() {
    let udid = ("UDID", s(UDID));
    let enrollment = ("EnrollmentID", s("AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE"));
    let user = ("UserID", s("11111111-2222-3333-4444-555555555555"));
    let enrollment_user = ("EnrollmentUserID", s("11111111-2222-3333-4444-555555555555"));
    assert_eq!(checked_out_by(&[]), Err(MessageError::DeviceKey));
    assert_eq!(checked_out_by(&[udid.clone(), enrollment.clone()]), Err(MessageError::DeviceKey));
    assert_eq!(checked_out_by(&[("UDID", s("")), enrollment.clone()]), Err(MessageError::DeviceKey));
    assert_eq!(checked_out_by(&[udid.clone(), enrollment_user.clone()]), Err(MessageError::UserKey));
    assert_eq!(checked_out_by(&[enrollment.clone(), user.clone()]), Err(MessageError::UserKey));
    assert!(checked_out_by(std::slice::from_ref(&udid)).is_ok_and(|s| s.channel() == Channel::Device));
    assert!(checked_out_by(&[udid, user]).is_ok_and(|s| s.channel() == Channel::User));
    assert!(
        checked_out_by(std::slice::from_ref(&enrollment)).is_ok_and(|s| matches!(s.device, DeviceKey::EnrollmentId(_)))
    );
    assert!(checked_out_by(&[enrollment, enrollment_user]).is_ok_and(|s| s.channel() == Channel::User));
}

#[test]
fn th_04_identifiers_have_a_form() {
    let all_f = s("ffffffff-ffff-ffff-ffff-ffffffffffff");
    for (key, value) in [
        ("UDID", s(&format!("{UDID}:11111111-2222-3333-4444-555555555555"))),
        ("UDID", s("../../etc/passwd")),
        ("EnrollmentID", s("x")),
        ("EnrollmentID", s("")),
    ] {
        assert!(matches!(checked_out_by(&[(key, value.clone())]), Err(MessageError::Id(_))), "{value}");
    }
    assert!(matches!(checked_out_by(&[("UDID", s(UDID)), ("UserID", s("ada"))]), Err(MessageError::Id(_))));
    assert_eq!(
        checked_out_by(&[("UDID", s(UDID)), ("UserID", all_f.clone())]),
        Err(FieldError::Missing("UserShortName").into())
    );
    let shared =
        checked_out_by(&[("UDID", s(UDID)), ("UserID", all_f.clone()), ("UserShortName", s("ada@example.org"))]);
    assert!(matches!(shared.unwrap().user, Some(UserKey::SharedIpad(_))));
    let long = s(&"a".repeat(256));
    assert!(matches!(
        checked_out_by(&[("UDID", s(UDID)), ("UserID", all_f), ("UserShortName", long)]),
        Err(MessageError::Id(_))
    ));
    assert!(matches!(checked_out_by(&[("UDID", "<integer>1</integer>".into())]), Err(MessageError::Field(_))));
}

#[test]
fn th_14_tokens_and_magics_have_a_size() {
    use base64::Engine;
    let update = |token: usize, magic: usize| {
        let token = format!("<data>{}</data>", base64::engine::general_purpose::STANDARD.encode(vec![7; token]));
        Message::decode(&message(&[
            ("MessageType", &s("TokenUpdate")),
            ("UDID", &s(UDID)),
            ("Topic", &s("com.apple.mgmt.x")),
            ("Token", &token),
            ("PushMagic", &s(&"m".repeat(magic))),
        ]))
    };
    for good in [(8, 1), (9, 13), (32, 36), (100, 256)] {
        assert!(update(good.0, good.1).is_ok(), "{good:?}");
    }
    for bad in [(0, 1), (7, 1), (101, 1), (32, 0), (32, 257)] {
        assert!(matches!(update(bad.0, bad.1), Err(MessageError::Field(_))), "{bad:?}");
    }
}

#[test]
fn an_unknown_message_type_is_an_error_of_its_own() {
    let unknown = message(&[("MessageType", &s("ReturnToService")), ("UDID", &s(UDID))]);
    assert_eq!(Message::decode(&unknown), Err(MessageError::UnknownMessageType("ReturnToService".into())));
}

#[test]
fn an_authenticate_comes_from_the_device_channel() {
    let user = s("11111111-2222-3333-4444-555555555555");
    let m = message(&[("MessageType", &s("Authenticate")), ("UDID", &s(UDID)), ("UserID", &user), ("Topic", &s("t"))]);
    assert_eq!(Message::decode(&m), Err(MessageError::UserKey));
}

#[test]
fn an_empty_bootstrap_token_means_forget_it() {
    for (data, kept) in [("<data></data>", false), ("<data>AAEC</data>", true)] {
        let m = message(&[("MessageType", &s("SetBootstrapToken")), ("UDID", &s(UDID)), ("BootstrapToken", data)]);
        let Message::SetBootstrapToken(m) = Message::decode(&m).unwrap() else { panic!("not a SetBootstrapToken") };
        assert_eq!(m.bootstrap_token.is_some(), kept);
    }
}

#[test]
fn debug_shows_no_token_and_no_secret() {
    let text = include_str!("../../tests/golden/checkin_token_update_shared_ipad.plist");
    let shown = format!("{:?}", Message::decode(text.as_bytes()).unwrap());
    assert!(shown.contains("TokenUpdate") && !shown.contains("F4A1"), "{shown}");
}

#[test]
fn the_bootstrap_token_answer_is_as_stored() {
    let token = Secret::new(b"bootstrap".to_vec());
    crate::golden::same("answer_bootstrap_token", &bootstrap_token_answer(Some(&token)));
    crate::golden::same("answer_bootstrap_token_none", &bootstrap_token_answer(None));
}

proptest! {
    #[test]
    fn th_23_mutated_messages_never_panic(which in 0..3_usize, at in 0..1500_usize, len in 0..8_usize, put in prop::collection::vec(any::<u8>(), 0..8)) {
        let stored = [
            include_str!("../../tests/golden/checkin_authenticate_mac.plist"),
            include_str!("../../tests/golden/checkin_authenticate_user_enrollment.plist"),
            include_str!("../../tests/golden/checkin_token_update_shared_ipad.plist"),
        ];
        let mut bytes = stored[which].as_bytes().to_vec();
        let from = at.min(bytes.len());
        let to = (from + len).min(bytes.len());
        bytes.splice(from..to, put);
        let _ = Message::decode(&bytes);
        let _ = crate::report::Report::decode(&bytes);
    }
}
