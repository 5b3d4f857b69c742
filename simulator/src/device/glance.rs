//! What can be seen of a device without asking it anything.

use super::{ChannelId, Device, not_enrolled};
use crate::commands::{Answered, Status};
use crate::error::Result;
use crate::identity::Source;
use crate::installed::Installed;
use crate::profile::{Mdm, Profile};
use crate::signature::Identity;

impl Device {
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

    /// The identities that ordinary profiles of a channel brought.
    pub fn identities(&self, channel: ChannelId) -> &[Installed] {
        self.channels.get(channel.0).map(|channel| channel.identities.as_slice()).unwrap_or_default()
    }

    /// The identity that it speaks with.
    pub fn identity(&self) -> Option<&Identity> {
        self.enrolled.as_ref().map(|enrolled| &enrolled.identity)
    }

    /// Where that identity came from.
    pub fn identity_source(&self) -> Option<Source> {
        self.enrolled.as_ref().map(|enrolled| enrolled.source)
    }

    /// The MDM payload that is followed.
    pub fn mdm(&self) -> Result<&Mdm> {
        self.enrolled.as_ref().map(|enrolled| &enrolled.mdm).ok_or_else(not_enrolled)
    }

    /// Whether it is enrolled.
    pub fn is_enrolled(&self) -> bool {
        self.enrolled.is_some()
    }

    /// Whether Setup Assistant waits for DeviceConfigured.
    pub fn is_awaiting_configuration(&self) -> bool {
        self.awaiting
    }

    /// Whether the login of this user waits for UserConfigured.
    pub fn user_awaits_configuration(&self, channel: ChannelId) -> bool {
        self.channel(channel).is_ok_and(|channel| channel.awaiting)
    }
}
