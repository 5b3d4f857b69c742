//! `assay simulate --load`: how much the server bears, beside what the machine could do at all.
//!
//! Without `--link` it starts a server of its own as another process (`assay serve`, SQLite or the database of
//! `--database`), so that its CPU time and memory can be read apart from the client's.

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use simulator::authority::Authority;
use simulator::http::{Client, Trust};
use simulator::load::{self, Figures, Prepared, Settings};

use crate::app::App;
use crate::config::Config;
use crate::pilot::{Folder, Operator, loopback, push_section, start_stand_in, took, upload_push_certificate};

/// The label of all devices under load.
const LABEL: &str = "load";
/// Reports per session of *drain*: three DeviceInformation, two InstallProfile of 6 KB.
const COMMANDS: usize = 5;

/// Arguments of `assay simulate --load`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// With --load: keep-alive connections; several with commas, one run each.
    #[arg(long, value_delimiter = ',', default_value = "8,64,1000")]
    clients: Vec<usize>,
    /// With --load: longest time of one run in seconds.
    #[arg(long, default_value_t = 10)]
    time: u64,
    /// With --load: TLS between client and server, which the figures of other servers do not have.
    #[arg(long)]
    tls: bool,
    /// With --load and --link: process id of the server on this machine, to read its CPU time.
    #[arg(long)]
    server_pid: Option<u32>,
    /// With --load and --link: allow a server that is not on this machine.
    #[arg(long)]
    remote: bool,
    /// With --load, without --link: an empty PostgreSQL database for the server, in place of SQLite.
    #[arg(long)]
    database: Option<String>,
    /// With --load: print the figures as JSON lines too.
    #[arg(long)]
    json: bool,
}

/// Runs the scenarios; success where no request failed.
pub(super) async fn run(args: Args, link: Option<String>, devices: usize, trust: Trust) -> Result<ExitCode> {
    let mut bench =
        Bench { args, devices, figures: Vec::new(), limits: tokio::task::spawn_blocking(load::limits).await?? };
    println!(
        "this machine, one core: {:.0} RSA-2048 signature checks/s, {:.0} signatures/s",
        bench.limits.verify, bench.limits.sign
    );
    match link {
        Some(link) => bench.foreign(&link, trust).await?,
        None => bench.own().await?,
    }
    let errors: usize = bench.figures.iter().map(|figures| figures.errors).sum();
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Bench {
    args: Args,
    devices: usize,
    figures: Vec<Figures>,
    limits: load::Limits,
}

impl Bench {
    fn settings(&self, trust: Trust, server: Option<u32>) -> Settings {
        Settings {
            clients: 8,
            time: Duration::from_secs(self.args.time.clamp(1, 300)),
            remote: self.args.remote,
            plain: false,
            trust,
            server,
        }
    }

    /// Against a server that runs already: enroll and idle, for want of its REST API.
    async fn foreign(&mut self, link: &str, trust: Trust) -> Result<()> {
        let settings = self.settings(trust, self.args.server_pid);
        let links = vec![link.to_owned(); self.devices];
        let prepared = Arc::new(prepare(&links, &settings).await?);
        self.show(load::enroll(&prepared, &settings).await);
        self.idle(&prepared, &settings).await;
        Ok(())
    }

    /// Against a server of our own.
    async fn own(&mut self) -> Result<()> {
        let folder = Folder::new(None)?;
        let authority = Authority::new("Rehearsal authority")?;
        let stand_in = start_stand_in(&authority).await?;
        let tls =
            if self.args.tls { server_certificate(folder.path(), &authority)? } else { "off = true\n".to_owned() };
        let store = self.args.database.as_ref().map(|url| format!("[store]\nurl = {url:?}\n")).unwrap_or_default();
        let more = format!("[tls]\n{tls}{store}{}", push_section(folder.path(), &stand_in, &authority)?);
        let (config, text) = loopback(folder.path(), "error", &more)?;
        let path = folder.path().join("assay.toml");
        std::fs::write(&path, text)?;
        let token = self.measure_commits(&config).await?;

        let server = Server::start(&path, &config).await?;
        let trust = Trust::public().with_pem(authority.pem()?.as_bytes())?;
        let scheme = if self.args.tls { "https" } else { "http" };
        let operator =
            Operator::new(&trust, &format!("{scheme}://localhost:{}", config.listen.operator.port()), &token)?;
        upload_push_certificate(&operator, &authority).await?;
        let link = operator.link(&json!({ "label": LABEL, "max_uses": self.devices, "note": "load" })).await?;
        let link = if self.args.tls { link } else { link.replacen("https://", "http://", 1) };
        let settings = Settings { plain: !self.args.tls, ..self.settings(trust, Some(server.id())) };

        let mut prepared = prepare(&vec![link; self.devices], &settings).await?;
        let commands = commands(&mut prepared, self.args.clients.len()).await?;
        let prepared = Arc::new(prepared);
        self.show(load::enroll(&prepared, &settings).await);
        self.idle(&prepared, &settings).await;
        for (clients, set) in self.args.clients.clone().into_iter().zip(&commands) {
            enqueue(&operator, set, self.devices).await?;
            self.show(load::drain(&prepared, &Settings { clients, ..settings.clone() }).await);
        }
        if let Some(kib) = load::resident_memory(server.id()) {
            println!(
                "server memory: {:.0} MiB with {} enrollments",
                f64::from(u32::try_from(kib)?) / 1024.0,
                self.devices
            );
        }
        Ok(())
    }

    async fn idle(&mut self, prepared: &Arc<Vec<Prepared>>, settings: &Settings) {
        for clients in self.args.clients.clone() {
            let figures = load::idle(prepared, &Settings { clients, ..settings.clone() }).await;
            self.show(figures);
        }
    }

    fn show(&mut self, figures: Figures) {
        println!("{figures}   {:.1} % of one core's signature checks", figures.rate() / self.limits.verify * 100.0);
        if self.args.json
            && let Ok(line) = serde_json::to_string(&figures)
        {
            println!("{line}");
        }
        self.figures.push(figures);
    }

    /// Makes a token, and measures how many transactions with one event each the database commits, one by one.
    async fn measure_commits(&self, config: &Config) -> Result<String> {
        let app = App::open(config).await?;
        let token = app.make_token("load", &[api::Scope::Admin], 1).await?;
        let start = Instant::now();
        let mut commits = 0_u32;
        while start.elapsed() < Duration::from_secs(1) {
            let mut tx = app.store.begin().await?;
            let event = store::events::NewEvent {
                at: app.clock.now(),
                kind: "load.commit",
                enrollment: None,
                command: None,
                actor: "server",
                summary: "One commit of the load test.",
                data: &json!({}),
            };
            store::events::record(&mut tx, &event).await?;
            tx.commit().await?;
            commits += 1;
        }
        println!("this database, one writer: {:.0} commits/s", f64::from(commits) / start.elapsed().as_secs_f64());
        app.store.close().await;
        Ok(token)
    }
}

/// The keys of `[tls]` for a certificate of the rehearsal authority.
fn server_certificate(folder: &Path, authority: &Authority) -> Result<String> {
    let pair = authority.server()?;
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&certificate, pair.certificate)?;
    std::fs::write(&key, pair.key)?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    Ok(format!("certificate_file = {certificate:?}\nkey_file = {key:?}\n"))
}

async fn prepare(links: &[String], settings: &Settings) -> Result<Vec<Prepared>> {
    let start = Instant::now();
    println!("making {} identities by SCEP and signing their requests", links.len());
    let run = format!("load-{}", std::process::id());
    let prepared = load::prepare(links, &run, settings, || {}).await?;
    println!("prepared in {}", took(start));
    Ok(prepared)
}

/// Commands with known ids, one set for each run of *drain*; every device signs its reports to all of them.
async fn commands(prepared: &mut [Prepared], runs: usize) -> Result<Vec<Vec<Vec<u8>>>> {
    let sets: Vec<Vec<Vec<u8>>> =
        (0..runs).map(|set| (0..COMMANDS).map(|number| command(set, number)).collect()).collect();
    for device in prepared {
        for command in sets.iter().flatten() {
            device.expect(command).await?;
        }
    }
    Ok(sets)
}

fn command(set: usize, number: usize) -> Vec<u8> {
    let keys = if number.is_multiple_of(2) {
        "<key>Queries</key><array><string>ProductName</string><string>OSVersion</string>\
         <string>BuildVersion</string></array><key>RequestType</key><string>DeviceInformation</string>"
            .to_owned()
    } else {
        let padding = "a profile of the size that customers send. ".repeat(125);
        let uuid = |last: usize| format!("00000000-0000-4000-8000-{set:04}{number:04}{last:04}");
        let profile = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict>\
             <key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key><integer>1</integer>\
             <key>PayloadIdentifier</key><string>com.example.load.{number}</string>\
             <key>PayloadUUID</key><string>{}</string><key>PayloadDescription</key><string>{padding}</string>\
             <key>PayloadContent</key><array/></dict></plist>",
            uuid(1)
        );
        format!(
            "<key>Payload</key><data>{}</data><key>RequestType</key><string>InstallProfile</string>",
            STANDARD.encode(profile)
        )
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\"><dict><key>Command</key><dict>{keys}</dict>\
         <key>CommandUUID</key><string>load-{set}-{number}</string></dict></plist>\n"
    )
    .into_bytes()
}

async fn enqueue(operator: &Operator, set: &[Vec<u8>], devices: usize) -> Result<()> {
    let start = Instant::now();
    for command in set {
        operator.enqueue_plist(LABEL, command.clone()).await?;
    }
    let rows = f64::from(u32::try_from(devices * set.len())?);
    println!(
        "enqueue {} commands for {devices} devices: {:.0} rows/s",
        set.len(),
        rows / start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// `assay serve` as a child process; it ends with us.
struct Server(Child);

impl Server {
    async fn start(config_file: &Path, config: &Config) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own file is unknown")?;
        let child = Command::new(program)
            .args(["serve", "--config"])
            .arg(config_file)
            .stdin(Stdio::null())
            .spawn()
            .context("the server cannot be started")?;
        let server = Self(child);
        let health = format!("http://{}/readyz", config.listen.health);
        let client = Client::new(&Trust::public(), None)?;
        for _ in 0..200 {
            if client.get(&health).await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the server did not get ready in 10 seconds")
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
