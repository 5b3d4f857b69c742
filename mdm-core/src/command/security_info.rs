//! `SecurityInfo`: the security state of the device. Source: `information.security.yaml`.

use serde::{Deserialize, Serialize};

use crate::plist::Dictionary;
use crate::plist::fields::Fields;

/// The command; it has no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityInfo;

impl SecurityInfo {
    pub(super) const REQUEST_TYPE: &str = "SecurityInfo";
}

/// `SecureBootLevel` of a Mac. `NotSupported` means: neither a T2 nor Apple silicon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBootLevel {
    /// `off`
    Off,
    /// `medium`
    Medium,
    /// `full`
    Full,
    /// `not supported`
    NotSupported,
}

/// What the answer says, as far as it is used here; what the device left out is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// `ManagementStatus.EnrolledViaDEP`.
    pub enrolled_via_dep: Option<bool>,
    /// `ManagementStatus.UserApprovedEnrollment`.
    pub user_approved_enrollment: Option<bool>,
    /// `ManagementStatus.IsUserEnrollment`.
    pub is_user_enrollment: Option<bool>,
    /// `SecureBoot.SecureBootLevel`.
    pub secure_boot_level: Option<SecureBootLevel>,
    /// `FDE_Enabled`: FileVault is on.
    pub file_vault_enabled: Option<bool>,
    /// `PasscodePresent`.
    pub passcode_present: Option<bool>,
}

/// Reads the answer; `None` where the report holds none.
pub fn answer(body: &Dictionary) -> Option<Answers> {
    let mut info = Fields::new(body.get("SecurityInfo")?.as_dictionary()?.clone());
    let mut part = |key| Fields::new(info.dictionary(key).ok().flatten().unwrap_or_default());
    let mut management = part("ManagementStatus");
    let mut secure_boot = part("SecureBoot");
    let level = secure_boot.string("SecureBootLevel").ok().flatten();
    Some(Answers {
        enrolled_via_dep: management.boolean("EnrolledViaDEP").ok().flatten(),
        user_approved_enrollment: management.boolean("UserApprovedEnrollment").ok().flatten(),
        is_user_enrollment: management.boolean("IsUserEnrollment").ok().flatten(),
        secure_boot_level: level.and_then(|l| match l.as_str() {
            "off" => Some(SecureBootLevel::Off),
            "medium" => Some(SecureBootLevel::Medium),
            "full" => Some(SecureBootLevel::Full),
            "not supported" => Some(SecureBootLevel::NotSupported),
            _ => None,
        }),
        file_vault_enabled: info.boolean("FDE_Enabled").ok().flatten(),
        passcode_present: info.boolean("PasscodePresent").ok().flatten(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plist::{Limits, decode_dictionary};

    #[test]
    fn the_stored_answer_is_read() {
        let bytes = include_bytes!("../../tests/golden/report_security_info.plist");
        let body = decode_dictionary(bytes, Limits::REPORT).unwrap();
        let answers = answer(&body).unwrap();
        assert_eq!(answers.secure_boot_level, Some(SecureBootLevel::NotSupported));
        assert_eq!(answers.enrolled_via_dep, Some(false));
        assert_eq!(answers.file_vault_enabled, Some(true));
        assert_eq!(answers.passcode_present, None);
        assert_eq!(answer(&Dictionary::new()), None);
    }
}
