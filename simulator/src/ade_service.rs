//! A scripted stand-in for Apple's device service (`mdmenrollment.apple.com`) and for the portal in front of it.
//!
//! It checks what Apple checks: the OAuth 1.0a signature of `/session`, the session of every other request and its change,
//! `User-Agent`, cursors, the keys of a profile. It goes wrong on demand ([`Portal::fault`], [`Portal::device_fault`] …). It
//! remembers which profile a device was given, so that a simulated device can ask for it as one in Setup Assistant does
//! ([`AdeService::profile_of`]).

mod answers;
mod devices;
mod oauth;
mod token;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use crate::ade::DepProfile;
use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::https::Server;

/// What goes wrong, once.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer instead: status, body, `Retry-After` in seconds.
    Answer(u16, &'static str, Option<u64>),
    /// The right answer, late.
    Slow(Duration),
    /// The right rows with the cursor that was sent, and `more_to_follow`.
    RepeatCursor,
}

/// What goes wrong with one device when a profile is assigned to it, until [`Portal::mend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFault {
    /// `THROTTLED`, with `retry_after_seconds`.
    Throttled(u64),
    /// `NOT_ACCESSIBLE`.
    NotAccessible,
    /// `FAILED`.
    Failed,
    /// The whole request is refused.
    Poison,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method and the path, such as `POST /devices/sync`.
    pub what: String,
    /// The status of the answer.
    pub status: u16,
}

/// The stand-in; it stops when dropped.
pub struct AdeService {
    server: Server,
    state: Arc<Mutex<State>>,
}

/// One server of the portal, as its administrator sees it. Clones are the same.
#[derive(Clone)]
pub struct Portal {
    state: Arc<Mutex<State>>,
    number: usize,
}

/// All that is known.
pub(crate) struct State {
    portals: Vec<Known>,
    /// Session → number of the portal's server.
    sessions: BTreeMap<String, usize>,
    nonces: BTreeSet<String>,
    asked: Vec<Asked>,
    page: usize,
    put_is_known: bool,
    now_ms: Option<i64>,
    counter: u64,
}

/// What is known of one server of the portal.
struct Known {
    name: String,
    consumer_key: String,
    consumer_secret: String,
    tokens: Vec<token::Access>,
    terms_signed: bool,
    devices: BTreeMap<String, devices::Device>,
    ops: Vec<devices::Op>,
    profiles: BTreeMap<String, Value>,
    cursors: BTreeMap<String, devices::Cursor>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    device_faults: BTreeMap<String, DeviceFault>,
    discovery: Option<String>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn now_ms(&self) -> i64 {
        self.now_ms.unwrap_or_else(|| {
            i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
        })
    }

    fn now(&self) -> String {
        rfc3339(self.now_ms())
    }

    /// A word that was not given before.
    fn fresh(&mut self, kind: &str) -> String {
        self.counter += 1;
        format!("{kind}_{:04}_{}", self.counter, crate::record::fresh_uuid().unwrap_or_default())
    }

    fn known(&self, number: usize) -> Result<&Known> {
        self.portals.get(number).ok_or_else(|| Error::Options("no such server".to_owned()))
    }

    fn known_mut(&mut self, number: usize) -> Result<&mut Known> {
        self.portals.get_mut(number).ok_or_else(|| Error::Options("no such server".to_owned()))
    }
}

/// RFC 3339 with whole seconds, as Apple writes it.
fn rfc3339(ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(ms / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

impl AdeService {
    /// Starts it on the loopback, with a certificate of this authority.
    pub async fn start(authority: &Authority) -> Result<Self> {
        let state = Arc::new(Mutex::new(State {
            portals: Vec::new(),
            sessions: BTreeMap::new(),
            nonces: BTreeSet::new(),
            asked: Vec::new(),
            page: 1000,
            put_is_known: true,
            now_ms: None,
            counter: 0,
        }));
        let shared = Arc::clone(&state);
        let server = Server::start(authority, move |request| answers::answer(Arc::clone(&shared), request)).await?;
        Ok(Self { server, state })
    }

    /// Where it is, without a path.
    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// A new server of the portal.
    pub fn add_server(&self, name: &str) -> Portal {
        let mut state = lock(&self.state);
        let (consumer_key, consumer_secret) = (state.fresh("CK"), state.fresh("CS"));
        state.portals.push(Known {
            name: name.to_owned(),
            consumer_key,
            consumer_secret,
            tokens: Vec::new(),
            terms_signed: true,
            devices: BTreeMap::new(),
            ops: Vec::new(),
            profiles: BTreeMap::new(),
            cursors: BTreeMap::new(),
            faults: BTreeMap::new(),
            device_faults: BTreeMap::new(),
            discovery: None,
        });
        Portal { state: Arc::clone(&self.state), number: state.portals.len() - 1 }
    }

    /// Most devices in one answer.
    pub fn set_page(&self, page: usize) {
        lock(&self.state).page = page;
    }

    /// Whether `PUT /profile/devices` is known; else it answers 405.
    pub fn set_put_is_known(&self, known: bool) {
        lock(&self.state).put_is_known = known;
    }

    /// The time it goes by, in milliseconds since 1970, instead of the machine's.
    pub fn set_now(&self, ms: i64) {
        lock(&self.state).now_ms = Some(ms);
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state).asked.clone()
    }

    /// What the device with this serial number is told in Setup Assistant; from then on its profile counts as pushed.
    pub fn profile_of(&self, serial: &str) -> Option<DepProfile> {
        let mut state = lock(&self.state);
        let now = state.now();
        let known = state.portals.iter_mut().find(|known| known.devices.contains_key(serial))?;
        let device = known.devices.get_mut(serial)?;
        let profile = known.profiles.get(device.profile_uuid.as_ref()?)?;
        device.status = "pushed";
        known.ops.push(devices::Op { serial: serial.to_owned(), kind: "modified", at: now, device: device.clone() });
        DepProfile::from_json(profile).ok()
    }
}

impl Portal {
    /// Gives out a server token (`.p7m`) that is good for so many days, encrypted to an uploaded certificate (PEM). It takes
    /// the place of the former one.
    pub fn token(&self, certificate_pem: &str, days: i64) -> Result<String> {
        let mut state = lock(&self.state);
        let access = token::Access {
            token: state.fresh("AT"),
            secret: state.fresh("AS"),
            expires_ms: state.now_ms() + days * 86_400_000,
        };
        let known = state.known_mut(self.number)?;
        known.tokens = vec![access.clone()];
        token::p7m(&known.consumer_key, &known.consumer_secret, &access, certificate_pem)
    }

    /// Makes the token given out last worthless.
    pub fn revoke_token(&self) {
        self.with(|known| known.tokens.clear());
        lock(&self.state).sessions.clear();
    }

    /// Whether the organization has accepted Apple's terms.
    pub fn set_terms_signed(&self, signed: bool) {
        self.with(|known| known.terms_signed = signed);
    }

    /// What goes wrong with the next requests of this server to a path such as `/devices/sync`, in turn.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.with(|known| known.faults.entry(path.to_owned()).or_default().push_back(fault));
    }

    /// What goes wrong with a device from now on.
    pub fn device_fault(&self, serial: &str, fault: DeviceFault) {
        self.with(|known| known.device_faults.insert(serial.to_owned(), fault));
    }

    /// Nothing goes wrong with a device any more.
    pub fn mend(&self, serial: &str) {
        self.with(|known| known.device_faults.remove(serial));
    }

    /// The cursors given out so far are too old (more than seven days).
    pub fn expire_cursors(&self) {
        self.with(|known| known.cursors.values_mut().for_each(|cursor| cursor.expired = true));
    }

    /// The profiles defined so far are gone.
    pub fn forget_profiles(&self) {
        self.with(|known| known.profiles.clear());
    }

    /// The profile that a device was given.
    pub fn profile(&self, serial: &str) -> Option<Value> {
        self.with(|known| known.profiles.get(known.devices.get(serial)?.profile_uuid.as_ref()?).cloned())
    }

    /// How many profiles were defined.
    pub fn profiles(&self) -> usize {
        self.with(|known| known.profiles.len())
    }

    /// The URL of service discovery that was set.
    pub fn discovery(&self) -> Option<String> {
        self.with(|known| known.discovery.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut state = lock(&self.state);
        act(state.portals.get_mut(self.number).expect("a portal's server is never taken away"))
    }
}
