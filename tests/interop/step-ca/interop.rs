//! Certificates from a real step-ca: devices order, Apple's part is the simulator's, step-ca asks Assay by its webhooks and issues,
//! and Assay looks for the certificate on the device. `tests/interop/step-ca/run` starts this where step-ca is there.

mod real;
mod server;
mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::x509::X509;
use serde_json::{Value, json};
use server::text;
use simulator::attestation::Facts;
use simulator::device::{ChannelId, Device};
use world::{TEMPLATE, World};

fn policy(name: &str, authority: &str, identifier: &str) -> Value {
    json!({
        "name": name, "certificate_authority": authority, "client_identifier": identifier, "key_size": 384,
        "subject": [[["O", "Example"]], [["OU", "Devices"]], [["CN", identifier]]],
        "subject_alt_name": {
            "rfc822Name": "{serial}@example.com", "dNSName": "{serial}.devices.example.com",
            "uniformResourceIdentifier": "https://example.com/{serial}", "ntPrincipalName": "{serial}@corp.example.com",
        },
        "hardware_bound": "required", "attest": "required",
    })
}

/// The one certificate of a device's policy, which the authority's intermediate signed.
fn held(world: &World, device: &Device) -> X509 {
    let [installed] = device.identities(ChannelId::DEVICE) else { panic!("one identity") };
    assert!(installed.attested);
    let certificate = installed.identity.certificate.clone();
    let issuer = X509::from_pem(world.ca.intermediate_pem().as_bytes()).unwrap();
    assert!(certificate.verify(&issuer.public_key().unwrap()).unwrap());
    certificate
}

fn subject(certificate: &X509) -> Vec<(String, String)> {
    let entries = certificate.subject_name().entries();
    let pair = |entry: &openssl::x509::X509NameEntryRef| {
        let kind = entry.object().nid().short_name().unwrap().to_owned();
        (kind, entry.data().to_string().unwrap())
    };
    entries.map(pair).collect()
}

/// Whether the certificate holds these bytes.
fn holds(certificate: &X509, text: &str) -> bool {
    certificate.to_der().unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

/// An iPhone by its serial number, and a Mac by its ProvisioningUDID, which is what Apple attests: the certificates have the names
/// that Assay's answer put into step-ca's template, and Assay has verified them.
#[tokio::test(flavor = "multi_thread")]
async fn attested_devices_hold_what_the_policy_asks_for() {
    let world = World::new().await;
    world.authority("mdm", Some(TEMPLATE), false).await;
    // The Mac learns from its profile whom to trust.
    let root = json!([{ "type": "certificate", "name": "root", "certificate": world.ca.root_pem() }]);
    let mut policies = [policy("phones", "mdm", "{serial}"), policy("macs", "mdm", "{provisioning_udid}")];
    policies[1]["companions"] = root;
    for policy in &policies {
        world.server.operator.create_policy(text(policy, "/name"), policy).await.unwrap();
        world.server.operator.assign_to_label(text(policy, "/name"), text(policy, "/name")).await.unwrap();
    }
    let phone = world.device("iPhone17,2", "18.5", "phones").await;
    let mac = world.server.device("Mac16,10", "15.5", "macs", &world.attesting, "").await;
    for (mut device, mut policy) in [phone, mac].into_iter().zip(policies) {
        let label = text(&policy, "/name").to_owned();
        let label = label.as_str();
        world.server.until(&mut device, label, "verified").await;
        let (serial, own) = (device.record.serial_number.clone(), device.record.provisioning_udid.clone());
        let identifier = if label == "macs" { own.unwrap() } else { serial.clone() };
        let certificate = held(&world, &device);
        let named = [("O", "Example"), ("OU", "Devices"), ("CN", identifier.as_str())];
        assert_eq!(subject(&certificate), named.map(|(kind, value)| (kind.to_owned(), value.to_owned())));
        let names = certificate.subject_alt_names().unwrap();
        let mail = format!("{serial}@example.com");
        assert_eq!(names.iter().filter_map(|name| name.email()).collect::<Vec<_>>(), [mail]);
        // step-ca writes names of the DNS in small letters.
        let dns = format!("{serial}.devices.example.com").to_lowercase();
        assert_eq!(names.iter().filter_map(|name| name.dnsname()).collect::<Vec<_>>(), [dns]);
        let uri = format!("https://example.com/{serial}");
        assert_eq!(names.iter().filter_map(|name| name.uri()).collect::<Vec<_>>(), [uri]);
        assert!(holds(&certificate, &format!("{serial}@corp.example.com")), "the principal name");
        assert_eq!(names.len(), 5, "and the permanent identifier");

        let life = certificate.not_before().diff(certificate.not_after()).unwrap();
        assert_eq!(life.days, 30);
        let listed = world.server.operator.certificates(label).await.unwrap();
        let sha256 = mdm_core::ids::Fingerprint::of(&certificate.to_der().unwrap()).to_string();
        assert_eq!(listed.len(), 1);
        assert_eq!((text(&listed[0], "/certificate_sha256"), text(&listed[0], "/state")), (&*sha256, "verified"));
        println!("{label}: {}", text(&listed[0], "/subject"));

        policy["key_size"] = 256.into();
        world.server.operator.create_policy(label, &policy).await.unwrap();
        let renewed = async {
            while device.identities(ChannelId::DEVICE)[0].acme.key_size != 256 {
                device.session(ChannelId::DEVICE).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), renewed).await.expect("the new revision is delivered");
        world.server.until(&mut device, label, "verified").await;
        assert_ne!(held(&world, &device).to_der().unwrap(), certificate.to_der().unwrap());
    }
    let allowed = world.server.operator.all("/api/v1/events?kind=webhook.allowed").await.unwrap();
    assert_eq!((allowed.len(), world.refusals().await), (8, Vec::new()));
    world.server.stop().await;
}

/// Real attestations of real silicon are not enough: without an open attempt of this very device there is no certificate.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_certificate() {
    let world = World::new().await;
    world.authority("mdm", Some(TEMPLATE), false).await;
    world.server.operator.create_policy("phones", &policy("phones", "mdm", "{serial}")).await.unwrap();
    world.server.operator.assign_to_label("phones", "phones").await.unwrap();
    let mut assigned = world.device("iPhone17,2", "18.5", "phones").await;
    world.server.until(&mut assigned, "phones", "verified").await;
    let mut other = world.device("iPhone14,5", "18.5", "others").await;
    other.session(ChannelId::DEVICE).await.unwrap();
    assert!(other.identities(ChannelId::DEVICE).is_empty());
    let (serial, others) = (assigned.record.serial_number.clone(), other.record.serial_number.clone());

    let never_assigned = world.order(&others, 384, Some(Facts::of(&other.record))).await.unwrap_err();
    assert!(never_assigned.contains("no_open_attempt"), "{never_assigned}");
    let used_up = world.order(&serial, 384, Some(Facts::of(&assigned.record))).await.unwrap_err();
    assert_eq!(world.refusals().await, ["no_open_attempt", "no_open_attempt"], "{used_up}");

    // What step-ca refuses by itself never gets as far as a webhook.
    let name_of_another = world.order(&serial, 384, Some(Facts::of(&other.record))).await.unwrap_err();
    let unattested = world.order(&others, 384, None).await.unwrap_err();
    assert_eq!(world.refusals().await.len(), 2, "{name_of_another} {unattested}");

    // A device whose profile is on its way may have one certificate, for one key of the kind that was asked for.
    let mut idle = world.device("iPhone18,1", "26.1", "phones").await;
    idle.behaviour.runs_acme = false;
    world.server.until(&mut idle, "phones", "installed").await;
    let (own, facts) = (idle.record.serial_number.clone(), Facts::of(&idle.record));
    let small = world.order(&own, 256, Some(facts.clone())).await.unwrap_err();
    assert!(small.contains("key_differs"), "{small}");
    world.order(&own, 384, Some(facts.clone())).await.expect("the permission is used");
    let again = world.order(&own, 384, Some(facts)).await.unwrap_err();
    assert!(again.contains("already_used"), "{again}");

    // A webhook that Assay does not know, with the name of one that it knows.
    let url = format!("{}/webhook/step-ca/mdm", world.server.public_url);
    world.ca.webhook("mdm", "stranger", &url, "AUTHORIZING");
    let mut late = world.device("iPhone15,4", "18.5", "phones").await;
    let failed = world.server.until(&mut late, "phones", "failed").await;
    assert!(late.identities(ChannelId::DEVICE).is_empty(), "{failed}");
    assert_eq!(world.refusals().await.last().unwrap(), "signature_wrong");
    world.server.stop().await;
}

/// The form of the calls. Without a template, step-ca's own names are enough for the proof.
#[tokio::test(flavor = "multi_thread")]
async fn calls_have_the_form_that_assay_reads() {
    let world = World::new().await;
    for (name, template) in [("plain", None), ("filled", Some(TEMPLATE))] {
        world.ear.heard.lock().unwrap().clear();
        let printed = world.authority(name, template, true).await;
        world.server.operator.create_policy(name, &policy(name, name, "{serial}")).await.unwrap();
        world.server.operator.assign_to_label(name, name).await.unwrap();
        let mut device = world.device("iPhone17,2", "18.5", name).await;
        world.server.until(&mut device, name, "verified").await;
        let certificate = held(&world, &device);
        let serial = device.record.serial_number.as_str();
        let named: Vec<_> = subject(&certificate).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(named.len(), if template.is_some() { 3 } else { 1 }, "{named:?}");

        let heard = world.ear.heard.lock().unwrap().clone();
        assert_eq!(heard.len(), 2);
        let key = STANDARD.encode(certificate.public_key().unwrap().public_key_to_der().unwrap());
        for ((call, printed), member) in heard.iter().zip(printed).zip(["x509CertificateRequest", "x509Certificate"]) {
            let secret = STANDARD.decode(&printed.secret).unwrap();
            assert_eq!(call.headers["X-Smallstep-Webhook-ID"], printed.id);
            assert_eq!(call.headers["X-Smallstep-Signature"], webhook::sign(&secret, &call.body));
            let body: Value = serde_json::from_slice(&call.body).unwrap();
            assert_eq!(text(&body, "/attestationData/permanentIdentifier"), serial);
            assert_eq!(text(&body, &format!("/{member}/publicKey")), key);
            assert!(mdm_core::time::Timestamp::from_rfc3339(text(&body, "/timestamp")).is_some());
            println!("{name} {member}: {}", body.pointer(&format!("/{member}/subject")).unwrap());
        }
    }

    // step-ca repeats a call whose answer was lost, octet for octet; the permission is given once.
    world.ear.heard.lock().unwrap().clear();
    world.ear.lose.store(1, Ordering::SeqCst);
    let mut device = world.device("iPhone14,5", "18.5", "filled").await;
    world.server.until(&mut device, "filled", "verified").await;
    held(&world, &device);
    let heard = world.ear.heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 3);
    assert_eq!((&heard[0].body, &heard[0].headers), (&heard[1].body, &heard[1].headers));
    let allowed = world.server.operator.all("/api/v1/events?kind=webhook.allowed").await.unwrap();
    assert_eq!(allowed.len(), 6);
    world.server.stop().await;
}

/// Both pairs of webhooks are asked while both exist; the template follows the one that stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_changed_without_a_gap() {
    let world = World::new().await;
    world.authority("mdm", Some(TEMPLATE), false).await;
    world.server.operator.create_policy("phones", &policy("phones", "mdm", "{serial}")).await.unwrap();
    world.server.operator.assign_to_label("phones", "phones").await.unwrap();
    world.webhooks("mdm", ["assay-2", "assay-gate-2"], false).await;
    let mut between = world.device("iPhone17,2", "18.5", "phones").await;
    world.server.until(&mut between, "phones", "verified").await;
    world.template("mdm", &TEMPLATE.replace(".Webhooks.assay.", "(index .Webhooks \"assay-2\")."));
    for old in ["assay", "assay-gate"] {
        world.ca.provisioner(&["webhook", "remove", "mdm", old]);
    }
    let mut after = world.device("iPhone15,4", "18.5", "phones").await;
    world.server.until(&mut after, "phones", "verified").await;
    assert_eq!(subject(&held(&world, &after)).len(), 3);
    let allowed = world.server.operator.all("/api/v1/events?kind=webhook.allowed").await.unwrap();
    assert_eq!((allowed.len(), world.refusals().await), (6, Vec::new()));

    // A template that speaks of a webhook that is not there makes certificates without names.
    world.template("mdm", TEMPLATE);
    let mut late = world.device("iPhone14,5", "18.5", "phones").await;
    world.server.until(&mut late, "phones", "verified").await;
    let nameless = held(&world, &late);
    assert!(subject(&nameless).is_empty() && nameless.subject_alt_names().is_none());
    world.server.stop().await;
}

/// Nobody is asked, and the certificate has nothing of what was asked for but a DNS name, in small letters.
#[tokio::test(flavor = "multi_thread")]
async fn without_webhooks_the_names_are_the_proof() {
    let world = World::new().await;
    world.provisioner("alone").await;
    world.template("alone", r#"{ "dnsNames": {{ toJson .Insecure.CR.DNSNames }}, "extKeyUsage": ["clientAuth"] }"#);
    let mut wanted = policy("phones", "alone", "{serial}");
    wanted["subject_alt_name"] = json!({ "dNSName": "{serial}.devices.example.com" });
    world.server.operator.create_policy("phones", &wanted).await.unwrap();
    world.server.operator.assign_to_label("phones", "phones").await.unwrap();
    let mut device = world.device("iPhone17,2", "18.5", "phones").await;
    world.server.until(&mut device, "phones", "verified").await;
    assert_eq!(subject(&held(&world, &device)), []);
    world.server.stop().await;
}
