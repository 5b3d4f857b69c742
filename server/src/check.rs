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

const DAY: Duration = Duration::from_secs(24 * 3600);

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
    findings.extend(tls_chain(config, now));
    findings.extend(certificate_file("profile signing", config.profile_signing.certificate_file.as_deref(), now));
    findings.extend(certificate_file("external CA", config.identity.external_ca_file.as_deref(), now));
    findings.extend(database(config, now).await);
    findings.push(apns(config).await);
    findings
}

/// A certificate's end, as a finding.
fn expiry(about: &'static str, what: &str, not_after: Timestamp, now: Timestamp, remedy: &str) -> Finding {
    let text = format!("{what} is valid until {not_after}");
    if not_after <= now {
        wrong(about, format!("{what} ended on {not_after}; {remedy}"))
    } else if not_after.since(now) < 30 * DAY {
        warning(about, format!("{text}, in {} days; {remedy}", not_after.since(now).as_secs() / 86_400))
    } else {
        good(about, text)
    }
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

fn tls_chain(config: &Config, now: Timestamp) -> Vec<Finding> {
    const ABOUT: &str = "TLS certificate";
    if config.tls.off {
        let proxies = &config.proxy.trusted_peers;
        return vec![if proxies.is_empty() {
            warning(
                ABOUT,
                "tls.off: a proxy must end TLS in front, and proxy.trusted_peers names none; identities come by Mdm-Signature only",
            )
        } else {
            good(
                ABOUT,
                format!(
                    "ended by the proxy at {}",
                    proxies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ),
            )
        }];
    }
    let Some((certificate, key)) = config.tls.certificate_file.as_deref().zip(config.tls.key_file.as_deref()) else {
        return vec![warning(
            ABOUT,
            "none is configured: the server makes one from its own CA, which devices trust only after the CA is installed by hand; good for a trial only. Set tls.certificate_file and tls.key_file",
        )];
    };
    match tls::files(certificate, key) {
        Err(e) => vec![wrong(ABOUT, format!("{e:#}"))],
        Ok(identity) => {
            let mut findings =
                vec![match tls::verify(&identity.chain, &config.public_url, config.tls.anchors_file.as_deref(), now) {
                    Ok(()) => good(
                        ABOUT,
                        format!(
                            "{} leads to a trusted root and names the host of {}",
                            certificate.display(),
                            config.public_url
                        ),
                    ),
                    Err(e) => wrong(ABOUT, format!("{e:#}")),
                }];
            for der in &identity.chain {
                if let Ok(c) = Certificate::from_der(der) {
                    findings.push(expiry(
                        ABOUT,
                        &c.subject(),
                        c.not_after(),
                        now,
                        "renew it; the server takes the new file without a restart",
                    ));
                }
            }
            findings
        }
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
    let url = match config.store_url() {
        Ok(url) => url,
        Err(e) => return vec![wrong(ABOUT, format!("{e:#}"))],
    };
    let store = match Store::open_existing(&store::Settings::new(url)).await {
        Ok(Some(store)) => store,
        Ok(None) => return vec![good(ABOUT, "there is none yet; the first start makes it")],
        Err(store::Error::Refused(why)) if why.contains("another server") => {
            return vec![warning(ABOUT, "a server is running on it; stop it to let its certificates be checked here")];
        }
        Err(e) => return vec![wrong(ABOUT, format!("{e}"))],
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
    for name in ["identity-ca", "scep-ra", "profile-signer"] {
        if let Some(row) = store::keys::get(&mut tx, name).await? {
            findings.push(expiry("CA", name, Timestamp(row.not_after), now, "see docs/operations.md, \"Keys\""));
        }
    }
    let certs = store::push::certs(&mut tx).await?;
    if certs.is_empty() {
        findings.push(warning("push certificate", "there is none: devices cannot be woken. Get one from Apple's push portal and upload it: PUT /api/v1/push-certs"));
    }
    for cert in certs {
        findings.push(expiry(
            "push certificate",
            &cert.topic,
            Timestamp(cert.not_after),
            now,
            "renew the same certificate in Apple's push portal: another one has another topic and loses every device",
        ));
    }
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
