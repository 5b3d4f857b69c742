//! A device from the first tap on the enrollment link to its last check-out.
//!
//! Source: Apple, "Check-in" and "Commands and queries"; the order of messages, what may be left out, and when a device
//! polls by itself are protocol facts that the comments name.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Private};

use crate::commands::{Answered, Status};
use crate::error::{Error, Result};
use crate::hardware::{Family, Hardware};
use crate::http::{Answer, Client, Trust};
use crate::plist::{self, Value, Writer};
use crate::profile::{self, Mdm, Profile, Situation};
use crate::scep::{self, Strength};
use crate::signature::{self, Identity, Style};

/// More commands in one session than any test queues; a server that never ends it is broken.
const LONGEST_SESSION: usize = 1_000;
/// `UserID` of every Shared iPad user (protocol.md section 2).
const SHARED_IPAD_USER: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";

/// What a device knows about itself.
#[derive(Debug, Clone)]
pub struct Record {
    /// The product.
    pub hardware: &'static Hardware,
    /// `OSVersion`.
    pub os_version: String,
    /// `BuildVersion`.
    pub build_version: String,
    /// `SerialNumber`.
    pub serial_number: String,
    /// `UDID`; never sent in User Enrollment.
    pub udid: String,
    /// `ProvisioningUDID`, Macs only.
    pub provisioning_udid: Option<String>,
    /// `DeviceName`.
    pub device_name: String,
    /// `EnrollmentID`: the device enrolls as a person's own (User Enrollment), without its UDID.
    pub enrollment_id: Option<String>,
}

impl Record {
    /// A record whose identifiers come from `seed`: the same seed is the same device.
    pub fn new(hardware: &'static Hardware, os_version: &str, build_version: &str, seed: &str) -> Result<Self> {
        let mac = hardware.family == Family::Mac;
        let chip = format!("{}-{}", &hex_of("chip", seed)?[..8], &hex_of("unit", seed)?[..16]);
        Ok(Self {
            hardware,
            os_version: os_version.into(),
            build_version: build_version.into(),
            serial_number: format!("S{}", &hex_of("serial", seed)?[..11]),
            udid: if mac { uuid_of("udid", seed)? } else { chip.clone() },
            provisioning_udid: mac.then_some(chip),
            device_name: format!("Simulated {}", hardware.marketing_name),
            enrollment_id: None,
        })
    }

    /// The same device as a person's own: User Enrollment.
    pub fn into_user_enrollment(mut self, seed: &str) -> Result<Self> {
        self.enrollment_id = Some(uuid_of("enrollment", seed)?);
        Ok(self)
    }

    /// What the channel can install.
    pub fn situation(&self, user_channel: bool) -> Situation {
        Situation {
            user_channel,
            user_enrollment: self.enrollment_id.is_some(),
            ..Situation::new(self.hardware, &self.os_version)
        }
    }
}

fn hex_of(label: &str, seed: &str) -> Result<String> {
    let digest = hash(MessageDigest::sha256(), format!("{label}:{seed}").as_bytes())?;
    Ok(hex::encode_upper(digest))
}

fn uuid_of(label: &str, seed: &str) -> Result<String> {
    let digest = hash(MessageDigest::sha256(), format!("{label}:{seed}").as_bytes())?;
    let bytes = digest.first_chunk::<16>().copied().unwrap_or_default();
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated().to_string().to_uppercase())
}

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
}

/// A channel of a device: the device itself (0) or one of its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId(pub usize);

impl ChannelId {
    /// The device channel.
    pub const DEVICE: Self = Self(0);
}

/// A user of a Mac or of a Shared iPad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `UserID`.
    pub id: String,
    /// `UserShortName`.
    pub short_name: String,
    /// `UserLongName`.
    pub long_name: String,
}

impl User {
    /// A local user of a Mac.
    pub fn of_mac(short_name: &str, long_name: &str, seed: &str) -> Result<Self> {
        Ok(Self { id: uuid_of("user", seed)?, short_name: short_name.into(), long_name: long_name.into() })
    }

    /// A user of a Shared iPad, known by the Managed Apple Account only.
    pub fn of_shared_ipad(managed_account: &str) -> Self {
        Self { id: SHARED_IPAD_USER.into(), short_name: managed_account.into(), long_name: managed_account.into() }
    }
}

pub(crate) struct Channel {
    pub(crate) user: Option<User>,
    pub(crate) profiles: Vec<Profile>,
    token: Vec<u8>,
    magic: String,
    /// A report that the server did not take: it is sent again first.
    unsent: Option<Vec<u8>>,
    last: Option<Status>,
}

impl Channel {
    fn new(user: Option<User>) -> Result<Self> {
        let mut token = vec![0; 32];
        let mut magic = [0; 16];
        openssl::rand::rand_bytes(&mut token)?;
        openssl::rand::rand_bytes(&mut magic)?;
        let magic = uuid::Builder::from_random_bytes(magic).into_uuid().hyphenated().to_string();
        Ok(Self { user, profiles: Vec::new(), token, magic: magic.to_uppercase(), unsent: None, last: None })
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
    pub(crate) behaviour: Behaviour,
    pub(crate) channels: Vec<Channel>,
    pub(crate) identity: Option<Identity>,
    pub(crate) anchors: Vec<Vec<u8>>,
    pub(crate) history: Vec<Answered>,
    pub(crate) finished: BTreeSet<String>,
    pub(crate) ready_key: Option<PKey<Private>>,
    mdm: Option<Mdm>,
    trust: Trust,
    client: Client,
}

impl Device {
    /// A device that is not enrolled yet.
    pub fn new(record: Record, trust: Trust, behaviour: Behaviour) -> Result<Self> {
        let client = Client::new(&trust, None)?;
        Ok(Self {
            record,
            behaviour,
            channels: Vec::new(),
            identity: None,
            anchors: Vec::new(),
            history: Vec::new(),
            finished: BTreeSet::new(),
            ready_key: None,
            mdm: None,
            trust,
            client,
        })
    }

    /// Follows an enrollment link to its end: profile, SCEP, Authenticate, TokenUpdate.
    pub async fn enroll(&mut self, link: &str) -> Result<()> {
        self.follow(link).await?;
        self.authenticate().await?;
        self.token_update(ChannelId::DEVICE).await
    }

    /// Fetches the profile behind an enrollment link and gets the identity that it names.
    pub async fn follow(&mut self, link: &str) -> Result<()> {
        let url = format!("{}/profile", link.trim_end_matches('/'));
        let answer = self.client.get(&url).await?;
        if answer.content_type() != "application/x-apple-aspen-config" {
            return Err(Error::Profile(format!("Content-Type is «{}»", answer.content_type())));
        }
        self.obtain_identity(&answer.body).await
    }

    /// Reads an enrollment profile and gets the identity that it names, without telling the server yet.
    pub async fn obtain_identity(&mut self, bytes: &[u8]) -> Result<()> {
        let mut enrollment = profile::read_enrollment(bytes, &self.record.situation(false))?;
        for url in [&mut enrollment.mdm.server_url, &mut enrollment.mdm.check_in_url, &mut enrollment.scep.url] {
            let Some(rest) = url.strip_prefix("https://") else {
                return Err(Error::Profile(format!("{url}: https is required")));
            };
            if self.behaviour.plain_http {
                *url = format!("http://{rest}");
            }
        }
        enrollment.scep.key = self.ready_key.clone();
        let mut trust = self.trust.clone();
        for anchor in &enrollment.anchors {
            trust = trust.with_der(anchor.clone());
        }
        // The certificate payloads are installed before the identity is asked for.
        let client = Client::new(&trust, None)?;
        let identity = scep::enroll(&client, &enrollment.scep, Strength::Today).await?;
        let offered = (self.behaviour.transport != Transport::Signature).then_some(&identity);
        self.client = Client::new(&trust, offered)?;
        self.identity = Some(identity);
        self.anchors = enrollment.anchors;
        self.mdm = Some(enrollment.mdm);
        let mut channel = Channel::new(None)?;
        channel.profiles.push(enrollment.profile);
        self.channels = vec![channel];
        self.finished.clear();
        Ok(())
    }

    /// A user logs in: the user channel enrolls by its own TokenUpdate.
    pub async fn open_user_channel(&mut self, user: User) -> Result<ChannelId> {
        if !self.mdm()?.per_user_connections {
            return Err(Error::Profile("com.apple.mdm.per-user-connections is not among the capabilities".into()));
        }
        self.channels.push(Channel::new(Some(user))?);
        let channel = ChannelId(self.channels.len() - 1);
        self.token_update(channel).await?;
        Ok(channel)
    }

    /// Sends Authenticate, the first message of an enrollment.
    pub async fn authenticate(&mut self) -> Result<()> {
        self.send_check_in(&self.authenticate_message()?).await
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
        self.send_check_in(&self.token_update_message(channel)?).await
    }

    pub(crate) fn token_update_message(&self, channel: ChannelId) -> Result<Writer> {
        let of = self.channel(channel)?;
        let mut message =
            self.check_in(channel, "TokenUpdate")?.data("Token", &of.token).string("PushMagic", &of.magic);
        let mac = self.record.hardware.family == Family::Mac;
        if mac && of.user.is_some() {
            message = message.boolean("NotOnConsole", false);
        }
        if of.user.is_none() {
            message = message.boolean("AwaitingConfiguration", false);
            if !mac && self.record.enrollment_id.is_none() {
                message = message.data("UnlockToken", b"a token that is longer than the push token");
            }
        }
        Ok(message)
    }

    /// The profile is removed. The server hears of it only where the profile asked for that.
    pub async fn check_out(&mut self) -> Result<()> {
        let told = self.mdm()?.check_out_when_removed;
        if told {
            let message = self.check_in(ChannelId::DEVICE, "CheckOut")?;
            self.send_check_in(&message).await?;
        }
        self.mdm = None;
        self.channels.clear();
        Ok(())
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
            let sent = self.poll(&body).await;
            let answer = match sent {
                Ok(answer) if answer.status == 200 => answer,
                failed => {
                    // A result is kept and sent again until a server takes it.
                    if reporting {
                        self.channel_mut(channel)?.unsent = Some(body);
                    }
                    return Err(match failed {
                        Ok(answer) => answer.refused(&self.mdm()?.server_url),
                        Err(error) => error,
                    });
                }
            };
            if answer.body.is_empty() {
                session.polls_again = session.answered.last().is_some_and(|last| last.status == Status::NotNow);
                self.channel_mut(channel)?.last = session.answered.last().map(|last| last.status);
                return Ok(session);
            }
            let command = plist::parse(&answer.body)?;
            let (report, answered) = self.perform(channel, &command)?;
            self.history.push(answered.clone());
            session.answered.push(answered);
            body = report;
        }
        Err(Error::Protocol("the server never ends the session".into()))
    }

    /// The channel that a push with this token and PushMagic wakes. One with an old magic wakes nobody.
    pub fn woken_by(&self, token: &[u8], magic: &str) -> Option<ChannelId> {
        self.channels.iter().position(|channel| channel.token == token && channel.magic == magic).map(ChannelId)
    }

    /// Whether a channel may poll without a push: its last status was `NotNow`.
    pub fn polls_by_itself(&self, channel: ChannelId) -> bool {
        self.channels.get(channel.0).is_some_and(|channel| channel.last == Some(Status::NotNow))
    }

    /// The push token of a channel, for stand-ins of APNs.
    pub fn token(&self, channel: ChannelId) -> Option<&[u8]> {
        self.channels.get(channel.0).map(|channel| channel.token.as_slice())
    }

    /// All commands that were answered so far.
    pub fn history(&self) -> &[Answered] {
        &self.history
    }

    /// The profiles of a channel, the enrollment profile first.
    pub fn profiles(&self, channel: ChannelId) -> &[Profile] {
        self.channels.get(channel.0).map(|channel| channel.profiles.as_slice()).unwrap_or_default()
    }

    /// The identity that SCEP gave.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The MDM payload that is followed.
    pub fn mdm(&self) -> Result<&Mdm> {
        self.mdm.as_ref().ok_or_else(|| Error::Protocol("the device is not enrolled".into()))
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

    /// The keys by which every message names its sender (protocol.md section 2).
    pub(crate) fn sender(&self, channel: ChannelId) -> Result<Writer> {
        let keys = match &self.record.enrollment_id {
            Some(id) => Writer::new().string("EnrollmentID", id),
            None => Writer::new().string("UDID", &self.record.udid),
        };
        Ok(match (&self.channel(channel)?.user, &self.record.enrollment_id) {
            (None, _) => keys,
            (Some(user), Some(_)) => keys.string("EnrollmentUserID", &user.id),
            (Some(user), None) => keys
                .string("UserID", &user.id)
                .string("UserShortName", &user.short_name)
                .string("UserLongName", &user.long_name),
        })
    }

    fn check_in(&self, channel: ChannelId, message_type: &str) -> Result<Writer> {
        let topic = &self.mdm()?.topic;
        Ok(Writer::new().string("MessageType", message_type).string("Topic", topic).with(&self.sender(channel)?))
    }

    async fn send_check_in(&self, message: &Writer) -> Result<()> {
        let url = &self.mdm()?.check_in_url;
        let answer = self.put(url, "application/x-apple-aspen-mdm-checkin", &message.document()).await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.refused(url)) }
    }

    async fn poll(&self, body: &[u8]) -> Result<Answer> {
        self.put(&self.mdm()?.server_url, "application/x-apple-aspen-mdm", body).await
    }

    /// Sends any body as this device would, for tests of what a server refuses.
    pub async fn put(&self, url: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let mut headers = vec![("content-type", content_type), ("user-agent", "MDM/1.0")];
        let signs = match self.behaviour.transport {
            Transport::AsAsked => self.mdm()?.sign_message,
            Transport::ClientCertificate => false,
            Transport::Signature => true,
        };
        let signature;
        if let (true, Some(identity)) = (signs, &self.identity) {
            signature = signature::mdm_signature(identity, body, Style::TODAY)?;
            headers.push(("mdm-signature", &signature));
        }
        self.client.send(Method::PUT, url, &headers, body.to_vec()).await
    }

    /// Sends one check-in message with extra keys and returns the answer, for messages without a function of their own.
    pub async fn send(&self, channel: ChannelId, message_type: &str, keys: &Writer) -> Result<Answer> {
        let message = self.check_in(channel, message_type)?.with(keys);
        self.put(&self.mdm()?.check_in_url, "application/x-apple-aspen-mdm-checkin", &message.document()).await
    }
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
