//! `assay check`: what is wrong with a set-up, in plain words, and what to do about it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mdm_core::certificate::Certificate;
use mdm_core::time::{Clock, Timestamp};
use store::Store;

use crate::config::{Config, PushClient};
use crate::tls;
use crate::trust::ends::{self, End, NOTICE};
use crate::trust::facts::Seen;
use crate::trust::{self, Facts, Setup};

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Good,
    Warning,
    Wrong,
}

/// One line of the report.
#[derive(Debug)]
struct Finding {
    level: Level,
    about: &'static str,
    text: String,
}

fn good(about: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Good, about, text: text.into() }
}

fn warning(about: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, about, text: text.into() }
}

fn wrong(about: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Wrong, about, text: text.into() }
}

/// Checks everything and prints a line for each finding; fails if something is wrong. Changes nothing.
pub async fn run(config: &Path) -> ExitCode {
    let findings = match Config::load(config) {
        Ok(config) => all(&config, Clock::System.now()).await,
        Err(e) => vec![wrong("configuration", format!("{e:#}"))],
    };
    for finding in &findings {
        let mark = match finding.level {
            Level::Good => "ok     ",
            Level::Warning => "warning",
            Level::Wrong => "WRONG  ",
        };
        println!("{mark}  {:<16} {}", finding.about, finding.text);
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    println!("{} wrong, {} warnings", count(Level::Wrong), count(Level::Warning));
    if count(Level::Wrong) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn all(config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![good("configuration", format!("devices will use {}", config.public_url))];
    findings.push(clock(now));
    findings.extend(certificate_file("profile signing", config.profile_signing.certificate_file.as_deref(), now));
    for (name, files) in &config.profile_signing.identities {
        findings.extend(certificate_file("profile signing", Some(&files.certificate_file), now));
        if let Err(e) = tls::files(&files.certificate_file, &files.key_file) {
            findings.push(wrong("profile signing", format!("profile_signing.identities.{name}: {e:#}")));
        }
    }
    // That its end is near is told by W4.
    let external = certificate_file("external CA", config.identity.external_ca_file.as_deref(), now);
    findings.extend(external.into_iter().filter(|finding| finding.level != Level::Warning));
    findings.extend(database(config, now).await);
    findings.push(apns(config).await);
    findings.extend(sign_in(config, now).await);
    findings
}

/// Whether the OpenID Connect provider answers as one; nothing where none is configured.
async fn sign_in(config: &Config, now: Timestamp) -> Option<Finding> {
    const ABOUT: &str = "sign-in";
    match config.sign_in.provider() {
        Ok(None) => None,
        Ok(Some(provider)) => Some(match provider.examine(now).await {
            Ok(()) => good(
                ABOUT,
                format!(
                    "{} answers; its redirect URI must be {}",
                    provider.issuer(),
                    config.sign_in_settings().redirect_url()
                ),
            ),
            Err(e) => warning(ABOUT, format!("nobody can sign in: {e}")),
        }),
        Err(e) => Some(wrong(ABOUT, format!("{e:#}"))),
    }
}

/// A certificate's end, as a finding.
fn expiry(about: &'static str, what: &str, not_after: Timestamp, now: Timestamp, remedy: &str) -> Finding {
    match ends::of(not_after, now, NOTICE) {
        End::Over => wrong(about, format!("{what} ended on {not_after}; {remedy}")),
        End::Soon { days, .. } => {
            warning(about, format!("{what} is valid until {not_after}, {}; {remedy}", ends::in_days(days)))
        }
        End::Far => good(about, format!("{what} is valid until {not_after}")),
    }
}

/// How devices trust this server: what `trust::examine` says, and what it has nothing to say against.
async fn trusted(config: &Config, tx: Option<&mut store::Tx>, now: Timestamp) -> Result<Vec<Finding>> {
    const ABOUT: &str = "TLS certificate";
    let mut setup = match Setup::read(config) {
        Ok(setup) => setup,
        Err(e) => return Ok(vec![wrong("trust", format!("{e:#}"))]),
    };
    let mut findings = vec![good("trust", about(config, &setup))];
    let (mut chain, mut trouble) = (Vec::new(), None);
    let mut look = setup.probe;
    let facts = if config.tls.is_made_here() {
        findings.push(warning(
            ABOUT,
            "none is configured: the server makes one from its own CA, which devices trust only after the CA is installed by hand; good for a trial only. Set tls.certificate_file and tls.key_file",
        ));
        // What is in the database is what a running server shows; without it there is nothing to compare with.
        look &= tx.is_some();
        match tx {
            Some(tx) => {
                for name in ["server-tls", "server-tls-ca"] {
                    if let Some(row) = store::keys::get(tx, name).await? {
                        chain.push(Certificate::from_der(&row.certificate)?);
                    }
                }
                setup.anchors.extend(chain.last().cloned());
                setup.facts(tx, chain, Seen::NotLooked).await?
            }
            None => setup.facts_at_hand(chain, Seen::NotLooked),
        }
    } else {
        if let Some((certificate, key)) = config.tls.certificate_file.as_deref().zip(config.tls.key_file.as_deref()) {
            match tls::files(certificate, key).and_then(|identity| identity.certificates()) {
                Ok(certificates) => chain = certificates,
                Err(e) => trouble = Some(format!("{e:#}")),
            }
        } else if config.proxy.trusted_peers.is_empty() {
            findings.push(warning(
                ABOUT,
                "tls.off: a proxy must end TLS in front, and proxy.trusted_peers names none; identities come by Mdm-Signature only",
            ));
        } else {
            let proxies: Vec<String> = config.proxy.trusted_peers.iter().map(ToString::to_string).collect();
            findings.push(good(ABOUT, format!("ended by the proxy at {}", proxies.join(", "))));
        }
        match tx {
            Some(tx) => setup.facts(tx, chain, Seen::NotLooked).await?,
            None => setup.facts_at_hand(chain, Seen::NotLooked),
        }
    };
    let seen = if look { setup.look().await } else { Seen::NotLooked };
    let facts = Facts { files_trouble: trouble, seen, ..facts };
    let judged = trust::examine(&facts, now);
    if let Some(leaf) = facts.shown().first()
        && !judged.iter().any(|finding| finding.about == ABOUT)
    {
        findings.push(good(
            ABOUT,
            format!("{} is right for {} and valid until {}", leaf.subject(), config.public_url, leaf.not_after()),
        ));
    }
    for finding in judged {
        let level = if finding.code.is_error() { Level::Wrong } else { Level::Warning };
        findings.push(Finding { level, about: finding.about, text: finding.to_string() });
    }
    Ok(findings)
}

/// What `[trust]` comes to, in words.
fn about(config: &Config, setup: &Setup) -> String {
    let pins = if setup.pinned { "profiles pin its CA" } else { "profiles pin nothing" };
    format!(
        "the certificate is of kind \"{}\", devices verify \"{}\", {pins}",
        setup.kind.as_str(),
        config.trust.verification(&config.tls).as_str()
    )
}

fn clock(now: Timestamp) -> Finding {
    const RELEASED: &str = "2026-11-01T00:00:00Z";
    match Timestamp::from_rfc3339(RELEASED) {
        Some(released) if now < released => wrong(
            "clock",
            format!(
                "this machine says {now}, which is before this program was made: set the clock (NTP), or certificates will be refused"
            ),
        ),
        _ => good("clock", format!("{now}")),
    }
}

fn certificate_file(about: &'static str, file: Option<&Path>, now: Timestamp) -> Vec<Finding> {
    let Some(file) = file else { return Vec::new() };
    let read = || -> Result<Vec<Certificate>> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        mdm_core::certificate::pem_chain(&text).map_err(|e| anyhow!("{}: {e}", file.display()))
    };
    match read() {
        Err(e) => vec![wrong(about, format!("{e:#}"))],
        Ok(chain) if chain.is_empty() => vec![wrong(about, format!("{} holds no certificate", file.display()))],
        Ok(chain) => chain
            .iter()
            .map(|c| expiry(about, &c.subject(), c.not_after(), now, "put a new one in its place"))
            .collect(),
    }
}

async fn database(config: &Config, now: Timestamp) -> Vec<Finding> {
    const ABOUT: &str = "database";
    let closed = async |finding: Finding| {
        let mut findings = trusted(config, None, now).await.unwrap_or_else(|e| vec![wrong("trust", format!("{e:#}"))]);
        findings.push(finding);
        findings
    };
    let url = match config.store_url() {
        Ok(url) => url,
        Err(e) => return closed(wrong(ABOUT, format!("{e:#}"))).await,
    };
    let store = match Store::open_existing(&store::Settings::new(url)).await {
        Ok(Some(store)) => store,
        Ok(None) => return closed(good(ABOUT, "there is none yet; the first start makes it")).await,
        Err(store::Error::Refused(why)) if why.contains("another server") => {
            let text = "a server is running on it; its /readyz?verbose says what is checked here";
            return closed(warning(ABOUT, text)).await;
        }
        Err(e) => return closed(wrong(ABOUT, format!("{e}"))).await,
    };
    let findings = stored(config, &store, now).await;
    store.close().await;
    findings.unwrap_or_else(|e| vec![wrong(ABOUT, format!("{e:#}"))])
}

async fn stored(config: &Config, store: &Store, now: Timestamp) -> Result<Vec<Finding>> {
    let mut findings = vec![good("database", "answers, and its schema is this program's")];
    findings.push(match crate::seal::check(store, &config.seal_key_file()).await {
        Ok(text) => good("sealing key", text),
        Err(e) => wrong("sealing key", format!("{e:#}")),
    });
    let mut tx = store.read().await?;
    if let Some(theirs) = store::sentinel::database_clock(&mut tx).await? {
        let apart = now.since(theirs).max(theirs.since(now));
        if apart > Duration::from_secs(30) {
            findings.push(wrong(
                "clock",
                format!("the database's clock is {} s away from this machine's: set both by NTP", apart.as_secs()),
            ));
        }
    }
    if store::push::certs(&mut tx).await?.is_empty() {
        findings.push(warning("push certificate", "there is none: devices cannot be woken. Get one from Apple's push portal and upload it: PUT /api/v1/push-certs"));
    }
    findings.extend(ade::warnings(&mut tx, now).await?.into_iter().map(|text| warning("ADE", text)));
    findings.extend(renewal::warnings(&mut tx, now).await?.into_iter().map(|text| warning("identities", text)));
    findings.extend(trusted(config, Some(&mut tx), now).await?);
    Ok(findings)
}

async fn apns(config: &Config) -> Finding {
    let (host, port) = match (&config.push.url, config.push.client) {
        (Some(url), PushClient::Direct) => {
            (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or(443))
        }
        _ => ("api.push.apple.com".to_owned(), 443),
    };
    let connect = tokio::net::TcpStream::connect((host.as_str(), port));
    match tokio::time::timeout(Duration::from_secs(5), connect).await {
        Ok(Ok(_)) => good("APNs", format!("{host}:{port} can be reached")),
        Ok(Err(e)) => warning(
            "APNs",
            format!("{host}:{port} cannot be reached ({e}): devices cannot be woken; let the firewall pass it"),
        ),
        Err(_) => warning(
            "APNs",
            format!("{host}:{port} does not answer within 5 s: devices cannot be woken; let the firewall pass it"),
        ),
    }
}
