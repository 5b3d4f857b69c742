//! APNs out: pushes of type `mdm` that say "connect" to a device and carry nothing else.
//!
//! A push is owed as long as its row in `push_intent` stands. [`run`] takes due rows, sends through one [`Apns`] client
//! per topic and writes what became of them; [`schedule`] says when to try again; [`cert`] keeps the push certificates.
//! Neither client retries: the loop does, so that both behave alike and nothing is sent that is not in a row.

pub mod a2;
pub mod cert;
pub mod direct;
mod outcome;
mod pace;
mod plan;
pub mod run;
pub mod schedule;
mod topics;
pub mod tunnel;

use std::time::Duration;

use async_trait::async_trait;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use serde::Serialize;

pub use outcome::Outcome;
pub use run::{Pusher, Round, Settings};
pub use topics::Client;

/// How long APNs keeps a push for a device that sleeps (RG-18).
pub const KEEP: Duration = Duration::from_hours(7 * 24);

/// How long one push may take before it counts as failed.
pub const TIME_OUT: Duration = Duration::from_secs(20);

/// One device, as APNs knows it.
#[derive(Clone)]
pub struct Target {
    /// `Token` of the `TokenUpdate`.
    pub token: Vec<u8>,
    /// `PushMagic` of the `TokenUpdate`.
    pub push_magic: Secret<String>,
    /// `Topic` of the `TokenUpdate`, which is the topic of the push certificate.
    pub topic: String,
    /// Until when APNs should try (`apns-expiration`).
    pub expiration: Timestamp,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The body of a push, exactly `{"mdm":"<PushMagic>"}` (TH-14: encoded, never pasted together).
#[derive(Serialize)]
pub(crate) struct Payload<'a> {
    /// `PushMagic`.
    pub(crate) mdm: &'a str,
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payload")
    }
}

/// A way to Apple's push service for one topic. Sends once; whether to send again is the caller's decision.
#[async_trait]
pub trait Apns: Send + Sync {
    /// Sends one push and says what became of it, within [`TIME_OUT`].
    async fn send(&self, target: &Target) -> Outcome;
}

/// What goes wrong with push certificates and clients.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A certificate or key that no TLS client can be built from.
    #[error("the push certificate and its key do not make a TLS client: {0}")]
    Client(String),
    /// The host, port or CA of the push service is unusable.
    #[error("the push service's address cannot be used: {0}")]
    Endpoint(String),
    /// The upload cannot be read, or is something else.
    #[error("the upload is refused: {0}")]
    Upload(String),
    /// The private key is missing or unusable.
    #[error("the private key is refused: {0}")]
    Key(String),
    /// Certificate and key do not belong together.
    #[error("no certificate in the upload belongs to the private key in it")]
    Mismatch,
    /// The certificate is for something other than MDM.
    #[error(
        "the certificate's topic is {topic:?}, but a push certificate for MDM has one that begins with com.apple.mgmt."
    )]
    NotMdm {
        /// Its topic.
        topic: String,
    },
    /// The certificate has ended.
    #[error("the certificate expired at {not_after}")]
    Expired {
        /// When.
        not_after: Timestamp,
    },
    /// The certificate has not begun.
    #[error("the certificate is not valid before {not_before}")]
    NotYet {
        /// When it begins.
        not_before: Timestamp,
    },
    /// The topic is not that of a stored certificate: every enrolled device would be lost.
    #[error(
        "the certificate's topic is {topic}, but devices are enrolled with {existing}: renew that certificate instead of making another; force this only to add a topic"
    )]
    OtherTopic {
        /// The topic uploaded.
        topic: String,
        /// The topics stored.
        existing: String,
    },
    /// A stored key does not open.
    #[error(transparent)]
    Seal(#[from] mdm_core::crypto::seal::SealError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl store::Busy for Error {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Store(e) if e.is_busy())
    }
}
