//! How an enrollment begins and ends.

use url::Url;

use super::{Channel, ChannelId, Device, Transport, not_enrolled};
use crate::browser::{Browser, End, PROFILE, Person, Reached};
use crate::error::{Error, Result};
use crate::http::{Client, Trust};
use crate::identity::Source;
use crate::profile::{self, EnrollmentProfile, Mdm, Profile};
use crate::signature::Identity;

/// What the device follows once it has an identity.
pub(crate) struct Enrolled {
    pub(crate) mdm: Mdm,
    pub(crate) identity: Identity,
    pub(crate) source: Source,
    pub(crate) anchors: Vec<Vec<u8>>,
    pub(crate) profile: Profile,
    /// For `ServerURL` and everything else.
    pub(super) client: Client,
    /// For `CheckInURL`, which may be pinned to other certificates.
    pub(super) check_in: Client,
}

impl Device {
    /// Follows an enrollment link to its end: profile, identity, Authenticate, TokenUpdate.
    pub async fn enroll(&mut self, link: &str) -> Result<()> {
        self.follow(link).await?;
        self.authenticate().await?;
        self.token_update(ChannelId::DEVICE).await
    }

    /// Follows an enrollment link as a person does in a browser, who signs in where the page asks for it.
    pub async fn enroll_in_browser(&mut self, link: &str, person: &Person) -> Result<()> {
        let url = Url::parse(link).map_err(|error| Error::Options(format!("{link}: {error}")))?;
        let end = End::Profile { host: url.host_str().unwrap_or_default().to_owned() };
        match Browser::new(&self.trust, person)?.open(url, None, &end).await? {
            Reached::Profile(bytes) => self.obtain_identity(&bytes).await?,
            Reached::Code(answer) => return Err(answer.refused(link)),
            Reached::Callback(_) => return Err(Error::Protocol("a callback that nobody asked for".into())),
        }
        self.authenticate().await?;
        self.token_update(ChannelId::DEVICE).await
    }

    /// Fetches the profile behind an enrollment link and gets the identity that it names.
    pub async fn follow(&mut self, link: &str) -> Result<()> {
        let url = format!("{}/profile", link.trim_end_matches('/'));
        let answer = self.client.get(&url).await?;
        if answer.content_type() != PROFILE {
            return Err(Error::Profile(format!("Content-Type is «{}»", answer.content_type())));
        }
        self.obtain_identity(&answer.body).await
    }

    /// Reads an enrollment profile and gets the identity that it names, without telling the server yet.
    pub async fn obtain_identity(&mut self, bytes: &[u8]) -> Result<()> {
        let enrollment = profile::read_enrollment(bytes, &self.record.situation(false))?;
        self.begin(enrollment).await
    }

    /// A new enrollment with this profile, up to the identity.
    pub(crate) async fn begin(&mut self, enrollment: EnrollmentProfile) -> Result<()> {
        let enrolled = self.prepare(enrollment).await?;
        let mut channel = Channel::new(None)?;
        channel.profiles.push(enrolled.profile.clone());
        self.channels = vec![channel];
        self.finished.clear();
        self.next = None;
        self.enrolled = Some(enrolled);
        Ok(())
    }

    /// Gets what a profile names; nothing of the device changes.
    pub(crate) async fn prepare(&self, mut enrollment: EnrollmentProfile) -> Result<Enrolled> {
        let mdm = &mut enrollment.mdm;
        for url in [&mut mdm.server_url, &mut mdm.check_in_url, enrollment.identity.url_mut()] {
            let Some(rest) = url.strip_prefix("https://") else {
                return Err(Error::Profile(format!("{url}: https is required")));
            };
            if self.behaviour.plain_http {
                *url = format!("http://{rest}");
            }
        }
        let mut trust = self.trust.clone();
        for anchor in &enrollment.anchors {
            trust = trust.with_der(anchor.clone());
        }
        // The certificate payloads are installed before the identity is asked for.
        let (identity, source) = self.request_identity(&Client::new(&trust, None)?, &enrollment.identity).await?;
        let offered = (self.behaviour.transport != Transport::Signature).then_some(&identity);
        let pinned = |pins: &[Vec<u8>]| {
            let trust = if pins.is_empty() { trust.clone() } else { Trust::only(pins) };
            Client::new(&trust, offered)
        };
        Ok(Enrolled {
            client: pinned(&enrollment.server_pins)?,
            check_in: pinned(&enrollment.check_in_pins)?,
            mdm: enrollment.mdm,
            identity,
            source,
            anchors: enrollment.anchors,
            profile: enrollment.profile,
        })
    }

    /// The profile is removed. The server hears of it only where the profile asked for that.
    pub async fn check_out(&mut self) -> Result<()> {
        let told = self.mdm()?.check_out_when_removed;
        if told {
            let message = self.check_in(ChannelId::DEVICE, "CheckOut")?;
            self.send_check_in(ChannelId::DEVICE, &message).await?;
        }
        self.unenroll();
        Ok(())
    }

    /// The enrollment ends without a word: the profile, its identity and the account are gone, the device's data stays.
    pub fn unenroll(&mut self) {
        let was_enrolled = self.enrolled.take().is_some();
        self.next = None;
        self.channels.clear();
        self.signed_in = None;
        self.awaiting = false;
        self.users_wait = false;
        if was_enrolled && self.record.enrollment_id.is_some() {
            // The next User Enrollment has another EnrollmentID.
            self.record.enrollment_id = crate::record::fresh_uuid().ok();
        }
    }

    /// The device is erased and starts in Setup Assistant again: as [`Self::unenroll`], and nothing is left on it.
    pub fn wipe(&mut self) -> Result<()> {
        self.unenroll();
        self.history.clear();
        self.finished.clear();
        self.supervised = false;
        self.multi_user = false;
        self.erasing = false;
        self.kept_attestation = None;
        self.unmanaged.clear();
        self.unlock_token = crate::escrow::unlock_token()?;
        Ok(())
    }

    /// Speaks with another identity from now on, for tests: a stolen, foreign or expired one.
    pub fn set_identity(&mut self, identity: Identity) -> Result<()> {
        let mut trust = self.trust.clone();
        let enrolled = self.enrolled.as_mut().ok_or_else(not_enrolled)?;
        for anchor in &enrolled.anchors {
            trust = trust.with_der(anchor.clone());
        }
        let offered = (self.behaviour.transport != Transport::Signature).then_some(&identity);
        enrolled.client = Client::new(&trust, offered)?;
        enrolled.check_in = enrolled.client.clone();
        enrolled.identity = identity;
        Ok(())
    }
}
