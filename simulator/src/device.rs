//! A device from the first tap on the enrollment link to its last check-out.
//!
//! Source: Apple, "Check-in" and "Commands and queries"; the order of messages, what may be left out, and when a device
//! polls by itself are protocol facts that the comments name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openssl::pkey::{PKey, Private};
use tokio::sync::Mutex;

use crate::account::SignedIn;
use crate::attestation;
use crate::commands::{Answered, Status};
use crate::error::{Error, Result};
use crate::hardware::{Family, Hardware};
use crate::http::{Client, Trust};
use crate::installed::Installed;
use crate::machine_info::{DeviceCa, Tampering};
use crate::plist::{self, Value, Writer};
use crate::profile::Profile;
pub use crate::record::{Record, User};
pub use crate::renewal::Renewal;

mod enrolling;
mod glance;
mod transport;

pub(crate) use enrolling::Enrolled;

/// More commands in one session than any test queues; a server that never ends it is broken.
const LONGEST_SESSION: usize = 1_000;
/// How the device proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// As a device does: the certificate in TLS, and `Mdm-Signature` where the profile asks for it.
    #[default]
    AsAsked,
    /// Only the certificate in TLS.
    ClientCertificate,
    /// Only `Mdm-Signature`, as it arrives behind a proxy that ends TLS.
    Signature,
}

/// Habits that can be set.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// How the device proves who it is.
    pub transport: Transport,
    /// `RequestType` → how many times it is answered with `NotNow` first.
    pub not_now: BTreeMap<String, u32>,
    /// `Authenticate` says neither product nor version, as without the right 16.
    pub sparse_authenticate: bool,
    /// Speaks HTTP where the profile says https, as if a proxy had ended TLS on the way: for load tests only.
    pub plain_http: bool,
    /// What the device says after an update of its enrollment profile (open question Q10).
    pub renewal: Renewal,
    /// The report that the update succeeded is still sent with the old identity, before the device says anything else.
    pub acknowledges_first: bool,
    /// ACME payloads of ordinary profiles are carried out, as devices do. Else they are only checked and acknowledged, and
    /// there is no certificate.
    pub runs_acme: bool,
    /// What is wrong with its attestations.
    pub attestation_fault: attestation::Fault,
    /// What time it is for the device, seconds since 1970; none: the system's clock.
    pub time: Option<i64>,
}

/// A channel of a device: the device itself (0) or one of its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId(pub usize);

impl ChannelId {
    /// The device channel.
    pub const DEVICE: Self = Self(0);
}

pub(crate) struct Channel {
    pub(crate) user: Option<User>,
    pub(crate) profiles: Vec<Profile>,
    /// What the ACME payloads of those profiles brought.
    pub(crate) identities: Vec<Installed>,
    token: Vec<u8>,
    magic: String,
    /// `AuthToken`, which UserAuthenticate gave.
    pub(crate) auth_token: Option<String>,
    /// The login on a Shared iPad waits for UserConfigured.
    pub(crate) awaiting: bool,
    /// A report that the server did not take: it is sent again first.
    unsent: Option<Vec<u8>>,
    last: Option<Status>,
}

impl Channel {
    pub(crate) fn new(user: Option<User>) -> Result<Self> {
        let mut token = vec![0; 32];
        openssl::rand::rand_bytes(&mut token)?;
        let magic = crate::record::fresh_uuid()?;
        Ok(Self {
            user,
            profiles: Vec::new(),
            identities: Vec::new(),
            token,
            magic,
            auth_token: None,
            awaiting: false,
            unsent: None,
            last: None,
        })
    }
}

/// What one session of polls brought.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// The commands that were answered, in order.
    pub answered: Vec<Answered>,
    /// The last status was `NotNow`: the device polls again by itself once it can (Apple's rule; after any other status
    /// it waits for a push).
    pub polls_again: bool,
}

/// A simulated device.
pub struct Device {
    /// What it knows about itself.
    pub record: Record,
    /// Its habits.
    pub behaviour: Behaviour,
    /// What is wrong with the MachineInfo that it sends, for tests.
    pub machine_info: Tampering,
    /// Certificates that are on it for other reasons than MDM, DER.
    pub unmanaged: Vec<Vec<u8>>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) history: Vec<Answered>,
    pub(crate) finished: BTreeSet<(ChannelId, String)>,
    pub(crate) ready_key: Option<PKey<Private>>,
    pub(crate) device_ca: Option<DeviceCa>,
    pub(crate) attestation: Option<attestation::Authority>,
    pub(crate) kept_attestation: Option<attestation::DeviceAttestation>,
    /// Somebody signed in for this enrollment: it is account-driven.
    pub(crate) signed_in: Option<Arc<Mutex<SignedIn>>>,
    /// Setup Assistant waits for DeviceConfigured.
    pub(crate) awaiting: bool,
    /// Logins wait for UserConfigured: a Shared iPad whose profile has `await_device_configured`.
    pub(crate) users_wait: bool,
    /// It is a Shared iPad.
    pub(crate) multi_user: bool,
    /// It came by Automated Device Enrollment.
    pub(crate) supervised: bool,
    /// It was told to erase itself, and does so once the report is through.
    pub(crate) erasing: bool,
    pub(crate) unlock_token: Vec<u8>,
    pub(crate) enrolled: Option<Enrolled>,
    /// What it will speak with once the report on its way is through.
    pub(crate) next: Option<Enrolled>,
    pub(crate) trust: Trust,
    client: Client,
}

impl Device {
    /// A device that is not enrolled yet.
    pub fn new(record: Record, trust: Trust, behaviour: Behaviour) -> Result<Self> {
        let client = Client::new(&trust, None)?;
        Ok(Self {
            record,
            behaviour,
            machine_info: Tampering::None,
            unmanaged: Vec::new(),
            channels: Vec::new(),
            history: Vec::new(),
            finished: BTreeSet::new(),
            ready_key: None,
            device_ca: None,
            attestation: None,
            kept_attestation: None,
            signed_in: None,
            awaiting: false,
            users_wait: false,
            multi_user: false,
            supervised: false,
            erasing: false,
            unlock_token: crate::escrow::unlock_token()?,
            enrolled: None,
            next: None,
            trust,
            client,
        })
    }

    /// Whose certificate it has from the factory: needed where it signs a MachineInfo.
    #[must_use]
    pub fn built_by(mut self, ca: DeviceCa) -> Self {
        self.device_ca = Some(ca);
        self
    }

    /// Who attests its keys, where the silicon can do that.
    #[must_use]
    pub fn attested_by(mut self, authority: attestation::Authority) -> Self {
        self.attestation = Some(authority);
        self
    }

    /// A user logs in: the user channel enrolls by its own TokenUpdate.
    pub async fn open_user_channel(&mut self, user: User) -> Result<ChannelId> {
        if !self.mdm()?.per_user_connections {
            return Err(Error::Profile("com.apple.mdm.per-user-connections is not among the capabilities".into()));
        }
        let waits = self.users_wait;
        self.channels.push(Channel { awaiting: waits, ..Channel::new(Some(user))? });
        let channel = ChannelId(self.channels.len() - 1);
        self.token_update(channel).await?;
        Ok(channel)
    }

    /// Sends Authenticate, the first message of an enrollment.
    pub async fn authenticate(&mut self) -> Result<()> {
        let message = self.authenticate_message()?;
        self.send_check_in(ChannelId::DEVICE, &message).await
    }

    pub(crate) fn authenticate_message(&self) -> Result<Writer> {
        let record = &self.record;
        let mac = record.hardware.family == Family::Mac;
        let mut message = self
            .check_in(ChannelId::DEVICE, "Authenticate")?
            .string("DeviceName", &record.device_name)
            .string("ModelName", model_name(record.hardware))
            .maybe("Model", mac.then_some(record.hardware.product_name));
        if !self.behaviour.sparse_authenticate {
            message = message
                .string("OSVersion", &record.os_version)
                .string("BuildVersion", &record.build_version)
                .string("ProductName", record.hardware.product_name);
            if record.enrollment_id.is_none() {
                message = message.string("SerialNumber", &record.serial_number);
            }
        }
        Ok(message)
    }

    /// Sends TokenUpdate with the channel's push token and PushMagic.
    pub async fn token_update(&mut self, channel: ChannelId) -> Result<()> {
        let message = self.token_update_message(channel)?;
        self.send_check_in(channel, &message).await
    }

    pub(crate) fn token_update_message(&self, channel: ChannelId) -> Result<Writer> {
        let of = self.channel(channel)?;
        let mut message =
            self.check_in(channel, "TokenUpdate")?.data("Token", &of.token).string("PushMagic", &of.magic);
        let mac = self.record.hardware.family == Family::Mac;
        if mac && of.user.is_some() {
            message = message.boolean("NotOnConsole", false);
        }
        if self.multi_user && of.user.is_some() {
            message = message.boolean("AwaitingConfiguration", of.awaiting);
        }
        if of.user.is_none() {
            message = message.boolean("AwaitingConfiguration", self.awaiting);
            if !mac && !self.multi_user && self.record.enrollment_id.is_none() {
                message = message.data("UnlockToken", &self.unlock_token);
            }
        }
        Ok(message)
    }

    /// Polls until the server has nothing more for this channel.
    pub async fn session(&mut self, channel: ChannelId) -> Result<Session> {
        let mut session = Session::default();
        let waiting = self.channel_mut(channel)?.unsent.take();
        let mut body = match waiting {
            Some(report) => report,
            None => self.idle_message(channel)?.document(),
        };
        for _ in 0..LONGEST_SESSION {
            let reporting = !session.answered.is_empty();
            let server_url = self.mdm()?.server_url.clone();
            let sent = self.put_on(channel, &server_url, "application/x-apple-aspen-mdm", &body).await;
            let answer = match sent {
                Ok(answer) if answer.status == 200 => answer,
                failed => {
                    // A result is kept and sent again until a server takes it.
                    if reporting {
                        self.channel_mut(channel)?.unsent = Some(body);
                    }
                    return Err(match failed {
                        Ok(answer) => {
                            self.heed(channel, &answer);
                            answer.refused(&server_url)
                        }
                        Err(error) => error,
                    });
                }
            };
            if self.erasing {
                self.wipe()?;
                return Ok(session);
            }
            self.switch_identity().await?;
            if answer.body.is_empty() {
                session.polls_again = session.answered.last().is_some_and(|last| last.status == Status::NotNow);
                self.channel_mut(channel)?.last = session.answered.last().map(|last| last.status);
                return Ok(session);
            }
            let command = plist::parse(&answer.body)?;
            let (report, answered) = self.answer(channel, &command).await?;
            self.history.push(answered.clone());
            session.answered.push(answered);
            body = report;
        }
        Err(Error::Protocol("the server never ends the session".into()))
    }

    pub(crate) fn channel(&self, channel: ChannelId) -> Result<&Channel> {
        self.channels.get(channel.0).ok_or_else(|| Error::Protocol("no such channel".into()))
    }

    pub(crate) fn channel_mut(&mut self, channel: ChannelId) -> Result<&mut Channel> {
        self.channels.get_mut(channel.0).ok_or_else(|| Error::Protocol("no such channel".into()))
    }

    pub(crate) fn idle_message(&self, channel: ChannelId) -> Result<Writer> {
        Ok(self.sender(channel)?.string("Status", "Idle"))
    }
}

fn not_enrolled() -> Error {
    Error::Protocol("the device is not enrolled".into())
}

/// `ModelName`: the family as people say it.
pub(crate) fn model_name(hardware: &Hardware) -> &'static str {
    match hardware.family {
        Family::IPhone => "iPhone",
        Family::IPad => "iPad",
        Family::IPod => "iPod touch",
        Family::Mac => hardware.marketing_name.split(" (").next().unwrap_or("Mac"),
        Family::AppleTv => "Apple TV",
        Family::Watch => "Apple Watch",
        Family::Vision => "Apple Vision Pro",
    }
}

/// The command's name, its id and its keys.
pub(crate) fn command_parts(command: &Value) -> Result<(&str, &str, &Value)> {
    let uuid = command.text("CommandUUID").ok_or_else(|| Error::Protocol("a command without CommandUUID".into()))?;
    let keys = command.get("Command").ok_or_else(|| Error::Protocol("a command without Command".into()))?;
    let kind = keys.text("RequestType").ok_or_else(|| Error::Protocol("a command without RequestType".into()))?;
    Ok((kind, uuid, keys))
}

#[cfg(test)]
mod tests;
