//! Certificates from a real step-ca: devices order, Apple's part is the simulator's, step-ca asks Assay by its webhooks and issues,
//! and Assay looks for the certificate on the device. `tests/interop/step-ca/run` starts this where step-ca is there.

mod real;
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::x509::X509;
use real::{Printed, StepCa};
use serde_json::{Value, json};
use server::{Server, text};
use simulator::acme::Acme;
use simulator::acme_client::{self, Attesting, Request, Wishes};
use simulator::attestation::{self, Facts, Fault};
use simulator::authority::Authority;
use simulator::device::{ChannelId, Device};
use simulator::http::{Client, Trust};
use simulator::https;

/// The template of docs/certificate-authorities.md.
const TEMPLATE: &str = r#"{
  "subject": {{ toJson .Webhooks.assay.subject }},
  "sans": {{ toJson .Webhooks.assay.sans }},
{{- if typeIs "*rsa.PublicKey" .Insecure.CR.PublicKey }}
  "keyUsage": ["keyEncipherment", "digitalSignature"],
{{- else }}
  "keyUsage": ["digitalSignature"],
{{- end }}
  "extKeyUsage": ["clientAuth"]
}
"#;

/// How long the certificates are valid: thirty days.
const LIFE: [&str; 4] = ["--x509-max-dur", "2160h", "--x509-default-dur", "720h"];

struct World {
    server: Server,
    ca: StepCa,
    attesting: attestation::Authority,
    /// Keeps what step-ca sends, and hands it on.
    ear: Ear,
}

impl World {
    async fn new() -> Self {
        let attesting = attestation::Authority::new().unwrap();
        let server = Server::start(&attesting).await;
        let ear = Ear::start(&server).await;
        let ca = StepCa::start(&format!("{}{}", server.anchors, ear.anchor)).await;
        Self { server, ca, attesting, ear }
    }

    /// A provisioner of step-ca and the authority of the same name in Assay, set up as the documentation says; its webhooks call
    /// Assay, or the ear.
    async fn authority(&self, name: &str, template: Option<&str>, heard: bool) -> [Printed; 2] {
        let root = self.ca.file("attestation-root.pem", &self.attesting.root_pem().unwrap());
        let kind = ["add", name, "--type", "ACME", "--challenge", "device-attest-01"];
        self.ca.provisioner(
            &[&kind[..], &["--attestation-format", "apple", "--attestation-roots", &root], &LIFE].concat(),
        );
        let path = format!("/api/v1/certificate-authorities/{name}");
        let document = json!({
            "kind": "step_ca", "directory_url": self.ca.directory_url(name), "issuers": [self.ca.intermediate_pem()],
        });
        self.server.operator.put(&path, &document).await.unwrap();
        let shown = self.server.operator.get(&path).await.unwrap();
        let mut url = text(&shown, "/certificate_authority/webhook_url").to_owned();
        if heard {
            url = url.replace(&self.server.public_url, &self.ear.url());
        }
        let added = [("assay", "ENRICHING"), ("assay-gate", "AUTHORIZING")].map(|(webhook, kind)| {
            let printed = self.ca.webhook(name, webhook, &url, kind);
            (kind.to_lowercase(), printed)
        });
        for (kind, printed) in &added {
            let entered = json!({ "kind": kind, "webhook_id": printed.id, "secret": printed.secret });
            self.server.operator.post(&format!("{path}/webhooks"), &entered).await.unwrap();
        }
        if let Some(template) = template {
            let file = self.ca.file("mdm.tpl", template);
            self.ca.provisioner(&["update", name, "--x509-template", &file]);
        }
        added.map(|(_, printed)| printed)
    }

    /// A device with this label, which trusts the address of step-ca.
    async fn device(&self, product: &str, os: &str, label: &str) -> Device {
        self.server.device(product, os, label, &self.attesting, &self.ca.root_pem()).await
    }

    /// An order at step-ca that a device makes by itself: with this identifier, a key of so many bits, attested as this.
    async fn order(&self, identifier: &str, key_size: i64, of: Option<Facts>) -> Result<X509, String> {
        let trust = Trust::public().with_pem(self.ca.root_pem().as_bytes()).unwrap();
        let acme = Acme {
            directory_url: self.ca.directory_url("mdm"),
            client_identifier: identifier.to_owned(),
            key_type: "ECSECPrimeRandom".to_owned(),
            key_size,
            hardware_bound: true,
            attest: Some(true),
            key_is_extractable: None,
            allow_all_apps_access: None,
        };
        let subject = vec![vec![("CN".to_owned(), identifier.to_owned())]];
        let request = Request { acme, subject, wishes: Wishes::default() };
        let attesting = of.map(|facts| Attesting { authority: &self.attesting, facts, fault: Fault::None });
        let client = Client::new(&trust, None).unwrap();
        let done = acme_client::enroll(&client, &request, attesting.as_ref()).await;
        done.map(|(identity, _)| identity.certificate).map_err(|error| error.to_string())
    }

    /// Why the webhook said no so far, oldest first.
    async fn refusals(&self) -> Vec<String> {
        let mut events = self.server.operator.all("/api/v1/events?kind=webhook.").await.unwrap();
        events.sort_by_key(|event| event.pointer("/id").and_then(Value::as_i64));
        let no = events.iter().filter(|event| text(event, "/kind") != "webhook.allowed");
        no.map(|event| text(event, "/data/reason").to_owned()).collect()
    }
}

/// A call of a webhook, as it came.
#[derive(Debug, Clone)]
struct Heard {
    headers: http::HeaderMap,
    body: Vec<u8>,
}

/// Stands between step-ca and Assay, and changes nothing in what it hears.
struct Ear {
    server: https::Server,
    anchor: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// So many answers of Assay are lost on the way back.
    lose: Arc<AtomicUsize>,
}

impl Ear {
    async fn start(server: &Server) -> Self {
        let authority = Authority::new("Ear").unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (client, to) = (Client::new(&server.trust, None).unwrap(), server.public_url.clone());
        let lose: Arc<AtomicUsize> = Arc::default();
        let (kept, losing) = (Arc::clone(&heard), Arc::clone(&lose));
        let listening = https::Server::start(&authority, move |request: https::Request| {
            let (client, kept, losing) = (client.clone(), Arc::clone(&kept), Arc::clone(&losing));
            let url = format!("{to}{}", request.uri().path());
            async move {
                let (parts, body) = request.into_parts();
                let own = parts.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-smallstep"));
                let own: Vec<_> = own.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
                let answer = client.send(parts.method, &url, &own, body.to_vec()).await.unwrap();
                kept.lock().unwrap().push(Heard { headers: parts.headers.clone(), body: body.to_vec() });
                let lost = losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                let (status, body) = if lost { (502, Vec::new()) } else { (answer.status, answer.body.to_vec()) };
                http::Response::builder().status(status).body(body).unwrap()
            }
        });
        let listening = listening.await.unwrap();
        Self { server: listening, anchor: authority.pem().unwrap(), heard, lose }
    }

    fn url(&self) -> String {
        self.server.url("").trim_end_matches('/').to_owned()
    }
}

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
