//! A server whose TLS certificate, configuration and restarts the test decides on, always at the same address.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assay::app::{App, Running};
use assay::config::Config;
use assay::pilot::{self, Operator};
use http::Method;
use mdm_core::certificate::Certificate;
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_tests::Backend;
use mdm_tests::db::Place;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use simulator::apns::ApnsStandIn;
use simulator::authority::Authority;
use simulator::device::{Behaviour, Device};
use simulator::http::{Answer, Client, Trust};
use simulator::record::Record;
use sqlx::Connection as _;
use tempfile::TempDir;

/// A certificate authority for servers.
pub struct Ca {
    pub certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn named(name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(days);
    params
}

/// For `localhost` and 127.0.0.1.
fn server(days: i64) -> CertificateParams {
    let mut params = named("localhost", days);
    params.subject_alt_names = vec![
        rcgen::SanType::DnsName("localhost".try_into().unwrap()),
        rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap()),
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Ca {
    /// A root of this name.
    pub fn new(name: &str) -> Self {
        let mut params = named(name, 3650);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A server's certificate and key, PEM.
    pub fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (server(200).signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A client that trusts nothing else.
    pub fn trust(&self) -> Trust {
        Trust::only(&[self.certificate.der().to_vec()])
    }
}

/// A certificate that is its own issuer, and its key, PEM.
pub fn self_signed() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (server(200).self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// The place of a server: its files, its database, its ports.
pub struct World {
    pub folder: TempDir,
    pub place: Place,
    text: String,
    authority: Authority,
    _stand_in: ApnsStandIn,
}

/// The server, running.
pub struct Server {
    pub operator: Operator,
    pub url: String,
    pub health: String,
    pub running: Running,
}

impl World {
    pub async fn new(backend: Backend) -> Self {
        assay::install_crypto();
        let folder = TempDir::new().unwrap();
        let place = Place::empty(backend).await;
        let authority = Authority::new("Rehearsal").unwrap();
        let stand_in = pilot::start_stand_in(&authority).await.unwrap();
        let push = pilot::push_section(folder.path(), &stand_in, &authority).unwrap();
        let more = format!("[store]\nurl = {:?}\n{push}", place.url);
        let (_, text) = pilot::loopback(folder.path(), "error", &more).unwrap();
        Self { folder, place, text, authority, _stand_in: stand_in }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the server's certificate and its key. Both are in place at once, as a careful administrator does it.
    pub fn put_certificate(&self, (certificate, key): (String, String)) {
        std::fs::write(self.file("key.new"), key).unwrap();
        std::fs::write(self.file("cert.new"), certificate).unwrap();
        std::fs::rename(self.file("key.new"), self.file("key.pem")).unwrap();
        std::fs::rename(self.file("cert.new"), self.file("cert.pem")).unwrap();
    }

    /// Writes a root and gives the file's name as TOML has it.
    pub fn put_root(&self, name: &str, ca: &Ca) -> String {
        std::fs::write(self.file(name), ca.certificate.to_pem()).unwrap();
        toml(&self.file(name))
    }

    /// The configuration with these lines of `[trust]`.
    pub fn config(&self, trust: &str) -> Config {
        let files = format!(
            "[tls]\ncertificate_file = {}\nkey_file = {}\n",
            toml(&self.file("cert.pem")),
            toml(&self.file("key.pem"))
        );
        self.parse(&format!("{files}[trust]\n{trust}"))
    }

    /// The configuration without certificate files.
    pub fn config_without_files(&self) -> Config {
        self.parse("")
    }

    fn parse(&self, more: &str) -> Config {
        let mut config = Config::parse(&format!("{}{more}\n", self.text)).unwrap();
        config.trust.set_judge_again(Duration::from_millis(500));
        config
    }

    /// SQL that makes a row unreadable, for an enrollment; in `SQLite` only.
    pub async fn spoil(&self, sql: &'static str, enrollment: EnrollmentId) {
        let mut raw = sqlx::SqliteConnection::connect(&self.place.url).await.unwrap();
        let done = sqlx::query(sql).bind(vec![0_u8]).bind(enrollment.0).execute(&mut raw).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
        raw.close().await.unwrap();
    }

    /// The number that this SQL gives, while the server runs; in `SQLite` only.
    pub async fn count(&self, sql: &'static str) -> i64 {
        let mut raw = sqlx::SqliteConnection::connect(&self.place.url).await.unwrap();
        let count = sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap();
        raw.close().await.unwrap();
        count
    }

    /// The database, while the server is stopped.
    pub async fn store(&self) -> store::Store {
        store::Store::open(&store::Settings::new(self.place.url.as_str())).await.unwrap()
    }

    /// Starts the server; `client` is what the operator trusts.
    pub async fn start(&self, config: &Config, client: &Trust) -> Server {
        self.start_with(config, |_| client.clone()).await
    }

    /// The same; `client` makes it from the anchors of the server.
    pub async fn start_with(&self, config: &Config, client: impl FnOnce(&[Certificate]) -> Trust) -> Server {
        let app = App::open(config).await.unwrap();
        let token = app.make_token(&Random::System.uuid_v4().to_string(), &[api::Scope::Admin], 1).await.unwrap();
        let running = app.start().await.unwrap();
        let operator =
            Operator::new(&client(&running.anchors), &format!("https://localhost:{}", running.operator.port()), &token)
                .unwrap();
        let url = config.public_url.to_string();
        let health = format!("http://{}", running.health);
        let server = Server { operator, url, health, running };
        if server.operator.all("/api/v1/push-certs").await.unwrap().is_empty() {
            pilot::upload_push_certificate(&server.operator, &self.authority).await.unwrap();
        }
        server
    }
}

/// A path as a TOML string.
pub fn toml(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

impl Server {
    /// `GET /api/v1/trust`.
    pub async fn trust(&self) -> Value {
        self.operator.get("/api/v1/trust").await.unwrap()
    }

    /// The codes of the findings.
    pub async fn codes(&self) -> Vec<String> {
        let trust = self.trust().await;
        trust["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect()
    }

    /// The codes of what is wrong.
    pub async fn errors(&self) -> Vec<String> {
        self.codes().await.into_iter().filter(|code| code.starts_with('E')).collect()
    }

    /// How many devices hold the next anchors, of how many.
    pub async fn holders(&self) -> (i64, i64) {
        let devices = &self.trust().await["devices"];
        (devices["hold_next_anchors"].as_i64().unwrap(), devices["live"].as_i64().unwrap())
    }

    /// GET of the device listener.
    pub async fn get(&self, trust: &Trust, path: &str) -> Answer {
        let url = format!("{}{path}", self.url);
        Client::new(trust, None).unwrap().send(Method::GET, &url, &[], Vec::new()).await.unwrap()
    }

    /// Whether somebody who trusts only this CA can connect.
    pub async fn is_trusted_by(&self, ca: &Ca) -> bool {
        let url = format!("{}enroll/style.css", self.url);
        Client::new(&ca.trust(), None).unwrap().send(Method::GET, &url, &[], Vec::new()).await.is_ok()
    }

    /// A new link for one device.
    pub async fn link(&self) -> String {
        self.operator.link(&json!({ "max_uses": 1 })).await.unwrap()
    }

    /// An iPhone that trusts this and enrolls.
    pub async fn enroll(&self, trust: &Trust) -> Device {
        let hardware = simulator::hardware::find("iPhone17,2").unwrap();
        let record = Record::new(hardware, "18.1", "22B83", &Random::System.uuid_v4().to_string()).unwrap();
        let mut device = Device::new(record, trust.clone(), Behaviour::default()).unwrap();
        device.enroll(&self.link().await).await.unwrap();
        device
    }

    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    panic!("{what}: not within 30 s");
}
