//! `RemoveProfile`: removes a profile that MDM installed. Source: `profile.remove.yaml`.

use crate::plist::Dictionary;

/// The command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveProfile {
    /// `Identifier`: the profile's top-level `PayloadIdentifier`.
    pub identifier: String,
}

impl RemoveProfile {
    pub(super) const REQUEST_TYPE: &str = "RemoveProfile";

    pub(super) fn write(&self, command: &mut Dictionary) {
        command.insert("Identifier".into(), self.identifier.as_str().into());
    }
}
