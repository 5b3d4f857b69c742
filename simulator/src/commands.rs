//! How a device answers commands.
//!
//! Source: Apple, "Commands and queries"; protocol.md sections 3 and 9.

use crate::acme::Acme;
use crate::device::{ChannelId, Device, command_parts, model_name};
use crate::error::Result;
use crate::hardware::{Family, Version};
use crate::plist::{Value, Writer, escape};
use crate::profile::{Profile, Refusal};

/// `Status` of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Acknowledged,
    /// Refused or failed; the reason is in `ErrorChain`.
    Error,
    /// The command itself is malformed.
    CommandFormatError,
    /// Not at this moment.
    NotNow,
}

impl Status {
    /// As it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "Acknowledged",
            Self::Error => "Error",
            Self::CommandFormatError => "CommandFormatError",
            Self::NotNow => "NotNow",
        }
    }
}

/// One command and what became of it.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The channel it came on.
    pub channel: ChannelId,
    /// `RequestType`.
    pub request_type: String,
    /// `CommandUUID`.
    pub command_uuid: String,
    /// What was answered.
    pub status: Status,
    /// Why, where it was refused.
    pub refusal: Option<Refusal>,
    /// `Queries` of a DeviceInformation.
    pub queries: Vec<String>,
    /// ACME payloads that were installed.
    pub acme: Vec<Acme>,
    /// The command had been finished before on this channel and came again.
    pub repeated: bool,
}

/// Commands that iOS never answers with `NotNow` (Apple, "Handling NotNow status responses").
const NEVER_NOT_NOW: [&str; 8] = [
    "DeviceInformation",
    "ProfileList",
    "DeviceLock",
    "EraseDevice",
    "ClearPasscode",
    "ProvisioningProfileList",
    "InstalledApplicationList",
    "Restrictions",
];

pub(crate) enum Outcome {
    Done(Writer),
    Installed(Vec<Acme>),
    Refused(Refusal),
    Malformed,
}

impl Device {
    /// Carries any command out: the report to send and what it says.
    pub(crate) async fn answer(&mut self, channel: ChannelId, command: &Value) -> Result<(Vec<u8>, Answered)> {
        if Self::updates_enrollment(channel, command) {
            return self.update_enrollment(channel, command).await;
        }
        let ("InstallProfile", _, keys) = command_parts(command)? else { return self.perform(channel, command) };
        if let Some(postponed) = self.postponed(channel, command)? {
            return Ok(postponed);
        }
        let outcome = match keys.get("Payload").and_then(Value::as_data) {
            Some(bytes) => self.install_profile(channel, bytes).await?,
            None => Outcome::Malformed,
        };
        self.report(channel, command, outcome)
    }

    /// Carries a command out that asks nobody else for anything, as all do but `InstallProfile`.
    pub(crate) fn perform(&mut self, channel: ChannelId, command: &Value) -> Result<(Vec<u8>, Answered)> {
        if let Some(postponed) = self.postponed(channel, command)? {
            return Ok(postponed);
        }
        let (kind, _, keys) = command_parts(command)?;
        let outcome = self.outcome(channel, kind, keys)?;
        self.report(channel, command, outcome)
    }

    /// The report `NotNow`, where the device has the habit of it.
    pub(crate) fn postponed(&mut self, channel: ChannelId, command: &Value) -> Result<Option<(Vec<u8>, Answered)>> {
        let (kind, uuid, _) = command_parts(command)?;
        if !self.not_now(kind) {
            return Ok(None);
        }
        let answered = Answered { status: Status::NotNow, ..self.answered(channel, kind, uuid) };
        let report = self.sender(channel)?.string("Status", "NotNow").string("CommandUUID", uuid);
        Ok(Some((report.document(), answered)))
    }

    fn answered(&self, channel: ChannelId, kind: &str, uuid: &str) -> Answered {
        Answered {
            channel,
            request_type: kind.to_owned(),
            command_uuid: uuid.to_owned(),
            status: Status::Acknowledged,
            refusal: None,
            queries: Vec::new(),
            acme: Vec::new(),
            repeated: self.finished.contains(&(channel, uuid.to_owned())),
        }
    }

    /// The report of what came of a command.
    pub(crate) fn report(
        &mut self,
        channel: ChannelId,
        command: &Value,
        outcome: Outcome,
    ) -> Result<(Vec<u8>, Answered)> {
        let (kind, uuid, keys) = command_parts(command)?;
        let mut answered = self.answered(channel, kind, uuid);
        if kind == "DeviceInformation" {
            let queries = keys.get("Queries").and_then(Value::as_array).unwrap_or_default();
            answered.queries = queries.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        let mut report = self.sender(channel)?.string("CommandUUID", uuid);
        match outcome {
            Outcome::Done(result) => report = report.with(&result),
            Outcome::Installed(acme) => answered.acme = acme,
            Outcome::Malformed => answered.status = Status::CommandFormatError,
            Outcome::Refused(refusal) => {
                answered.status = Status::Error;
                let item = |refusal: &Refusal| {
                    Writer::new()
                        .integer("ErrorCode", refusal.code)
                        .string("ErrorDomain", refusal.domain)
                        .string("LocalizedDescription", &refusal.text)
                        .string("USEnglishDescription", &refusal.text)
                };
                let chain: Vec<Writer> = refusal.chain().into_iter().map(item).collect();
                report = report.dicts("ErrorChain", &chain);
                answered.refusal = Some(refusal);
            }
        }
        self.finished.insert((channel, uuid.to_owned()));
        Ok((report.string("Status", answered.status.as_str()).document(), answered))
    }

    fn not_now(&mut self, kind: &str) -> bool {
        if self.record.hardware.family != Family::Mac && NEVER_NOT_NOW.contains(&kind) {
            return false;
        }
        match self.behaviour.not_now.get_mut(kind) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    fn outcome(&mut self, channel: ChannelId, kind: &str, keys: &Value) -> Result<Outcome> {
        Ok(match kind {
            "DeviceInformation" => match keys.get("Queries").and_then(Value::as_array) {
                Some(queries) => {
                    let nonce = keys.get("DeviceAttestationNonce").and_then(Value::as_data);
                    Outcome::Done(self.device_information(queries, nonce)?)
                }
                None => Outcome::Malformed,
            },
            "RemoveProfile" => match keys.text("Identifier") {
                Some(identifier) => self.remove_profile(channel, identifier)?,
                None => Outcome::Malformed,
            },
            "ProfileList" => Outcome::Done(profile_list(&self.channel(channel)?.profiles)),
            "CertificateList" => {
                let managed_only = keys.get("ManagedOnly").and_then(Value::as_boolean).unwrap_or_default();
                Outcome::Done(self.certificate_list(channel, managed_only)?)
            }
            "SecurityInfo" => Outcome::Done(self.security_info()),
            "DeviceConfigured" if self.supervised && channel == ChannelId::DEVICE => {
                self.awaiting = false;
                Outcome::Done(Writer::new())
            }
            "UserConfigured" if self.multi_user && channel != ChannelId::DEVICE => {
                self.channel_mut(channel)?.awaiting = false;
                Outcome::Done(Writer::new())
            }
            "EraseDevice" if self.record.enrollment_id.is_none() && channel == ChannelId::DEVICE => {
                self.erasing = true;
                Outcome::Done(Writer::new())
            }
            "ClearPasscode" if self.record.enrollment_id.is_none() && channel == ChannelId::DEVICE => {
                self.clear_passcode(keys)
            }
            other => {
                let text = format!("«{other}» is not a valid request type.");
                Outcome::Refused(Refusal::of(12021, "MCMDMErrorDomain", &text))
            }
        })
    }

    /// Only what was asked, only what this device knows, and nothing that User Enrollment forbids.
    fn device_information(&mut self, queries: &[Value], nonce: Option<&[u8]>) -> Result<Writer> {
        let asked = queries.iter().any(|query| query.as_str() == Some("DevicePropertiesAttestation"));
        let attestation = if asked { self.attest_properties(nonce)? } else { None };
        let record = &self.record;
        let hardware = record.hardware;
        let family = hardware.family;
        let mac = family == Family::Mac;
        let os = Version::parse(&record.os_version);
        let own = record.enrollment_id.is_some();
        let mut found = Writer::new();
        for query in queries.iter().filter_map(Value::as_str) {
            found = match query {
                "ProductName" => found.string(query, hardware.product_name),
                "OSVersion" => found.string(query, &record.os_version),
                "BuildVersion" => found.string(query, &record.build_version),
                "DeviceName" => found.string(query, &record.device_name),
                "ModelName" => found.string(query, model_name(hardware)),
                "Model" if mac => found.string(query, hardware.product_name),
                "Model" if family != Family::Vision => found.string(query, "MT9G2"),
                "IsAppleSilicon" if mac && os >= Version::new(12, 0) => found.boolean(query, hardware.apple_silicon()),
                "SerialNumber" if !own => found.string(query, &record.serial_number),
                "UDID" if !own => found.string(query, &record.udid),
                "ProvisioningUDID" if !own => found.maybe(query, record.provisioning_udid.as_deref()),
                "IsSupervised" => found.boolean(query, self.supervised),
                "AwaitingConfiguration" if !own => found.boolean(query, self.awaiting),
                "IsMultiUser" if family == Family::IPad => found.boolean(query, self.multi_user),
                "DevicePropertiesAttestation" => match &attestation {
                    Some(chain) => found.raw(query, &data_array(chain)),
                    None => found,
                },
                _ => found,
            };
        }
        Ok(Writer::new().dict("QueryResponses", &found))
    }

    fn clear_passcode(&self, keys: &Value) -> Outcome {
        match keys.get("UnlockToken").and_then(Value::as_data) {
            Some(token) if token == self.unlock_token => Outcome::Done(Writer::new()),
            _ => Outcome::Refused(Refusal::of(12004, "MCMDMErrorDomain", "The unlock token is not this device's.")),
        }
    }

    fn security_info(&self) -> Writer {
        let hardware = self.record.hardware;
        let management = Writer::new()
            .boolean("EnrolledViaDEP", self.supervised)
            .boolean("UserApprovedEnrollment", true)
            .boolean("IsUserEnrollment", self.record.enrollment_id.is_some());
        let mut info = Writer::new().dict("ManagementStatus", &management);
        if hardware.family == Family::Mac {
            let level = if hardware.secure_enclave { "full" } else { "not supported" };
            info =
                info.boolean("FDE_Enabled", true).dict("SecureBoot", &Writer::new().string("SecureBootLevel", level));
        } else {
            info = info.integer("HardwareEncryptionCaps", 3).boolean("PasscodePresent", true);
        }
        Writer::new().dict("SecurityInfo", &info)
    }
}

fn profile_list(profiles: &[Profile]) -> Writer {
    let list: Vec<Writer> = profiles
        .iter()
        .map(|profile| {
            let payloads: Vec<Writer> = profile
                .payloads
                .iter()
                .map(|payload| {
                    Writer::new()
                        .string("PayloadType", &payload.kind)
                        .string("PayloadIdentifier", &payload.identifier)
                        .integer("PayloadVersion", 1)
                })
                .collect();
            Writer::new()
                .string("PayloadIdentifier", &profile.identifier)
                .string("PayloadUUID", &profile.uuid)
                .integer("PayloadVersion", 1)
                .maybe("PayloadDisplayName", profile.display_name.as_deref())
                .boolean("IsManaged", true)
                .raw("SignerCertificates", &data_array(&profile.signer_certificates))
                .dicts("PayloadContent", &payloads)
        })
        .collect();
    Writer::new().dicts("ProfileList", &list)
}

/// An `<array>` of `<data>`.
fn data_array(items: &[Vec<u8>]) -> String {
    use base64::Engine as _;
    let encode = |item: &Vec<u8>| escape(&base64::engine::general_purpose::STANDARD.encode(item));
    let items: Vec<String> = items.iter().map(|item| format!("<data>{}</data>", encode(item))).collect();
    format!("<array>{}</array>", items.concat())
}
