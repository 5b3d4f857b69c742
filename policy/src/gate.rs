//! The gate: which form of the ACME payload a device can honour, or why none.
//!
//! One pure function over what the policy asks and what is known of the device. It holds the targeting rules T1 to T8
//! of acme.md, in the decision order of soc-rules.md. The strongest form that Apple's table allows is given, and
//! nothing stronger: an unknown device is never guessed to be able to attest.

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::{self, AttestSupport, Basis, Claims, Hardware, OsVersion, Platform};
use mdm_core::profile::acme::{Attest, KeyKind, MacKeys};
use serde::{Deserialize, Serialize};

use crate::reason::ReasonCode;

/// How strongly a policy wants a property of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// A device that cannot is refused.
    Required,
    /// Wherever Apple's rules allow it.
    WhenSupported,
    /// Nowhere.
    Never,
}

/// What the policy asks of every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the payload or a switch of the policy")]
pub struct Ask {
    /// `HardwareBound`.
    pub hardware_bound: Wish,
    /// `Attest`.
    pub attest: Wish,
    /// `KeyType` and `KeySize`.
    pub key: KeyKind,
    /// The ACME server issues to devices that give no attestation (Q1).
    pub ca_accepts_unattested: bool,
    /// `HardwareBound` and `Attest` may be used on the user channel of a Mac (Q3).
    pub user_channel_hardware_bound: bool,
    /// `KeyIsExtractable` for keys that are not hardware-bound.
    pub key_is_extractable: bool,
    /// `AllowAllAppsAccess`.
    pub allow_all_apps_access: bool,
}

/// What is known of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateFacts<'a> {
    /// `ProductName`.
    pub product_name: Option<&'a str>,
    /// `Model`, used only to tell a Mac.
    pub model: Option<&'a str>,
    /// `ModelName`, used only to tell a Mac.
    pub model_name: Option<&'a str>,
    /// `IsAppleSilicon` (macOS 12 and later).
    pub is_apple_silicon: Option<bool>,
    /// `OSVersion`.
    pub os_version: Option<OsVersion>,
    /// How the device was enrolled.
    pub kind: EnrollmentKind,
    /// The channel that the profile would be sent on.
    pub channel: Channel,
    /// The device has answered a `DeviceInformation` command, or refused to: what is missing stays missing.
    pub asked: bool,
}

/// A fact that the gate needs and does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MissingFact {
    /// `ProductName`.
    ProductName,
    /// `OSVersion`.
    #[serde(rename = "OSVersion")]
    OsVersion,
    /// `IsAppleSilicon`.
    IsAppleSilicon,
    /// `DevicePropertiesAttestation`, where the policy requires attested facts.
    DevicePropertiesAttestation,
}

/// The form of the payload that the device can honour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// `HardwareBound`.
    pub hardware_bound: bool,
    /// `Attest`, and whether it is written at all.
    pub attest: Attest,
    /// `KeyIsExtractable` and `AllowAllAppsAccess`: Macs only.
    pub mac: Option<MacKeys>,
    /// The device's operating system.
    pub platform: Option<Platform>,
    /// Why the form is weaker than asked, and what an operator should know.
    pub notes: Vec<ReasonCode>,
}

/// What made a limit of the device a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// The payload itself cannot be used there.
    Payload,
    /// `hardware_bound = required`.
    HardwareBound,
    /// `attest = required`.
    Attest,
    /// `ca_accepts_unattested = false`.
    CertificateAuthority,
    /// The policy's own words: its channel, its templates.
    Policy,
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The payload can be sent, in this form.
    Open(Open),
    /// No payload is sent.
    Closed {
        /// Why.
        reason: ReasonCode,
        /// What made it a refusal.
        demand: Demand,
    },
    /// The device must be asked first (T8).
    NeedFacts(Vec<MissingFact>),
}

/// The hardware that the facts describe, for the gate and for display.
pub fn hardware(facts: &GateFacts<'_>) -> Hardware {
    hardware::classify(&Claims {
        product_name: facts.product_name,
        is_apple_silicon: facts.is_apple_silicon,
        model: facts.model,
        model_name: facts.model_name,
    })
}

/// The first OS version that knows the ACME payload (T1).
pub fn payload_since(platform: Platform) -> OsVersion {
    match platform {
        Platform::Ios | Platform::Ipados | Platform::Tvos => OsVersion::new(16, 0),
        Platform::Macos => OsVersion::new(13, 1),
        Platform::Visionos => OsVersion::new(1, 0),
        Platform::Watchos => OsVersion::new(9, 0),
    }
}

/// The first version that proves the payload is known where nobody knows the operating system: above every minimum.
const KNOWN_EVERYWHERE: OsVersion = OsVersion::new(16, 0);

/// Finds the strongest form of the payload that the device can honour, or the reason why there is none.
pub fn gate(ask: &Ask, facts: &GateFacts<'_>) -> Verdict {
    let closed = |reason, demand| Verdict::Closed { reason, demand };
    if facts.channel == Channel::User && facts.kind == EnrollmentKind::SharedIpad {
        return closed(ReasonCode::SharedIpadUserChannel, Demand::Payload);
    }
    let hardware = hardware(facts);
    let missing = missing(facts, &hardware);
    if !facts.asked && !missing.is_empty() {
        return Verdict::NeedFacts(missing);
    }
    let Some(os) = facts.os_version else { return closed(ReasonCode::OsVersionUnknown, Demand::Payload) };
    if let Some(reason) = payload_refused(facts, hardware.platform, os) {
        return closed(reason, Demand::Payload);
    }

    let bound_limit = hardware_bound_limit(ask, facts, &hardware, os);
    let hardware_bound = match (ask.hardware_bound, bound_limit) {
        (Wish::Required, Some(reason)) => return closed(reason, Demand::HardwareBound),
        (Wish::Never, _) | (Wish::WhenSupported, Some(_)) => false,
        (Wish::Required | Wish::WhenSupported, None) => true,
    };
    let attest_limit = match bound_limit.or_else(|| attest_limit(&hardware, os)) {
        None if !hardware_bound => Some(ReasonCode::AttestNotAsked),
        limit => limit,
    };
    let attest = match (ask.attest, attest_limit) {
        (Wish::Required, Some(reason)) => return closed(reason, Demand::Attest),
        (Wish::Required | Wish::WhenSupported, None) => true,
        (Wish::WhenSupported, Some(reason)) if !ask.ca_accepts_unattested => {
            return closed(reason, Demand::CertificateAuthority);
        }
        (Wish::Never, limit) if !ask.ca_accepts_unattested => {
            return closed(limit.unwrap_or(ReasonCode::AttestNotAsked), Demand::CertificateAuthority);
        }
        (Wish::WhenSupported, Some(_)) | (Wish::Never, _) => false,
    };

    let is_mac = hardware.platform == Some(Platform::Macos);
    let mut notes = Vec::new();
    if ask.hardware_bound != Wish::Never {
        notes.extend(bound_limit);
    }
    if ask.attest != Wish::Never && ask.hardware_bound != Wish::Never && attest_limit != bound_limit {
        notes.extend(attest_limit);
    }
    if hardware.disagreement {
        notes.push(ReasonCode::SiliconDisagrees);
    }
    if hardware_bound && is_mac && ask.key.key_size() == 384 {
        notes.push(ReasonCode::KeySize384);
    }
    if !is_mac && (ask.key_is_extractable || ask.allow_all_apps_access) {
        notes.push(ReasonCode::MacOnlyKeysLeftOut);
    }
    Verdict::Open(Open {
        hardware_bound,
        attest: if attest { Attest::True } else { attest_when_false(&hardware, os) },
        mac: is_mac.then_some(MacKeys {
            key_is_extractable: ask.key_is_extractable && !hardware_bound,
            allow_all_apps_access: ask.allow_all_apps_access,
        }),
        platform: hardware.platform,
        notes,
    })
}

/// T8: what must be asked for before anything is decided.
fn missing(facts: &GateFacts<'_>, hardware: &Hardware) -> Vec<MissingFact> {
    let mut missing = Vec::new();
    if facts.product_name.is_none() {
        missing.push(MissingFact::ProductName);
    }
    if facts.os_version.is_none() {
        missing.push(MissingFact::OsVersion);
    }
    // Where it is known already, macOS 11 and older need not be asked: they do not know the query.
    let may_know_silicon = facts.os_version.is_none_or(|os| os >= OsVersion::new(12, 0));
    if hardware.platform == Some(Platform::Macos) && facts.is_apple_silicon.is_none() && may_know_silicon {
        missing.push(MissingFact::IsAppleSilicon);
    }
    missing
}

/// T1, T2 and T3: the payload itself cannot be used.
fn payload_refused(facts: &GateFacts<'_>, platform: Option<Platform>, os: OsVersion) -> Option<ReasonCode> {
    if facts.channel == Channel::User && platform != Some(Platform::Macos) {
        return Some(ReasonCode::UserChannelMacOnly);
    }
    let Some(platform) = platform else {
        return (os < KNOWN_EVERYWHERE).then_some(ReasonCode::PlatformUnknown);
    };
    if facts.kind == EnrollmentKind::User && matches!(platform, Platform::Tvos | Platform::Watchos) {
        return Some(ReasonCode::UserEnrollmentPlatform);
    }
    (os < payload_since(platform)).then_some(ReasonCode::PayloadNeedsNewerOs)
}

/// T4, T5 and Q3: why `HardwareBound` cannot be true. Outside macOS no source names a limit (Q29).
fn hardware_bound_limit(ask: &Ask, facts: &GateFacts<'_>, hardware: &Hardware, os: OsVersion) -> Option<ReasonCode> {
    match hardware.platform {
        None => Some(ReasonCode::HardwareUnknown),
        Some(Platform::Macos) if hardware.basis == Basis::Virtual => Some(ReasonCode::VirtualMachine),
        Some(Platform::Macos) if !matches!(hardware.attest, AttestSupport::Supported | AttestSupport::Ignored) => {
            Some(ReasonCode::HardwareBoundNeedsT2OrAppleSilicon)
        }
        Some(Platform::Macos) if os < OsVersion::new(14, 0) => Some(ReasonCode::HardwareBoundNeedsMacos14),
        Some(Platform::Macos) if facts.channel == Channel::User && !ask.user_channel_hardware_bound => {
            Some(ReasonCode::UserChannelHardwareBoundOff)
        }
        Some(_) => None,
    }
}

/// T6, T7 and C4: why `Attest` cannot be true although the key may be hardware-bound.
fn attest_limit(hardware: &Hardware, os: OsVersion) -> Option<ReasonCode> {
    match (hardware.attest, hardware.platform) {
        (AttestSupport::Ignored, _) => Some(ReasonCode::AttestIgnoredBySilicon),
        (AttestSupport::MustBeFalse, _) => Some(ReasonCode::HardwareBoundNeedsT2OrAppleSilicon),
        (AttestSupport::Unknown, _) | (_, None) => Some(ReasonCode::HardwareUnknown),
        (_, Some(Platform::Watchos)) if os < OsVersion::new(10, 0) => Some(ReasonCode::AttestNeedsWatchos10),
        (_, Some(Platform::Ipados)) if os < OsVersion::new(16, 1) => Some(ReasonCode::AttestNeedsIpados161),
        _ => None,
    }
}

/// C3: where `Attest` "must have a value of false" or is ignored, false is written out; elsewhere it is left out.
/// watchOS before 10 does not know the key.
fn attest_when_false(hardware: &Hardware, os: OsVersion) -> Attest {
    match hardware.platform {
        Some(Platform::Watchos) if os < OsVersion::new(10, 0) => Attest::LeaveOut,
        Some(Platform::Macos) if os < OsVersion::new(14, 0) => Attest::False,
        _ if matches!(hardware.attest, AttestSupport::Ignored | AttestSupport::MustBeFalse) => Attest::False,
        _ => Attest::LeaveOut,
    }
}

#[cfg(test)]
mod tests;
