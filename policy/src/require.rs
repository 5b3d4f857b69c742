//! What a policy requires of a device beyond its silicon: only what Apple has attested counts, and what is missing is not good.

use std::collections::BTreeMap;
use std::time::Duration;

use attestation::{Identity, can_attest};
use mdm_core::crypto::attestation::SecureBoot;
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::hardware::{OsVersion, Platform};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::acme::FieldError;
use crate::facts::{AttestedFacts, Facts};
use crate::reason::ReasonCode;

/// How old an attestation may be where a policy does not say: Apple makes a new one every 7 days, and asking takes its time.
pub const MAX_AGE: Duration = Duration::from_hours(8 * 24);
/// Longest age that a policy can allow, in hours: a year.
const MOST_HOURS: u32 = 366 * 24;
/// Most models that a policy can name.
const MOST_MODELS: usize = 500;

/// What an attestation must have shown. Empty: nothing. Whatever is set, an attestation of this device must be there that is
/// believed and fresh; what it does not say is not met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// The attestation names this very device, by serial number or UDID. User Enrollment can never meet it: Apple leaves both out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identity: bool,
    /// Macs: System Integrity Protection is on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sip_enabled: bool,
    /// Macs: secure boot is this strong at least: `full`, `reduced` or `permissive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub secure_boot: Option<SecureBoot>,
    /// Macs: no third-party kernel extensions are allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_third_party_kexts: bool,
    /// The oldest OS version of each platform, such as `{"iOS": "17.5", "macOS": "14.6"}`. A platform that is left out is not
    /// looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub os_at_least: BTreeMap<Platform, String>,
    /// The model is one of these, by its software update device ID: `iPhone15,2`, or the board of a Mac, `J413AP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Hours that may have passed since the nonce was sent that the attestation carries; 192 where it is left out. By itself it
    /// asks for any attestation that is fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_hours: Option<u32>,
}

impl Requirements {
    /// Nothing is required.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How old an attestation may be.
    pub fn max_age(&self) -> Duration {
        self.max_age_hours.map_or(MAX_AGE, |hours| Duration::from_secs(u64::from(hours) * 3600))
    }

    /// What is wrong with them, by field (`require.max_age_hours`).
    pub fn check(&self) -> Vec<FieldError> {
        let mut wrong = Vec::new();
        let mut add = |field: String, expected: &str| wrong.push(FieldError { field, expected: expected.to_owned() });
        if self.max_age_hours.is_some_and(|hours| !(1..=MOST_HOURS).contains(&hours)) {
            add(
                "require.max_age_hours".to_owned(),
                "between 1 and 8784; Apple makes a new attestation every 168 hours at most",
            );
        }
        for (platform, version) in &self.os_at_least {
            if version.parse::<OsVersion>().is_err() {
                add(format!("require.os_at_least.{platform}"), "an OS version such as 17.5.1");
            }
        }
        let is_model = |model: &String| (1..=64).contains(&model.len()) && model.bytes().all(|b| b.is_ascii_graphic());
        if self.models.len() > MOST_MODELS || !self.models.iter().all(is_model) {
            add(
                "require.models".to_owned(),
                "at most 500 software update device IDs, each 1 to 64 printable characters",
            );
        }
        wrong
    }

    fn of_macs(&self) -> bool {
        self.sip_enabled || self.secure_boot.is_some() || self.no_third_party_kexts
    }
}

type Unmet = Option<(ReasonCode, Option<String>)>;

/// What is not met, the first of it, with a detail for an operator.
pub fn unmet(required: &Requirements, kind: EnrollmentKind, facts: &Facts, now: Timestamp) -> Unmet {
    if required.is_empty() {
        return None;
    }
    if is_beyond(required, kind) {
        return Some((ReasonCode::IdentityNotAttested, Some("User Enrollment".to_owned())));
    }
    let attested = match believed(facts) {
        Ok(attested) => attested,
        Err((reason, detail)) => return Some((reason, detail)),
    };
    old(required, attested, now)
        .or_else(|| another(required, attested))
        .or_else(|| of_macs(required, attested))
        .or_else(|| old_system(required, facts, attested))
}

/// Whether the device must be asked once more before it is refused: what it is became known only by its first answer, so that no
/// attestation was asked for with the first question.
pub fn ask_first(required: &Requirements, kind: EnrollmentKind, facts: &Facts) -> bool {
    let asked = facts.asked_at.is_some() && (facts.attestation_asked || facts.attested.is_some());
    !required.is_empty() && !is_beyond(required, kind) && !asked && can_attest(&facts.silicon())
}

/// Whether another attestation of the same device could meet what was not met.
pub(crate) fn may_be_met_later(reason: ReasonCode) -> bool {
    use ReasonCode as R;
    matches!(
        reason,
        R::AttestationMissing
            | R::AttestationStale
            | R::AttestationRefused
            | R::AttestationMismatch
            | R::ValueNotAttested
            | R::SipDisabled
            | R::SecureBootTooWeak
            | R::ThirdPartyKextsAllowed
            | R::AttestedOsTooOld
    )
}

/// Whether no attestation of such an enrollment can ever do: in User Enrollment Apple names no device (TH-41).
fn is_beyond(required: &Requirements, kind: EnrollmentKind) -> bool {
    required.identity && kind == EnrollmentKind::User
}

/// An attestation that is there and believed.
fn believed(facts: &Facts) -> Result<&AttestedFacts, (ReasonCode, Option<String>)> {
    match &facts.attested {
        Some(attested) if attested.is_believed() => Ok(attested),
        Some(attested) if attested.identity == Identity::Mismatch => {
            Err((ReasonCode::AttestationMismatch, Some(attested.verdict.clone())))
        }
        Some(attested) if attested.verdict == attestation::Verdict::Absent.as_str() => {
            Err((ReasonCode::AttestationMissing, Some("the device was asked and answered without one".to_owned())))
        }
        Some(attested) => Err((ReasonCode::AttestationRefused, Some(attested.verdict.clone()))),
        None => {
            let can = can_attest(&facts.silicon());
            Err((if can { ReasonCode::AttestationMissing } else { ReasonCode::AttestationUnsupported }, None))
        }
    }
}

/// Freshness: by the nonce, never by when it was received (TH-38).
fn old(required: &Requirements, attested: &AttestedFacts, now: Timestamp) -> Unmet {
    match attested.fresh_as_of {
        Some(at) if now.since(at) <= required.max_age() => None,
        Some(at) => Some((ReasonCode::AttestationStale, Some(format!("fresh as of {at}")))),
        None => Some((ReasonCode::AttestationStale, Some("it carries no nonce of ours".to_owned()))),
    }
}

/// Another device than is meant, or one that is not named.
fn another(required: &Requirements, attested: &AttestedFacts) -> Unmet {
    if required.identity && attested.identity != Identity::Matches {
        return Some((ReasonCode::IdentityNotAttested, None));
    }
    match &attested.software_update_device_id {
        _ if required.models.is_empty() => None,
        None => Some(not_attested("the model (8.9.4)")),
        Some(model) if required.models.contains(model) => None,
        Some(model) => Some((ReasonCode::ModelNotAllowed, Some(model.clone()))),
    }
}

/// What only Macs have. A device that says it is none is believed only where Apple attests its model: the claim alone would be
/// the way around.
fn of_macs(required: &Requirements, attested: &AttestedFacts) -> Unmet {
    let is_another = attested.platform().is_some_and(|platform| platform != Platform::Macos);
    if !required.of_macs() || is_another {
        return None;
    }
    let sip = || match attested.sip_enabled {
        _ if !required.sip_enabled => None,
        Some(true) => None,
        Some(false) => Some((ReasonCode::SipDisabled, None)),
        None => Some(not_attested("System Integrity Protection (8.13.1)")),
    };
    let secure_boot = || match (required.secure_boot, attested.secure_boot) {
        (None, _) => None,
        // Full comes first.
        (Some(least), Some(is)) if is <= least => None,
        (Some(_), Some(is)) => Some((ReasonCode::SecureBootTooWeak, Some(is.to_string()))),
        (Some(_), None) => Some(not_attested("secure boot (8.13.2)")),
    };
    let kexts = || match attested.third_party_kexts {
        _ if !required.no_third_party_kexts => None,
        Some(false) => None,
        Some(true) => Some((ReasonCode::ThirdPartyKextsAllowed, None)),
        None => Some(not_attested("third-party kernel extensions (8.13.3)")),
    };
    sip().or_else(secure_boot).or_else(kexts)
}

fn old_system(required: &Requirements, facts: &Facts, attested: &AttestedFacts) -> Unmet {
    if required.os_at_least.is_empty() {
        return None;
    }
    let Some(platform) = attested.platform().or_else(|| facts.silicon().platform) else {
        return Some(not_attested("the model (8.9.4)"));
    };
    let Some(least) = required.os_at_least.get(&platform) else {
        // Who is not meant is not looked at; but only Apple's word says who that is.
        return attested.platform().is_none().then(|| not_attested("the model (8.9.4)"));
    };
    let is = attested.os_version.as_deref();
    match (least.parse::<OsVersion>(), is.map(str::parse::<OsVersion>)) {
        (Ok(least), Some(Ok(is))) if is >= least => None,
        (Ok(_), Some(Ok(is))) => Some((ReasonCode::AttestedOsTooOld, Some(format!("{platform} {is}, not {least}")))),
        (_, None | Some(Err(_))) | (Err(_), _) => Some(not_attested("the OS version (8.10.1)")),
    }
}

fn not_attested(what: &str) -> (ReasonCode, Option<String>) {
    (ReasonCode::ValueNotAttested, Some(what.to_owned()))
}

#[cfg(test)]
mod tests;
