//! `[ade]`: Automated Device Enrollment's side towards Apple.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use mdm_core::certificate::Certificate;
use serde::Deserialize;
use url::Url;

use crate::tls;

/// Apple keeps a cursor for seven days.
const MOST_MINUTES: u32 = 24 * 60;

/// How Apple's device service is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ade {
    /// Where the device service is. Default: Apple's.
    pub url: Option<Url>,
    /// PEM: certificate authorities of that service beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whether the service may have an address that is not public.
    pub private_addresses: bool,
    /// `X-Server-Protocol-Version`.
    pub protocol_version: u32,
    /// Minutes between two visits to Apple.
    pub every_minutes: u32,
}

impl Default for Ade {
    fn default() -> Self {
        Self {
            url: None,
            ca_file: None,
            private_addresses: false,
            protocol_version: ade::PROTOCOL_VERSION,
            every_minutes: 10,
        }
    }
}

impl Ade {
    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        if self.url.as_ref().is_some_and(|url| url.scheme() != "https" || url.host_str().is_none()) {
            bail!("ade.url must begin with https://");
        }
        if !(1..=MOST_MINUTES).contains(&self.every_minutes) {
            bail!("ade.every_minutes must be 1 to {MOST_MINUTES}");
        }
        if !(1..=99).contains(&self.protocol_version) {
            bail!("ade.protocol_version must be 1 to 99");
        }
        Ok(())
    }

    /// What sends the requests.
    pub(crate) fn client(&self) -> Result<outbound::Client> {
        let mut settings = outbound::Settings::new(concat!("assay/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &self.ca_file {
            let anchors = tls::read_anchors(file)?;
            settings.roots = outbound::Roots::PublicAnd(anchors.iter().map(|ca| ca.der().to_vec()).collect());
        }
        settings.private_addresses = self.private_addresses;
        // A thousand devices in one answer.
        settings.largest_answer = 8 << 20;
        Ok(outbound::Client::new(&settings)?)
    }

    /// As the crate `ade` takes it: `anchors` are what devices need to trust `public_url`.
    pub(crate) fn settings(&self, public_url: &Url, anchors: Vec<Certificate>) -> Result<ade::Settings> {
        Ok(ade::Settings {
            base_url: self.url.clone().map_or_else(|| ade::BASE_URL.parse(), Ok)?,
            protocol_version: self.protocol_version,
            every: Duration::from_secs(u64::from(self.every_minutes) * 60),
            url: public_url.join("/ade/enroll")?,
            web_url: public_url.join("/ade/web")?,
            anchors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(Ade::default().check().is_ok());
        let wrong = [
            Ade { url: Some("http://example.com".parse().unwrap()), ..Ade::default() },
            Ade { every_minutes: 0, ..Ade::default() },
            Ade { protocol_version: 0, ..Ade::default() },
        ];
        assert!(wrong.iter().all(|ade| ade.check().is_err()));
    }

    #[test]
    fn devices_are_sent_to_this_server() {
        let public_url = "https://mdm.example.com".parse().unwrap();
        let settings = Ade::default().settings(&public_url, Vec::new()).unwrap();
        assert_eq!(settings.url.as_str(), "https://mdm.example.com/ade/enroll");
        assert_eq!(settings.base_url.as_str(), "https://mdmenrollment.apple.com/");
    }
}
