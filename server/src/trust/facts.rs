//! What the judgement about trust rests on.

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::time::Timestamp;
use url::Url;

use crate::config::ServerKind;

/// Everything that [`super::examine()`] looks at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// How devices reach the server.
    pub public_url: Url,
    /// Who is said to have signed the certificate.
    pub kind: ServerKind,
    /// The private root is said to be on devices beforehand.
    pub preinstalled: bool,
    /// Whether profiles pin the anchors.
    pub pinned: bool,
    /// `trust.pilot`.
    pub pilot: bool,
    /// The chain that devices are shown, leaf first; empty where a proxy ends TLS and nobody has looked yet.
    pub chain: Vec<Certificate>,
    /// Why the configured files cannot be used. What was read before stays in use.
    pub files_trouble: Option<String>,
    /// The files hold a chain that is not served, because this many enrolled devices would not accept it.
    pub held_back: Option<Lost>,
    /// The CA certificates that devices are given now.
    pub anchors: Vec<Certificate>,
    /// Those that will take over.
    pub next_anchors: Vec<Certificate>,
    /// Those that were given while the chain was served that was served last: devices may hold them still.
    pub former_anchors: Vec<Certificate>,
    /// Roots that count as public beside the real ones (rehearsals).
    pub public_roots: Vec<Certificate>,
    /// What the profiles of live enrollments carry.
    pub groups: Vec<store::anchors::Group>,
    /// Other things that end: push certificates, tokens, CAs.
    pub ends: Vec<Ending>,
    /// Profiles at Apple with other anchors.
    pub stale: Vec<Stale>,
    /// What is seen through the public URL.
    pub seen: Seen,
}

/// Devices that a chain would lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// So many live enrollments would not accept it.
    pub enrollments: i64,
    /// Of so many of which it is known what they accept.
    pub of: i64,
}

/// Something beside TLS that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Which part of the set-up, such as `push certificate`.
    pub about: &'static str,
    /// Its name.
    pub name: String,
    /// When it ends.
    pub not_after: Timestamp,
    /// From how long before it is warned of.
    pub notice: Duration,
    /// What to do.
    pub what_to_do: &'static str,
}

/// A profile at Apple that carries other anchors than ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The server of Apple Business Manager or Apple School Manager.
    pub server: String,
    /// The profile definition.
    pub profile: String,
}

/// What is seen through the public URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nobody has looked, or `trust.probe` is off.
    NotLooked,
    /// It cannot be reached from here, which may be how the network is made.
    Unreachable(String),
    /// This chain, leaf first.
    Chain(Vec<Certificate>),
}

impl Facts {
    /// The chain that devices are shown: served here or, behind a proxy, as seen from outside.
    pub fn shown(&self) -> &[Certificate] {
        match (&*self.chain, &self.seen) {
            ([], Seen::Chain(chain)) => chain,
            (chain, _) => chain,
        }
    }
}
