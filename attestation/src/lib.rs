//! Device attestation by `DeviceInformation`: when a device is asked, and what its answer proves.
//!
//! A device is sent a nonce at most once in 7 days, because Apple makes a new attestation no more often; until then it answers with
//! the one it has. What comes back is verified by [`mdm_core::crypto::attestation`] and kept as a verdict.

use std::sync::Arc;
use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::random::Random;

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
