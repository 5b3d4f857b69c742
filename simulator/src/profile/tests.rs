use super::*;
use crate::plist::Writer;

fn profile(payloads: &[Writer]) -> Vec<u8> {
    Writer::new()
        .string("PayloadType", "Configuration")
        .integer("PayloadVersion", 1)
        .string("PayloadIdentifier", "org.example.profile")
        .string("PayloadUUID", "00000000-0000-4000-8000-000000000001")
        .dicts("PayloadContent", payloads)
        .document()
}

fn payload(kind: &str, uuid: u8) -> Writer {
    Writer::new()
        .string("PayloadType", kind)
        .integer("PayloadVersion", 1)
        .string("PayloadIdentifier", "org.example.payload")
        .string("PayloadUUID", &format!("00000000-0000-4000-8000-0000000000{uuid:02}"))
}

fn enrollment(mdm: Writer) -> Vec<u8> {
    let scep = Writer::new().string("URL", "https://mdm.example/scep").integer("Keysize", 2048);
    profile(&[payload("com.apple.security.scep", 2).dict("PayloadContent", &scep), mdm])
}

fn mdm() -> Writer {
    payload("com.apple.mdm", 3)
        .string("IdentityCertificateUUID", "00000000-0000-4000-8000-000000000002")
        .string("Topic", "com.apple.mgmt.External.x")
        .string("ServerURL", "https://mdm.example/mdm")
}

#[test]
fn an_enrollment_profile_is_read_and_its_access_rights_checked() {
    let iphone = Situation::new(crate::hardware::find("iPhone17,2").unwrap(), "18.1");
    let read = read_enrollment(&enrollment(mdm().integer("AccessRights", 8191)), &iphone).unwrap();
    assert_eq!(read.mdm.check_in_url, "https://mdm.example/mdm");
    assert!(!read.signed);
    for rights in [0, 2, 8192] {
        assert!(read_enrollment(&enrollment(mdm().integer("AccessRights", rights)), &iphone).is_err());
    }
    let private = Situation { user_enrollment: true, ..iphone };
    let byod = mdm().string("EnrollmentMode", "BYOD").string("AssignedManagedAppleID", "a@example.com");
    assert!(read_enrollment(&enrollment(byod.clone()), &private).is_ok());
    assert!(read_enrollment(&enrollment(byod.integer("AccessRights", 8191)), &private).is_err());
}

#[test]
fn a_profile_with_a_missing_or_repeated_key_is_refused() {
    let mac = Situation::new(crate::hardware::find("Mac16,10").unwrap(), "15.1");
    assert!(check(&profile(&[payload("com.apple.dock", 2)]), &mac).is_ok());
    assert!(check(&profile(&[payload("com.apple.dock", 2), payload("com.apple.dock", 2)]), &mac).is_err());
    assert!(check(&profile(&[Writer::new()]), &mac).is_err());
    assert!(check(b"<plist><dict/></plist>", &mac).is_err());
    assert!(check(b"\x30\x03junk", &mac).is_err());
}
