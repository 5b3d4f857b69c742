//! A foreign simulator works: the shape of messages that mdmb and its SCEP client send (foreign-clients.md), and the
//! settings that meet it.

mod rehearsal;

use mdm_tests::{Backend, both};
use rehearsal::Rehearsal;
use serde_json::Value;
use simulator::device::Record;
use simulator::error::Error;
use simulator::foreign::Foreign;

/// The settings that meet mdmb.
const FOR_FOREIGN: &str = "[scep]\nlegacy = true\n[enroll]\nsign_profile = false\n";

fn device(world: &Rehearsal, seed: &str) -> Foreign {
    let hardware = simulator::hardware::find("iPhone17,2").unwrap();
    let record = Record::new(hardware, "18.1", "22B83", seed).unwrap();
    Foreign::new(record, world.trust.clone()).unwrap()
}

/// A command as property list.
fn command(uuid: &str, keys: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict><key>Command</key><dict>{keys}</dict>\
         <key>CommandUUID</key><string>{uuid}</string></dict></plist>"
    )
    .into_bytes()
}

/// An unsigned profile in base64.
fn profile() -> String {
    use base64::Engine as _;
    let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict><key>PayloadType</key>\
        <string>Configuration</string><key>PayloadVersion</key><integer>1</integer><key>PayloadIdentifier</key>\
        <string>com.example.test</string><key>PayloadUUID</key><string>5E6A6E0C-6F0B-4E2C-8D0B-0A8C53F1C001</string>\
        <key>PayloadContent</key><array/></dict></plist>";
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_devices_enroll_and_answer_all_they_are_asked() {
    for backend in both() {
        let world = Rehearsal::start(backend, FOR_FOREIGN).await;
        let link = world.link(2, "foreign").await;
        // Two devices: both say the token "fakeToken" and the PushMagic "fakePushMagic".
        let mut devices = [device(&world, "one"), device(&world, "two")];
        for device in &mut devices {
            device.enroll(&link).await.unwrap_or_else(|e| panic!("{backend}: {e}"));
        }
        let asked = [
            ("plain-string-1", "<key>RequestType</key><string>DeviceInformation</string><key>Queries</key><array><string>DeviceName</string><string>OSVersion</string></array>".to_owned()),
            ("plain-string-2", format!("<key>RequestType</key><string>InstallProfile</string><key>Payload</key><data>{}</data>", profile())),
            ("plain-string-3", "<key>RequestType</key><string>SecurityInfo</string>".to_owned()),
            ("plain-string-4", "<key>RequestType</key><string>ProfileList</string>".to_owned()),
        ];
        for (uuid, keys) in &asked {
            world.operator.enqueue_plist("foreign", command(uuid, keys)).await.unwrap();
        }
        for device in &devices {
            let answered = device.connect().await.unwrap_or_else(|e| panic!("{backend}: {e}"));
            let told: Vec<_> = answered.iter().map(|a| (a.command_uuid.as_str(), a.status)).collect();
            assert_eq!(
                told,
                [
                    ("plain-string-1", "Acknowledged"),
                    ("plain-string-2", "Acknowledged"),
                    ("plain-string-3", "Error"),
                    ("plain-string-4", "Acknowledged"),
                ],
                "{backend}"
            );
            assert_eq!(device.connect().await.unwrap(), [], "{backend}: what is answered does not come again");
        }
        let acknowledged = ["plain-string-1", "plain-string-2", "plain-string-4"];
        assert_eq!(commands(&world, "acknowledged").await, acknowledged, "{backend}: what the operator reads");
        assert_eq!(commands(&world, "error").await, ["plain-string-3"], "{backend}: what the operator reads");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_settings_each_weakness_is_refused() {
    let world = Rehearsal::start(Backend::Sqlite, "[enroll]\nsign_profile = false\n").await;
    let link = world.link(1, "foreign").await;
    let refused = device(&world, "scep").enroll(&link).await.unwrap_err();
    assert!(matches!(refused, Error::Scep(_) | Error::Status { .. } | Error::Crypto(_)), "single DES: {refused}");
    world.stop().await;

    let sha1 = format!("{FOR_FOREIGN}[mdm_signature]\nsha1 = \"refuse\"\n");
    let world = Rehearsal::start(Backend::Sqlite, &sha1).await;
    let link = world.link(1, "foreign").await;
    let refused = device(&world, "sha1").enroll(&link).await.unwrap_err();
    assert!(matches!(refused, Error::Status { status: 400, .. }), "a SHA-1 signature: {refused}");
    world.stop().await;

    let world = Rehearsal::start(Backend::Sqlite, "[scep]\nlegacy = true\n").await;
    let link = world.link(1, "foreign").await;
    let refused = device(&world, "signed").enroll(&link).await.unwrap_err();
    assert!(matches!(refused, Error::Profile(_)), "a signed profile: {refused}");
    world.stop().await;
}

/// The commands that the API lists with a target in this state.
async fn commands(world: &Rehearsal, state: &str) -> Vec<String> {
    let listed = world.operator.all(&format!("/api/v1/commands?state={state}")).await.unwrap();
    let uuid = |c: &Value| c.get("command_uuid").and_then(Value::as_str).map(str::to_owned);
    let mut uuids: Vec<String> = listed.iter().filter_map(uuid).collect();
    uuids.sort();
    uuids
}
