//! Every row of soc.csv × every OS boundary × kind of enrollment × channel × wishes: what leaves the server satisfies a device
//! that was written from Apple's schema files, and nothing stronger would.
//!
//! The server's side is the whole way from the document to the bytes of the profile; the device's side is the simulator, which has
//! its own reading of Apple's table by chip and shares no code with the server.

use std::collections::BTreeSet;

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::{self, Model, Platform};
use mdm_core::profile::acme::AcmePayload;
use mdm_core::profile::{Profile, Scope};
use mdm_core::time::Timestamp;
use policy::acme::AcmePolicy;
use policy::companion;
use policy::decision::{Outcome, Target, decision};
use policy::facts::{FactName, FactValue, Facts, Source};
use policy::reason::ReasonCode;
use policy::template::{Values, Variable};
use serde_json::{Value as Json, json};
use simulator::acme::{self, Acme, Honoured};
use simulator::hardware::{Family, Version};
use simulator::plist::{self, Value};
use simulator::profile::Situation;
use simulator::silicon;
use uuid::Uuid;

const KINDS: [EnrollmentKind; 4] =
    [EnrollmentKind::Device, EnrollmentKind::Automated, EnrollmentKind::User, EnrollmentKind::SharedIpad];

fn family(model: &Model) -> Family {
    match model.family.as_str() {
        "iPhone" => Family::IPhone,
        "iPad" => Family::IPad,
        "iPod" => Family::IPod,
        "Mac" => Family::Mac,
        "AppleTV" => Family::AppleTv,
        "Watch" => Family::Watch,
        "Vision" => Family::Vision,
        other => panic!("family {other}"),
    }
}

fn platform(family: Family) -> Platform {
    match family {
        Family::IPhone | Family::IPod => Platform::Ios,
        Family::IPad => Platform::Ipados,
        Family::Mac => Platform::Macos,
        Family::AppleTv => Platform::Tvos,
        Family::Watch => Platform::Watchos,
        Family::Vision => Platform::Visionos,
    }
}

/// Both sides of every boundary that any source names, and what is far from all of them.
fn versions(family: Family) -> &'static [&'static str] {
    match family {
        Family::Mac => &["11.7", "12.6", "13.0", "13.1", "13.7.8", "14.0", "14.2", "15.1", "26.1", "27.0"],
        Family::Vision => &["1.0", "1.1", "2.0", "26.1"],
        Family::Watch => &["8.8.1", "9.0", "9.6.3", "10.0", "10.2", "11.1", "26.1"],
        _ => &["15.8.3", "16.0", "16.1", "17.0", "17.2", "18.6", "26.1", "27.0"],
    }
}

/// A device as Apple's schema describes it.
struct Device {
    model: &'static Model,
    os: &'static str,
    kind: EnrollmentKind,
    channel: Channel,
    situation: Situation,
}

/// Every device that there can be. Devices without a Secure Enclave outside macOS are left out: none of them runs a system that
/// knows the payload (open question Q29).
fn devices() -> Vec<Device> {
    let mut devices = Vec::new();
    for model in hardware::models() {
        let family = family(model);
        let (attestation, secure_enclave) =
            silicon::of_chip(family, &model.chip).unwrap_or_else(|| panic!("{}: {}", model.product_name, model.chip));
        if !secure_enclave && family != Family::Mac {
            continue;
        }
        for os in versions(family) {
            for kind in KINDS {
                for channel in [Channel::Device, Channel::User] {
                    if kind == EnrollmentKind::SharedIpad && family != Family::IPad {
                        continue;
                    }
                    let situation = Situation {
                        family,
                        os: Version::parse(os),
                        attestation,
                        secure_enclave,
                        user_channel: channel == Channel::User,
                        user_enrollment: kind == EnrollmentKind::User,
                    };
                    devices.push(Device { model, os, kind, channel, situation });
                }
            }
        }
    }
    devices
}

/// A policy with its authority.
struct Asked {
    policy: AcmePolicy,
    authority: ca::Authority,
    hardware_bound: &'static str,
    attest: &'static str,
    accepts: bool,
    user_channel: bool,
}

/// Every combination of wishes that can be written.
fn asked() -> Vec<Asked> {
    let wishes = ["never", "when_supported", "required"];
    let mut all = Vec::new();
    for hardware_bound in wishes {
        for attest in wishes {
            for accepts in [false, true] {
                for user_channel in [false, true] {
                    let document = json!({
                        "name": "matrix", "channel": "both", "directory_url": "https://ca.example.com/directory",
                        "client_identifier": "{random}", "subject": [[["CN", "{random}"]]], "key_size": 256,
                        "hardware_bound": hardware_bound, "attest": attest, "ca_accepts_unattested": accepts,
                        "user_channel_hardware_bound": user_channel, "key_is_extractable": hardware_bound == "never",
                        "allow_all_apps_access": true, "usage_flags": 5, "extended_key_usage": ["1.3.6.1.5.5.7.3.2"],
                        "subject_alt_name": { "dNSName": "{product_name}" }, "companions": companions(),
                    });
                    let Ok(policy) = AcmePolicy::from_value(document) else { continue };
                    let authority = ca::Authority::bare("https://ca.example.com/directory", accepts, Vec::new());
                    all.push(Asked { policy, authority, hardware_bound, attest, accepts, user_channel });
                }
            }
        }
    }
    all
}

/// A network and the certificate of its server; the VPN only where there is one.
fn companions() -> Json {
    let root = simulator::authority::Authority::new("Matrix").unwrap().pem().unwrap();
    json!([
        { "type": "certificate", "name": "root", "certificate": root },
        { "type": "wifi", "name": "office", "ssid": "Office", "trusted_certificates": ["root"] },
        { "type": "vpn_ikev2", "name": "vpn", "remote_address": "vpn.example.com", "remote_identifier": "vpn.example.com",
          "local_identifier": "{random}", "server_certificate_issuer_common_name": "Matrix", "optional": true },
    ])
}

fn facts(device: &Device) -> Facts {
    let mut facts = Facts { asked_at: Some(Timestamp(1)), ..Facts::default() };
    let mut learn = |name, value| facts.learn(name, value, Source::DeviceInformation, Timestamp(1));
    learn(FactName::ProductName, FactValue::Text(device.model.product_name.clone()));
    learn(FactName::OsVersion, FactValue::Text(device.os.to_owned()));
    if device.situation.family == Family::Mac && device.situation.os >= Version::new(12, 0) {
        let silicon = !device.model.chip.starts_with("Intel");
        learn(FactName::IsAppleSilicon, FactValue::Flag(silicon));
    }
    facts
}

fn values() -> Values {
    let mut values = Values::default();
    values.set(Variable::Random, Some("0123456789abcdef0123456789abcdef"));
    values.set(Variable::ProductName, Some("product.example"));
    values
}

/// The bytes that the device is given, unsigned.
fn profile(asked: &Asked, device: &Device, payload: &AcmePayload, values: &Values) -> Vec<u8> {
    let uuid_of = |name: &str| {
        let mut bytes = [7; 16];
        bytes.iter_mut().zip(name.bytes()).for_each(|(byte, of)| *byte = of);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    };
    let identity = payload.payload("matrix.identity".into(), uuid_of(companion::IDENTITY), None);
    let of = companion::Device {
        platform: Some(platform(device.situation.family)),
        os_version: device.os.parse().ok(),
        kind: device.kind,
        channel: device.channel,
    };
    let names = companion::Names { identifier: "matrix", uuid_of: &uuid_of };
    let mut payloads = vec![identity];
    payloads.extend(companion::payloads(&asked.policy, &of, values, &names).unwrap());
    Profile {
        identifier: "matrix".into(),
        uuid: Uuid::from_u128(1),
        display_name: "Matrix".into(),
        organization: None,
        description: None,
        scope: Some(if device.channel == Channel::User { Scope::User } else { Scope::System }),
        removal_disallowed: false,
        payloads,
    }
    .encode()
}

/// The ACME payload with other values of the two keys that say how strong it is.
fn stronger(payload: &Value, hardware_bound: bool, attest: bool) -> Value {
    let Value::Dict(keys) = payload else { panic!("a payload is a dict") };
    let mut keys = keys.clone();
    keys.insert("HardwareBound".into(), Value::Boolean(hardware_bound));
    if attest || keys.contains_key("Attest") {
        keys.insert("Attest".into(), Value::Boolean(attest));
    }
    if hardware_bound {
        keys.remove("KeyIsExtractable");
    }
    Value::Dict(keys)
}

/// A payload in the weakest form for this device, to be made stronger; what Apple's pages demand beside the two keys is there.
fn weakest(device: &Situation) -> Value {
    let attest = if device.family == Family::Mac { "<key>Attest</key><false/>" } else { "" };
    let text = format!(
        "<plist><dict><key>DirectoryURL</key><string>https://ca.example/acme</string>\
         <key>ClientIdentifier</key><string>x</string><key>KeyType</key><string>ECSECPrimeRandom</string>\
         <key>KeySize</key><integer>256</integer>{attest}<key>Subject</key><array><array><array>\
         <string>CN</string><string>x</string></array></array></array></dict></plist>"
    );
    plist::parse(text.as_bytes()).unwrap()
}

/// Every form that this device accepts, with what it makes of it.
fn accepted(payload: &Value, device: &Situation) -> Vec<Honoured> {
    [(false, false), (true, false), (true, true)]
        .into_iter()
        .filter_map(|(bound, attest)| acme::check(&stronger(payload, bound, attest), device).ok())
        .map(|acme| acme::honoured(&acme, device))
        .collect()
}

fn strength(honoured: Honoured) -> u8 {
    u8::from(honoured.hardware_bound) + u8::from(honoured.attested)
}

/// Whether the policy and its authority would be content with this.
fn contents(asked: &Asked, honoured: Honoured) -> bool {
    let wanted = |wish: &str, has: bool| match wish {
        "required" => has,
        "never" => !has,
        _ => true,
    };
    wanted(asked.hardware_bound, honoured.hardware_bound)
        && wanted(asked.attest, honoured.attested)
        && (asked.accepts || honoured.attested)
}

/// Assay's own limit, which no schema names: hardware-bound keys on a user channel only where the policy says so (Q3).
fn kept_back(asked: &Asked, device: &Device) -> bool {
    device.channel == Channel::User && !asked.user_channel
}

/// What was decided, for the device's side; `None` where nothing is sent.
fn judge(asked: &Asked, device: &Device, values: &Values, payload: Option<&AcmePayload>, reason: Option<ReasonCode>) {
    let what = || {
        let Device { model, os, kind, channel, .. } = device;
        let Asked { hardware_bound, attest, accepts, user_channel, .. } = asked;
        format!(
            "{} {os} {kind} {channel}; hardware_bound {hardware_bound}, attest {attest}, accepts {accepts}, user {user_channel}",
            model.product_name
        )
    };
    let limit = if kept_back(asked, device) { 0 } else { 2 };
    let Some(payload) = payload else {
        let better: Vec<Honoured> = accepted(&weakest(&device.situation), &device.situation)
            .into_iter()
            .filter(|honoured| strength(*honoured) <= limit && contents(asked, *honoured))
            .collect();
        assert!(better.is_empty(), "{}: refused as {reason:?}, but {better:?} would do", what());
        return;
    };
    let bytes = profile(asked, device, payload, values);
    let taken = simulator::profile::check(&bytes, &device.situation);
    let taken = taken.unwrap_or_else(|refusal| panic!("{}: {}", what(), refusal.text));
    let [acme]: [Acme; 1] = taken.acme.clone().try_into().unwrap();
    let honoured = acme::honoured(&acme, &device.situation);
    assert!(contents(asked, honoured), "{}: {honoured:?} is not what was asked", what());
    assert_eq!(acme.attest == Some(true), honoured.attested, "{}: Attest is asked of a device that ignores it", what());
    let sent = taken.payloads.iter().find(|payload| payload.kind == acme::PAYLOAD_TYPE).unwrap();
    for other in accepted(&sent.keys, &device.situation) {
        let better = strength(other) > strength(honoured) && strength(other) <= limit && contents(asked, other);
        assert!(!better, "{}: sent {honoured:?}, {other:?} would do as well", what());
    }
}

/// What makes two cases the same for the device's side.
type Seen = (usize, String, String, Option<(bool, String)>);

#[test]
fn what_leaves_the_server_satisfies_the_device_and_nothing_stronger_would() {
    let (devices, asked, values) = (devices(), asked(), values());
    assert!(asked.len() >= 18 && devices.len() > 10_000, "{} policies, {} devices", asked.len(), devices.len());
    let halves: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let parts = devices.chunks(devices.len().div_ceil(2));
        let (asked, values) = (&asked, &values);
        let running: Vec<_> = parts.map(|part| scope.spawn(move || judge_all(part, asked, values))).collect();
        running.into_iter().map(|half| half.join().unwrap()).collect()
    });
    let (open, closed) = halves.into_iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    println!("{} decisions: {open} profiles, {closed} refusals", open + closed);
    assert!(open > 10_000 && closed > 10_000);
}

fn judge_all(devices: &[Device], asked: &[Asked], values: &Values) -> (usize, usize) {
    let mut seen: BTreeSet<Seen> = BTreeSet::new();
    let (mut open, mut closed) = (0, 0);
    for device in devices {
        let facts = facts(device);
        let of_device = format!("{:?}", device.situation);
        for (number, asked) in asked.iter().enumerate() {
            let target =
                Target { kind: device.kind, channel: device.channel, facts: &facts, values, now: Timestamp(1) };
            let (decision, payload) = decision(&asked.policy, &asked.authority, &target);
            assert_ne!(decision.outcome, Outcome::NeedFacts, "{} {}", device.model.product_name, device.os);
            assert_eq!(decision.outcome == Outcome::Open, payload.is_some());
            *if payload.is_some() { &mut open } else { &mut closed } += 1;
            let form = decision.form.as_ref().map(|form| (form.hardware_bound, format!("{:?}", form.attest)));
            let kind = device.kind.to_string();
            if seen.insert((number, of_device.clone(), kind, form)) {
                judge(asked, device, values, payload.as_ref(), decision.reason.map(|note| note.code));
            }
        }
    }
    (open, closed)
}

/// The test would see it: a form that is weaker than it could be, and a refusal that need not be.
#[test]
fn what_is_weaker_than_it_could_be_is_noticed() {
    let (devices, asked, values) = (devices(), asked(), values());
    let wish = |hardware_bound, attest| {
        let of = |asked: &&Asked| {
            asked.accepts && asked.user_channel && (asked.hardware_bound, asked.attest) == (hardware_bound, attest)
        };
        asked.iter().find(of).unwrap()
    };
    let (strong, weak) = (wish("when_supported", "when_supported"), wish("when_supported", "never"));
    let of = |device: &&Device| {
        device.model.product_name == "iPhone17,2" && device.os == "18.6" && device.channel == Channel::Device
    };
    let device = devices.iter().find(of).unwrap();
    let facts = facts(device);
    let target =
        Target { kind: device.kind, channel: device.channel, facts: &facts, values: &values, now: Timestamp(1) };
    let payload = |asked: &Asked| decision(&asked.policy, &asked.authority, &target).1.unwrap();
    judge(strong, device, &values, Some(&payload(strong)), None);
    let weaker = payload(weak);
    for noticed in [Some(&weaker), None] {
        let judged = std::panic::AssertUnwindSafe(|| judge(strong, device, &values, noticed, None));
        assert!(std::panic::catch_unwind(judged).is_err());
    }
}
