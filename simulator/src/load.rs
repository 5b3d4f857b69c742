//! Load: many enrolled devices, few or many keep-alive clients, requests signed beforehand.
//!
//! The three scenarios are those of the peer's measurements: *enroll* (Authenticate and TokenUpdate), *idle* (a poll
//! with an empty queue) and *drain* (one session that empties a queue). Signatures are computed before the clock runs,
//! because a real fleet signs on its own processors. Rates are to be read beside the machine's own [`limits`], measured
//! in the same run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use tokio::task::JoinSet;

use crate::device::{Behaviour, ChannelId, Device, Record, Transport};
use crate::error::{Error, Result};
use crate::hardware;
use crate::http::Trust;
use crate::plist;
use crate::signature::{self, Style};
use crate::wire::{Connection, Target};

const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";
const CONNECT: &str = "application/x-apple-aspen-mdm";
/// Requests in one session before it counts as an error.
const LONGEST_SESSION: usize = 200;
/// RSA keys that the devices share: making one takes a core a tenth of a second, and who has which key is nothing that a
/// server's speed depends on.
const KEYS: usize = 16;

/// How hard to press, and on whom.
#[derive(Clone)]
pub struct Settings {
    /// Keep-alive connections.
    pub clients: usize,
    /// Longest time of one scenario.
    pub time: Duration,
    /// Allow a server that is not on this machine.
    pub remote: bool,
    /// Speak HTTP where the profile says https.
    pub plain: bool,
    /// Certificates for TLS.
    pub trust: Trust,
    /// The server's process on this machine, to read its CPU time.
    pub server: Option<u32>,
}

/// A device with everything signed.
pub struct Prepared {
    device: Device,
    check_in: Target,
    connect: Target,
    enroll: [Vec<u8>; 2],
    idle: Vec<u8>,
    reports: BTreeMap<String, Vec<u8>>,
}

impl Prepared {
    fn request(&self, content_type: &str, body: &[u8]) -> Result<Vec<u8>> {
        let identity = self.device.identity().ok_or_else(|| Error::Protocol("no identity".into()))?;
        let signature = signature::mdm_signature(identity, body, Style::TODAY)?;
        let target = if content_type == CHECK_IN { &self.check_in } else { &self.connect };
        Ok(target.put(content_type, &signature, body))
    }

    /// The device's `UDID`, by which the REST API knows it.
    pub fn udid(&self) -> &str {
        &self.device.record.udid
    }

    /// Signs the report to a command that will be queued, given as the property list that the server will send.
    pub async fn expect(&mut self, command: &[u8]) -> Result<()> {
        let (report, answered) = self.device.answer(ChannelId::DEVICE, &plist::parse(command)?).await?;
        let request = self.request(CONNECT, &report)?;
        self.reports.insert(answered.command_uuid, request);
        Ok(())
    }
}

/// Follows one link per device up to the identity, and signs what will be sent. `progress` is called after each.
pub async fn prepare(
    links: &[String],
    run: &str,
    settings: &Settings,
    progress: impl Fn() + Send + Sync + 'static,
) -> Result<Vec<Prepared>> {
    let tls = Arc::new(settings.trust.tls(None)?);
    let keys = tokio::task::spawn_blocking(|| {
        (0..KEYS).map(|_| Ok(PKey::from_rsa(Rsa::generate(2048)?)?)).collect::<Result<Vec<_>>>()
    });
    let keys = keys.await.map_err(|error| Error::Options(error.to_string()))??;
    let progress = Arc::new(progress);
    let gate = Arc::new(tokio::sync::Semaphore::new(8));
    let mut tasks = JoinSet::new();
    for ((number, link), key) in links.iter().cloned().enumerate().zip(keys.iter().cloned().cycle()) {
        let (settings, tls, progress, gate) = (settings.clone(), tls.clone(), progress.clone(), gate.clone());
        let seed = format!("{run}/{number}");
        tasks.spawn(async move {
            let _turn = gate.acquire().await;
            let done = prepare_one(&link, &seed, key, &settings, &tls).await;
            progress();
            done
        });
    }
    let mut prepared = Vec::with_capacity(links.len());
    while let Some(one) = tasks.join_next().await {
        prepared.push(one.map_err(|error| Error::Options(error.to_string()))??);
    }
    Ok(prepared)
}

async fn prepare_one(
    link: &str,
    seed: &str,
    key: PKey<Private>,
    settings: &Settings,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Prepared> {
    let hardware = hardware::find("iPhone17,2").ok_or_else(|| Error::Options("no hardware".into()))?;
    let record = Record::new(hardware, "18.1", "22B83", seed)?;
    let behaviour = Behaviour { transport: Transport::Signature, plain_http: settings.plain, ..Behaviour::default() };
    let mut device = Device::new(record, settings.trust.clone(), behaviour)?;
    device.ready_key = Some(key);
    device.follow(link).await?;
    let mdm = device.mdm()?;
    let check_in = Target::new(&mdm.check_in_url, tls, settings.remote)?;
    let connect = Target::new(&mdm.server_url, tls, settings.remote)?;
    let bodies = [
        device.authenticate_message()?.document(),
        device.token_update_message(ChannelId::DEVICE)?.document(),
        device.idle_message(ChannelId::DEVICE)?.document(),
    ];
    let mut prepared =
        Prepared { device, check_in, connect, enroll: [vec![], vec![]], idle: vec![], reports: BTreeMap::new() };
    let [authenticate, token_update, idle] = bodies;
    prepared.enroll = [prepared.request(CHECK_IN, &authenticate)?, prepared.request(CHECK_IN, &token_update)?];
    prepared.idle = prepared.request(CONNECT, &idle)?;
    Ok(prepared)
}

/// What one scenario measured.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Figures {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Keep-alive connections.
    pub clients: usize,
    /// Good answers.
    pub requests: usize,
    /// Devices that went through, for *enroll* and *drain*.
    pub devices: usize,
    /// Answers that were not 200, broken connections, and sessions that did not end.
    pub errors: usize,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Median time of a request, milliseconds.
    pub p50: f64,
    /// 99 of 100 requests were faster, milliseconds.
    pub p99: f64,
    /// CPU time of the server's process per request, milliseconds.
    pub server_cpu: Option<f64>,
}

impl Figures {
    /// Good answers per second.
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts of a measurement are far below 2^52")]
        let requests = self.requests as f64;
        requests / self.seconds.max(1e-9)
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<7} {:>5} clients {:>9.0} connects/s   p50 {:>7.2} ms   p99 {:>7.2} ms   {} errors",
            self.scenario,
            self.clients,
            self.rate(),
            self.p50,
            self.p99,
            self.errors
        )?;
        if self.devices > 0 {
            #[expect(clippy::cast_precision_loss, reason = "counts of a measurement are far below 2^52")]
            let devices = self.devices as f64 / self.seconds.max(1e-9);
            write!(f, "   {devices:.0} devices/s")?;
        }
        if let Some(cpu) = self.server_cpu {
            write!(f, "   server CPU {cpu:.3} ms/request")?;
        }
        if let Some(error) = &self.first_error {
            write!(f, "   first error: {error}")?;
        }
        Ok(())
    }
}

/// Which requests a client sends for one device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Enroll,
    Idle,
    Drain,
}

/// Authenticate and TokenUpdate of every device, once.
pub async fn enroll(devices: &Arc<Vec<Prepared>>, settings: &Settings) -> Figures {
    run(Scenario::Enroll, devices, settings).await
}

/// Polls with an empty queue, round and round until the time is over.
pub async fn idle(devices: &Arc<Vec<Prepared>>, settings: &Settings) -> Figures {
    run(Scenario::Idle, devices, settings).await
}

/// One session per device: Idle and as many reports as commands wait.
pub async fn drain(devices: &Arc<Vec<Prepared>>, settings: &Settings) -> Figures {
    run(Scenario::Drain, devices, settings).await
}

#[derive(Default)]
struct Tally {
    times: Vec<u32>,
    devices: usize,
    errors: usize,
    first_error: Option<String>,
}

impl Tally {
    fn wrong(&mut self, what: impl Into<String>) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| what.into());
    }
}

async fn run(scenario: Scenario, devices: &Arc<Vec<Prepared>>, settings: &Settings) -> Figures {
    let next = Arc::new(AtomicUsize::new(0));
    let before = settings.server.and_then(cpu_time);
    let start = Instant::now();
    let end = start + settings.time;
    let mut clients = JoinSet::new();
    for _ in 0..settings.clients {
        let (devices, next) = (Arc::clone(devices), Arc::clone(&next));
        clients.spawn(async move {
            let mut tally = Tally::default();
            let mut connection = None;
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let round = if scenario == Scenario::Idle { turn % devices.len().max(1) } else { turn };
                let Some(device) = devices.get(round) else { return tally };
                if Instant::now() >= end {
                    return tally;
                }
                serve(scenario, device, &mut connection, &mut tally).await;
            }
        });
    }
    let mut tally = Tally::default();
    while let Some(one) = clients.join_next().await {
        match one {
            Ok(one) => {
                tally.times.extend(one.times);
                tally.devices += one.devices;
                tally.errors += one.errors;
                tally.first_error = tally.first_error.or(one.first_error);
            }
            Err(error) => tally.wrong(error.to_string()),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    tally.times.sort_unstable();
    let requests = tally.times.len();
    let at = |part: usize| {
        let index = (requests * part / 100).min(requests.saturating_sub(1));
        f64::from(tally.times.get(index).copied().unwrap_or_default()) / 1000.0
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of a measurement are far below 2^52")]
    let per_request = |spent: Duration| spent.as_secs_f64() * 1000.0 / requests.max(1) as f64;
    let after = settings.server.and_then(cpu_time);
    Figures {
        scenario: match scenario {
            Scenario::Enroll => "enroll",
            Scenario::Idle => "idle",
            Scenario::Drain => "drain",
        },
        clients: settings.clients,
        requests,
        devices: if scenario == Scenario::Idle { 0 } else { tally.devices },
        errors: tally.errors,
        seconds,
        p50: at(50),
        p99: at(99),
        server_cpu: before.zip(after).map(|(before, after)| per_request(after.saturating_sub(before))),
        first_error: tally.first_error,
    }
}

/// All requests of one device; a broken connection is opened anew for the next.
async fn serve(scenario: Scenario, device: &Prepared, slot: &mut Option<Connection>, tally: &mut Tally) {
    let target = if scenario == Scenario::Enroll { &device.check_in } else { &device.connect };
    let connection = match slot {
        Some(connection) => connection,
        None => match target.connect().await {
            Ok(connection) => slot.insert(connection),
            Err(error) => {
                tally.wrong(format!("connect: {error}"));
                tokio::time::sleep(Duration::from_millis(10)).await;
                return;
            }
        },
    };
    let done = match scenario {
        Scenario::Enroll => one_after_the_other(device, connection, tally).await,
        Scenario::Idle | Scenario::Drain => session(device, connection, tally).await,
    };
    match done {
        Ok(()) => tally.devices += 1,
        Err(error) => {
            tally.wrong(error);
            *slot = None;
        }
    }
}

async fn timed(
    connection: &mut Connection,
    request: &[u8],
    tally: &mut Tally,
) -> std::result::Result<Option<String>, String> {
    let start = Instant::now();
    let (status, body) = connection.exchange(request).await.map_err(|error| error.to_string())?;
    let taken = u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX);
    if status != 200 {
        let body = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
        return Err(format!("{status}: {body}"));
    }
    tally.times.push(taken);
    Ok((!body.is_empty()).then(|| command_uuid(body)))
}

async fn one_after_the_other(
    device: &Prepared,
    connection: &mut Connection,
    tally: &mut Tally,
) -> std::result::Result<(), String> {
    for request in &device.enroll {
        timed(connection, request, tally).await?;
    }
    Ok(())
}

async fn session(device: &Prepared, connection: &mut Connection, tally: &mut Tally) -> std::result::Result<(), String> {
    let mut request = &device.idle;
    for _ in 0..LONGEST_SESSION {
        let Some(uuid) = timed(connection, request, tally).await? else { return Ok(()) };
        request = device.reports.get(&uuid).ok_or_else(|| format!("no report is ready for command «{uuid}»"))?;
    }
    Err("the session does not end".into())
}

/// The `CommandUUID` of a command, found without reading the whole property list.
fn command_uuid(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let after = text.rsplit("<key>CommandUUID</key>").next().unwrap_or_default();
    let value = after.split("<string>").nth(1).unwrap_or_default();
    value.split("</string>").next().unwrap_or_default().to_owned()
}

/// User and system time of a process, from `/proc/PID/stat` (proc(5)); ticks are 1/100 s on every Linux that matters.
pub fn cpu_time(process: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

/// Resident memory of a process in KiB, from `/proc/PID/status`.
pub fn resident_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// RSA-2048 SHA-256 operations per second on one core.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Limits {
    /// Signature checks.
    pub verify: f64,
    /// Signatures made.
    pub sign: f64,
}

/// Measures what one core can do with RSA-2048, for a second each.
pub fn limits() -> Result<Limits> {
    let identity = signature::self_signed("limits", 2048, 1)?;
    let message = b"the same short message every time";
    let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &identity.key)?;
    let proof = signer.sign_oneshot_to_vec(message)?;
    let public = identity.key.rsa()?.public_key_to_der_pkcs1()?;
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, &public);
    let verify = per_second(|| key.verify(message, &proof).is_ok());
    let sign = per_second(|| {
        openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &identity.key)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(message))
            .is_ok()
    });
    Ok(Limits { verify, sign })
}

/// How often `work` succeeds in one second.
pub fn per_second(mut work: impl FnMut() -> bool) -> f64 {
    let start = Instant::now();
    let mut done = 0_u32;
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..16 {
            done += u32::from(work());
        }
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_uuid_is_found_in_any_order() {
        let first = b"<dict><key>CommandUUID</key>\n\t<string>abc</string><key>Command</key><dict/></dict>";
        assert_eq!(command_uuid(first), "abc");
        assert_eq!(
            command_uuid(b"<dict><key>Command</key><dict/><key>CommandUUID</key><string>x</string></dict>"),
            "x"
        );
    }

    #[test]
    fn the_process_knows_its_own_cost() {
        assert!(cpu_time(std::process::id()).is_some());
        assert!(resident_memory(std::process::id()).is_some_and(|kib| kib > 100));
    }
}
