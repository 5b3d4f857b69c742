//! Whether a certificate may be issued: a pure function of what the call asks and what is stored.
//!
//! Default is no. A yes needs an attempt that this authority is asked by, of an enrolled device on which the policy is being installed,
//! under a name that is its own, for a key that nobody else has, once (TH-39 to TH-45).

use ca::identifier::{Match, Names, is_well_formed};
use ca::{Authority, IdentifierRule};
use mdm_core::certificate::SubjectKey;
use policy::proof::Expectation;
use store::attempts::MOST_OPEN;
use uuid::Uuid;

use crate::denial::Denial;
use crate::names::Told;

/// What the call asks.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The authority that asks.
    pub authority: &'a Authority,
    /// `permanent-identifier` of the order.
    pub identifier: Option<&'a str>,
    /// The key.
    pub key: &'a SubjectKey,
    /// The names that the certificate would have, as far as the call tells.
    pub names: &'a [Told],
    /// The call shows an attestation.
    pub shows_attestation: bool,
}

/// An attempt that was delivered with this identifier and whose permission has not ended, with what is stored around it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Candidate {
    /// The device's own enrollment, whichever of its channels it is of.
    pub device: Uuid,
    /// The authority that its device was sent to.
    pub authority: Option<Uuid>,
    /// When it was delivered (ms).
    pub delivered_at: i64,
    /// Its device says already that the profile is installed.
    pub acknowledged: bool,
    /// SHA-256 of the key that its permission was used for.
    pub used_for: Option<Vec<u8>>,
    /// This webhook has said yes to it, to another call.
    pub said_yes: bool,
    /// Its device is enrolled.
    pub enrolled: bool,
    /// Its policy is being installed by this very attempt.
    pub assigned: bool,
    /// It is a User Enrollment.
    pub user_enrollment: bool,
    /// Its identifier was made of `{random}`: whoever knows it was told it.
    pub one_time: bool,
    /// How its device is called.
    pub names: policy::Known,
    /// What was delivered.
    pub expectation: Expectation,
    /// The key was used for another enrollment.
    pub key_of_another: bool,
}

/// A yes, as far as stored facts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The place of the candidate.
    pub at: usize,
    /// The attestation that the call shows must be judged, and stand.
    pub judge_attestation: bool,
}

/// Decides about a call that asks for a permission.
pub fn decide(asked: &Asked<'_>, candidates: &[Candidate]) -> Result<Chosen, Denial> {
    let identifier = asked.identifier.filter(|text| !text.is_empty()).ok_or(Denial::IdentifierMissing)?;
    if !is_well_formed(identifier) {
        return Err(Denial::IdentifierMalformed);
    }
    if candidates.is_empty() {
        return Err(Denial::NoOpenAttempt);
    }
    let mut ours: Vec<(usize, &Candidate)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, c)| c.authority.is_some() && c.authority == asked.authority.id)
        .collect();
    // A device may have several profiles under way with one name: the one that this key was allowed for goes first, then the one
    // whose common name is asked for, then the one that the device is busy with.
    ours.sort_by_key(|(_, c)| {
        let same_key = c.used_for.as_deref() == Some(asked.key.spki_sha256.as_slice());
        let same_name = asked.names.iter().any(|name| name.is_common_name_of(&c.expectation));
        (!same_key, !same_name, c.acknowledged, std::cmp::Reverse(c.delivered_at))
    });
    // An identifier that several devices were sent does not tell which of them asks.
    let mut devices = ours.iter().filter(|(_, c)| c.enrolled && c.assigned).map(|(_, c)| c.device);
    let first = devices.next();
    if candidates.len() > MOST_OPEN || devices.any(|device| Some(device) != first) {
        return Err(Denial::IdentifierOfSeveral);
    }
    let mut why = Denial::OtherAuthority;
    for (place, (at, candidate)) in ours.into_iter().enumerate() {
        match judge(asked, identifier, candidate) {
            Ok(judge_attestation) => return Ok(Chosen { at, judge_attestation }),
            Err(denial) if place == 0 => why = denial,
            Err(_) => {}
        }
    }
    Err(why)
}

/// Decides about one candidate; whether an attestation is to be judged besides.
fn judge(asked: &Asked<'_>, identifier: &str, candidate: &Candidate) -> Result<bool, Denial> {
    if !candidate.enrolled {
        return Err(Denial::NotEnrolled);
    }
    if !candidate.assigned {
        return Err(Denial::NotAssigned);
    }
    let expectation = &candidate.expectation;
    let attested_name = asked.authority.identifier == IdentifierRule::Attested
        && (expectation.attested || !asked.authority.accepts_unattested);
    let found = names(&candidate.names).find(identifier);
    let is_own = match found {
        Match::Attested => !(attested_name && candidate.user_enrollment),
        Match::MacUdid => !attested_name,
        Match::None => !attested_name && !expectation.names_device,
    };
    if !is_own {
        return Err(Denial::IdentifierNotTheDevices);
    }
    // An authority that verifies an attestation, and compares the identifier with it, has seen that the device is this one. Any other
    // has at most seen a device.
    let compared = asked.authority.verifies_attestation
        && asked.authority.identifier == IdentifierRule::Attested
        && found == Match::Attested;
    let must_be_shown = expectation.attested && !compared;
    let unattested = !expectation.attested && !asked.authority.accepts_unattested;
    if unattested || (must_be_shown && !asked.shows_attestation) {
        return Err(Denial::NotAttested);
    }
    // Without an attestation the identifier is all there is: it must be one that nobody else can know.
    let secret = candidate.one_time && !expectation.names_device && found == Match::None;
    if !expectation.attested && !secret && !asked.shows_attestation {
        return Err(Denial::IdentifierNoSecret);
    }
    if !asked.names.iter().all(|name| name.was_delivered(identifier, expectation)) {
        return Err(Denial::NamesDiffer);
    }
    let key = asked.key;
    if key.key_type != Some(expectation.key_type.as_str()) || key.key_size != Some(expectation.key_size) {
        return Err(Denial::KeyDiffers);
    }
    if candidate.key_of_another {
        return Err(Denial::KeyOfAnother);
    }
    let other_key = candidate.used_for.as_ref().is_some_and(|used| used.as_slice() != key.spki_sha256);
    if other_key || candidate.said_yes {
        return Err(Denial::AlreadyUsed);
    }
    Ok(asked.shows_attestation)
}

fn names(known: &policy::Known) -> Names<'_> {
    Names {
        platform: known.platform,
        serial_number: known.serial_number.as_deref(),
        udid: known.udid.as_deref(),
        provisioning_udid: known.provisioning_udid.as_deref(),
    }
}

#[cfg(test)]
mod tests;
