//! `assay pilot`: the whole way on one machine, with nothing to prepare.
//!
//! The real server (TLS, SQLite, its own CA, generated keys) runs in this process on loopback. First, devices come in by every
//! door: link, Automated Device Enrollment, account-driven user and device enrollment; each gets the MDM identity that its
//! silicon allows, and two are renewed. Then a fleet enrolls by one-time links; an ACME policy is assigned through the REST API; a
//! stand-in of APNs takes the server's pushes, and a device acts only once such a push has reached it. Each device runs ACME with
//! `device-attest-01` against a test authority, which asks the server by its webhooks; the server looks for the certificate on the
//! device and calls it verified. Two certificates are short-lived and renewed. A second policy, of an authority as strict as
//! step-ca, goes out in rings; the first ring fails, the rollout pauses by itself, and is resumed. The command succeeds only if
//! every outcome is the one that Apple's pages demand, written by hand in the fleet, and if the REST API tells the same story as
//! the devices.

mod authorities;
mod board;
mod doors;
mod drive;
mod judge;
mod operator;
mod rings;
mod services;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use serde_json::json;
use simulator::apns::{self, ApnsStandIn};
use simulator::authority::{Authority, topic};
use simulator::fleet;
use simulator::http::Trust;

use crate::app::{App, Running};
use crate::config::Config;
use board::Board;
use doors::Doors;
use drive::Fleet;
use judge::Watched;
pub use operator::Operator;
use rings::Rings;
use services::Services;

use crate::cli::client::Client;
use crate::cli::report::Report;

/// The name of the policy for everybody.
const POLICY: &str = "pilot";
/// The devices whose first certificate of that policy is short-lived.
const SHORT_LIVED: [(&str, &str); 2] = [("iPhone17,2", "26.1"), ("Mac17,5", "26.4")];
/// How long that one is valid before and after it is issued, seconds: it is to be renewed as soon as it is there.
const LIFE: (i64, i64) = (280, 90);

/// Arguments of `assay pilot`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Leave the server running afterwards and print its URLs and an API token.
    #[arg(long)]
    pub keep: bool,
    /// Folder for the database and the keys. Default: a new one under the system's temporary folder, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// An empty PostgreSQL database in place of SQLite.
    #[arg(long)]
    pub database: Option<String>,
    /// Write the report as an HTML page with charts into this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Seconds until devices that are not done count as failed.
    #[arg(long, default_value_t = 180)]
    pub patience: u64,
    /// Log filter of the server, such as `info`.
    #[arg(long, default_value = "error")]
    pub log: String,
}

impl Default for Args {
    fn default() -> Self {
        Self { keep: false, dir: None, database: None, html: None, patience: 180, log: "error".to_owned() }
    }
}

/// Runs the pilot. Success only where every outcome is right.
pub async fn run(args: Args) -> Result<ExitCode> {
    let folder = Folder::new(args.dir.as_deref())?;
    let addresses = free_addresses()?;
    let services = Services::start(addresses.device).await?;
    let store = args.database.as_ref().map(|url| format!("[store]\nurl = {url:?}\n")).unwrap_or_default();
    let text = config_text(folder.path(), &args.log, addresses) + &store + &services.config(folder.path())?;
    let config = Config::parse(&text)?;
    // An error means that this process logs already: a test runs several pilots.
    let _ = crate::telemetry::start_log(&config.log);

    let app = App::open(&config).await?;
    let token = app.make_token("pilot", &[api::Scope::Admin], 1).await?;
    let server = app.start().await?;
    let trust = trust(&server)?;
    let operator = Operator::new(&trust, &format!("https://localhost:{}", server.operator.port()), &token)?;
    let board = Board::new();
    let database = if args.database.is_some() { "PostgreSQL" } else { "SQLite" };
    board.say(&format!("server: {}, {database}, keys in {}", config.public_url, folder.path().display()));
    let patience = Duration::from_secs(args.patience);

    upload_push_certificate(&operator, &services.authority).await?;
    board.say("devices come in by every door");
    let public_url = config.public_url.as_str().trim_end_matches('/');
    let doors = Doors { operator: &operator, services: &services, trust: &trust, public_url, patience };
    let identities_good = doors.run().await?;

    let fleet = Fleet::enroll(fleet::fleet(), &operator, &services, &trust, &board).await?;
    let waker = fleet.wake_by(Arc::clone(&services.apns));
    authorities::set_up(&operator, &services, &trust).await.context("setting up the certificate authorities")?;
    let renewed = short_lived(&fleet, &services)?;
    board.say(&format!("{} devices are enrolled; assigning the policy «{POLICY}» to all", fleet.devices()));
    authorities::policy_for_everybody(&operator, POLICY, drive::LABEL).await?;

    let directory = services.office.directory_url();
    let watched =
        Watched { operator: &operator, fleet: &fleet, policy: POLICY, directory: &directory, renewed: &renewed };
    let verdicts = judge::watch(&watched, &board, patience).await?;
    let rings = Rings { operator: &operator, services: &services, fleet: &fleet, board: &board, patience };
    let rings_good = rings.run().await.context("the rings of a rollout")?;
    waker.abort();
    let certificates_good = board.finish(&verdicts, services.apns.accepted());
    let renewals = judge::renewals(&operator, POLICY).await?;
    println!("{renewals} certificates were renewed before their end.");
    let report_good = report(&server, &token, args.html.as_deref()).await.context("the report")?;
    let good = identities_good && certificates_good && renewals == renewed.len() && rings_good && report_good;

    if args.keep {
        keep(&config, &server, &token, folder.path()).await?;
    }
    server.stop().await;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The data folder; one of our own making goes when the pilot ends.
pub(crate) enum Folder {
    Given(PathBuf),
    Made(tempfile::TempDir),
}

impl Folder {
    pub(crate) fn new(given: Option<&Path>) -> Result<Self> {
        match given {
            Some(path) => {
                if path.join("assay.db").exists() {
                    bail!("{} holds a database already: give an empty folder", path.display());
                }
                std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
                Ok(Self::Given(path.to_owned()))
            }
            None => Ok(Self::Made(tempfile::Builder::new().prefix("assay-").tempdir()?)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Made(folder) => folder.path(),
        }
    }
}

/// Starts a stand-in of APNs: TLS of the rehearsal authority, client certificates of the same.
pub async fn start_stand_in(authority: &Authority) -> Result<ApnsStandIn> {
    let server = authority.server()?;
    ApnsStandIn::start(apns::Settings::new(server.certificate, server.key, authority.pem()?)).await
}

/// The `[push]` section that leads to the stand-in.
pub fn push_section(folder: &Path, stand_in: &ApnsStandIn, authority: &Authority) -> Result<String> {
    let ca_file = folder.join("apns-ca.pem");
    std::fs::write(&ca_file, authority.pem()?)?;
    let port = stand_in.addr().port();
    Ok(format!(
        "[push]\nclient = \"direct\"\nurl = \"https://localhost:{port}\"\nca_file = {:?}\n",
        ca_file.display().to_string()
    ))
}

/// A configuration on free ports of loopback with the sections `more` in it, and its text.
pub fn loopback(folder: &Path, filter: &str, more: &str) -> Result<(Config, String)> {
    let text = config_text(folder, filter, free_addresses()?) + more;
    Ok((Config::parse(&text)?, text))
}

/// Where the three listeners are.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    device: SocketAddr,
    operator: SocketAddr,
    health: SocketAddr,
}

/// The part of a rehearsal's configuration that every rehearsal has. Limits per address are high, because all devices share
/// one.
fn config_text(folder: &Path, filter: &str, addresses: Addresses) -> String {
    let Addresses { device, operator, health } = addresses;
    format!(
        "public_url = \"https://localhost:{}\"\n\
         data_dir = {:?}\n\
         organization = \"Pilot\"\n\
         [listen]\n\
         device = \"{device}\"\n\
         operator = \"{operator}\"\n\
         health = \"{health}\"\n\
         max_connections_per_ip = 20000\n\
         [limits]\n\
         enroll_per_ip_per_minute = 1000000\n\
         scep_per_ip_per_minute = 1000000\n\
         scep_per_minute = 1000000\n\
         [log]\n\
         filter = {filter:?}\n",
        device.port(),
        folder.display().to_string()
    )
}

/// Three addresses whose ports are free at this moment. All are bound before any is let go, so that they differ.
fn free_addresses() -> Result<Addresses> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (device, operator, health) = (bind()?, bind()?, bind()?);
    Ok(Addresses { device: device.local_addr()?, operator: operator.local_addr()?, health: health.local_addr()? })
}

/// What the devices and the operator trust: the server's own CA.
pub fn trust(server: &Running) -> Result<Trust> {
    let mut trust = Trust::public();
    for anchor in &server.anchors {
        trust = trust.with_der(anchor.der().to_vec());
    }
    Ok(trust)
}

/// Uploads a push certificate of the rehearsal authority, without which no enrollment profile can be made.
pub async fn upload_push_certificate(operator: &Operator, authority: &Authority) -> Result<()> {
    let pair = authority.push(&topic()?)?;
    let pem = format!("{}{}", pair.certificate, pair.key);
    operator.put("/api/v1/push-certs", &json!({ "pem": pem })).await.context("uploading the push certificate")?;
    Ok(())
}

/// Makes the first certificates of some devices short-lived; gives their lines.
fn short_lived(fleet: &Fleet, services: &Services) -> Result<Vec<usize>> {
    let of = |wanted: (&'static str, &'static str)| {
        let found = fleet.lines.iter().enumerate().find(|(_, line)| line.product == wanted && line.user.is_none());
        let (number, line) = found.with_context(|| format!("the fleet has no {wanted:?}"))?;
        services.office.short_lived(&line.serial_number, LIFE.0, LIFE.1);
        Ok(number)
    };
    SHORT_LIVED.into_iter().map(of).collect()
}

/// Prints the report as `assay report` does, and writes the page; true where both speak of every policy.
async fn report(server: &Running, token: &str, html: Option<&Path>) -> Result<bool> {
    let url = url::Url::parse(&format!("https://localhost:{}", server.operator.port()))?;
    let anchors = server.anchors.iter().map(|anchor| anchor.der().to_vec()).collect();
    let report = Report::fetch(&Client::new(&url, token, anchors)?, &[]).await?;
    let (text, page) = (report.text(), report.html());
    println!();
    print!("{text}");
    if let Some(file) = html {
        std::fs::write(file, &page).with_context(|| format!("cannot write {}", file.display()))?;
        println!("The same with charts: {}", file.display());
    }
    let complete = [POLICY, rings::POLICY].iter().all(|name| text.contains(name) && page.contains(name));
    Ok(complete && page.contains("<svg"))
}

async fn keep(config: &Config, server: &Running, token: &str, folder: &Path) -> Result<()> {
    let ca = folder.join("server-ca.pem");
    let pem: String = server.anchors.iter().map(mdm_core::certificate::Certificate::to_pem).collect();
    std::fs::write(&ca, pem)?;
    println!();
    println!("The server keeps running. End it with Ctrl-C.");
    println!("  devices    {}", config.public_url);
    println!("  REST API   https://localhost:{}/api/v1", server.operator.port());
    println!("  health     http://{}/readyz", server.health);
    println!("  CA         {}", ca.display());
    println!("  API token  {token}");
    println!(
        "  try        curl --cacert {} -H 'Authorization: Bearer {token}' https://localhost:{}/api/v1/enrollments",
        ca.display(),
        server.operator.port()
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// How long something took, for people.
pub(crate) fn took(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
