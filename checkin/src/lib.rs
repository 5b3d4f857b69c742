//! The device's door: every check-in message and every poll comes in here.
//!
//! A request goes through four files: `identity` (which certificate proves it), `authorize` (which enrollment that certificate
//! is pinned to, and whether the body says the same), `checkin` or `connect` (what follows), and `reply`, the only file that
//! makes an answer. One message is one transaction. No path answers 403 but the one that an operator asked for, and none 401 but
//! that of an account-driven enrollment whose person must sign in again: to others either means to unenroll (TH-12).

mod authorize;
mod bearer;
mod body;
mod checkin;
mod connect;
mod declarative;
mod identity;
mod last_seen;
mod quarantine;
mod reply;
pub mod set_up;
mod tokens;
mod unenroll;
mod unlock;
mod user_authenticate;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http::{HeaderName, Method};
use mdm_core::certificate::Certificate;
use mdm_core::checkin::Message;
use mdm_core::crypto::seal::Sealer;
use mdm_core::crypto::trust::Trust;
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::plist::{self, Limits};
use mdm_core::random::Random;
use mdm_core::rate::Buckets;
use mdm_core::report::Report;
use mdm_core::time::Clock;
use store::Store;
use tokio::sync::Semaphore;

use crate::bearer::Head;
use crate::identity::{IdentityError, VerifiedChains};
pub use crate::last_seen::LastSeen;
use crate::reply::DeviceError;
pub use crate::user_authenticate::NetworkUsers;

/// The client certificate of the TLS connection that a request came on, put in by the listener.
#[derive(Debug, Clone)]
pub struct PeerCertificate(pub Option<Arc<Certificate>>);

/// The other end of the TCP connection that a request came on, put in by the listener: a device, or a proxy.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// What to do with SHA-1 digests in `Mdm-Signature`; MD5 is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sha1 {
    /// Accept, log and count.
    Log,
    /// Accept.
    Accept,
    /// Refuse.
    Refuse,
}

/// How identities are shown and judged.
#[derive(Debug, Clone)]
pub struct Settings {
    /// SHA-1 in `Mdm-Signature`.
    pub sha1: Sha1,
    /// How far a `signingTime` may be away from now.
    pub skew: Duration,
    /// Whether one that is further away is refused; else it is logged and counted (TH-17).
    pub strict_skew: bool,
    /// Proxies that are believed about the client certificate (TH-07).
    pub trusted_peers: Vec<IpAddr>,
    /// The header in which they hand it on. With it, `Mdm-Signature` is not looked at.
    pub certificate_header: Option<HeaderName>,
    /// Whether a certificate without an issuance record is admitted by its common name: `UDID`, `EnrollmentID` or serial number.
    pub external_by_subject: bool,
    /// CAs of `identity.external_ca_file`: their certificates are admitted by an issuance record that names the CA.
    pub external_issuers: Vec<Fingerprint>,
    /// `ServerURL` of the profiles that this server hands out.
    pub server_url: Option<String>,
    /// What becomes of network users of Macs.
    pub network_users: NetworkUsers,
    /// The realm that their passwords are for: the host of the server's public URL.
    pub realm: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sha1: Sha1::Log,
            skew: Duration::from_hours(24),
            strict_skew: false,
            trusted_peers: Vec::new(),
            certificate_header: None,
            external_by_subject: false,
            external_issuers: Vec::new(),
            server_url: None,
            network_users: NetworkUsers::Refuse,
            realm: "mdm".to_owned(),
        }
    }
}

/// What the device's door needs.
#[derive(Debug)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Randomness for ids, sealing and spreading retries.
    pub random: Random,
    /// Seals what devices hand over: unlock tokens, bootstrap tokens.
    pub sealer: Sealer,
    /// Who may issue identities.
    pub trust: Arc<Trust>,
    /// The queue.
    pub commands: commands::Context,
    /// The policy engine.
    pub policy: Arc<policy::Context>,
    /// The renewal of identities.
    pub renewal: Arc<renewal::Context>,
    /// How bearer tokens of account-driven enrollments are asked for.
    pub bearer: account::bearer::Settings,
    /// Where it is gathered who was heard of when; the server flushes it.
    pub seen: LastSeen,
    /// How identities are shown and judged.
    pub settings: Arc<Settings>,
}

/// [`Shared`] and what is remembered between requests.
struct Door {
    shared: Shared,
    chains: VerifiedChains,
    /// Refusals that are written as events, for each certificate.
    refusals: Buckets<Fingerprint>,
    /// New entries of the quarantine, for each address.
    quarantined: Buckets<IpAddr>,
    /// Enrollments whose person was asked to sign in again, as events.
    challenged: Buckets<EnrollmentId>,
    /// Answers to digest challenges, for each Mac.
    answers: Buckets<EnrollmentId>,
    /// Bodies beyond the size of a check-in that may be held at a time.
    large_bodies: Semaphore,
}

impl std::ops::Deref for Door {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// Large bodies at a time; each holds 16 MiB at most.
const LARGE_BODIES: usize = 16;

/// The routes: `/mdm` (`ServerURL`, and `CheckInURL` where a profile has none) and `/checkin` (`CheckInURL`).
pub fn router(shared: Shared) -> Router {
    let door = Arc::new(Door {
        shared,
        chains: VerifiedChains::default(),
        refusals: Buckets::default(),
        quarantined: Buckets::default(),
        challenged: Buckets::default(),
        answers: Buckets::default(),
        large_bodies: Semaphore::new(LARGE_BODIES),
    });
    Router::new().route("/mdm", any(mdm)).route("/checkin", any(check_in)).with_state(door)
}

async fn mdm(State(door): State<Arc<Door>>, request: Request) -> Response {
    respond(&door, request, Url::Server).await
}

async fn check_in(State(door): State<Arc<Door>>, request: Request) -> Response {
    respond(&door, request, Url::CheckIn).await
}

/// Which URL of the MDM payload a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Url {
    /// `ServerURL`: reports, and check-in messages too where a profile has no `CheckInURL`.
    Server,
    /// `CheckInURL`.
    CheckIn,
}

/// Runs one request to its answer; every error becomes one here, and is logged here.
async fn respond(door: &Door, request: Request, url: Url) -> Response {
    match take(door, request, url).await {
        Ok(response) => response,
        Err(error) => {
            error.log();
            if let DeviceError::Identity(IdentityError::NotValid { fingerprint, .. }) = error {
                authorize::record_not_valid(door, fingerprint).await;
            }
            if let DeviceError::SignInAgain { enrollment, why, .. } = error {
                bearer::record(door, enrollment, why).await;
            }
            reply::error(&error, &door.random)
        }
    }
}

async fn take(door: &Door, request: Request, url: Url) -> Result<Response, DeviceError> {
    if !matches!(*request.method(), Method::PUT | Method::POST) {
        return Err(DeviceError::Method);
    }
    let (parts, body) = request.into_parts();
    let head = Head::of(&parts);
    let says_check_in = url == Url::CheckIn || body::is_check_in(&parts.headers);
    let limits = if says_check_in { Limits::CHECKIN } else { Limits::REPORT };
    let body = body::read(door, &parts.headers, body, limits.bytes).await?;
    // The signature is over the bytes: nothing of them is parsed before it is checked.
    let identity = identity::identify(door, &parts, &body)?;
    let dictionary = match plist::decode_dictionary(&body, limits) {
        Ok(dictionary) => dictionary,
        Err(error) if says_check_in => return Err(DeviceError::Message(error.into())),
        Err(error) => return connect::unreadable(door, &identity, error.into()).await,
    };
    if says_check_in || Message::is_check_in(&dictionary) {
        if body.len() > Limits::CHECKIN.bytes {
            return Err(DeviceError::TooLarge);
        }
        identity.must_be_valid()?;
        let message = Message::from_dictionary(dictionary).map_err(DeviceError::Message)?;
        return checkin::receive(door, &head, &identity, &message, &body).await;
    }
    match Report::from_dictionary(dictionary) {
        Ok(report) => connect::connect(door, &head, &identity, &report, &body).await,
        Err(error) => connect::unreadable(door, &identity, error).await,
    }
}
