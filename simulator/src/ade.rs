//! Automated Device Enrollment: what Setup Assistant does with the profile that Apple's service holds for a device.
//!
//! Sources: Apple, "Profile" (the keys of a device enrollment profile), "MachineInfo", "Authenticating through web views",
//! "ErrorCodeSoftwareUpdateRequired"; protocol.md section 7.3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use url::Url;

use crate::browser::{Browser, End, PROFILE, Person, Reached};
use crate::device::{ChannelId, Device};
use crate::error::{Error, Result};
use crate::hardware::{Family, Version};
use crate::http::{Answer, Client, Trust};
use crate::machine_info::MachineInfo;

/// The keys of a profile at Apple's service that steer the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DepProfile {
    /// `url`.
    pub url: String,
    /// `configuration_web_url`: a web view comes in place of the POST to `url`.
    pub configuration_web_url: Option<String>,
    /// `anchor_certs`, DER; with them, nothing else is trusted for the two URLs.
    pub anchor_certs: Vec<Vec<u8>>,
    /// `await_device_configured`.
    pub await_device_configured: bool,
    /// `is_multi_user`: Shared iPad.
    pub is_multi_user: bool,
}

impl DepProfile {
    /// Only a URL to POST to.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }

    /// Reads the JSON of the service.
    pub fn from_json(json: &serde_json::Value) -> Result<Self> {
        let wrong = |key: &str| Error::Profile(format!("the service's profile: {key}"));
        let text = |key: &str| json.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let flag = |key: &str| json.get(key).and_then(serde_json::Value::as_bool).unwrap_or_default();
        let mut anchor_certs = Vec::new();
        for anchor in json.get("anchor_certs").and_then(|anchors| anchors.as_array()).into_iter().flatten() {
            let text = anchor.as_str().ok_or_else(|| wrong("anchor_certs"))?;
            anchor_certs.push(STANDARD.decode(text).map_err(|_| wrong("anchor_certs"))?);
        }
        Ok(Self {
            url: text("url").ok_or_else(|| wrong("url"))?,
            configuration_web_url: text("configuration_web_url"),
            anchor_certs,
            await_device_configured: flag("await_device_configured"),
            is_multi_user: flag("is_multi_user"),
        })
    }
}

/// How Setup Assistant went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ade {
    /// The device is enrolled.
    Enrolled,
    /// It must update first, and would come back by itself after that.
    UpdateRequired {
        /// `OSVersion`.
        os_version: String,
        /// `BuildVersion`.
        build_version: Option<String>,
    },
}

impl Device {
    /// Goes through Setup Assistant: the profile by POST or in a web view, the identity, Authenticate, TokenUpdate.
    pub async fn enroll_ade(&mut self, profile: &DepProfile, person: &Person) -> Result<Ade> {
        let trust =
            if profile.anchor_certs.is_empty() { self.trust.clone() } else { Trust::only(&profile.anchor_certs) };
        let fetched = match &profile.configuration_web_url {
            Some(url) => self.fetch_in_web_view(&trust, url, person).await?,
            None => self.fetch_by_post(&trust, &profile.url).await?,
        };
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(update) => return Ok(update),
        };
        self.obtain_identity(&bytes).await?;
        self.supervised = true;
        self.awaiting = profile.await_device_configured;
        self.multi_user = profile.is_multi_user && self.record.hardware.family == Family::IPad;
        // UserConfigured is known from iPadOS 17 on.
        let knows = Version::parse(&self.record.os_version) >= Version::new(17, 0);
        self.users_wait = self.multi_user && self.awaiting && knows;
        if profile.is_multi_user && !self.mdm()?.per_user_connections {
            return Err(Error::Profile("a Shared iPad needs com.apple.mdm.per-user-connections".into()));
        }
        self.authenticate().await?;
        self.token_update(ChannelId::DEVICE).await?;
        Ok(Ade::Enrolled)
    }

    /// The signed MachineInfo that this device sends now.
    pub fn signed_machine_info(&self) -> Result<Vec<u8>> {
        let ca = self.device_ca.as_ref();
        let ca = ca.ok_or_else(|| Error::Options("the device has no certificate of its own: built_by".into()))?;
        MachineInfo::of(&self.record).signed(ca, &self.machine_info)
    }

    async fn fetch_by_post(&self, trust: &Trust, url: &str) -> Result<std::result::Result<Vec<u8>, Ade>> {
        let body = self.signed_machine_info()?;
        let headers = [("content-type", "application/pkcs7-signature"), ("user-agent", "MDM/1.0")];
        let answer = Client::new(trust, None)?.send(Method::POST, url, &headers, body).await?;
        if answer.status != 200 {
            return self.update_required(url, &answer).map(Err);
        }
        if answer.content_type() != PROFILE {
            return Err(Error::Profile(format!("Content-Type is «{}»", answer.content_type())));
        }
        Ok(Ok(answer.body.to_vec()))
    }

    async fn fetch_in_web_view(
        &self,
        trust: &Trust,
        url: &str,
        person: &Person,
    ) -> Result<std::result::Result<Vec<u8>, Ade>> {
        let parsed = Url::parse(url).map_err(|error| Error::Profile(format!("configuration_web_url: {error}")))?;
        let end = End::Profile { host: parsed.host_str().unwrap_or_default().to_owned() };
        let info = STANDARD.encode(self.signed_machine_info()?);
        let header = Some(("x-apple-aspen-deviceinfo", info.as_str()));
        let mut browser = Browser::new(trust, person)?.trusting_elsewhere(&parsed, &self.trust)?;
        match browser.open(parsed, header, &end).await? {
            Reached::Profile(bytes) => Ok(Ok(bytes)),
            Reached::Code(answer) => self.update_required(url, &answer).map(Err),
            Reached::Callback(_) => Err(Error::Protocol("a callback in the web view of Setup Assistant".into())),
        }
    }

    /// 403 `com.apple.softwareupdate.required`, where the device said that it can do that; else an error.
    fn update_required(&self, url: &str, answer: &Answer) -> Result<Ade> {
        let code = answer.code().filter(|code| code.code == "com.apple.softwareupdate.required");
        let Some(code) = code else { return Err(answer.refused(url)) };
        if !MachineInfo::of(&self.record).can_request_software_update {
            return Err(Error::Protocol("an update is demanded of a device that did not offer it".into()));
        }
        let os_version = code.details.get("OSVersion").cloned();
        Ok(Ade::UpdateRequired {
            os_version: os_version.ok_or_else(|| Error::Protocol("details without OSVersion".into()))?,
            build_version: code.details.get("BuildVersion").cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::device::{Behaviour, Record};
    use crate::https::{Request, Response, Server};
    use crate::machine_info::DeviceCa;
    use crate::plist;

    async fn service(request: Request) -> Response {
        let answer = http::Response::builder();
        let info = match request.uri().path() {
            "/web" => STANDARD.decode(request.headers().get("x-apple-aspen-deviceinfo").unwrap()).unwrap(),
            _ => request.body().to_vec(),
        };
        let info = crate::signature::open_profile(&info).unwrap().content;
        let version = plist::parse(&info).unwrap().text("OS_VERSION").unwrap_or_default().to_owned();
        match version.as_str() {
            "18.1" => answer
                .status(403)
                .header("content-type", "application/json")
                .body(br#"{"code":"com.apple.softwareupdate.required","details":{"OSVersion":"26.1","BuildVersion":"23B85"}}"#.to_vec())
                .unwrap(),
            "26.1" => answer.header("content-type", PROFILE).body(b"<plist/>".to_vec()).unwrap(),
            _ => answer.status(400).body(Vec::new()).unwrap(),
        }
    }

    #[tokio::test]
    async fn an_update_is_heard_and_only_the_anchors_are_trusted() {
        let authority = Authority::new("Service").unwrap();
        let server = Server::start(&authority, service).await.unwrap();
        let anchor = openssl::x509::X509::from_pem(authority.pem().unwrap().as_bytes()).unwrap().to_der().unwrap();
        let device = |os: &str| {
            let record = Record::new(crate::hardware::find("iPhone17,2").unwrap(), os, "22B83", "ade").unwrap();
            Device::new(record, Trust::public(), Behaviour::default()).unwrap().built_by(DeviceCa::legacy().unwrap())
        };
        let by_post = DepProfile { anchor_certs: vec![anchor], ..DepProfile::new(&server.url("/post")) };
        let in_view = DepProfile { configuration_web_url: Some(server.url("/web")), ..by_post.clone() };
        for profile in [&by_post, &in_view] {
            let told = device("18.1").enroll_ade(profile, &Person::nobody()).await.unwrap();
            let update = Ade::UpdateRequired { os_version: "26.1".into(), build_version: Some("23B85".into()) };
            assert_eq!(told, update);
            // It gets its profile, which is none.
            let error = device("26.1").enroll_ade(profile, &Person::nobody()).await.unwrap_err();
            assert!(matches!(error, Error::Profile(_) | Error::Plist(_)), "{error}");
            assert!(device("15.0").enroll_ade(profile, &Person::nobody()).await.is_err());
        }
        let untrusted = DepProfile::new(&server.url("/post"));
        let error = device("18.1").enroll_ade(&untrusted, &Person::nobody()).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    }

    #[test]
    fn the_json_of_the_service_is_read() {
        let json = serde_json::json!({
            "url": "https://mdm.example/ade", "anchor_certs": ["AQI="], "await_device_configured": true,
        });
        let profile = DepProfile::from_json(&json).unwrap();
        assert!(profile.await_device_configured && !profile.is_multi_user);
        assert_eq!(profile.anchor_certs, [[1, 2]]);
        assert!(DepProfile::from_json(&serde_json::json!({})).is_err());
    }
}
