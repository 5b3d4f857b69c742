//! Service discovery (Apple, "Discover Authentication Servers").

use http::Method;
use url::Url;

use super::{Account, Mode};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hardware::{Family, Version};
use crate::http::{Answer, Client};

/// More redirects than any discovery has.
const REDIRECTS: usize = 10;

impl Device {
    /// Service discovery: the kind of enrollment and its `BaseURL`.
    pub(super) async fn discover(&self, account: &Account) -> Result<(Mode, String)> {
        let (_, domain) = account
            .user_identifier
            .rsplit_once('@')
            .ok_or_else(|| Error::Options(format!("{}: no @", account.user_identifier)))?;
        let origin = account.discovery.clone().unwrap_or_else(|| format!("https://{domain}"));
        let client = Client::new(&self.trust, None)?;
        let well_known = format!("{origin}/.well-known/com.apple.remotemanagement");
        let mut answer = self.ask_for_servers(&client, &well_known, account).await?;
        let os = Version::parse(&self.record.os_version);
        let falls_back = match self.record.hardware.family {
            Family::Mac => os >= Version::new(15, 2),
            Family::Vision => os >= Version::new(2, 2),
            _ => os >= Version::new(18, 2),
        };
        if let (403 | 404, true, Some(fallback)) = (answer.status, falls_back, &account.fallback) {
            answer = self.ask_for_servers(&client, fallback, account).await?;
        }
        if answer.status != 200 {
            return Err(answer.refused(&well_known));
        }
        let wrong = |why: &str| Error::Protocol(format!("service discovery: {why}"));
        if answer.content_type() != "application/json" {
            return Err(wrong("Content-Type is application/json"));
        }
        let body: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| wrong("no JSON"))?;
        let servers = body.get("Servers").and_then(|servers| servers.as_array()).map(Vec::as_slice);
        let [server] = servers.unwrap_or_default() else { return Err(wrong("exactly one server is expected")) };
        let text = |key: &str| server.get(key).and_then(|value| value.as_str());
        let mode = text("Version").and_then(Mode::of).ok_or_else(|| wrong("Version"))?;
        let base_url = text("BaseURL").filter(|url| url.starts_with("https://")).ok_or_else(|| wrong("BaseURL"))?;
        Ok((mode, base_url.to_owned()))
    }

    /// Redirects are followed as they are: the query is not attached again.
    async fn ask_for_servers(&self, client: &Client, url: &str, account: &Account) -> Result<Answer> {
        let mut url = Url::parse(url).map_err(|error| Error::Options(format!("{url}: {error}")))?;
        url.query_pairs_mut()
            .append_pair("user-identifier", &account.user_identifier)
            .append_pair("model-family", model_family(self.record.hardware.family));
        for _ in 0..REDIRECTS {
            let answer = client.send(Method::GET, url.as_str(), &[], Vec::new()).await?;
            if !(300..400).contains(&answer.status) {
                return Ok(answer);
            }
            let location = answer.header("location").ok_or_else(|| answer.refused(url.as_str()))?;
            url = url.join(location).map_err(|error| Error::Protocol(format!("Location: {error}")))?;
            if url.scheme() != "https" {
                return Err(Error::Protocol("service discovery leaves https".into()));
            }
        }
        Err(Error::Protocol("service discovery never ends".into()))
    }
}

/// `model-family` (Apple, "Discover Authentication Servers").
fn model_family(family: Family) -> &'static str {
    match family {
        Family::IPhone | Family::IPod => "iPhone",
        Family::IPad => "iPad",
        Family::Mac => "Mac",
        Family::AppleTv => "AppleTV",
        Family::Watch => "Watch",
        Family::Vision => "RealityDevice",
    }
}
