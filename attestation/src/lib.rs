//! Device attestation: when a device is asked, and what its answer proves.
//!
//! A device is sent a new nonce at most once in 7 days, because Apple makes a new attestation no more often; until then it answers
//! with the one it has. What comes back is verified by [`mdm_core::crypto::attestation`] and kept as a verdict, in which *whose* it is
//! and *how fresh* it is are two things: fresh as of the time its nonce was sent, or unknown; never by when it was received (TH-38).

mod ask;
mod error;
mod forget;
mod judge;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::attestation::Roots;
use mdm_core::random::Random;

pub use ask::{Asked, INTERVAL, Next, SPREAD, ask, can_attest, next, next_nonce_from};
pub use error::{Error, Result};
pub use forget::forget;
pub use judge::{Claims, judge, judge_object};
pub use verdict::{Identity, Judged, Source, Values, Verdict};

/// What asking and judging need besides the database.
#[derive(Debug, Clone)]
pub struct Context {
    /// Randomness: nonces.
    pub random: Random,
    /// Further roots, for rehearsals on loopback only; Apple's root is always believed and never here (TH-36).
    pub test_roots: Arc<Vec<Certificate>>,
    /// How long the certificates of an attestation are kept (TH-49).
    pub retention: Duration,
}

impl Context {
    /// The roots that are believed. Test roots that are no authorities are left out: the configuration has refused them.
    pub fn roots(&self) -> Roots {
        Roots::with_test_roots(&self.test_roots).unwrap_or_else(|_| Roots::apple())
    }
}
