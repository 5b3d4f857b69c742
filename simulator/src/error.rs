//! What can go wrong on the device's side.

use crate::plist::PlistError;

/// Why a simulated device could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key, certificate or message could not be made, read or checked.
    #[error("cryptography: {0}")]
    Crypto(#[from] openssl::error::ErrorStack),
    /// A DER structure could not be read or written.
    #[error("DER: {0}")]
    Der(#[from] der::Error),
    /// The server sent something that is no property list.
    #[error(transparent)]
    Plist(#[from] PlistError),
    /// The request could not be sent, or no answer came.
    #[error("{url}: {why}")]
    Unreachable {
        /// Where the request went, without its query.
        url: String,
        /// The chain of causes.
        why: String,
    },
    /// The server answered with a status that ends this step.
    #[error("{url} answered {status}: {text}")]
    Status {
        /// Where the request went, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The start of the body, where it is text.
        text: String,
    },
    /// The enrollment profile can't be used; says which key.
    #[error("enrollment profile: {0}")]
    Profile(String),
    /// The SCEP exchange failed (RFC 8894).
    #[error("SCEP: {0}")]
    Scep(String),
    /// The ACME exchange failed (RFC 8555).
    #[error("ACME: {0}")]
    Acme(String),
    /// The server broke a rule of the MDM protocol.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The options given to the simulator make no sense.
    #[error("{0}")]
    Options(String),
}

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;
