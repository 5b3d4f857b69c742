//! Assay and step-ca side by side, set up as docs/certificate-authorities.md says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use openssl::x509::X509;
use serde_json::{Value, json};
use simulator::acme::Acme;
use simulator::acme_client::{self, Attesting, Request, Wishes};
use simulator::attestation::{self, Facts, Fault};
use simulator::authority::Authority;
use simulator::device::Device;
use simulator::http::{Client, Trust};
use simulator::https;

use crate::real::{Printed, StepCa};
use crate::server::{Server, text};

/// The template of docs/certificate-authorities.md.
pub const TEMPLATE: &str = r#"{
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

/// Assay, step-ca, and who attests the devices.
pub struct World {
    pub server: Server,
    pub ca: StepCa,
    pub attesting: attestation::Authority,
    /// Keeps what step-ca sends, and hands it on.
    pub ear: Ear,
}

impl World {
    /// Starts all of them.
    pub async fn new() -> Self {
        let attesting = attestation::Authority::new().unwrap();
        let server = Server::start(&attesting).await;
        let ear = Ear::start(&server).await;
        let ca = StepCa::start(&format!("{}{}", server.anchors, ear.anchor)).await;
        Self { server, ca, attesting, ear }
    }

    /// A provisioner of step-ca and the authority of the same name in Assay, set up as the documentation says; its webhooks call
    /// Assay, or the ear.
    pub async fn authority(&self, name: &str, template: Option<&str>, heard: bool) -> [Printed; 2] {
        self.provisioner(name).await;
        let printed = self.webhooks(name, ["assay", "assay-gate"], heard).await;
        if let Some(template) = template {
            self.template(name, template);
        }
        printed
    }

    /// The provisioner and the authority, without webhooks.
    pub async fn provisioner(&self, name: &str) {
        let root = self.ca.file("attestation-root.pem", &self.attesting.root_pem().unwrap());
        let kind = ["add", name, "--type", "ACME", "--challenge", "device-attest-01"];
        let apple = ["--attestation-format", "apple", "--attestation-roots", &root];
        self.ca.provisioner(&[&kind[..], &apple, &LIFE].concat());
        let document = json!({
            "kind": "step_ca", "directory_url": self.ca.directory_url(name), "issuers": [self.ca.intermediate_pem()],
        });
        self.server.operator.put(&format!("/api/v1/certificate-authorities/{name}"), &document).await.unwrap();
    }

    /// The webhook that enriches and the one that authorizes, with these names.
    pub async fn webhooks(&self, authority: &str, names: [&str; 2], heard: bool) -> [Printed; 2] {
        let path = format!("/api/v1/certificate-authorities/{authority}");
        let shown = self.server.operator.get(&path).await.unwrap();
        let mut url = text(&shown, "/certificate_authority/webhook_url").to_owned();
        if heard {
            url = url.replace(&self.server.public_url, &self.ear.url());
        }
        let [first, second] = names;
        let added = [(first, "ENRICHING"), (second, "AUTHORIZING")].map(|(name, kind)| {
            let printed = self.ca.webhook(authority, name, &url, kind);
            (kind.to_lowercase(), printed)
        });
        for (kind, printed) in &added {
            let entered = json!({ "kind": kind, "webhook_id": printed.id, "secret": printed.secret });
            self.server.operator.post(&format!("{path}/webhooks"), &entered).await.unwrap();
        }
        added.map(|(_, printed)| printed)
    }

    /// The provisioner gets this template.
    pub fn template(&self, name: &str, template: &str) {
        let file = self.ca.file("mdm.tpl", template);
        self.ca.provisioner(&["update", name, "--x509-template", &file]);
    }

    /// A device with this label, which trusts the address of step-ca.
    pub async fn device(&self, product: &str, os: &str, label: &str) -> Device {
        self.server.device(product, os, label, &self.attesting, &self.ca.root_pem()).await
    }

    /// An order at step-ca that a device makes by itself: with this identifier, a key of so many bits, attested as this.
    pub async fn order(&self, identifier: &str, key_size: i64, of: Option<Facts>) -> Result<X509, String> {
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
    pub async fn refusals(&self) -> Vec<String> {
        let mut events = self.server.operator.all("/api/v1/events?kind=webhook.").await.unwrap();
        events.sort_by_key(|event| event.pointer("/id").and_then(Value::as_i64));
        let no = events.iter().filter(|event| text(event, "/kind") != "webhook.allowed");
        no.map(|event| text(event, "/data/reason").to_owned()).collect()
    }
}

/// A call of a webhook, as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

/// Stands between step-ca and Assay, and changes nothing in what it hears.
pub struct Ear {
    server: https::Server,
    anchor: String,
    pub heard: Arc<Mutex<Vec<Heard>>>,
    /// So many answers of Assay are lost on the way back.
    pub lose: Arc<AtomicUsize>,
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
