//! `ProfileList`: which profiles are installed. Source: `profile.list.yaml`.

use serde::{Deserialize, Serialize};

use crate::plist::Dictionary;
use crate::plist::fields::Fields;

/// The command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileList {
    /// `ManagedOnly`: only those that MDM installed (iOS 13, macOS 10.15).
    pub managed_only: bool,
}

impl ProfileList {
    pub(super) const REQUEST_TYPE: &str = "ProfileList";

    pub(super) fn write(self, command: &mut Dictionary) {
        command.insert("ManagedOnly".into(), self.managed_only.into());
    }
}

/// One installed profile, as far as it is used here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledProfile {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`: the revision, where the device says it.
    pub uuid: Option<String>,
    /// `PayloadDisplayName`.
    pub display_name: Option<String>,
    /// `IsManaged`; Macs do not say it.
    pub is_managed: Option<bool>,
}

/// Reads the answer; `None` where the report holds none. Items without an identifier are left out.
pub fn answer(body: &Dictionary) -> Option<Vec<InstalledProfile>> {
    let items = body.get("ProfileList")?.as_array()?;
    let item = |value: &crate::plist::Value| {
        let mut f = Fields::new(value.as_dictionary()?.clone());
        Some(InstalledProfile {
            identifier: f.required_string("PayloadIdentifier").ok()?,
            uuid: f.string("PayloadUUID").ok().flatten(),
            display_name: f.string("PayloadDisplayName").ok().flatten(),
            is_managed: f.boolean("IsManaged").ok().flatten(),
        })
    };
    Some(items.iter().filter_map(item).collect())
}

#[cfg(test)]
mod tests {
    use crate::plist::{Limits, decode_dictionary};

    #[test]
    fn the_stored_answer_is_read() {
        let bytes = include_bytes!("../../tests/golden/report_profile_list.plist");
        let body = decode_dictionary(bytes, Limits::REPORT).unwrap();
        let profiles = super::answer(&body).unwrap();
        assert_eq!(profiles.len(), 1);
        assert_eq!(profiles[0].identifier, "org.example.mdm");
        assert_eq!(profiles[0].is_managed, Some(false));
        assert_eq!(super::answer(&crate::plist::Dictionary::new()), None);
    }
}
