//! The decision for one device, explained: what it would get and why. What the API shows and an assignment keeps.

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::Hardware;
use mdm_core::profile::acme::{AcmePayload, Attest};
use serde::{Deserialize, Serialize};

use crate::acme::{AcmePolicy, Unfit};
use crate::companion;
use crate::facts::{FactName, Facts};
use crate::gate::{self, Ask, Demand, GateFacts, MissingFact, Open, Verdict, gate};
use crate::reason::ReasonCode;
use crate::template::{Values, Variable};
use crate::{authority, require};

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The profile can be sent.
    Open,
    /// No profile is sent.
    Closed,
    /// The device must be asked first.
    NeedFacts,
}

/// A reason with the rule it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Note {
    /// The stable code.
    #[schema(value_type = String)]
    pub code: ReasonCode,
    /// The rule.
    pub sentence: String,
    /// Where the rule stands.
    pub source: String,
    /// What an operator can do.
    pub remedy: String,
}

impl From<ReasonCode> for Note {
    fn from(code: ReasonCode) -> Self {
        let reason = code.reason();
        Self {
            code,
            sentence: reason.sentence.to_owned(),
            source: reason.source.to_owned(),
            remedy: reason.remedy.to_owned(),
        }
    }
}

/// The keys of the payload that depend on the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Form {
    /// `HardwareBound`.
    pub hardware_bound: bool,
    /// `Attest`: `true`, `false` or `leave_out`.
    #[schema(value_type = String)]
    pub attest: Attest,
    /// `KeyIsExtractable`; only for Macs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_is_extractable: Option<bool>,
    /// `AllowAllAppsAccess`; only for Macs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_all_apps_access: Option<bool>,
}

impl From<&Open> for Form {
    fn from(open: &Open) -> Self {
        Self {
            hardware_bound: open.hardware_bound,
            attest: open.attest,
            key_is_extractable: open.mac.map(|m| m.key_is_extractable),
            allow_all_apps_access: open.mac.map(|m| m.allow_all_apps_access),
        }
    }
}

/// What is known of the device, as far as it mattered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeviceSummary {
    /// `ProductName`.
    pub product_name: Option<String>,
    /// What it is sold as, where the model is listed.
    pub marketing_name: Option<String>,
    /// Its chip, where the model is listed.
    pub chip: Option<String>,
    /// Its row in Apple's table: `supported`, `ignored`, `must_be_false` or `unknown`.
    pub attest_support: String,
    /// On which ground the row was found.
    pub basis: String,
    /// Its operating system.
    pub platform: Option<String>,
    /// `OSVersion`.
    pub os_version: Option<String>,
    /// The kind of its enrollment.
    pub kind: String,
    /// The channel.
    pub channel: String,
}

/// The decision, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    /// What is decided.
    pub outcome: Outcome,
    /// The form of the payload, where the outcome is `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// Why not, where it is `closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Note>,
    /// What made the limit a refusal, where it is `closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub demand: Option<Demand>,
    /// Which value or key, or the device's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why the form is weaker than asked, and what else an operator should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// What must be asked first, where the outcome is `need_facts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<MissingFact>,
    /// The device, as it is known.
    pub device: DeviceSummary,
}

/// One enrollment, as the decision sees it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// How it came about.
    pub kind: EnrollmentKind,
    /// Its channel.
    pub channel: Channel,
    /// What is believed of the device.
    pub facts: &'a Facts,
    /// The values of templates; see [`crate::target::values`].
    pub values: &'a Values,
    /// Now.
    pub now: mdm_core::time::Timestamp,
}

impl Target<'_> {
    pub(crate) fn gate_facts(&self) -> GateFacts<'_> {
        let facts = self.facts;
        GateFacts {
            product_name: facts.text(FactName::ProductName),
            model: facts.text(FactName::Model),
            model_name: facts.text(FactName::ModelName),
            is_apple_silicon: facts.flag(FactName::IsAppleSilicon),
            os_version: facts.text(FactName::OsVersion).and_then(|v| v.parse().ok()),
            kind: self.kind,
            channel: self.channel,
            asked: facts.asked_at.is_some(),
        }
    }

    fn summary(&self, hardware: &Hardware) -> DeviceSummary {
        let text = |name| self.facts.text(name).map(str::to_owned);
        let basis = serde_json::to_value(hardware.basis).ok();
        DeviceSummary {
            product_name: text(FactName::ProductName),
            marketing_name: hardware.model.map(|m| m.marketing_name.clone()),
            chip: hardware.model.map(|m| m.chip.clone()),
            attest_support: hardware.attest.to_string(),
            basis: basis.and_then(|b| b.as_str().map(str::to_owned)).unwrap_or_default(),
            platform: hardware.platform.map(|p| p.to_string()),
            os_version: text(FactName::OsVersion),
            kind: self.kind.to_string(),
            channel: self.channel.to_string(),
        }
    }
}

/// Decides for one device, and gives the payload where the gate is open.
pub fn decision(
    policy: &AcmePolicy,
    authority: &ca::Authority,
    target: &Target<'_>,
) -> (Decision, Option<AcmePayload>) {
    let facts = target.gate_facts();
    let hardware = gate::hardware(&facts);
    let mut decision = Decision {
        outcome: Outcome::Closed,
        form: None,
        reason: None,
        demand: None,
        detail: None,
        notes: Vec::new(),
        missing: Vec::new(),
        device: target.summary(&hardware),
    };
    let mut close = |reason: ReasonCode, demand, detail| {
        decision.reason = Some(reason.into());
        decision.demand = Some(demand);
        decision.detail = detail;
    };
    if !policy.document().channel.includes(target.channel) {
        close(ReasonCode::ChannelNotWanted, Demand::Policy, None);
        return (decision, None);
    }
    // A device of which nobody knows the operating system yet is asked first.
    if !policy.is_for(hardware.platform) && (hardware.platform.is_some() || facts.asked) {
        close(ReasonCode::PlatformNotWanted, Demand::Policy, None);
        return (decision, None);
    }
    // Whether devices without an attestation are served is the authority's word, not the policy's.
    let ask = Ask { ca_accepts_unattested: authority.accepts_unattested, ..*policy.ask() };
    match gate(&ask, &facts) {
        Verdict::NeedFacts(missing) => {
            decision.outcome = Outcome::NeedFacts;
            decision.missing = missing;
            (decision, None)
        }
        Verdict::Closed { reason, demand } => {
            close(reason, demand, None);
            (decision, None)
        }
        Verdict::Open(open) => match fill(policy, authority, target, &open) {
            Err(Unfit { reason, detail }) => {
                close(reason, Demand::Policy, Some(detail));
                (decision, None)
            }
            Ok(payload) => {
                let device = companion::Device {
                    platform: hardware.platform,
                    os_version: facts.os_version,
                    kind: target.kind,
                    channel: target.channel,
                };
                if let Some(Unfit { reason, detail }) = companion::unfit(policy, &device, target.values) {
                    close(reason, Demand::Policy, Some(detail));
                    return (decision, None);
                }
                let required = &policy.document().require;
                if require::ask_first(required, target.kind, target.facts) {
                    decision.outcome = Outcome::NeedFacts;
                    decision.missing = vec![MissingFact::DevicePropertiesAttestation];
                    return (decision, None);
                }
                if let Some((reason, detail)) = require::unmet(required, target.kind, target.facts, target.now) {
                    close(reason, Demand::Policy, detail);
                    return (decision, None);
                }
                if let Some(reason) = authority::refuses(authority, &payload, target, hardware.platform) {
                    close(reason, Demand::CertificateAuthority, None);
                    return (decision, None);
                }
                decision.outcome = Outcome::Open;
                decision.form = Some((&open).into());
                decision.notes = open.notes.iter().copied().map(Note::from).collect();
                let attested_udid = hardware.platform != Some(mdm_core::hardware::Platform::Macos);
                if open.attest == Attest::True && !attested_udid && policy.client_identifier_uses(Variable::Udid) {
                    decision.notes.push(ReasonCode::MacUdidNotAttested.into());
                }
                if open.attest != Attest::True && !policy.client_identifier_uses(Variable::Random) {
                    decision.notes.push(ReasonCode::ClientIdentifierNoSecret.into());
                }
                if companion::left_out(policy, &device) {
                    decision.notes.push(ReasonCode::CompanionLeftOut.into());
                }
                (decision, Some(payload))
            }
        },
    }
}

fn fill(
    policy: &AcmePolicy,
    authority: &ca::Authority,
    target: &Target<'_>,
    open: &Open,
) -> Result<AcmePayload, Unfit> {
    if target.kind == EnrollmentKind::User
        && let Some(variable) = policy.variables().find(|v| v.is_hidden_in_user_enrollment())
    {
        let detail = format!("the policy uses {variable}");
        return Err(Unfit { reason: ReasonCode::TemplateNotInUserEnrollment, detail });
    }
    policy.payload(open, target.values, &authority.directory_url)
}

#[cfg(test)]
mod tests {
    use mdm_core::time::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::facts::{FactValue, Source};

    fn policy(change: serde_json::Value) -> AcmePolicy {
        let mut json = json!({
            "name": "wifi", "directory_url": "https://ca.example.com/directory",
            "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]],
        });
        for (key, value) in change.as_object().unwrap() {
            json[key] = value.clone();
        }
        AcmePolicy::from_value(json).unwrap()
    }

    fn decide(policy: &AcmePolicy, product: &str, os: &str, kind: EnrollmentKind, channel: Channel) -> Decision {
        let mut facts = Facts { asked_at: Some(Timestamp(1)), ..Facts::default() };
        for (name, text) in [(FactName::ProductName, product), (FactName::OsVersion, os)] {
            facts.learn(name, FactValue::Text(text.into()), Source::DeviceInformation, Timestamp(1));
        }
        let mut values = Values::default();
        if kind != EnrollmentKind::User {
            values.set(Variable::Serial, Some("C02"));
            values.set(Variable::Udid, Some("U"));
        }
        values.set(Variable::Random, Some("r"));
        let document = policy.document();
        let url = document.directory_url.as_deref().unwrap_or_default();
        let authority = ca::Authority::bare(url, document.ca_accepts_unattested, Vec::new());
        decision(policy, &authority, &Target { kind, channel, facts: &facts, values: &values, now: Timestamp(1) }).0
    }

    fn reason(d: &Decision) -> Option<ReasonCode> {
        d.reason.as_ref().map(|n| n.code)
    }

    #[test]
    fn a_decision_quotes_its_rule_and_reads_back() {
        let closed = decide(&policy(json!({})), "iPhone9,1", "16.0", EnrollmentKind::Device, Channel::Device);
        assert_eq!(reason(&closed), Some(ReasonCode::AttestIgnoredBySilicon));
        assert_eq!(closed.demand, Some(Demand::CertificateAuthority));
        assert!(closed.reason.as_ref().unwrap().source.contains("row Ignored"));
        assert_eq!(closed.device.marketing_name.as_deref(), Some("iPhone 7"));
        let json = serde_json::to_string(&closed).unwrap();
        assert_eq!(serde_json::from_str::<Decision>(&json).unwrap(), closed);
    }

    #[test]
    fn user_enrollment_has_no_serial_number_and_says_so() {
        let refused = decide(&policy(json!({})), "iPhone15,2", "17.0", EnrollmentKind::User, Channel::Device);
        assert_eq!(reason(&refused), Some(ReasonCode::TemplateNotInUserEnrollment));
        let random = policy(json!({"client_identifier": "{random}", "subject": [[["CN", "{random}"]]]}));
        let open = decide(&random, "iPhone15,2", "17.0", EnrollmentKind::User, Channel::Device);
        assert_eq!(open.outcome, Outcome::Open);
        assert_eq!(open.form.unwrap().attest, Attest::True);
    }

    #[test]
    fn a_missing_value_and_an_unwanted_channel_have_reasons_of_their_own() {
        let named = policy(json!({"subject": [[["CN", "{user_short_name}"]]]}));
        let refused = decide(&named, "iPhone15,2", "17.0", EnrollmentKind::Device, Channel::Device);
        assert_eq!(reason(&refused), Some(ReasonCode::TemplateValueMissing));
        assert!(refused.detail.unwrap().contains("{user_short_name}"));
        let refused = decide(&named, "Mac14,2", "14.0", EnrollmentKind::Device, Channel::User);
        assert_eq!(reason(&refused), Some(ReasonCode::ChannelNotWanted));
    }

    #[test]
    fn th_43_an_identifier_that_is_no_secret_is_pointed_out_where_nothing_is_attested() {
        let codes = |identifier: &str, product: &str| {
            let policy = policy(json!({"client_identifier": identifier, "ca_accepts_unattested": true}));
            let decided = decide(&policy, product, "16.0", EnrollmentKind::Device, Channel::Device);
            assert_eq!(decided.outcome, Outcome::Open);
            decided.notes.into_iter().map(|n| n.code).collect::<Vec<_>>()
        };
        let ignored = ReasonCode::AttestIgnoredBySilicon;
        assert_eq!(codes("{serial}", "iPhone9,1"), [ignored, ReasonCode::ClientIdentifierNoSecret]);
        assert_eq!(codes("{random}", "iPhone9,1"), [ignored]);
        assert_eq!(codes("{serial}", "iPhone15,2"), []);
    }

    #[test]
    fn th_40_the_udid_of_a_mac_is_pointed_out() {
        let udid = policy(json!({"client_identifier": "{udid}"}));
        let codes = |d: Decision| d.notes.into_iter().map(|n| n.code).collect::<Vec<_>>();
        let mac = decide(&udid, "Mac14,2", "14.0", EnrollmentKind::Device, Channel::Device);
        assert_eq!(codes(mac), [ReasonCode::MacUdidNotAttested]);
        let phone = decide(&udid, "iPhone15,2", "17.0", EnrollmentKind::Device, Channel::Device);
        assert_eq!(codes(phone), []);
    }
}
