//! A command as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::command::{
    CertificateList, ClearPasscode, Command, DeviceConfigured, DeviceInformation, Envelope, InstallProfile,
    ProfileList, RemoveProfile, SecurityInfo, UserConfigured, device_information,
};
use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::ids::CommandUuid;
use mdm_core::plist::{self, Limits};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::problem::Problem;

/// What to send: one of the commands that this server builds, or any other as a property list.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CommandSpec {
    /// `DeviceInformation`
    DeviceInformation {
        /// What to ask; where absent, everything that is of use for the decision about an ACME payload and that User
        /// Enrollment allows.
        #[schema(example = json!(["ProductName", "OSVersion"]))]
        queries: Option<Vec<String>>,
    },
    /// `InstallProfile`
    InstallProfile {
        /// The profile, plain or CMS-signed, in base64; at most 5 MiB.
        #[schema(format = Byte)]
        profile: String,
    },
    /// `RemoveProfile`
    RemoveProfile {
        /// Top-level `PayloadIdentifier` of the profile.
        identifier: String,
    },
    /// `ProfileList`
    ProfileList {
        /// Only the profiles that MDM installed.
        #[serde(default)]
        managed_only: bool,
    },
    /// `CertificateList`
    CertificateList {
        /// Only the certificates that MDM installed.
        #[serde(default)]
        managed_only: bool,
    },
    /// `SecurityInfo`
    SecurityInfo {},
    /// `DeviceConfigured`
    DeviceConfigured {},
    /// `UserConfigured`
    UserConfigured {},
    /// `ClearPasscode`; the device's unlock token is put in when the command is handed out.
    ClearPasscode {},
    /// Any command.
    Raw {
        /// The whole XML property list with `CommandUUID` and `Command`, in base64; at most 5 MiB. It is sent as it is.
        #[schema(format = Byte)]
        plist: String,
    },
}

impl CommandSpec {
    /// The command as it is sent, under `uuid`; a raw one has its own.
    pub(crate) fn envelope(
        self,
        uuid: Option<CommandUuid>,
        fresh: impl FnOnce() -> CommandUuid,
    ) -> Result<Envelope, Problem> {
        let command: Command = match self {
            Self::Raw { plist } => return raw(&from_base64("command.plist", &plist)?, "command.plist", uuid),
            Self::DeviceInformation { queries: asked } => {
                DeviceInformation { queries: queries(asked)?, attestation_nonce: None }.into()
            }
            Self::InstallProfile { profile } => InstallProfile { payload: checked_profile(&profile)? }.into(),
            Self::RemoveProfile { identifier } if identifier.is_empty() || identifier.len() > 255 => {
                return Err(Problem::field("command.identifier", "must have 1 to 255 bytes"));
            }
            Self::RemoveProfile { identifier } => RemoveProfile { identifier }.into(),
            Self::ProfileList { managed_only } => ProfileList { managed_only }.into(),
            Self::CertificateList { managed_only } => CertificateList { managed_only }.into(),
            Self::SecurityInfo {} => SecurityInfo.into(),
            Self::DeviceConfigured {} => DeviceConfigured.into(),
            Self::UserConfigured {} => UserConfigured.into(),
            Self::ClearPasscode {} => ClearPasscode.into(),
        };
        Ok(command.envelope(uuid.unwrap_or_else(fresh)))
    }
}

/// A raw command; `uuid`, where it is given too, must be the one inside.
pub(crate) fn raw(bytes: &[u8], field: &str, uuid: Option<CommandUuid>) -> Result<Envelope, Problem> {
    let envelope = Envelope::from_plist(bytes).map_err(|error| {
        Problem::field(field, format!("must be an XML property list with CommandUUID and Command.RequestType: {error}"))
    })?;
    match uuid {
        Some(other) if other != envelope.uuid => {
            Err(Problem::field("command_uuid", "must be the CommandUUID inside the property list, or absent"))
        }
        _ => Ok(envelope),
    }
}

fn from_base64(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let bytes = STANDARD.decode(text).map_err(|_| Problem::field(field, "must be base64 (RFC 4648 section 4)"))?;
    if bytes.len() > Limits::API.bytes {
        return Err(Problem::field(field, "must be at most 5 MiB"));
    }
    Ok(bytes)
}

/// A profile that a device could at least read: DER of a CMS signature, or an XML property list of type Configuration.
fn checked_profile(text: &str) -> Result<Vec<u8>, Problem> {
    let bytes = from_base64("command.profile", text)?;
    if bytes.first() == Some(&0x30) {
        return Ok(bytes);
    }
    let wrong = |why: String| {
        Problem::field("command.profile", format!("must be a configuration profile, signed (DER) or plain XML: {why}"))
    };
    let profile = plist::decode_dictionary(&bytes, Limits::API).map_err(|error| wrong(error.to_string()))?;
    match profile.get("PayloadType").and_then(|v| v.as_string()) {
        Some("Configuration") => Ok(bytes),
        _ => Err(wrong("PayloadType is not Configuration".to_owned())),
    }
}

fn queries(asked: Option<Vec<String>>) -> Result<Vec<&'static str>, Problem> {
    let known = device_information::queries(EnrollmentKind::Device, Channel::Device);
    let Some(asked) = asked else {
        let modest = device_information::queries(EnrollmentKind::User, Channel::User);
        return Ok(modest.to_vec());
    };
    if asked.is_empty() {
        return Err(Problem::field("command.queries", "must name at least one query, or be absent"));
    }
    let of = |(n, query): (usize, &String)| {
        known.iter().copied().find(|k| k == query).ok_or_else(|| {
            let right = format!("must be one of {}; send others as type raw", known.join(", "));
            Problem::field(format!("command.queries[{n}]"), right)
        })
    };
    asked.iter().enumerate().map(of).collect()
}
