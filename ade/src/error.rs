//! What can go wrong, apart from what Apple's service says ([`crate::Health`] and [`Error::Apple`]).

/// An error of this crate. None of its texts holds a key, a token or a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What was uploaded is no token of the portal.
    #[error("this is not a server token of Apple's portal: {0}")]
    NotAToken(&'static str),
    /// The token was encrypted to another certificate.
    #[error(
        "the token was encrypted to another certificate: upload this server's certificate to the portal, then download a new token"
    )]
    OtherCertificate,
    /// The token belongs to another server of the portal.
    #[error(
        "the token belongs to another server of the portal (its consumer_key differs): choose the same server there, or send force"
    )]
    OtherConsumerKey,
    /// Another server here has the token's `consumer_key`.
    #[error("the server {0} has a token with this consumer_key already")]
    InUse(String),
    /// The stored token is newer.
    #[error("the stored token is newer: it ends later than this one")]
    Older,
    /// The token has ended.
    #[error("the token has ended: download a new one")]
    Ended,
    /// The server has no token yet.
    #[error("the server has no token yet: upload its certificate to the portal and put the token")]
    NoToken,
    /// There is no such server.
    #[error("there is no such server")]
    NoServer,
    /// There is no profile with this name.
    #[error("there is no profile with the name {0}")]
    NoProfile(String),
    /// The name is taken.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// The name does not fit.
    #[error("a name has 1 to 64 letters, digits, spaces, '.', '_' or '-'")]
    Name,
    /// The profile is in use.
    #[error("the profile is in use by {0} servers or devices")]
    ProfileInUse(i64),
    /// Serial numbers that no server lists.
    #[error("no server lists {}", .0.join(", "))]
    NoDevice(Vec<String>),
    /// The profile definition is wrong.
    #[error(transparent)]
    Definition(#[from] crate::InvalidDefinition),
    /// Apple's service did not do it.
    #[error("{0}")]
    Apple(#[from] crate::service::Fault),
    /// Another process took the visit over.
    #[error("another process took this visit over")]
    LeaseLost,
    /// A stored value cannot be read back.
    #[error("the stored {0} cannot be read")]
    Stored(&'static str),
    /// The key or its certificate could not be made.
    #[error("the key for the portal could not be made")]
    Key,
}

impl store::Busy for Error {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_busy())
    }
}
