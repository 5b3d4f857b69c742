//! The `[users]` section: users of a Mac who are not its own.

use serde::Deserialize;

/// Users of a Mac who are not its own.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    /// What becomes of network and mobile users who log in on a Mac (`UserAuthenticate`).
    pub network: Network,
}

/// What becomes of network and mobile users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// They are not managed: the Mac is answered 410.
    #[default]
    Refuse,
    /// They are managed, and prove no password to this server; the Mac has checked it against its directory.
    WithoutPassword,
    /// They are managed once they have proved a password of the list `/api/v1/network-users` by a digest (RFC 2617).
    Digest,
}

impl From<Network> for checkin::NetworkUsers {
    fn from(network: Network) -> Self {
        match network {
            Network::Refuse => Self::Refuse,
            Network::WithoutPassword => Self::WithoutPassword,
            Network::Digest => Self::Digest,
        }
    }
}
