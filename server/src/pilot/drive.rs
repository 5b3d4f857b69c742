//! Driving the fleet: each device is a task of its own that sleeps until a push wakes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use simulator::acme::Acme;
use simulator::apns::{Answer, ApnsStandIn};
use simulator::commands::{Answered, Status};
use simulator::device::{Behaviour, ChannelId, Device, Session};
use simulator::fleet::{Expected, Member};
use simulator::hardware::{Attestation, Family};
use simulator::http::Trust;
use simulator::installed::Installed;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::board::{Board, Stage};
use super::operator::Operator;
use super::services::Services;

/// The label of every device of the fleet.
pub(super) const LABEL: &str = "pilot";
/// Devices that enroll at the same time: as many as keep two cores busy with key generation.
const AT_ONCE: usize = 8;
/// How long a device that answered `NotNow` waits until it polls by itself.
const LATER: Duration = Duration::from_millis(400);
/// How often the stand-in is asked for new pushes.
const EVERY: Duration = Duration::from_millis(20);

/// One channel of one device: a line of the table.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// What people read.
    pub(super) label: String,
    /// Class of silicon, for the summary.
    pub(super) silicon: &'static str,
    /// Whether it runs macOS.
    pub(super) mac: bool,
    /// By which the REST API knows it: `udid`, or `enrollment_id`.
    pub(super) device_id: String,
    /// `user_short_name` of a user channel.
    pub(super) user: Option<String>,
    /// `ProductName` and `OSVersion`.
    pub(super) product: (&'static str, &'static str),
    /// The serial number, whether or not the device tells it.
    pub(super) serial_number: String,
    /// What must come out.
    pub(super) expected: Expected,
}

/// A certificate on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// The ACME payload that it came by.
    pub(super) acme: Acme,
    /// SHA-256 of the certificate, hexadecimal.
    pub(super) sha256: String,
    /// The silicon attested its key.
    pub(super) attested: bool,
}

/// What a channel saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// `DirectoryURL` → the certificate that is there now.
    pub(super) held: BTreeMap<String, Held>,
    /// `DirectoryURL` → how many certificates came from there.
    pub(super) came: BTreeMap<String, usize>,
    /// Profiles that failed because the certificate authority gave none.
    pub(super) failed: usize,
    /// What the device itself objects to.
    pub(super) complaints: Vec<String>,
}

impl Seen {
    /// Notes the identities that are there now.
    fn hold(&mut self, identities: &[Installed]) -> Result<()> {
        let mut held = BTreeMap::new();
        for identity in identities {
            let der = identity.identity.certificate.to_der()?;
            let sha256 = mdm_core::ids::Fingerprint::of(&der).to_string();
            let directory = identity.acme.directory_url.clone();
            held.insert(directory, Held { acme: identity.acme.clone(), sha256, attested: identity.attested });
        }
        self.held = held;
        Ok(())
    }
}

type Wake = (Vec<u8>, String);

/// The enrolled fleet.
pub(super) struct Fleet {
    pub(super) lines: Vec<Line>,
    seen: Arc<Mutex<Vec<Seen>>>,
    doors: BTreeMap<String, mpsc::UnboundedSender<Wake>>,
    tasks: JoinSet<()>,
}

/// A device with the lines of its channels.
struct Driven {
    device: Device,
    lines: BTreeMap<ChannelId, usize>,
}

impl Fleet {
    /// Enrolls every member by a link of its own, then leaves each asleep.
    pub(super) async fn enroll(
        members: Vec<Member>,
        operator: &Operator,
        services: &Services,
        trust: &Trust,
        board: &Board,
    ) -> Result<Self> {
        let run = format!("pilot-{}", std::process::id());
        let mut lines = Vec::new();
        let mut tasks = JoinSet::new();
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        for (number, member) in members.into_iter().enumerate() {
            let own: Vec<Line> = lines_of(&member, &run, number)?;
            let first = lines.len();
            board.add(&own);
            lines.extend(own);
            let behaviour = Behaviour { runs_acme: true, ..member.behaviour.clone() };
            let device = services.device(member.record(&run, number)?, trust, behaviour)?;
            let (operator, board, gate, run) = (operator.clone(), board.clone(), Arc::clone(&gate), run.clone());
            tasks.spawn(async move {
                let _turn = gate.acquire().await;
                let label = format!("{} {}", member.product_name, member.os_version);
                enroll_one(device, &member, &run, number, first, &operator, &board)
                    .await
                    .with_context(|| format!("{label} could not enroll"))
            });
        }
        let seen = Arc::new(Mutex::new(vec![Seen::default(); lines.len()]));
        let mut fleet = Self { lines, seen, doors: BTreeMap::new(), tasks: JoinSet::new() };
        while let Some(driven) = tasks.join_next().await {
            fleet.put_to_sleep(driven??, board);
        }
        Ok(fleet)
    }

    /// How many devices there are; user channels are not counted.
    pub(super) fn devices(&self) -> usize {
        self.lines.iter().filter(|line| line.user.is_none()).count()
    }

    /// What the channel of this line saw so far.
    pub(super) fn seen(&self, line: usize) -> Seen {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(line).cloned().unwrap_or_default()
    }

    fn put_to_sleep(&mut self, driven: Driven, board: &Board) {
        let (door, wakes) = mpsc::unbounded_channel();
        for channel in driven.lines.keys() {
            if let Some(token) = driven.device.token(*channel) {
                self.doors.insert(hex_text(token), door.clone());
            }
        }
        self.tasks.spawn(live(driven, wakes, Arc::clone(&self.seen), board.clone()));
    }

    /// Hands each push that the stand-in accepted to the device with its token.
    pub(super) fn wake_by(&self, stand_in: Arc<ApnsStandIn>) -> JoinHandle<()> {
        let doors = self.doors.clone();
        tokio::spawn(async move {
            let mut handled = 0;
            loop {
                tokio::time::sleep(EVERY).await;
                let received = stand_in.received();
                for push in received.iter().skip(handled) {
                    let magic = magic(&push.body);
                    if let (Answer::Accept, Some(magic), Some(door)) = (&push.answer, magic, doors.get(&push.token)) {
                        // A device that has gone needs no push.
                        let _ = door.send((hex_bytes(&push.token), magic));
                    }
                }
                handled = received.len();
            }
        })
    }
}

fn lines_of(member: &Member, run: &str, number: usize) -> Result<Vec<Line>> {
    let record = member.record(run, number)?;
    let hardware = record.hardware;
    let system = format!("{} {}", hardware.family.os(), member.os_version);
    let own = if member.own_device { " (User Enrollment)" } else { "" };
    let silicon = match (hardware.family, hardware.attestation) {
        (Family::Mac, Attestation::Supported) => "Mac, Apple silicon",
        (Family::Mac, Attestation::Ignored) => "Mac, T2",
        (Family::Mac, Attestation::MustBeFalse) if hardware.chip == "virtual" => "Mac, virtual",
        (Family::Mac, Attestation::MustBeFalse) => "Mac, T1 or older",
        (_, Attestation::Supported) => "attests (A11, A12X, M1, S4 and later)",
        (_, Attestation::Ignored) => "ignores Attest (A10X, S3 and earlier)",
        (_, Attestation::MustBeFalse) => "unknown",
    };
    let line = Line {
        label: format!("{:<17} {system:<15} {}{own}", member.product_name, hardware.chip),
        silicon,
        mac: hardware.family == Family::Mac,
        device_id: record.enrollment_id.clone().unwrap_or_else(|| record.udid.clone()),
        user: None,
        product: (member.product_name, member.os_version),
        serial_number: record.serial_number.clone(),
        expected: member.expected,
    };
    let mut lines = vec![line.clone()];
    if let Some((user, expected)) = member.user(run, number)? {
        let label = format!("{:<17} {system:<15} {}, user channel", member.product_name, hardware.chip);
        lines.push(Line { label, user: Some(user.short_name), expected, ..line });
    }
    Ok(lines)
}

async fn enroll_one(
    mut device: Device,
    member: &Member,
    run: &str,
    number: usize,
    first: usize,
    operator: &Operator,
    board: &Board,
) -> Result<Driven> {
    let wish = if member.own_device {
        json!({ "kind": "user", "managed_apple_account": "person@school.example", "note": "pilot", "label": LABEL })
    } else {
        json!({ "kind": "device", "note": "pilot", "label": LABEL })
    };
    let link = operator.link(&wish).await?;
    device.enroll(&link).await?;
    board.reached(first, Stage::Enrolled);
    let mut lines = BTreeMap::from([(ChannelId::DEVICE, first)]);
    if let Some((user, _)) = member.user(run, number)? {
        let channel = device.open_user_channel(user).await?;
        board.reached(first + 1, Stage::Enrolled);
        lines.insert(channel, first + 1);
    }
    Ok(Driven { device, lines })
}

/// A device's life: asleep until a push with its token and PushMagic comes, then one session.
async fn live(mut driven: Driven, mut wakes: mpsc::UnboundedReceiver<Wake>, seen: Arc<Mutex<Vec<Seen>>>, board: Board) {
    while let Some((token, magic)) = wakes.recv().await {
        let Some(channel) = driven.device.woken_by(&token, &magic) else { continue };
        let Some(line) = driven.lines.get(&channel).copied() else { continue };
        loop {
            let session = driven.device.session(channel).await;
            if !learn(session, driven.device.identities(channel), &seen, line, &board) {
                break;
            }
            // The device answered NotNow last: it comes back by itself, without a push.
            tokio::time::sleep(LATER).await;
        }
    }
}

/// Notes what a session brought; true where the device will poll again by itself.
fn learn(
    session: simulator::error::Result<Session>,
    identities: &[Installed],
    seen: &Mutex<Vec<Seen>>,
    line: usize,
    board: &Board,
) -> bool {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(seen) = seen.get_mut(line) else { return false };
    if let Err(error) = seen.hold(identities) {
        seen.complaints.push(error.to_string());
    }
    match session {
        Ok(session) => {
            session.answered.iter().for_each(|answered| note(answered, seen, line, board));
            session.polls_again
        }
        Err(error) => {
            seen.complaints.push(error.to_string());
            false
        }
    }
}

/// What one answered command means for the line.
fn note(answered: &Answered, seen: &mut Seen, line: usize, board: &Board) {
    if answered.repeated {
        seen.complaints.push(format!("{} came again after it was finished", answered.request_type));
    }
    match (answered.request_type.as_str(), answered.status) {
        (_, Status::NotNow) => board.reached(line, Stage::NotNow),
        ("DeviceInformation", Status::Acknowledged) => board.reached(line, Stage::Asked),
        ("InstallProfile", Status::Acknowledged) => {
            board.reached(line, Stage::Sent);
            for acme in &answered.acme {
                *seen.came.entry(acme.directory_url.clone()).or_default() += 1;
            }
        }
        _ => {}
    }
    if let Some(refusal) = &answered.refusal {
        if refusal.chain().iter().any(|item| item.domain == "MCACMEErrorDomain") {
            seen.failed += 1;
            return;
        }
        seen.complaints.push(format!("{} refused: {}", answered.request_type, refusal.text));
    }
}

/// The PushMagic in the body of a push: exactly `{"mdm": magic}`, or nobody wakes.
fn magic(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let keys = body.as_object()?;
    if keys.len() == 1 { keys.get("mdm")?.as_str().map(str::to_owned) } else { None }
}

/// A push token as APNs spells it.
fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn hex_bytes(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..text.len()).step_by(2).filter_map(digit).collect()
}
