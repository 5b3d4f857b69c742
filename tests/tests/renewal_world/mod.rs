//! A device whose identity is renewed, wiped, ended and replayed, and the small model that says what must come of it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use issuer::issuance::{OpenIssuance, Purpose};
use mdm_core::crypto::cms_verify::{Rules, Sha1Rule, verify_attached};
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::plist::{Dictionary, Limits, Value, decode_dictionary};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use renewal::Reason;
use store::issuance::Flow;

use crate::checkin_world::{Device, Proof, World, p256};

pub(crate) const DAY: u64 = 86_400;

/// Commands that wait on a device's queue besides the renewal's.
const MARKERS: &str = "marker";

/// What a command that was delivered holds.
pub(crate) struct Delivered {
    pub(crate) uuid: String,
    /// The enrollment profile, its signature checked.
    pub(crate) profile: Dictionary,
}

/// The `InstallProfile` in an answer, if it is one.
pub(crate) fn delivered(body: &str) -> Option<Delivered> {
    let command = decode_dictionary(body.as_bytes(), Limits::REPORT).ok()?;
    let uuid = command.get("CommandUUID")?.as_string()?.to_owned();
    let inner = command.get("Command")?.as_dictionary()?;
    if inner.get("RequestType")?.as_string()? != "InstallProfile" {
        return None;
    }
    let payload = inner.get("Payload")?.as_data()?;
    let (_, content) = verify_attached(payload, Rules { sha1: Sha1Rule::Refuse }).unwrap();
    Some(Delivered { uuid, profile: decode_dictionary(&content, Limits::API).unwrap() })
}

impl Delivered {
    pub(crate) fn payload(&self, kind: &str) -> &Dictionary {
        let payloads = self.profile.get("PayloadContent").and_then(Value::as_array).unwrap();
        let is = |p: &&Dictionary| p.get("PayloadType").and_then(Value::as_string) == Some(kind);
        payloads.iter().filter_map(Value::as_dictionary).find(is).unwrap()
    }

    fn challenge(&self) -> String {
        let scep = self.payload("com.apple.security.scep");
        let content = scep.get("PayloadContent").and_then(Value::as_dictionary).unwrap();
        content.get("Challenge").and_then(Value::as_string).unwrap().to_owned()
    }
}

/// What SCEP does with the challenge of a profile; `None` where it is not good any more.
pub(crate) async fn scep(world: &World, device: &Device, delivered: &Delivered) -> Option<Device> {
    let sha256 = Fingerprint::of(delivered.challenge().as_bytes()).0;
    let key = p256();
    let certificate = world.certificate(&key);
    let mut tx = world.store.begin().await.unwrap();
    let record = store::issuance::by_challenge(&mut tx, &sha256).await.unwrap()?;
    if !store::issuance::consume(&mut tx, record.id, &[1; 32], "t", world.now()).await.unwrap() {
        return None;
    }
    store::issuance::set_certificate(&mut tx, record.id, &certificate).await.unwrap();
    tx.commit().await.unwrap();
    Some(Device { key, certificate, ..device.clone() })
}

/// The same device, wiped, with an identity from a link that is bound to it.
pub(crate) async fn wiped(world: &World, device: &Device) -> Device {
    let key = p256();
    let certificate = world.certificate(&key);
    let wanted = OpenIssuance {
        flow: Flow::Link,
        purpose: Purpose::Enrollment,
        kind: EnrollmentKind::Device,
        enrollment_id: None,
        link_id: None,
        expected_serial: Some(&device.serial),
        expected_udid: None,
        label: None,
        ttl: Duration::from_mins(10),
        details: issuer::issuance::Details::default(),
    };
    let mut tx = world.store.begin().await.unwrap();
    let (id, _) = issuer::issuance::open(&mut tx, &Random::System, world.now(), &wanted).await.unwrap();
    assert!(store::issuance::consume(&mut tx, id, &[1; 32], "t", world.now()).await.unwrap());
    store::issuance::set_certificate(&mut tx, id, &certificate).await.unwrap();
    tx.commit().await.unwrap();
    Device { key, certificate, ..device.clone() }
}

/// An operator asks for a renewal, and the loop runs once.
pub(crate) async fn ask(world: &World, id: EnrollmentId) -> bool {
    let mut tx = world.store.begin().await.unwrap();
    let asked = renewal::want(&mut tx, id, Reason::Operator, world.now()).await;
    tx.commit().await.unwrap();
    run(world).await;
    asked.is_ok_and(|changed| changed)
}

pub(crate) async fn run(world: &World) {
    while renewal::run_once(&world.store, &world.renewal(), world.now(), 50).await.unwrap() >= 50 {}
}

pub(crate) async fn row(world: &World, id: EnrollmentId) -> store::renewals::Renewal {
    let mut tx = world.store.read().await.unwrap();
    store::renewals::get(&mut tx, id).await.unwrap().unwrap()
}

/// The `InstallProfile` of a renewal that waits for this device.
pub(crate) async fn fetch(world: &World, device: &Device) -> Delivered {
    let answer = world.idle(device).await;
    delivered(&answer.body).unwrap_or_else(|| panic!("no renewal waits: {} {}", answer.status, answer.body))
}

/// What can happen to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A renewal is asked for, and the loop puts it on the queue.
    Queue,
    /// The device polls, takes the renewal's profile and gets a certificate.
    Deliver,
    /// The device says `Authenticate` with that certificate.
    RenewAuthenticate,
    /// The device says `TokenUpdate` with that certificate.
    RenewTokenUpdate,
    /// The device polls with that certificate before it says anything else.
    RenewPoll,
    /// The device is wiped, gets another identity by a link and says `Authenticate`.
    Wipe,
    /// The device ends its enrollment with `TokenUpdate`.
    TokenUpdate,
    /// The profile is removed.
    CheckOut,
    /// Every message that was ever sent comes again as it was.
    Replay,
    /// So much time passes that every identity ends.
    Expire,
}

pub(crate) const EVENTS: [Event; 10] = [
    Event::Queue,
    Event::Deliver,
    Event::RenewAuthenticate,
    Event::RenewTokenUpdate,
    Event::RenewPoll,
    Event::Wipe,
    Event::TokenUpdate,
    Event::CheckOut,
    Event::Replay,
    Event::Expire,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Authenticated,
    Enrolled,
    Ended,
}

/// A device with everything that it ever was, and what the model says of it.
pub(crate) struct Case<'a> {
    world: &'a World,
    id: EnrollmentId,
    state: State,
    /// The identity in the keychain.
    device: Device,
    /// A certificate that a renewal brought, in this generation, and that no message came with yet.
    pending: Option<Device>,
    /// Those that a later renewal brought another one for; good until that one is seen.
    passed_over: Vec<Device>,
    /// It said `Authenticate` with `pending` already.
    half: bool,
    /// Identities that must not be believed any more: of former generations, or replaced.
    dead: Vec<Device>,
    generation: u32,
    /// Commands that wait in this generation.
    waiting: usize,
    sent: Vec<(Device, String, Timestamp)>,
    ended: bool,
}

impl<'a> Case<'a> {
    /// A device that is enrolled, with a secret in escrow and a command on its queue.
    pub(crate) async fn new(world: &'a World, n: u32) -> Self {
        let (device, id) = world.enrolled(n).await;
        let mut case = Self {
            world,
            id,
            state: State::Enrolled,
            device,
            pending: None,
            passed_over: Vec::new(),
            half: false,
            dead: Vec::new(),
            generation: 0,
            waiting: 0,
            sent: Vec::new(),
            ended: false,
        };
        case.settled().await;
        case
    }

    fn secret(&self) -> String {
        STANDARD.encode(format!("secret of {} {}", self.id, self.generation))
    }

    /// A generation begins to work: it escrows its own secret, and an operator queues a command.
    async fn settled(&mut self) {
        let secret = format!("<key>BootstrapToken</key><data>{}</data>", self.secret());
        let message = self.device.message("SetBootstrapToken", &secret);
        assert!(self.say(&self.device.clone(), &message).await);
        self.world.enqueue(self.id, &format!("{MARKERS}-{}-{}", self.id, self.generation)).await;
        self.waiting = 1;
    }

    /// Sends a check-in message and remembers it; whether it was taken.
    async fn say(&mut self, device: &Device, message: &str) -> bool {
        self.world.later(1);
        self.sent.push((device.clone(), message.to_owned(), self.world.now()));
        self.world.check_in(Proof::Signed(device), message).await.is_empty()
    }

    pub(crate) async fn happens(&mut self, event: Event) {
        self.world.later(1);
        match event {
            Event::Queue => {
                let asked = ask(self.world, self.id).await;
                assert!(!asked || self.state == State::Enrolled, "a renewal of what is not enrolled");
            }
            Event::Deliver => self.deliver().await,
            Event::RenewAuthenticate => self.renew_authenticate().await,
            Event::RenewTokenUpdate => self.renew_by("TokenUpdate").await,
            Event::RenewPoll => self.renew_by("poll").await,
            Event::Wipe => self.wipe().await,
            Event::TokenUpdate => {
                let message = self.device.token_update();
                let device = self.device.clone();
                let taken = self.say(&device, &message).await;
                assert_eq!(taken, self.state != State::Ended && !self.ended, "TokenUpdate in {:?}", self.state);
                if taken && self.state == State::Authenticated {
                    self.state = State::Enrolled;
                    self.settled().await;
                }
            }
            Event::CheckOut => {
                let message = self.device.check_out();
                let device = self.device.clone();
                let taken = self.say(&device, &message).await;
                // Repeated by a device that is gone already: the same answer.
                assert_eq!(taken, !self.ended);
                if taken {
                    self.end_generation();
                    self.state = State::Ended;
                }
            }
            Event::Replay => {
                for (device, message, at) in self.sent.clone() {
                    self.world.check_in(Proof::SignedAt(&device, at), &message).await;
                }
            }
            Event::Expire => {
                self.world.later(370 * DAY);
                self.ended = true;
                // What was issued before is over as well.
                self.dead.extend(self.pending.take());
                self.dead.append(&mut self.passed_over);
                self.half = false;
                run(self.world).await;
            }
        }
        self.check().await;
    }

    async fn deliver(&mut self) {
        let mut answer = self.world.idle(&self.device).await;
        if let Some(marker) = answer.body.split("<string>").find(|part| part.starts_with(MARKERS)) {
            // The marker is first in the queue: it is put off, so that the renewal has its turn.
            let uuid = marker.split('<').next().unwrap().to_owned();
            let report = self.device.status("NotNow", &uuid);
            answer = self.world.report(Proof::Signed(&self.device), &report).await;
        }
        let Some(delivered) = delivered(&answer.body) else { return };
        assert_eq!(self.state, State::Enrolled);
        let next = scep(self.world, &self.device, &delivered).await.expect("a permission that was handed out is good");
        self.passed_over.extend(self.pending.replace(next));
        self.half = false;
    }

    async fn renew_authenticate(&mut self) {
        let Some(next) = self.pending.clone() else { return };
        let message = next.authenticate();
        assert!(self.say(&next, &message).await, "the renewal's Authenticate is taken");
        self.half = true;
    }

    async fn renew_by(&mut self, way: &str) {
        let Some(next) = self.pending.clone() else { return };
        let taken = if way == "poll" {
            // Pinned by Authenticate and not yet seen otherwise, or not pinned at all: the poll is its proof in either case.
            self.world.idle(&next).await.status.is_success()
        } else {
            let message = next.token_update();
            self.say(&next, &message).await
        };
        assert!(taken, "the renewed identity is taken by {way}");
        let old = std::mem::replace(&mut self.device, next);
        self.dead.push(old);
        self.dead.append(&mut self.passed_over);
        self.pending = None;
        self.half = false;
    }

    async fn wipe(&mut self) {
        let fresh = wiped(self.world, &self.device).await;
        let old = std::mem::replace(&mut self.device, fresh.clone());
        self.dead.push(old);
        self.ended = false;
        let message = fresh.authenticate();
        assert!(self.say(&fresh, &message).await, "a wiped device with an identity bound to it enrolls again");
        self.end_generation();
        self.generation += 1;
        self.state = State::Authenticated;
    }

    fn end_generation(&mut self) {
        self.waiting = 0;
        self.half = false;
        self.dead.extend(self.pending.take());
        self.dead.append(&mut self.passed_over);
    }

    /// What must hold whatever happened.
    async fn check(&mut self) {
        let enrollment = self.world.enrollment(self.id).await;
        let expected = match self.state {
            State::Authenticated => "authenticated",
            State::Enrolled => "enrolled",
            State::Ended => "unenrolled",
        };
        assert_eq!(enrollment.state.as_str(), expected, "never an enrollment lost, never one come back by itself");
        assert_eq!(enrollment.generation, i64::from(self.generation) + 1, "one generation for each enrollment");
        assert_eq!(
            self.markers().await,
            self.waiting,
            "the queue is kept by a renewal and dropped by a new enrollment"
        );

        // The device itself is served as its state says.
        let device = self.device.clone();
        let poll = self.world.idle(&device).await.status.is_success();
        assert_eq!(poll, self.state != State::Ended && !self.ended, "the poll of the device");
        if self.state == State::Enrolled && !self.ended {
            assert_eq!(self.escrow(&device).await.as_deref(), Some(self.secret().as_str()), "its own secret");
        } else {
            assert_eq!(self.escrow(&device).await, None, "no secret of a former generation");
        }
        // Nobody else is.
        for old in self.dead.clone() {
            assert_eq!(self.escrow(&old).await, None, "a secret for an identity outside the lineage");
            assert!(!self.world.idle(&old).await.status.is_success(), "the poll of an identity outside the lineage");
        }
    }

    async fn markers(&self) -> usize {
        let mut tx = self.world.store.read().await.unwrap();
        let rows = store::commands::outstanding(&mut tx, self.id, self.world.now(), 100).await.unwrap();
        rows.iter().filter(|row| row.command_uuid.starts_with(MARKERS)).count()
    }

    /// The secret that `GetBootstrapToken` gives for this identity.
    async fn escrow(&self, device: &Device) -> Option<String> {
        self.world.later(1);
        let message = device.message("GetBootstrapToken", "");
        let answer = self.world.check_in(Proof::Signed(device), &message).await;
        if !answer.status.is_success() {
            return None;
        }
        let text = decode_dictionary(answer.body.as_bytes(), Limits::REPORT).ok()?;
        text.get("BootstrapToken")
            .and_then(Value::as_data)
            .filter(|data| !data.is_empty())
            .map(|data| STANDARD.encode(data))
    }
}
