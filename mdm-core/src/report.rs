//! The report: what a device sends to its ServerURL, a poll or the result of a command.
//!
//! Source: Apple, "Implementing Device Management" and the response keys of each command. A device repeats a report
//! until it is accepted, so whatever can be left out of account is: only the sender, the status and the command's
//! identifier must be right.

use serde::{Deserialize, Serialize};

use crate::checkin::{MessageError, take_sender};
use crate::enrollment::{Sender, text_enum};
use crate::ids::CommandUuid;
use crate::plist::fields::Fields;
use crate::plist::{self, Dictionary, Limits, Value};

/// `Status` of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// The device has nothing to tell and asks for a command.
    Idle,
    /// The command was carried out.
    Acknowledged,
    /// The command failed.
    Error,
    /// The command was not understood; it must not be sent again.
    CommandFormatError,
    /// The device can't now; the server must send the command again.
    NotNow,
}

text_enum!(Status {
    Idle = "Idle",
    Acknowledged = "Acknowledged",
    Error = "Error",
    CommandFormatError = "CommandFormatError",
    NotNow = "NotNow",
});

/// One link of an `ErrorChain`. For people: Apple may change codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorItem {
    /// `ErrorCode`.
    pub code: i64,
    /// `ErrorDomain`.
    pub domain: String,
    /// `LocalizedDescription`, in the device's language.
    pub localized_description: Option<String>,
    /// `USEnglishDescription`.
    pub us_english_description: Option<String>,
}

/// A report.
#[derive(Clone, PartialEq)]
pub struct Report {
    /// Who says so.
    pub sender: Sender,
    /// `Status`.
    pub status: Status,
    /// `CommandUUID`; absent with [`Status::Idle`].
    pub command_uuid: Option<CommandUuid>,
    /// `RequestType`, where the device says it; clients send an empty one.
    pub request_type: Option<String>,
    /// `ErrorChain`, the top error first; empty unless something failed.
    pub error_chain: Vec<ErrorItem>,
    /// Everything else: the command's answer.
    pub body: Dictionary,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report")
            .field("sender", &self.sender)
            .field("status", &self.status)
            .field("command_uuid", &self.command_uuid)
            .finish_non_exhaustive()
    }
}

impl Report {
    /// Reads a report of at most 16 MiB.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Self::from_dictionary(plist::decode_dictionary(bytes, Limits::REPORT)?)
    }

    /// `AuthToken`: what a network user's messages carry once the password was proven.
    pub fn auth_token(&self) -> Option<&str> {
        self.body.get("AuthToken").and_then(Value::as_string)
    }

    /// Reads a report from its decoded property list.
    pub fn from_dictionary(dictionary: Dictionary) -> Result<Self, MessageError> {
        let mut f = Fields::new(dictionary);
        let status = f.required_string("Status")?;
        let status =
            Status::from_text(&status).ok_or_else(|| MessageError::UnknownStatus(status.chars().take(64).collect()))?;
        let user_short_name = f.string("UserShortName")?;
        let sender = take_sender(&mut f, user_short_name.as_deref())?;
        let command_uuid = f.string("CommandUUID")?.map(|id| id.parse()).transpose()?;
        Ok(Self {
            sender,
            status,
            command_uuid,
            request_type: f.value("RequestType").and_then(text).filter(|t| !t.is_empty()),
            error_chain: f.value("ErrorChain").map(error_chain).unwrap_or_default(),
            body: f.rest(),
        })
    }
}

fn error_chain(value: Value) -> Vec<ErrorItem> {
    let items = value.into_array().unwrap_or_default();
    items.into_iter().filter_map(Value::into_dictionary).map(error_item).collect()
}

fn error_item(item: Dictionary) -> ErrorItem {
    let mut f = Fields::new(item);
    ErrorItem {
        code: f.value("ErrorCode").and_then(|v| v.as_signed_integer()).unwrap_or_default(),
        domain: f.value("ErrorDomain").and_then(text).unwrap_or_default(),
        localized_description: f.value("LocalizedDescription").and_then(text),
        us_english_description: f.value("USEnglishDescription").and_then(text),
    }
}

/// The device's own words, kept as they are and never branched on (Apple: don't rely on the codes).
pub fn error_chain_text(chain: &[ErrorItem]) -> String {
    let item = |item: &ErrorItem| {
        let words = item.us_english_description.as_deref().or(item.localized_description.as_deref()).unwrap_or("");
        let text = format!("{} {}: {words}", item.domain, item.code);
        text.chars().take(500).collect::<String>()
    };
    chain.iter().take(8).map(item).collect::<Vec<_>>().join(" <- ")
}

fn text(value: Value) -> Option<String> {
    value.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDID: &str = "<key>UDID</key><string>00008110-000A1B2C3D4E801E</string>";

    fn report(inner: &str) -> Result<Report, MessageError> {
        Report::decode(format!("<plist version=\"1.0\"><dict>{UDID}{inner}</dict></plist>").as_bytes())
    }

    #[test]
    fn idle_has_no_command() {
        let r = report("<key>Status</key><string>Idle</string>").unwrap();
        assert_eq!((r.status, r.command_uuid, r.request_type), (Status::Idle, None, None));
    }

    #[test]
    fn a_result_keeps_its_answer_and_any_command_uuid() {
        let r = report("<key>Status</key><string>Acknowledged</string><key>CommandUUID</key><string>my-command-0001</string><key>RequestType</key><string></string><key>QueryResponses</key><dict/>").unwrap();
        assert_eq!(r.command_uuid.unwrap().as_str(), "my-command-0001");
        assert_eq!(r.request_type, None);
        assert!(r.body.contains_key("QueryResponses"));
    }

    #[test]
    fn an_error_chain_is_read_as_far_as_it_can_be() {
        let r = report("<key>Status</key><string>Error</string><key>CommandUUID</key><string>a</string><key>ErrorChain</key><array><dict><key>ErrorCode</key><integer>12021</integer><key>ErrorDomain</key><string>MCMDMErrorDomain</string><key>LocalizedDescription</key><string>Unknown command</string></dict><string>?</string><dict/></array>").unwrap();
        assert_eq!(r.error_chain.len(), 2);
        assert_eq!(r.error_chain[0].code, 12021);
        assert_eq!(r.error_chain[0].us_english_description, None);
        let odd = report("<key>Status</key><string>Error</string><key>ErrorChain</key><string>?</string>").unwrap();
        assert!(odd.error_chain.is_empty());
    }

    #[test]
    fn what_must_be_right_is_checked() {
        assert_eq!(report("<key>Status</key><string>Fine</string>"), Err(MessageError::UnknownStatus("Fine".into())));
        assert!(report("").is_err());
        let long = "a".repeat(129);
        let r =
            report(&format!("<key>Status</key><string>Error</string><key>CommandUUID</key><string>{long}</string>"));
        assert!(matches!(r, Err(MessageError::Id(_))));
    }

    #[test]
    fn an_error_chain_is_told_top_error_first_and_bounded() {
        let item = |code, text: &str| ErrorItem {
            code,
            domain: "MCProfileErrorDomain".into(),
            localized_description: Some("Erreur".into()),
            us_english_description: Some(text.into()),
        };
        let text = error_chain_text(&[item(4001, "Profile failed"), item(9, &"x".repeat(9000))]);
        assert!(text.starts_with("MCProfileErrorDomain 4001: Profile failed <- MCProfileErrorDomain 9: xxx"), "{text}");
        assert!(text.len() < 700);
    }
}
