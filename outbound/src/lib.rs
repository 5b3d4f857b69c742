//! HTTPS requests to services that an operator configured: Apple's device service, an OpenID Connect provider.
//!
//! What an operator may write into a URL, an attacker may one day write too (TH-63). So each request is looked at here:
//! `https` only; the name is resolved, each address is judged, and the connection goes to the address that was judged; a
//! redirect is an answer like any other and is never followed; an answer has a largest size and an end in time.
//!
//! Each request has a connection of its own: these are few and far between, and nothing is left open to grow old.

mod address;
mod client;

pub use address::is_public;
pub use client::Client;

use std::time::Duration;

/// Which certificate authorities a service's certificate may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The public ones that Mozilla trusts.
    Public,
    /// Those, and these (DER).
    PublicAnd(Vec<Vec<u8>>),
    /// Only these (DER).
    Only(Vec<Vec<u8>>),
}

/// How requests are sent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to trust.
    pub roots: Roots,
    /// How long a request may take, from its name's resolution to the last byte of its answer.
    pub timeout: Duration,
    /// The most bytes that an answer's body may have.
    pub largest_answer: usize,
    /// Whether addresses that are not public (loopback, private, link-local …) are connected to.
    pub private_addresses: bool,
    /// `User-Agent`, where a request has none.
    pub user_agent: String,
}

impl Settings {
    /// Public roots, 30 seconds, 4 MiB, public addresses only.
    pub fn new(user_agent: &str) -> Self {
        Self {
            roots: Roots::Public,
            timeout: Duration::from_secs(30),
            largest_answer: 4 << 20,
            private_addresses: false,
            user_agent: user_agent.to_owned(),
        }
    }
}

/// Why there is no answer. None of these texts holds the path, the query or a header of a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings cannot be used.
    #[error("the settings for outgoing requests: {0}")]
    Settings(String),
    /// The URL does not begin with `https://`, has no host or holds a login.
    #[error("only URLs that begin with https:// and hold no login are requested")]
    NotHttps,
    /// The name has no address.
    #[error("the name {0} has no address")]
    Unknown(String),
    /// The name has only addresses that are not public, and the settings do not allow those.
    #[error("the addresses of {0} are not public; the configuration must allow such addresses")]
    PrivateAddress(String),
    /// The connection could not be opened, or it broke.
    #[error("{host}: {source}")]
    Connection {
        /// The host.
        host: String,
        /// What happened.
        source: std::io::Error,
    },
    /// What came is not HTTP.
    #[error("{host}: {source}")]
    Http {
        /// The host.
        host: String,
        /// What happened.
        source: hyper::Error,
    },
    /// The answer is larger than the settings allow.
    #[error("the answer of {0} is too large")]
    TooLarge(String),
    /// The answer was not complete in time.
    #[error("{0} took too long")]
    TimedOut(String),
}

#[cfg(test)]
mod tests;
