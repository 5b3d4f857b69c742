//! Commands: what the server asks of a device, and how their answers are read.
//!
//! Source: Apple, "Commands and Queries" (`mdm/commands/*.yaml`). One file per `RequestType` that we build or read; any
//! other is passed on as an operator wrote it.

pub mod certificate_list;
pub mod clear_passcode;
pub mod device_configured;
pub mod device_information;
pub mod install_profile;
pub mod profile_list;
pub mod remove_profile;
pub mod security_info;
pub mod user_configured;
pub mod user_enrollment;

use crate::ids::{CommandUuid, InvalidId};
use crate::plist::fields::{FieldError, Fields};
use crate::plist::{self, Dictionary, Limits, PlistError, Value};

pub use certificate_list::CertificateList;
pub use clear_passcode::ClearPasscode;
pub use device_configured::DeviceConfigured;
pub use device_information::DeviceInformation;
pub use install_profile::InstallProfile;
pub use profile_list::ProfileList;
pub use remove_profile::RemoveProfile;
pub use security_info::SecurityInfo;
pub use user_configured::UserConfigured;

/// A command that we build.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// See [`CertificateList`].
    CertificateList(CertificateList),
    /// See [`ClearPasscode`].
    ClearPasscode(ClearPasscode),
    /// See [`DeviceConfigured`].
    DeviceConfigured(DeviceConfigured),
    /// See [`DeviceInformation`].
    DeviceInformation(DeviceInformation),
    /// See [`InstallProfile`].
    InstallProfile(InstallProfile),
    /// See [`ProfileList`].
    ProfileList(ProfileList),
    /// See [`RemoveProfile`].
    RemoveProfile(RemoveProfile),
    /// See [`SecurityInfo`].
    SecurityInfo(SecurityInfo),
    /// See [`UserConfigured`].
    UserConfigured(UserConfigured),
}

impl Command {
    /// Its `RequestType`.
    pub fn request_type(&self) -> &'static str {
        match self {
            Self::CertificateList(_) => CertificateList::REQUEST_TYPE,
            Self::ClearPasscode(_) => ClearPasscode::REQUEST_TYPE,
            Self::DeviceConfigured(_) => DeviceConfigured::REQUEST_TYPE,
            Self::DeviceInformation(_) => DeviceInformation::REQUEST_TYPE,
            Self::InstallProfile(_) => InstallProfile::REQUEST_TYPE,
            Self::ProfileList(_) => ProfileList::REQUEST_TYPE,
            Self::RemoveProfile(_) => RemoveProfile::REQUEST_TYPE,
            Self::SecurityInfo(_) => SecurityInfo::REQUEST_TYPE,
            Self::UserConfigured(_) => UserConfigured::REQUEST_TYPE,
        }
    }

    /// The command as it is sent, under this identifier.
    pub fn envelope(&self, uuid: CommandUuid) -> Envelope {
        let mut command = Dictionary::new();
        command.insert("RequestType".into(), self.request_type().into());
        match self {
            Self::CertificateList(c) => c.write(&mut command),
            Self::DeviceInformation(c) => c.write(&mut command),
            Self::InstallProfile(c) => c.write(&mut command),
            Self::ProfileList(c) => c.write(&mut command),
            Self::RemoveProfile(c) => c.write(&mut command),
            Self::ClearPasscode(ClearPasscode)
            | Self::DeviceConfigured(DeviceConfigured)
            | Self::SecurityInfo(SecurityInfo)
            | Self::UserConfigured(UserConfigured) => {}
        }
        let mut out = Dictionary::new();
        out.insert("Command".into(), Value::Dictionary(command));
        out.insert("CommandUUID".into(), uuid.as_str().into());
        let body = plist::encode(&Value::Dictionary(out));
        Envelope { uuid, request_type: self.request_type().to_owned(), body }
    }
}

macro_rules! from {
    ($($name:ident),+) => {$(
        impl From<$name> for Command {
            fn from(command: $name) -> Self {
                Self::$name(command)
            }
        }
    )+};
}
from!(
    CertificateList,
    ClearPasscode,
    DeviceConfigured,
    DeviceInformation,
    InstallProfile,
    ProfileList,
    RemoveProfile,
    SecurityInfo,
    UserConfigured
);

/// Why an operator's property list was refused as a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an acceptable property list.
    #[error(transparent)]
    Plist(#[from] PlistError),
    /// A key is missing or wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The `CommandUUID` has a form that is not accepted.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// A command as it is sent: its identifier, its type, and the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `CommandUUID`.
    pub uuid: CommandUuid,
    /// `Command.RequestType`.
    pub request_type: String,
    /// The XML property list. May hold secrets: a PIN, a password, a profile.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("uuid", &self.uuid)
            .field("request_type", &self.request_type)
            .finish_non_exhaustive()
    }
}

impl Envelope {
    /// Takes a whole command that an operator wrote; the bytes are sent on as they are.
    pub fn from_plist(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let mut f = Fields::new(plist::decode_dictionary(bytes, Limits::API)?);
        let uuid = f.required_string("CommandUUID")?.parse()?;
        let command = f.dictionary("Command")?.ok_or(FieldError::Missing("Command"))?;
        let request_type = Fields::new(command).required_string("RequestType")?;
        if request_type.len() > 128 || !request_type.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(FieldError::Form { key: "RequestType", why: "at most 128 printable ASCII characters" }.into());
        }
        Ok(Self { uuid, request_type, body: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::{Channel, EnrollmentKind};
    use crate::golden;

    fn stored(name: &str, command: impl Into<Command>) {
        let uuid: CommandUuid = "0001_command".parse().unwrap();
        let envelope = command.into().envelope(uuid);
        golden::same(&format!("command_{name}"), &envelope.body);
        assert_eq!(Envelope::from_plist(&envelope.body), Ok(envelope), "what is sent is what an operator could send");
    }

    #[test]
    fn every_command_is_written_as_stored() {
        stored("certificate_list", CertificateList { managed_only: true });
        stored("clear_passcode", ClearPasscode);
        stored("device_configured", DeviceConfigured);
        let queries = device_information::queries(EnrollmentKind::Device, Channel::Device).to_vec();
        stored("device_information", DeviceInformation { queries, attestation_nonce: None });
        let queries = device_information::queries(EnrollmentKind::User, Channel::Device).to_vec();
        stored(
            "device_information_user_enrollment",
            DeviceInformation { queries, attestation_nonce: Some(vec![7; 32]) },
        );
        stored("install_profile", InstallProfile { payload: b"<plist/>".to_vec() });
        stored("profile_list", ProfileList { managed_only: false });
        stored("remove_profile", RemoveProfile { identifier: "org.example.wifi".into() });
        stored("security_info", SecurityInfo);
        stored("user_configured", UserConfigured);
    }

    #[test]
    fn an_operators_command_needs_its_two_keys() {
        let plist = |inner: &str| format!("<plist version=\"1.0\"><dict>{inner}</dict></plist>").into_bytes();
        let command = "<key>Command</key><dict><key>RequestType</key><string>ScheduleOSUpdate</string></dict>";
        let good = plist(&format!("{command}<key>CommandUUID</key><string>any-1</string>"));
        assert_eq!(Envelope::from_plist(&good).unwrap().request_type, "ScheduleOSUpdate");
        assert_eq!(Envelope::from_plist(&plist(command)), Err(FieldError::Missing("CommandUUID").into()));
        for bad in [
            "<key>CommandUUID</key><string>a</string>",
            "<key>Command</key><string>a</string><key>CommandUUID</key><string>a</string>",
            "<key>Command</key><dict/><key>CommandUUID</key><string>a</string>",
            "<key>Command</key><dict><key>RequestType</key><string>a b</string></dict><key>CommandUUID</key><string>a</string>",
            "<key>Command</key><dict><key>RequestType</key><string>a</string></dict><key>CommandUUID</key><string>a b</string>",
        ] {
            assert!(Envelope::from_plist(&plist(bad)).is_err(), "{bad}");
        }
    }
}
