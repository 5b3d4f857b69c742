//! Ordinary profiles with an ACME payload: installed whole or not at all.

use super::*;

fn uuid(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000001{number:02}")
}

/// A profile with an identity whose certificate is to be named `name`, and a network that refers to it.
fn profile(world: &World, name: &str) -> Vec<u8> {
    let payload = |kind: &str, number: u8| {
        Writer::new()
            .string("PayloadType", kind)
            .integer("PayloadVersion", 1)
            .string("PayloadIdentifier", kind)
            .string("PayloadUUID", &uuid(number))
    };
    let subject = format!("<array><array><array><string>CN</string><string>{name}</string></array></array></array>");
    let identity = payload("com.apple.security.acme", 2)
        .string("DirectoryURL", &world.ca.directory_url())
        .string("ClientIdentifier", name)
        .string("KeyType", "ECSECPrimeRandom")
        .integer("KeySize", 256)
        .boolean("HardwareBound", true)
        .boolean("Attest", true)
        .raw("Subject", &subject);
    let network = payload("com.apple.wifi.managed", 3)
        .string("SSID_STR", "Office")
        .string("PayloadCertificateUUID", &uuid(2))
        .raw("EAPClientConfiguration", "<dict><key>AcceptEAPTypes</key><array><integer>13</integer></array></dict>");
    let root = payload("com.apple.security.root", 4).data("PayloadContent", &world.anchor);
    Writer::new()
        .string("PayloadType", "Configuration")
        .integer("PayloadVersion", 1)
        .string("PayloadIdentifier", "org.example.certificate")
        .string("PayloadUUID", &uuid(1))
        .dicts("PayloadContent", &[root, identity, network])
        .document()
}

fn command(world: &World, uuid: &str, keys: &Writer) {
    let command = Writer::new().string("CommandUUID", uuid).dict("Command", keys);
    world.seen.lock().unwrap().commands.push(command);
}

/// Common names of the identities that CertificateList shows.
fn listed(device: &Device, managed_only: bool) -> Vec<String> {
    let list = plist::parse(&device.certificate_list(ChannelId::DEVICE, managed_only).unwrap().document()).unwrap();
    let list = list.get("CertificateList").and_then(Value::as_array).unwrap().to_vec();
    let identities = list.iter().filter(|item| item.get("IsIdentity") == Some(&Value::Boolean(true)));
    identities.map(|item| item.text("CommonName").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_profile_brings_a_certificate_that_the_list_shows() {
    let world = World::new().await;
    let mut device = enrolled(&world, Behaviour { runs_acme: true, ..Behaviour::default() }).await;
    world.install(&profile(&world, "first"));
    device.session(ChannelId::DEVICE).await.unwrap();
    let [identity] = device.identities(ChannelId::DEVICE) else { panic!("one identity") };
    assert!(identity.attested && identity.acme.hardware_bound);
    assert_eq!(identity.payload_uuid, uuid(2));
    let own = signature::self_signed("bought elsewhere", 2048, 1).unwrap().certificate.to_der().unwrap();
    device.unmanaged.push(own);
    assert_eq!(listed(&device, true), ["", "first"]);
    assert_eq!(listed(&device, false), ["", "first", "bought elsewhere"]);

    // The next revision replaces it.
    world.install(&profile(&world, "second"));
    device.session(ChannelId::DEVICE).await.unwrap();
    assert_eq!(listed(&device, true), ["", "second"]);
    let remove = Writer::new().string("RequestType", "RemoveProfile").string("Identifier", "org.example.certificate");
    command(&world, "remove", &remove);
    device.session(ChannelId::DEVICE).await.unwrap();
    assert_eq!(listed(&device, true), [""]);
}

#[tokio::test]
async fn a_failure_fails_the_whole_profile_and_leaves_the_old_one() {
    let world = World::new().await;
    let mut device = enrolled(&world, Behaviour { runs_acme: true, ..Behaviour::default() }).await;
    world.install(&profile(&world, "first"));
    device.session(ChannelId::DEVICE).await.unwrap();
    for (fault, down) in [(attestation::Fault::WrongNonce, false), (attestation::Fault::None, true)] {
        device.behaviour.attestation_fault = fault;
        world.ca.set_down(down);
        world.install(&profile(&world, "second"));
        let session = device.session(ChannelId::DEVICE).await.unwrap();
        let answered = session.answered.last().unwrap();
        assert_eq!(answered.status, Status::Error);
        assert_eq!(answered.refusal.as_ref().unwrap().chain().len(), 2);
        assert_eq!(listed(&device, true), ["", "first"]);
        assert_eq!(device.profiles(ChannelId::DEVICE).len(), 2);
    }
}

#[tokio::test]
async fn a_device_that_only_says_so_has_no_certificate() {
    let world = World::new().await;
    let mut device = enrolled(&world, Behaviour::default()).await;
    world.install(&profile(&world, "first"));
    let session = device.session(ChannelId::DEVICE).await.unwrap();
    assert_eq!(session.answered.last().unwrap().status, Status::Acknowledged);
    assert_eq!(listed(&device, true), [""]);
}

#[tokio::test]
async fn the_device_attests_itself_when_it_is_asked() {
    let world = World::new().await;
    let mut device = enrolled(&world, Behaviour::default()).await;
    let asked = Writer::new()
        .string("RequestType", "DeviceInformation")
        .data("DeviceAttestationNonce", b"nonce")
        .raw("Queries", "<array><string>OSVersion</string><string>DevicePropertiesAttestation</string></array>");
    let command = plist::parse(&Writer::new().string("CommandUUID", "ask").dict("Command", &asked).document()).unwrap();
    let (report, _) = device.answer(ChannelId::DEVICE, &command).await.unwrap();
    let report = plist::parse(&report).unwrap();
    let chain = report.get("QueryResponses").and_then(|found| found.get("DevicePropertiesAttestation"));
    let chain = chain.and_then(Value::as_array).unwrap();
    let leaf = chain[0].as_data().unwrap();
    assert_eq!(attestation::extension(leaf, attestation::FRESHNESS).unwrap().as_deref(), Some(b"nonce".as_slice()));
}
