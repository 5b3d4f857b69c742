//! The linter: what a policy would come to on each kind of device there is, before it reaches one.
//!
//! One device stands for each cell of Apple's tables: each silicon class of each family, the versions between which rules change, each
//! kind of enrollment and each channel. The decision is the same pure function that decides for real devices. A policy that is refused
//! on all of them is refused itself: no device could honour it.

use ca::Authority;
use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::Tx;

use crate::Context;
use crate::acme::{AcmePolicy, FieldError, InvalidPolicy, PolicyDocument};
use crate::decision::{Form, Note, Outcome, Target, decision};
use crate::error::{Error, Result};
use crate::facts::{FactName, FactValue, Facts, Source};
use crate::reason::ReasonCode;
use crate::require::Requirements;
use crate::template::{Values, Variable};

/// A kind of device, and what a policy would come to on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyFinding)]
pub struct Finding {
    /// The device, in words.
    pub device: String,
    /// `ProductName` of the device that stands for its kind.
    pub product_name: String,
    /// Its `OSVersion`.
    pub os_version: String,
    /// The kind of enrollment.
    pub kind: String,
    /// The channel.
    pub channel: String,
    /// What would be decided.
    pub outcome: Outcome,
    /// The form of the payload, where it is `open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// Why not, where it is `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Note>,
    /// Which value or key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why the form is weaker than asked, and what else an operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// One device for each row of Apple's tables that a device of today can be in.
const DEVICES: &[(&str, &str, &str, Option<bool>)] = &[
    ("iPhone", "iPhone17,1", "26.0", None),
    ("iPad with A12 or later", "iPad16,3", "26.0", None),
    ("iPad with A12 or later, iPadOS 16.0", "iPad16,3", "16.0", None),
    ("iPad with A10X or earlier", "iPad7,5", "17.0", None),
    ("Mac with Apple silicon", "Mac16,1", "26.0", Some(true)),
    ("Mac with Apple silicon, macOS 13", "Mac14,2", "13.6", Some(true)),
    ("Mac with T2", "MacBookPro16,1", "15.0", Some(false)),
    ("Mac without T2 or Apple silicon", "iMac18,1", "13.6", Some(false)),
    ("virtual Mac", "VirtualMac2,1", "15.0", Some(true)),
    ("Apple TV with A12 or later", "AppleTV14,1", "26.0", None),
    ("Apple TV with A10X or earlier", "AppleTV6,2", "18.0", None),
    ("Apple Watch", "Watch7,1", "26.0", None),
    ("Apple Watch, watchOS 9", "Watch6,6", "9.6", None),
    ("Apple Vision Pro", "RealityDevice14,1", "26.0", None),
];

/// What the policy would come to on every kind of device that it is for. What it requires of an attestation is left aside: no kind of
/// device has one, only a device has.
pub fn lint(policy: &AcmePolicy, authority: &Authority) -> Vec<Finding> {
    let without = PolicyDocument { require: Requirements::default(), ..policy.document().clone() };
    let Ok(policy) = AcmePolicy::new(without) else { return Vec::new() };
    // A bare server of which nobody knows who signs: what it issues is neither proved nor renewed.
    let unproved = authority.id.is_none() && authority.issuers.is_empty();
    let mut findings = Vec::new();
    for (device, product_name, os_version, silicon) in DEVICES.iter().copied() {
        let macs = product_name.contains("Mac");
        for kind in
            [EnrollmentKind::Device, EnrollmentKind::Automated, EnrollmentKind::User, EnrollmentKind::SharedIpad]
        {
            if kind == EnrollmentKind::SharedIpad && !product_name.starts_with("iPad") {
                continue;
            }
            for channel in [Channel::Device, Channel::User] {
                let there = channel == Channel::Device || macs || kind == EnrollmentKind::SharedIpad;
                if !there || !policy.document().channel.includes(channel) {
                    continue;
                }
                let (facts, values) = sample(product_name, os_version, silicon, kind, channel);
                let target = Target { kind, channel, facts: &facts, values: &values, now: Timestamp(0) };
                let (mut decided, _) = decision(&policy, authority, &target);
                if unproved && decided.outcome == Outcome::Open {
                    decided.notes.push(Note::from(ReasonCode::IssuersUnknown));
                }
                findings.push(Finding {
                    device: device.to_owned(),
                    product_name: product_name.to_owned(),
                    os_version: os_version.to_owned(),
                    kind: kind.to_string(),
                    channel: channel.to_string(),
                    outcome: decided.outcome,
                    form: decided.form,
                    reason: decided.reason,
                    detail: decided.detail,
                    notes: decided.notes,
                });
            }
        }
    }
    findings
}

/// What such a device would have told.
fn sample(
    product_name: &str,
    os_version: &str,
    silicon: Option<bool>,
    kind: EnrollmentKind,
    channel: Channel,
) -> (Facts, Values) {
    let at = Timestamp(0);
    let mut facts = Facts { asked_at: Some(at), ..Facts::default() };
    let mut values = Values::default();
    let mut told = |name, variable, text: &str| {
        facts.learn(name, FactValue::Text(text.to_owned()), Source::DeviceInformation, at);
        values.set(variable, Some(text));
    };
    told(FactName::ProductName, Variable::ProductName, product_name);
    told(FactName::OsVersion, Variable::OsVersion, os_version);
    told(FactName::Model, Variable::Model, "MODEL1LL/A");
    told(FactName::ModelName, Variable::ModelName, "Model");
    told(FactName::DeviceName, Variable::DeviceName, "Device");
    if kind != EnrollmentKind::User {
        told(FactName::SerialNumber, Variable::Serial, "C02SAMPLE001");
        told(FactName::Udid, Variable::Udid, "00000000-0000-4000-8000-000000000001");
        if silicon.is_some() {
            told(FactName::ProvisioningUdid, Variable::ProvisioningUdid, "00008103-000000000000001A");
        }
    }
    if let Some(silicon) = silicon {
        facts.learn(FactName::IsAppleSilicon, FactValue::Flag(silicon), Source::DeviceInformation, at);
    }
    values.set(Variable::EnrollmentId, Some("00000000-0000-7000-8000-000000000001"));
    values.set(Variable::Random, Some("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    if channel == Channel::User {
        values.set(Variable::UserShortName, Some("user"));
        values.set(Variable::UserLongName, Some("User"));
    }
    (facts, values)
}

/// Why no device could honour the policy; none where one could. The reasons are named with how many kinds of devices they refuse.
pub fn nobody(findings: &[Finding]) -> Option<String> {
    if findings.iter().any(|finding| finding.outcome == Outcome::Open) {
        return None;
    }
    let mut reasons: Vec<(&'static str, &str, usize)> = Vec::new();
    for note in findings.iter().filter_map(|finding| finding.reason.as_ref()) {
        match reasons.iter_mut().find(|(code, ..)| *code == note.code.as_str()) {
            Some((_, _, count)) => *count += 1,
            None => reasons.push((note.code.as_str(), &note.sentence, 1)),
        }
    }
    reasons.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    let told: Vec<String> = reasons.iter().take(3).map(|(code, sentence, _)| format!("{code}: {sentence}")).collect();
    Some(told.join(" "))
}

/// Refuses a policy that names a signing identity that does not exist, or that no device could honour.
pub(crate) async fn check(tx: &mut Tx, ctx: &Context, policy: &AcmePolicy) -> Result<()> {
    if let Some(name) = policy.document().signing_identity.as_deref().filter(|name| !ctx.signers.has(name)) {
        let known: Vec<&str> = ctx.signers.names().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let expected = format!("one of profile_signing.identities in the server's configuration ({known}), not {name}");
        return Err(Error::Invalid(InvalidPolicy(vec![FieldError { field: "signing_identity".into(), expected }])));
    }
    let authority = crate::authority::of(tx, policy).await?;
    nobody(&lint(policy, &authority)).map_or(Ok(()), |why| Err(Error::NobodyCould(why)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(change: serde_json::Value) -> Vec<Finding> {
        let mut json = json!({
            "name": "wifi", "directory_url": "https://ca.example.com/directory",
            "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]],
        });
        for (key, value) in change.as_object().unwrap() {
            json[key] = value.clone();
        }
        let policy = AcmePolicy::from_value(json).unwrap();
        let document = policy.document();
        let url = document.directory_url.as_deref().unwrap();
        lint(&policy, &Authority::bare(url, document.ca_accepts_unattested, Vec::new()))
    }

    #[test]
    fn the_default_policy_says_for_each_kind_of_device_what_it_comes_to() {
        let findings = findings(json!({}));
        assert_eq!(nobody(&findings), None);
        let of = |device: &str, kind: &str| {
            findings.iter().find(|f| f.device == device && f.kind == kind && f.channel == "device").unwrap()
        };
        assert_eq!(of("iPhone", "device").outcome, Outcome::Open);
        let reason = |device, kind| of(device, kind).reason.as_ref().map(|note| note.code);
        assert_eq!(reason("iPhone", "user"), Some(ReasonCode::TemplateNotInUserEnrollment));
        assert_eq!(reason("Mac with T2", "device"), Some(ReasonCode::AttestIgnoredBySilicon));
        assert_eq!(reason("virtual Mac", "device"), Some(ReasonCode::VirtualMachine));
        assert!(findings.iter().all(|f| f.outcome != Outcome::NeedFacts), "{findings:?}");
    }

    #[test]
    fn where_nobody_knows_who_signs_it_is_said_of_every_device_that_gets_a_certificate() {
        let notes = |f: &Finding| f.notes.iter().any(|note| note.code == ReasonCode::IssuersUnknown);
        let bare = findings(json!({}));
        assert!(bare.iter().all(|f| notes(f) == (f.outcome == Outcome::Open)), "{bare:?}");
        let policy = AcmePolicy::from_value(json!({
            "name": "wifi", "directory_url": "https://ca.example.com/directory",
            "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]],
        }));
        let known = Authority::bare("https://ca.example.com/directory", false, vec![vec![1]]);
        assert!(!lint(&policy.unwrap(), &known).iter().any(notes));
    }

    #[test]
    fn a_policy_that_no_device_could_honour_is_found_with_its_reasons() {
        for (change, code) in [
            // HardwareBound and Attest are off on the user channel unless switched on.
            (json!({"channel": "user", "attest": "required"}), "user_channel_hardware_bound_off"),
            // On the user channel nobody but a Mac has an ACME payload, and a Mac's users have no such value.
            (json!({"channel": "device", "client_identifier": "{user_short_name}-{random}"}), "template_value_missing"),
            // A value that an Apple Watch never tells.
            (json!({"platforms": ["watchOS"], "client_identifier": "{provisioning_udid}"}), "template_value_missing"),
            // A VPN where Apple has none.
            (
                json!({"platforms": ["watchOS"], "companions": [{"type": "vpn_ikev2", "name": "vpn", "remote_address": "v",
                    "remote_identifier": "v", "local_identifier": "x", "server_certificate_issuer_common_name": "CA"}]}),
                "companion_not_supported",
            ),
        ] {
            let why = nobody(&findings(change.clone()));
            assert!(why.as_ref().is_some_and(|why| why.contains(code)), "{change}: {why:?}");
        }
        let weaker = json!({"channel": "user", "attest": "when_supported", "ca_accepts_unattested": true});
        assert_eq!(nobody(&findings(weaker)), None);
    }
}
