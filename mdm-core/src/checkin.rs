//! Check-in messages: what a device says about its enrollment, and the answers that are property lists.
//!
//! Source: Apple, "Check-in" (`mdm/checkin/*.yaml`). Keys that we do not know are kept in `extra` and never refused.

mod sender;

use std::fmt;

use crate::enrollment::Sender;
use crate::ids::InvalidId;
use crate::plist::fields::{FieldError, Fields};
use crate::plist::{self, Dictionary, Limits, PlistError, Value};
use crate::secret::Secret;

pub use sender::take_sender;

/// Why bytes were refused as a message of a device. Holds nothing secret; a device gets 400 for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not an acceptable property list.
    #[error(transparent)]
    Plist(#[from] PlistError),
    /// A key is missing or wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// An identifier has a form that is not accepted.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// Not exactly one of `UDID` and `EnrollmentID` (TH-03).
    #[error("a message needs exactly one of UDID and EnrollmentID")]
    DeviceKey,
    /// The user is named by the key of the other kind of enrollment (TH-03).
    #[error("the user is named by a key that does not go with the device's key")]
    UserKey,
    /// A `MessageType` that we do not know.
    #[error("unknown MessageType {0:?}")]
    UnknownMessageType(String),
    /// A `Status` that we do not know.
    #[error("unknown Status {0:?}")]
    UnknownStatus(String),
}

/// `Authenticate`: the device asks to be enrolled, or shows a renewed identity.
#[derive(Clone, PartialEq)]
pub struct Authenticate {
    /// Who says so; always the device channel.
    pub sender: Sender,
    /// `Topic` of the MDM payload.
    pub topic: String,
    /// `SerialNumber`; not sent in User Enrollment.
    pub serial_number: Option<String>,
    /// `ProductName`, such as `iPhone17,2`.
    pub product_name: Option<String>,
    /// `Model`.
    pub model: Option<String>,
    /// `ModelName`, such as `MacBook Pro`.
    pub model_name: Option<String>,
    /// `DeviceName`, as its owner named it.
    pub device_name: Option<String>,
    /// `OSVersion`.
    pub os_version: Option<String>,
    /// `BuildVersion`.
    pub build_version: Option<String>,
    /// `IMEI`.
    pub imei: Option<String>,
    /// `MEID`.
    pub meid: Option<String>,
    /// Everything else.
    pub extra: Dictionary,
}

/// `TokenUpdate`: how the channel is to be reached by push from now on.
#[derive(Clone, PartialEq)]
pub struct TokenUpdate {
    /// Who says so.
    pub sender: Sender,
    /// `Topic` of the MDM payload.
    pub topic: String,
    /// `Token`: 8 to 100 bytes (TH-14).
    pub token: Vec<u8>,
    /// `PushMagic`: 1 to 256 characters (TH-14).
    pub push_magic: String,
    /// `UnlockToken`; where it is absent, the stored one stays.
    pub unlock_token: Option<Secret<Vec<u8>>>,
    /// `AwaitingConfiguration`: the device waits in Setup Assistant for `DeviceConfigured`.
    pub awaiting_configuration: Option<bool>,
    /// `UserShortName`, on a user channel.
    pub user_short_name: Option<String>,
    /// `UserLongName`, on a user channel.
    pub user_long_name: Option<String>,
    /// `NotOnConsole`, on a Mac's user channel.
    pub not_on_console: Option<bool>,
    /// Everything else.
    pub extra: Dictionary,
}

/// `CheckOut`: the profile was removed; best effort, sent once.
#[derive(Clone, PartialEq)]
pub struct CheckOut {
    /// Who says so.
    pub sender: Sender,
    /// `Topic`, where it was sent.
    pub topic: Option<String>,
    /// Everything else.
    pub extra: Dictionary,
}

/// `UserAuthenticate`: a network user logs in on a Mac; shall that user be managed?
#[derive(Clone, PartialEq)]
pub struct UserAuthenticate {
    /// Who says so.
    pub sender: Sender,
    /// `DigestResponse`, on the second call.
    pub digest_response: Option<Secret<String>>,
    /// Everything else.
    pub extra: Dictionary,
}

/// `SetBootstrapToken`: the device hands over its bootstrap token.
#[derive(Clone, PartialEq)]
pub struct SetBootstrapToken {
    /// Who says so.
    pub sender: Sender,
    /// `BootstrapToken`; absent or empty means: forget it.
    pub bootstrap_token: Option<Secret<Vec<u8>>>,
    /// `AwaitingConfiguration`.
    pub awaiting_configuration: Option<bool>,
    /// Everything else.
    pub extra: Dictionary,
}

/// `GetBootstrapToken`: the device wants its bootstrap token back.
#[derive(Clone, PartialEq)]
pub struct GetBootstrapToken {
    /// Who says so.
    pub sender: Sender,
    /// `AwaitingConfiguration`.
    pub awaiting_configuration: Option<bool>,
    /// Everything else.
    pub extra: Dictionary,
}

/// `DeclarativeManagement`: one request of the declarative protocol.
#[derive(Clone, PartialEq)]
pub struct DeclarativeManagement {
    /// Who says so.
    pub sender: Sender,
    /// `Endpoint`: `tokens`, `declaration-items`, `status` or `declaration/…/…`. Not checked here.
    pub endpoint: String,
    /// `Data`: JSON, with `status`.
    pub data: Option<Vec<u8>>,
    /// Everything else.
    pub extra: Dictionary,
}

/// `GetToken`: the device wants a token of a service.
#[derive(Clone, PartialEq)]
pub struct GetToken {
    /// Who says so.
    pub sender: Sender,
    /// `TokenServiceType`, such as `com.apple.maid`.
    pub token_service_type: String,
    /// `TokenParameters`.
    pub token_parameters: Option<Dictionary>,
    /// Everything else.
    pub extra: Dictionary,
}

/// One check-in message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// See [`Authenticate`].
    Authenticate(Authenticate),
    /// See [`TokenUpdate`].
    TokenUpdate(TokenUpdate),
    /// See [`CheckOut`].
    CheckOut(CheckOut),
    /// See [`UserAuthenticate`].
    UserAuthenticate(UserAuthenticate),
    /// See [`SetBootstrapToken`].
    SetBootstrapToken(SetBootstrapToken),
    /// See [`GetBootstrapToken`].
    GetBootstrapToken(GetBootstrapToken),
    /// See [`DeclarativeManagement`].
    DeclarativeManagement(DeclarativeManagement),
    /// See [`GetToken`].
    GetToken(GetToken),
}

/// `Debug` of a message says its type and sender: the rest may hold tokens and secrets.
macro_rules! quiet_debug {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("sender", &self.sender).finish_non_exhaustive()
            }
        }
    )+};
}
quiet_debug!(
    Authenticate,
    TokenUpdate,
    CheckOut,
    UserAuthenticate,
    SetBootstrapToken,
    GetBootstrapToken,
    DeclarativeManagement,
    GetToken
);

impl Message {
    /// Reads a check-in message of at most 1 MiB.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Self::from_dictionary(plist::decode_dictionary(bytes, Limits::CHECKIN)?)
    }

    /// Whether the bytes, a property list that is accepted, are a check-in message at all: they have a `MessageType`.
    /// Devices without `CheckInURL` send both kinds to one URL.
    pub fn is_check_in(dictionary: &Dictionary) -> bool {
        dictionary.contains_key("MessageType")
    }

    /// Reads a check-in message from its decoded property list.
    pub fn from_dictionary(dictionary: Dictionary) -> Result<Self, MessageError> {
        let mut f = Fields::new(dictionary);
        let kind = f.required_string("MessageType")?;
        // The names of a user are facts on a TokenUpdate, besides being a key on a Shared iPad.
        let user_short_name = f.string("UserShortName")?;
        let sender = take_sender(&mut f, user_short_name.as_deref())?;
        Ok(match kind.as_str() {
            "Authenticate" => Self::Authenticate(authenticate(f, sender)?),
            "TokenUpdate" => Self::TokenUpdate(token_update(f, sender, user_short_name)?),
            "CheckOut" => Self::CheckOut(CheckOut { sender, topic: f.string("Topic")?, extra: f.rest() }),
            "UserAuthenticate" => Self::UserAuthenticate(UserAuthenticate {
                sender,
                digest_response: f.string("DigestResponse")?.map(Secret::new),
                extra: f.rest(),
            }),
            "SetBootstrapToken" => Self::SetBootstrapToken(SetBootstrapToken {
                sender,
                bootstrap_token: secret_data(&mut f, "BootstrapToken")?,
                awaiting_configuration: f.boolean("AwaitingConfiguration")?,
                extra: f.rest(),
            }),
            "GetBootstrapToken" => Self::GetBootstrapToken(GetBootstrapToken {
                sender,
                awaiting_configuration: f.boolean("AwaitingConfiguration")?,
                extra: f.rest(),
            }),
            "DeclarativeManagement" => Self::DeclarativeManagement(DeclarativeManagement {
                sender,
                endpoint: f.required_string("Endpoint")?,
                data: f.data("Data")?,
                extra: f.rest(),
            }),
            "GetToken" => Self::GetToken(GetToken {
                sender,
                token_service_type: f.required_string("TokenServiceType")?,
                token_parameters: f.dictionary("TokenParameters")?,
                extra: f.rest(),
            }),
            _ => return Err(MessageError::UnknownMessageType(kind.chars().take(64).collect())),
        })
    }

    /// Who sent it, as the body says.
    pub fn sender(&self) -> &Sender {
        match self {
            Self::Authenticate(m) => &m.sender,
            Self::TokenUpdate(m) => &m.sender,
            Self::CheckOut(m) => &m.sender,
            Self::UserAuthenticate(m) => &m.sender,
            Self::SetBootstrapToken(m) => &m.sender,
            Self::GetBootstrapToken(m) => &m.sender,
            Self::DeclarativeManagement(m) => &m.sender,
            Self::GetToken(m) => &m.sender,
        }
    }

    /// Its `MessageType`.
    pub fn message_type(&self) -> &'static str {
        match self {
            Self::Authenticate(_) => "Authenticate",
            Self::TokenUpdate(_) => "TokenUpdate",
            Self::CheckOut(_) => "CheckOut",
            Self::UserAuthenticate(_) => "UserAuthenticate",
            Self::SetBootstrapToken(_) => "SetBootstrapToken",
            Self::GetBootstrapToken(_) => "GetBootstrapToken",
            Self::DeclarativeManagement(_) => "DeclarativeManagement",
            Self::GetToken(_) => "GetToken",
        }
    }
}

fn authenticate(mut f: Fields, sender: Sender) -> Result<Authenticate, MessageError> {
    if sender.user.is_some() {
        return Err(MessageError::UserKey);
    }
    Ok(Authenticate {
        sender,
        topic: f.required_string("Topic")?,
        serial_number: f.string("SerialNumber")?,
        product_name: f.string("ProductName")?,
        model: f.string("Model")?,
        model_name: f.string("ModelName")?,
        device_name: f.string("DeviceName")?,
        os_version: f.string("OSVersion")?,
        build_version: f.string("BuildVersion")?,
        imei: f.string("IMEI")?,
        meid: f.string("MEID")?,
        extra: f.rest(),
    })
}

fn token_update(mut f: Fields, sender: Sender, user_short_name: Option<String>) -> Result<TokenUpdate, MessageError> {
    let token = f.data("Token")?.ok_or(FieldError::Missing("Token"))?;
    if !(8..=100).contains(&token.len()) {
        return Err(FieldError::Form { key: "Token", why: "8 to 100 bytes" }.into());
    }
    let push_magic = f.required_string("PushMagic")?;
    if push_magic.chars().count() > 256 {
        return Err(FieldError::Form { key: "PushMagic", why: "at most 256 characters" }.into());
    }
    Ok(TokenUpdate {
        sender,
        topic: f.required_string("Topic")?,
        token,
        push_magic,
        unlock_token: secret_data(&mut f, "UnlockToken")?,
        awaiting_configuration: f.boolean("AwaitingConfiguration")?,
        user_short_name,
        user_long_name: f.string("UserLongName")?,
        not_on_console: f.boolean("NotOnConsole")?,
        extra: f.rest(),
    })
}

fn secret_data(f: &mut Fields, key: &'static str) -> Result<Option<Secret<Vec<u8>>>, FieldError> {
    Ok(f.data(key)?.filter(|d| !d.is_empty()).map(Secret::new))
}

/// The body that answers `GetBootstrapToken`: the token, or no key where there is none.
pub fn bootstrap_token_answer(token: Option<&Secret<Vec<u8>>>) -> Vec<u8> {
    let mut out = Dictionary::new();
    if let Some(token) = token {
        out.insert("BootstrapToken".into(), Value::Data(token.expose().clone()));
    }
    plist::encode(&Value::Dictionary(out))
}

/// The body that answers the first `UserAuthenticate`: the challenge, empty where no password is asked for.
pub fn digest_challenge_answer(challenge: &str) -> Vec<u8> {
    one_text("DigestChallenge", challenge)
}

/// The body that answers the second `UserAuthenticate`: the token, empty where the password was wrong.
pub fn auth_token_answer(token: &str) -> Vec<u8> {
    one_text("AuthToken", token)
}

fn one_text(key: &str, text: &str) -> Vec<u8> {
    let mut out = Dictionary::new();
    out.insert(key.into(), text.into());
    plist::encode(&Value::Dictionary(out))
}

impl Message {
    /// `AuthToken`: what a network user's messages carry once the password was proven.
    pub fn auth_token(&self) -> Option<&str> {
        let extra = match self {
            Self::Authenticate(m) => &m.extra,
            Self::TokenUpdate(m) => &m.extra,
            Self::CheckOut(m) => &m.extra,
            Self::UserAuthenticate(m) => &m.extra,
            Self::SetBootstrapToken(m) => &m.extra,
            Self::GetBootstrapToken(m) => &m.extra,
            Self::DeclarativeManagement(m) => &m.extra,
            Self::GetToken(m) => &m.extra,
        };
        extra.get("AuthToken").and_then(Value::as_string)
    }
}

#[cfg(test)]
mod tests;
