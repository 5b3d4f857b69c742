//! Which identity certificate a device is given: a pure function of its door's settings and what is known of the device,
//! decided by the gate that ACME policies use too.

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::OsVersion;
use mdm_core::ids::Udid;
use mdm_core::profile::acme::Attest;
use policy::gate::{GateFacts, Open, Verdict, gate};
use policy::reason::ReasonCode;
use serde::Serialize;
use store::issuance::Source;

use crate::door::{ClientIdentifier, Otherwise, Prefer, Require, Settings};

/// What a device says of itself before it has a profile: in its MachineInfo, or in `Authenticate` and later facts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceFacts<'a> {
    /// `PRODUCT` or `ProductName`.
    pub product_name: Option<&'a str>,
    /// `OS_VERSION` or `OSVersion`.
    pub os_version: Option<&'a str>,
    /// `Model`.
    pub model: Option<&'a str>,
    /// `ModelName`.
    pub model_name: Option<&'a str>,
    /// `IsAppleSilicon`.
    pub is_apple_silicon: Option<bool>,
}

/// A device that asks for an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device<'a> {
    /// Which kind of enrollment it has or begins.
    pub kind: EnrollmentKind,
    /// What is known of it.
    pub facts: DeviceFacts<'a>,
    /// Its serial number, where it is known.
    pub serial: Option<&'a str>,
    /// Its UDID, where it is known.
    pub udid: Option<&'a Udid>,
}

/// The identity that was chosen, and why: what the issuance record keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChosenIdentity {
    /// Who issues it.
    #[serde(serialize_with = "as_word")]
    pub source: Source,
    /// `HardwareBound`.
    pub hardware_bound: bool,
    /// `Attest`.
    pub attest: bool,
    /// Why it is weaker than the door prefers: codes of docs/acme-decision-reasons.md.
    pub notes: Vec<ReasonCode>,
    /// It is the one that the door prefers.
    pub preferred: bool,
    /// What would have been without `report_only`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would: Option<Would>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn as_word<S: serde::Serializer>(source: &Source, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(source.as_str())
}

/// What would have been without `report_only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// No profile.
    Refuse,
}

/// The identity payload that follows from the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// SCEP.
    Scep,
    /// ACME, in the form that the gate allows.
    Acme(Open),
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// For the record.
    pub identity: ChosenIdentity,
    /// For the profile.
    pub form: Form,
}

/// The device is given no identity at this door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the door asks for an identity that this device cannot have: {}", .0.as_str())]
pub struct Refused(pub ReasonCode);

/// Chooses the identity of a device.
///
/// # Errors
/// [`Refused`] where the door refuses what the gate refuses.
pub fn choose(settings: &Settings, device: &Device<'_>) -> Result<Choice, Refused> {
    let scep = |preferred, notes, would| Choice {
        identity: ChosenIdentity {
            source: Source::Scep,
            hardware_bound: false,
            attest: false,
            notes,
            preferred,
            would,
        },
        form: Form::Scep,
    };
    if settings.identity.prefer == Prefer::Scep {
        return Ok(scep(true, Vec::new(), None));
    }
    match (acme(settings, device), settings.identity.otherwise) {
        (Ok(open), _) => Ok(Choice {
            identity: ChosenIdentity {
                source: Source::Acme,
                hardware_bound: open.hardware_bound,
                attest: open.attest == Attest::True,
                notes: open.notes.clone(),
                preferred: true,
                would: None,
            },
            form: Form::Acme(open),
        }),
        (Err(reason), Otherwise::Refuse) => Err(Refused(reason)),
        // What a door demands of every device is not given up for one that can't.
        (Err(reason), _) if settings.require == Require::Attestation => Err(Refused(reason)),
        (Err(reason), Otherwise::FallBack) => Ok(scep(false, vec![reason], None)),
        (Err(reason), Otherwise::ReportOnly) => Ok(scep(false, vec![reason], Some(Would::Refuse))),
    }
}

/// The form of the ACME payload, or why there is none.
fn acme(settings: &Settings, device: &Device<'_>) -> Result<Open, ReasonCode> {
    let acme = settings.identity.acme.as_ref().ok_or(ReasonCode::PayloadInvalid)?;
    let ask = acme.ask().ok_or(ReasonCode::PayloadInvalid)?;
    let named = match acme.client_identifier {
        ClientIdentifier::Random => true,
        ClientIdentifier::Serial | ClientIdentifier::Udid if device.kind == EnrollmentKind::User => {
            return Err(ReasonCode::TemplateNotInUserEnrollment);
        }
        ClientIdentifier::Serial => device.serial.is_some(),
        ClientIdentifier::Udid => device.udid.is_some(),
    };
    if !named {
        return Err(ReasonCode::TemplateValueMissing);
    }
    let facts = GateFacts {
        product_name: device.facts.product_name,
        model: device.facts.model,
        model_name: device.facts.model_name,
        is_apple_silicon: device.facts.is_apple_silicon,
        os_version: device.facts.os_version.and_then(|text| text.parse::<OsVersion>().ok()),
        kind: device.kind,
        channel: Channel::Device,
        // Nothing can be asked before there is an enrollment: what is missing stays missing.
        asked: true,
    };
    match gate(&ask, &facts) {
        Verdict::Open(mut open) => {
            if settings.require == Require::Attestation && open.attest != Attest::True {
                return Err(open.notes.first().copied().unwrap_or(ReasonCode::AttestNotAsked));
            }
            if acme.client_identifier != ClientIdentifier::Random && open.attest != Attest::True {
                return Err(ReasonCode::AttestNotAsked);
            }
            let mac = open.platform == Some(mdm_core::hardware::Platform::Macos);
            if mac && acme.client_identifier == ClientIdentifier::Udid && open.attest == Attest::True {
                open.notes.push(ReasonCode::MacUdidNotAttested);
            }
            Ok(open)
        }
        Verdict::Closed { reason, .. } => Err(reason),
        Verdict::NeedFacts(_) => Err(ReasonCode::OsVersionUnknown),
    }
}

#[cfg(test)]
mod tests;
