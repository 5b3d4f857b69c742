//! `InstallProfile`: installs a configuration profile, or replaces the one of the same identifier.
//! Source: `profile.install.yaml`. The device answers `Acknowledged` when all payloads are installed.

use crate::plist::{Dictionary, Value};

/// The command.
#[derive(Clone, PartialEq, Eq)]
pub struct InstallProfile {
    /// `Payload`: the profile, plain or CMS-signed.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for InstallProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstallProfile").field("payload_bytes", &self.payload.len()).finish()
    }
}

impl InstallProfile {
    pub(super) const REQUEST_TYPE: &str = "InstallProfile";

    pub(super) fn write(&self, command: &mut Dictionary) {
        command.insert("Payload".into(), Value::Data(self.payload.clone()));
    }
}
