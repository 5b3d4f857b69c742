//! Secrets at rest: AES-256-GCM under a key that lives outside the database (TH-64, TH-66).
//!
//! A sealed value is `key id (4 bytes) ‖ nonce (12 bytes) ‖ ciphertext and tag`. The context (`"table.column:row-id"`) is
//! authenticated with it, so that a value moved to another row or column does not open.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};

use crate::random::Random;
use crate::secret::Secret;

const KEY_ID: usize = 4;
const NONCE: usize = 12;

/// Why a sealed value does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed with another key.
    #[error(
        "this value was sealed with key {sealed_with}, but the server has key {have}: give the server the key that the database was written with"
    )]
    OtherKey {
        /// Id of the key that the value was sealed with.
        sealed_with: String,
        /// Id of the key at hand.
        have: String,
    },
    /// It is too short, was altered, or belongs to another row or column.
    #[error("the sealed value does not open: it was altered or belongs elsewhere")]
    Altered,
}

/// Seals and opens secrets. `Debug` shows the key's id only.
#[derive(Clone)]
pub struct Sealer {
    cipher: Aes256Gcm,
    id: [u8; KEY_ID],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

impl Sealer {
    /// With this key, 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        let named = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), b"assay key id");
        let mut id = [0; KEY_ID];
        id.iter_mut().zip(named.as_ref()).for_each(|(to, from)| *to = *from);
        Self { cipher: Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key)), id }
    }

    /// Eight hexadecimal digits that tell this key from another, and nothing else about it.
    pub fn key_id(&self) -> String {
        hex::encode(self.id)
    }

    /// Seals `plain` for the place that `context` names, such as `"enrollments.unlock_token:<id>"`.
    ///
    /// # Panics
    /// Not below 64 GiB, AES-GCM's limit for one message.
    pub fn seal(&self, context: &str, plain: &[u8], random: &Random) -> Vec<u8> {
        let nonce = random.bytes::<NONCE>();
        let payload = Payload { msg: plain, aad: context.as_bytes() };
        let ciphertext =
            self.cipher.encrypt(Nonce::from_slice(&nonce), payload).expect("a secret is far below AES-GCM's 64 GiB");
        [&self.id[..], &nonce, &ciphertext].concat()
    }

    /// Opens what [`Self::seal`] made for the same `context`.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        let (id, rest) = sealed.split_first_chunk::<KEY_ID>().ok_or(SealError::Altered)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(SealError::Altered)?;
        if *id != self.id {
            return Err(SealError::OtherKey { sealed_with: hex::encode(id), have: self.key_id() });
        }
        let payload = Payload { msg: ciphertext, aad: context.as_bytes() };
        self.cipher.decrypt(Nonce::from_slice(nonce), payload).map(Secret::new).map_err(|_| SealError::Altered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "enrollments.unlock_token:1";

    #[test]
    fn th_64_a_sealed_value_opens_only_in_its_own_place() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal(PLACE, b"unlock", &Random::seeded(1));
        assert_eq!(sealer.open(PLACE, &sealed).unwrap().expose(), b"unlock");
        assert_eq!(sealer.open("enrollments.unlock_token:2", &sealed), Err(SealError::Altered));
        assert!(!sealed.windows(6).any(|part| part == b"unlock"));
    }

    #[test]
    fn th_64_an_altered_or_cut_value_does_not_open() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal(PLACE, b"unlock", &Random::seeded(1));
        for at in KEY_ID..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(sealer.open(PLACE, &altered), Err(SealError::Altered), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(sealer.open(PLACE, &sealed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn th_66_another_key_is_named_in_the_error() {
        let (old, new) = (Sealer::new(&[7; 32]), Sealer::new(&[8; 32]));
        let sealed = old.seal(PLACE, b"unlock", &Random::System);
        let error = new.open(PLACE, &sealed).unwrap_err();
        assert_eq!(error, SealError::OtherKey { sealed_with: old.key_id(), have: new.key_id() });
        assert!(error.to_string().contains(&old.key_id()));
    }

    #[test]
    fn debug_shows_the_key_id_only() {
        let sealer = Sealer::new(&[7; 32]);
        assert_eq!(format!("{sealer:?}"), format!("Sealer {{ key_id: {:?}, .. }}", sealer.key_id()));
    }
}
