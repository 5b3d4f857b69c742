//! `UserConfigured`: lets a user of a Shared iPad who waits in Setup Assistant go on. Source: `user.configured.yaml`.

/// The command; it has no keys. User channel of a Shared iPad, iOS 17.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserConfigured;

impl UserConfigured {
    pub(super) const REQUEST_TYPE: &str = "UserConfigured";
}
