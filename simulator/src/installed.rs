//! Ordinary profiles on a device: installed whole or not at all, with the identities that their ACME payloads bring.
//!
//! Sources: Apple, "Install Profile Command", "Remove Profile Command", "Certificate List Command", "ACMECertificate"; what
//! a failed replacement leaves behind is open question Q26: here, what was there before.

use crate::acme::{self, Acme};
use crate::acme_client::Request;
use crate::commands::Outcome;
use crate::device::{ChannelId, Device};
use crate::error::Result;
use crate::http::Client;
use crate::plist::Writer;
use crate::profile::{self, Profile, Refusal};
use crate::signature;

/// An identity that an ordinary profile brought.
#[derive(Debug, Clone)]
pub struct Installed {
    /// `PayloadIdentifier` of the profile.
    pub profile_identifier: String,
    /// `PayloadUUID` of the ACME payload, by which others refer to it.
    pub payload_uuid: String,
    /// What was asked.
    pub acme: Acme,
    /// The certificate and its key.
    pub identity: signature::Identity,
    /// The silicon attested the key.
    pub attested: bool,
}

impl Device {
    pub(crate) async fn install_profile(&mut self, channel: ChannelId, bytes: &[u8]) -> Result<Outcome> {
        let situation = self.record.situation(self.channel(channel)?.user.is_some());
        let profile = match profile::check(bytes, &situation) {
            Ok(profile) => profile,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        let identities = match self.obtain(&profile).await {
            Ok(identities) => identities,
            Err(error) => {
                let why = Refusal::of(-1, "MCACMEErrorDomain", &error.to_string());
                let whole = format!("The profile «{}» could not be installed.", profile.identifier);
                return Ok(Outcome::Refused(Refusal::new(4001, &whole).because(why)));
            }
        };
        let acme = profile.acme.clone();
        let channel = self.channel_mut(channel)?;
        channel.profiles.retain(|old| old.identifier != profile.identifier);
        channel.identities.retain(|old| old.profile_identifier != profile.identifier);
        channel.identities.extend(identities);
        channel.profiles.push(profile);
        Ok(Outcome::Installed(acme))
    }

    /// Gets what the ACME payloads of a profile ask for; nothing of the device changes.
    async fn obtain(&self, profile: &Profile) -> Result<Vec<Installed>> {
        let mut identities = Vec::new();
        if !self.behaviour.runs_acme {
            return Ok(identities);
        }
        let mut trust = self.trust.clone();
        let enrolled = self.enrolled.iter().flat_map(|enrolled| &enrolled.anchors);
        for anchor in enrolled.chain(&profile.certificates) {
            trust = trust.with_der(anchor.clone());
        }
        let client = Client::new(&trust, None)?;
        let payloads = profile.payloads.iter().filter(|payload| payload.kind == acme::PAYLOAD_TYPE);
        for (payload, acme) in payloads.zip(&profile.acme) {
            let request = Request::read(&payload.keys, acme.clone());
            let request = request.ok_or_else(|| crate::Error::Profile("com.apple.security.acme: Subject".into()))?;
            let (identity, attested) = self.run_acme(&client, &request).await?;
            identities.push(Installed {
                profile_identifier: profile.identifier.clone(),
                payload_uuid: payload.uuid.clone(),
                acme: acme.clone(),
                identity,
                attested,
            });
        }
        Ok(identities)
    }

    pub(crate) fn remove_profile(&mut self, channel: ChannelId, identifier: &str) -> Result<Outcome> {
        let channel = self.channel_mut(channel)?;
        let before = channel.profiles.len();
        channel.profiles.retain(|profile| profile.identifier != identifier);
        if channel.profiles.len() < before {
            channel.identities.retain(|identity| identity.profile_identifier != identifier);
            return Ok(Outcome::Done(Writer::new()));
        }
        let text = format!("The profile «{identifier}» is not installed.");
        Ok(Outcome::Refused(Refusal::of(12075, "MCMDMErrorDomain", &text)))
    }

    /// The certificates of a channel. Those that MDM did not bring are left out where only managed ones are asked for, and
    /// always in User Enrollment.
    pub(crate) fn certificate_list(&self, channel: ChannelId, managed_only: bool) -> Result<Writer> {
        let mut list = Vec::new();
        let mut add = |der: &[u8], identity: bool| -> Result<()> {
            let certificate = openssl::x509::X509::from_der(der)?;
            let name = certificate.subject_name().entries_by_nid(openssl::nid::Nid::COMMONNAME).next();
            let name = name.and_then(|entry| entry.data().to_string().ok()).unwrap_or_default();
            list.push(Writer::new().string("CommonName", &name).boolean("IsIdentity", identity).data("Data", der));
            Ok(())
        };
        if let (Some(enrolled), ChannelId::DEVICE) = (&self.enrolled, channel) {
            add(&enrolled.identity.certificate.to_der()?, true)?;
            for anchor in &enrolled.anchors {
                add(anchor, false)?;
            }
        }
        let of_channel = self.channel(channel)?;
        for identity in &of_channel.identities {
            add(&identity.identity.certificate.to_der()?, true)?;
        }
        for certificate in of_channel.profiles.iter().flat_map(|profile| &profile.certificates) {
            add(certificate, false)?;
        }
        if !managed_only && self.record.enrollment_id.is_none() {
            for certificate in &self.unmanaged {
                add(certificate, true)?;
            }
        }
        Ok(Writer::new().dicts("CertificateList", &list))
    }
}
