//! Randomness as a value that is passed in: the system's generator, or a seeded one for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;
use uuid::Uuid;

use crate::time::Timestamp;

/// Where random bytes come from.
#[derive(Clone, Debug)]
pub enum Random {
    /// The operating system's generator.
    System,
    /// A repeatable stream for tests; clones share it. Never build one in a server.
    Seeded(Arc<AtomicU64>),
}

impl Random {
    /// A repeatable stream that starts at `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(AtomicU64::new(seed)))
    }

    /// `N` random bytes.
    ///
    /// # Panics
    /// If the operating system has no randomness to give: nothing can be done safely then.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        match self {
            Self::System => {
                ring::rand::SystemRandom::new().fill(&mut out).expect("the operating system gives random bytes");
            }
            Self::Seeded(state) => {
                for chunk in out.chunks_mut(32) {
                    let n = state.fetch_add(1, Ordering::SeqCst);
                    let block = ring::digest::digest(&ring::digest::SHA256, &n.to_be_bytes());
                    chunk.iter_mut().zip(block.as_ref()).for_each(|(o, b)| *o = *b);
                }
            }
        }
        out
    }

    /// 256 random bits as 43 characters that are safe in URLs (base64url without padding).
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes::<32>())
    }

    /// A random UUID (version 4), for `CommandUUID` and `PayloadUUID`.
    pub fn uuid_v4(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A UUID that sorts by time (version 7), for our own keys.
    pub fn uuid_v7(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.0).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }

    /// A number from 0 up to, not including, `n` (0 where `n` is 0): for spreading work in time.
    pub fn below(&self, n: u64) -> u64 {
        u64::from_be_bytes(self.bytes()).checked_rem(n).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_stream_repeats_and_does_not_stand_still() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        assert_eq!(a.bytes::<40>(), b.bytes::<40>());
        assert_ne!(a.token(), a.token());
    }

    #[test]
    fn uuid_v7_sorts_by_time() {
        let r = Random::System;
        assert!(r.uuid_v7(Timestamp(1_000)) < r.uuid_v7(Timestamp(2_000)));
    }
}
