//! A whole server on loopback, and devices that enroll with it.

use std::time::{Duration, Instant};

use assay::app::{App, Running};
use assay::pilot::{self, Operator};
use mdm_core::certificate::Certificate;
use serde_json::{Value, json};
use simulator::apns::ApnsStandIn;
use simulator::attestation;
use simulator::authority::Authority;
use simulator::device::{Behaviour, ChannelId, Device, Record};
use simulator::http::Trust;
use tempfile::TempDir;

/// The server and what speaks to it.
pub struct Server {
    /// The REST API.
    pub operator: Operator,
    /// What a device must trust.
    pub trust: Trust,
    /// The same, PEM.
    pub anchors: String,
    /// Where devices and certificate authorities reach it, without a slash at the end.
    pub public_url: String,
    running: Running,
    _stand_in: ApnsStandIn,
    _folder: TempDir,
}

/// The text at a place, or none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Server {
    /// Starts one that believes this authority's attestations.
    pub async fn start(attesting: &attestation::Authority) -> Self {
        assay::install_crypto();
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("attestation-root.pem");
        std::fs::write(&root, attesting.root_pem().unwrap()).unwrap();
        let authority = Authority::new("Rehearsal").unwrap();
        let stand_in = pilot::start_stand_in(&authority).await.unwrap();
        let push = pilot::push_section(folder.path(), &stand_in, &authority).unwrap();
        let more = format!("{push}[attestation]\ntest_root_files = [{:?}]\n", root.display().to_string());
        let (config, _) = pilot::loopback(folder.path(), "error", &more).unwrap();
        let app = App::open(&config).await.unwrap();
        let token = app.make_token("test", &[api::Scope::Admin], 1).await.unwrap();
        let running = app.start().await.unwrap();
        let trust = pilot::trust(&running).unwrap();
        let anchors = running.anchors.iter().map(Certificate::to_pem).collect();
        let base = format!("https://localhost:{}", running.operator.port());
        let operator = Operator::new(&trust, &base, &token).unwrap();
        pilot::upload_push_certificate(&operator, &authority).await.unwrap();
        let public_url = config.public_url.as_str().trim_end_matches('/').to_owned();
        Self { operator, trust, anchors, public_url, running, _stand_in: stand_in, _folder: folder }
    }

    /// A device that enrolls with this label, is attested by this authority and trusts this anchor (PEM) besides.
    pub async fn device(
        &self,
        product: &str,
        os: &str,
        label: &str,
        attesting: &attestation::Authority,
        anchor: &str,
    ) -> Device {
        let hardware = simulator::hardware::find(product).unwrap();
        let record = Record::new(hardware, os, "24F74", &format!("{product} {label}")).unwrap();
        let behaviour = Behaviour { runs_acme: true, ..Behaviour::default() };
        let trust = self.trust.clone().with_pem(anchor.as_bytes()).unwrap();
        let mut device = Device::new(record, trust, behaviour).unwrap().attested_by(attesting.clone());
        let link = self.operator.link(&json!({ "max_uses": 1, "label": label })).await.unwrap();
        device.enroll(&link).await.unwrap();
        device
    }

    /// Lets the device poll until its assignment of this policy is in this state.
    pub async fn until(&self, device: &mut Device, policy: &str, state: &str) -> Value {
        let start = Instant::now();
        let enrollments = self.operator.all("/api/v1/enrollments").await.unwrap();
        let own = enrollments.iter().find(|one| text(one, "/udid") == device.record.udid).unwrap();
        loop {
            device.session(ChannelId::DEVICE).await.unwrap();
            let assignments = self.operator.assignments(policy).await.unwrap();
            let of_device = assignments.into_iter().find(|one| text(one, "/enrollment_id") == text(own, "/id"));
            let assignment = of_device.unwrap_or_default();
            if text(&assignment, "/state") == state {
                return assignment;
            }
            let late = start.elapsed() > Duration::from_secs(60) || text(&assignment, "/state") == "failed";
            assert!(!late, "not {state}: {assignment}\n{:#?}", device.history().last());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the server.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}
