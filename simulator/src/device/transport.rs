//! How a device speaks: who it says it is, the signature, the access token, and what an error means to it.

use http::Method;

use super::{ChannelId, Device, Transport, not_enrolled};
use crate::account::Challenge;
use crate::error::Result;
use crate::hardware::Family;
use crate::http::Answer;
use crate::plist::Writer;
use crate::signature::{self, Style};

/// Content-Type of check-in messages.
const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";

impl Device {
    /// The keys by which every message names its sender (protocol.md section 2).
    pub(crate) fn sender(&self, channel: ChannelId) -> Result<Writer> {
        let keys = match &self.record.enrollment_id {
            Some(id) => Writer::new().string("EnrollmentID", id),
            None => Writer::new().string("UDID", &self.record.udid),
        };
        let channel = self.channel(channel)?;
        let keys = match (&channel.user, &self.record.enrollment_id) {
            (None, _) => keys,
            (Some(user), Some(_)) => keys.string("EnrollmentUserID", &user.id),
            (Some(user), None) => keys
                .string("UserID", &user.id)
                .string("UserShortName", &user.short_name)
                .string("UserLongName", &user.long_name),
        };
        Ok(keys.maybe("AuthToken", channel.auth_token.as_deref()))
    }

    pub(crate) fn check_in(&self, channel: ChannelId, message_type: &str) -> Result<Writer> {
        let topic = &self.mdm()?.topic;
        Ok(Writer::new().string("MessageType", message_type).string("Topic", topic).with(&self.sender(channel)?))
    }

    pub(crate) async fn send_check_in(&mut self, channel: ChannelId, message: &Writer) -> Result<()> {
        let url = self.mdm()?.check_in_url.clone();
        let answer = self.put_on(channel, &url, CHECK_IN, &message.document()).await?;
        if answer.status == 200 {
            return Ok(());
        }
        self.heed(channel, &answer);
        Err(answer.refused(&url))
    }

    /// What an error means to the device: 401 without a challenge, or 403 `com.apple.unrecognized.device`, end the
    /// enrollment (protocol.md section 1).
    pub(super) fn heed(&mut self, channel: ChannelId, answer: &Answer) {
        let stranger = answer.code().is_some_and(|code| code.code == "com.apple.unrecognized.device");
        let asks = self.carries_bearer(channel) && Challenge::read(answer).is_ok();
        if stranger || answer.status == 401 && !asks {
            self.unenroll();
        }
    }

    /// Sends any body as this device would on its device channel, for tests of what a server refuses.
    pub async fn put(&self, url: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        self.put_on(ChannelId::DEVICE, url, content_type, body).await
    }

    /// Sends a body; where the server wants the person to sign in again, that happens, and the body is sent once more.
    pub(crate) async fn put_on(
        &self,
        channel: ChannelId,
        url: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Answer> {
        let answer = self.put_once(channel, url, content_type, body).await?;
        let (401, true, Some(person)) = (answer.status, self.carries_bearer(channel), &self.signed_in) else {
            return Ok(answer);
        };
        let Ok(challenge) = Challenge::read(&answer) else { return Ok(answer) };
        person.lock().await.again(challenge).await?;
        self.put_once(channel, url, content_type, body).await
    }

    async fn put_once(&self, channel: ChannelId, url: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let enrolled = self.enrolled.as_ref().ok_or_else(not_enrolled)?;
        let mut headers = vec![("content-type", content_type), ("user-agent", "MDM/1.0")];
        let signs = match self.behaviour.transport {
            Transport::AsAsked => enrolled.mdm.sign_message,
            Transport::ClientCertificate => false,
            Transport::Signature => true,
        };
        let (signature, bearer);
        if signs {
            signature = signature::mdm_signature(&enrolled.identity, body, Style::TODAY)?;
            headers.push(("mdm-signature", &signature));
        }
        if let (true, Some(person)) = (self.carries_bearer(channel), &self.signed_in) {
            bearer = format!("Bearer {}", person.lock().await.access_token());
            headers.push(("authorization", &bearer));
        }
        let client = if url == enrolled.mdm.check_in_url && url != enrolled.mdm.server_url {
            &enrolled.check_in
        } else {
            &enrolled.client
        };
        client.send(Method::PUT, url, &headers, body.to_vec()).await
    }

    /// Whether requests of this channel carry the access token: all of them on iOS, iPadOS and visionOS, those of user
    /// channels on macOS (Apple, "Implementing the simple authentication user enrollment flow").
    pub(crate) fn carries_bearer(&self, channel: ChannelId) -> bool {
        let of_user = self.channel(channel).is_ok_and(|channel| channel.user.is_some());
        self.signed_in.is_some() && (of_user || self.record.hardware.family != Family::Mac)
    }

    /// Sends one check-in message with extra keys and returns the answer, for messages without a function of their own.
    pub async fn send(&self, channel: ChannelId, message_type: &str, keys: &Writer) -> Result<Answer> {
        let message = self.check_in(channel, message_type)?.with(keys);
        self.put_on(channel, &self.mdm()?.check_in_url, CHECK_IN, &message.document()).await
    }
}
