//! The shape of messages of a foreign simulator (mdmb and its SCEP client), replayed so that a server is held to what
//! people will point at it.
//!
//! What is different from an Apple device: SCEP with single DES and SHA-1 and the message once more in the query,
//! `Mdm-Signature` with SHA-1 and without NULL parameters, an Authenticate that says little, the same nine-byte push token
//! for everybody, polls without Content-Type, an empty `RequestType` in the answer to InstallProfile, errors without
//! `USEnglishDescription`, and only unsigned profiles.

use http::Method;

use crate::device::{Record, command_parts};
use crate::error::{Error, Result};
use crate::http::{Answer, Client, Trust};
use crate::identity::IdentityPayload;
use crate::plist::{self, Value, escape};
use crate::profile::{self, EnrollmentProfile};
use crate::scep::{self, Strength};
use crate::signature::{self, Digest, Identity, Style};

/// How mdmb signs.
const STYLE: Style = Style { digest: Digest::Sha1, null_parameters: false, plain_rsa: false };

/// One command that the foreign device has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// `RequestType`.
    pub request_type: String,
    /// `CommandUUID`.
    pub command_uuid: String,
    /// `Status`.
    pub status: &'static str,
}

/// A device of the foreign simulator.
pub struct Foreign {
    /// Its record; only the UDID, the serial number and the name are ever told.
    pub record: Record,
    client: Client,
    trust: Trust,
    enrolled: Option<(EnrollmentProfile, Identity)>,
}

impl Foreign {
    /// A device that is not enrolled. Loads OpenSSL's legacy provider for single DES.
    pub fn new(record: Record, trust: Trust) -> Result<Self> {
        scep::load_legacy()?;
        let client = Client::new(&trust, None)?;
        Ok(Self { record, client, trust, enrolled: None })
    }

    /// Fetches the profile behind a link, gets an identity by SCEP, checks in.
    pub async fn enroll(&mut self, link: &str) -> Result<()> {
        let answer = self.client.get(&format!("{}/profile", link.trim_end_matches('/'))).await?;
        let enrollment = profile::read_enrollment(&answer.body, &self.record.situation(false))?;
        if enrollment.signed {
            return Err(Error::Profile("this client reads unsigned profiles only".into()));
        }
        if !enrollment.mdm.sign_message {
            return Err(Error::Profile("this client needs SignMessage".into()));
        }
        let mut trust = self.trust.clone();
        for anchor in &enrollment.anchors {
            trust = trust.with_der(anchor.clone());
        }
        self.client = Client::new(&trust, None)?;
        let IdentityPayload::Scep(request) = &enrollment.identity else {
            return Err(Error::Profile("this client knows SCEP only".into()));
        };
        let identity = scep::enroll(&self.client, request, Strength::Foreign).await?;
        self.enrolled = Some((enrollment, identity));
        self.check_in(
            "Authenticate",
            &format!(
                "\t\t<key>DeviceName</key>\n\t\t<string>{}&#39;s iPhone</string>\n\t\t<key>SerialNumber</key>\n\t\t<string>{}</string>\n",
                escape(&self.record.device_name),
                self.record.serial_number
            ),
        )
        .await?;
        // "fakeToken" and "fakePushMagic", the same for all devices.
        self.check_in(
            "TokenUpdate",
            "\t\t<key>Token</key>\n\t\t<data>ZmFrZVRva2Vu</data>\n\t\t<key>PushMagic</key>\n\t\t<string>fakePushMagic</string>\n",
        )
        .await
    }

    /// Polls until an empty body.
    pub async fn connect(&self) -> Result<Vec<Answered>> {
        let mut answered = Vec::new();
        let mut body = self.document("\t\t<key>Status</key>\n\t\t<string>Idle</string>\n");
        for _ in 0..1_000 {
            let answer = self.put(&self.enrolled()?.0.mdm.server_url, None, &body).await?;
            if answer.body.is_empty() {
                return Ok(answered);
            }
            let command = plist::parse(&answer.body)?;
            let (kind, uuid, keys) = command_parts(&command)?;
            let (status, extra) = self.perform(kind, keys);
            answered.push(Answered { request_type: kind.into(), command_uuid: uuid.into(), status });
            body = self.document(&format!(
                "\t\t<key>Status</key>\n\t\t<string>{status}</string>\n\t\t<key>CommandUUID</key>\n\t\t<string>{}</string>\n{extra}",
                escape(uuid)
            ));
        }
        Err(Error::Protocol("the server sends answered commands again without end".into()))
    }

    fn perform(&self, kind: &str, keys: &Value) -> (&'static str, String) {
        match kind {
            "DeviceInformation" => ("Acknowledged", self.device_information(keys)),
            "InstallProfile" => match keys.get("Payload").and_then(Value::as_data) {
                Some(payload) if plist::parse(payload).is_ok() => {
                    ("Acknowledged", "\t\t<key>RequestType</key>\n\t\t<string></string>\n".into())
                }
                _ => ("Error", error_chain(99998, "mdmb-handle-mdm-command", "plist: invalid profile")),
            },
            "ProfileList" => ("Acknowledged", "\t\t<key>ProfileList</key>\n\t\t<array/>\n".into()),
            other => ("Error", error_chain(12021, "MCMDMErrorDomain", &format!("unknown command: {other}"))),
        }
    }

    fn device_information(&self, keys: &Value) -> String {
        let mut found = Vec::new();
        for query in keys.get("Queries").and_then(Value::as_array).unwrap_or_default() {
            let value = match query.as_str() {
                Some("DeviceName") => &self.record.device_name,
                Some("SerialNumber") => &self.record.serial_number,
                Some("UDID") => &self.record.udid,
                _ => continue,
            };
            let query = query.as_str().unwrap_or_default();
            found.push(format!("\t\t\t<key>{query}</key>\n\t\t\t<string>{}</string>\n", escape(value)));
        }
        format!("\t\t<key>QueryResponses</key>\n\t\t<dict>\n{}\t\t</dict>\n", found.concat())
    }

    async fn check_in(&self, message_type: &str, keys: &str) -> Result<()> {
        let mdm = &self.enrolled()?.0.mdm;
        let body = self.document(&format!(
            "\t\t<key>MessageType</key>\n\t\t<string>{message_type}</string>\n\t\t<key>Topic</key>\n\t\t<string>{}</string>\n{keys}",
            escape(&mdm.topic)
        ));
        let answer = self.put(&mdm.check_in_url, Some("application/x-apple-aspen-mdm-checkin"), &body).await?;
        if answer.body.is_empty() { Ok(()) } else { Err(Error::Protocol("an answer with a body".into())) }
    }

    /// Anything but 200 is an error to this client.
    async fn put(&self, url: &str, content_type: Option<&str>, body: &[u8]) -> Result<Answer> {
        let signature = signature::mdm_signature(&self.enrolled()?.1, body, STYLE)?;
        let mut headers = vec![("user-agent", "Go-http-client/1.1"), ("mdm-signature", &signature)];
        headers.extend(content_type.map(|kind| ("content-type", kind)));
        let answer = self.client.send(Method::PUT, url, &headers, body.to_vec()).await?;
        if answer.status == 200 { Ok(answer) } else { Err(answer.refused(url)) }
    }

    fn document(&self, keys: &str) -> Vec<u8> {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n\t<dict>\n{keys}\
             \t\t<key>UDID</key>\n\t\t<string>{}</string>\n\t</dict>\n</plist>\n",
            self.record.udid
        )
        .into_bytes()
    }

    fn enrolled(&self) -> Result<&(EnrollmentProfile, Identity)> {
        self.enrolled.as_ref().ok_or_else(|| Error::Protocol("the device is not enrolled".into()))
    }
}

fn error_chain(code: i64, domain: &str, text: &str) -> String {
    format!(
        "\t\t<key>ErrorChain</key>\n\t\t<array>\n\t\t\t<dict>\n\t\t\t\t<key>ErrorCode</key>\n\t\t\t\t<integer>{code}</integer>\n\
         \t\t\t\t<key>ErrorDomain</key>\n\t\t\t\t<string>{domain}</string>\n\t\t\t\t<key>LocalizedDescription</key>\n\
         \t\t\t\t<string>{}</string>\n\t\t\t</dict>\n\t\t</array>\n",
        escape(text)
    )
}
