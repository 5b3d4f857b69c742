//! A whole server in this process, on loopback, with a stand-in of APNs: what a test of the public edges needs.

use assay::app::{App, Running};
use assay::pilot::{self, Operator};
use mdm_tests::Backend;
use mdm_tests::db::Place;
use serde_json::json;
use simulator::apns::ApnsStandIn;
use simulator::authority::Authority;
use simulator::http::Trust;
use tempfile::TempDir;

/// The server and what speaks to it.
pub struct Rehearsal {
    /// The REST API.
    pub operator: Operator,
    /// What a device must trust.
    pub trust: Trust,
    running: Running,
    place: Place,
    _stand_in: ApnsStandIn,
    _folder: TempDir,
}

impl Rehearsal {
    /// Starts a server with these sections in its configuration.
    pub async fn start(backend: Backend, sections: &str) -> Self {
        assay::install_crypto();
        let place = Place::empty(backend).await;
        let folder = TempDir::new().unwrap();
        let authority = Authority::new("Rehearsal").unwrap();
        let stand_in = pilot::start_stand_in(&authority).await.unwrap();
        let push = pilot::push_section(folder.path(), &stand_in, &authority).unwrap();
        let more = format!("[store]\nurl = {:?}\n{push}{sections}", place.url);
        let (config, _) = pilot::loopback(folder.path(), "error", &more).unwrap();
        let app = App::open(&config).await.unwrap();
        let token = app.make_token("test", &[api::Scope::Admin], 1).await.unwrap();
        let running = app.start().await.unwrap();
        let trust = pilot::trust(&running).unwrap();
        let base = format!("https://localhost:{}", running.operator.port());
        let operator = Operator::new(&trust, &base, &token).unwrap();
        pilot::upload_push_certificate(&operator, &authority).await.unwrap();
        Self { operator, trust, running, place, _stand_in: stand_in, _folder: folder }
    }

    /// A link for `uses` devices, each of which gets `label`.
    pub async fn link(&self, uses: usize, label: &str) -> String {
        self.operator.link(&json!({ "max_uses": uses, "label": label })).await.unwrap()
    }

    /// Stops the server and throws its database away.
    pub async fn stop(self) {
        self.running.stop().await;
        self.place.remove().await;
    }
}
