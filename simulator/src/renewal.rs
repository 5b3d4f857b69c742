//! An update of the enrollment profile, which brings a new identity.
//!
//! Sources: Apple, "Updating the MDM profile": same top-level PayloadIdentifier, keys that may not change, the old profile
//! restored on failure, «restarts the check-in process»; open questions Q10 and Q26.

use crate::commands::{Answered, Outcome};
use crate::device::{ChannelId, Device, Enrolled, command_parts};
use crate::error::{Error, Result};
use crate::plist::{Value, Writer};
use crate::profile::{self, EnrollmentProfile, Refusal};

/// What a device says once it has a new identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Renewal {
    /// Authenticate, then TokenUpdate.
    #[default]
    Authenticate,
    /// Only TokenUpdate.
    TokenUpdate,
}

impl Device {
    /// Whether this command updates the enrollment profile.
    pub(crate) fn updates_enrollment(channel: ChannelId, command: &Value) -> bool {
        let Ok(("InstallProfile", _, keys)) = command_parts(command) else { return false };
        channel == ChannelId::DEVICE && keys.get("Payload").and_then(Value::as_data).is_some_and(profile::is_enrollment)
    }

    /// Installs the update and reports what came of it.
    pub(crate) async fn update_enrollment(
        &mut self,
        channel: ChannelId,
        command: &Value,
    ) -> Result<(Vec<u8>, Answered)> {
        if let Some(postponed) = self.postponed(channel, command)? {
            return Ok(postponed);
        }
        let (_, _, keys) = command_parts(command)?;
        let bytes = keys.get("Payload").and_then(Value::as_data).unwrap_or_default();
        let outcome = match self.replace_profile(bytes).await {
            Ok(()) => Outcome::Done(Writer::new()),
            Err(error) => Outcome::Refused(Refusal::new(4001, &error.to_string())),
        };
        self.report(channel, command, outcome)
    }

    /// Nothing changes where anything of it fails.
    async fn replace_profile(&mut self, bytes: &[u8]) -> Result<()> {
        let enrollment = profile::read_enrollment(bytes, &self.record.situation(false))?;
        self.check_update(&enrollment)?;
        let new = self.prepare(enrollment).await?;
        if self.behaviour.acknowledges_first {
            self.next = Some(new);
            return Ok(());
        }
        self.switch_to(new).await
    }

    fn check_update(&self, enrollment: &EnrollmentProfile) -> Result<()> {
        let enrolled = self.enrolled.as_ref().ok_or_else(|| Error::Protocol("the device is not enrolled".into()))?;
        if enrolled.profile.identifier != enrollment.profile.identifier {
            return Err(Error::Profile("com.apple.mdm: only one MDM payload on a device".into()));
        }
        match enrolled.mdm.immutable_differs(&enrollment.mdm) {
            None => Ok(()),
            Some(key) => Err(Error::Profile(format!("com.apple.mdm: {key} can't be changed by an update"))),
        }
    }

    /// The report is through: the identity that waited for that is taken.
    pub(crate) async fn switch_identity(&mut self) -> Result<()> {
        match self.next.take() {
            Some(new) => self.switch_to(new).await,
            None => Ok(()),
        }
    }

    /// Speaks with the new identity; where the server does not take it, the old one is restored.
    async fn switch_to(&mut self, new: Enrolled) -> Result<()> {
        let profile = new.profile.clone();
        let old = self.enrolled.replace(new);
        let told = match self.behaviour.renewal {
            Renewal::Authenticate => match self.authenticate().await {
                Ok(()) => self.token_update(ChannelId::DEVICE).await,
                refused => refused,
            },
            Renewal::TokenUpdate => self.token_update(ChannelId::DEVICE).await,
        };
        if let Err(error) = told {
            // An answer that ended the enrollment has ended it.
            if self.enrolled.is_some() {
                self.enrolled = old;
            }
            return Err(error);
        }
        let profiles = &mut self.channel_mut(ChannelId::DEVICE)?.profiles;
        profiles.retain(|installed| installed.identifier != profile.identifier);
        profiles.insert(0, profile);
        Ok(())
    }
}
