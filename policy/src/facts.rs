//! Facts: what is believed of a device, each with its source and its time.
//!
//! A device's word is *claimed*; what Apple has signed is *attested*. The two are kept apart. The gate takes the newest of both for
//! what can change (the version of the operating system), and the attested one for what cannot (model, serial number, UDID). What a
//! policy *requires* is looked for among the attested facts only ([`crate::require`]).
//!
//! Of two claims the newer one counts, so that a late message never overwrites newer knowledge (RG-24). What identifies a device is
//! fixed when it enrolls: a later claim that differs is told and not used (TH-39).

mod attested;

use std::collections::{BTreeMap, BTreeSet};

use attestation::{Asked, can_attest};
use mdm_core::enrollment::Channel;
use mdm_core::hardware::{self, Claims};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use attested::AttestedFacts;

/// Where a claim comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The device said so in `Authenticate`.
    Authenticate,
    /// The device said so in an answer to `DeviceInformation`.
    DeviceInformation,
}

/// What a fact is about, with Apple's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactName {
    /// `ProductName`.
    ProductName,
    /// `OSVersion`.
    OsVersion,
    /// `BuildVersion`.
    BuildVersion,
    /// `Model`.
    Model,
    /// `ModelName`.
    ModelName,
    /// `DeviceName`.
    DeviceName,
    /// `SerialNumber`.
    SerialNumber,
    /// `UDID`.
    Udid,
    /// `ProvisioningUDID`.
    ProvisioningUdid,
    /// `IsAppleSilicon`.
    IsAppleSilicon,
}

/// The value of a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FactValue {
    /// Yes or no.
    Flag(bool),
    /// A text.
    Text(String),
}

/// A value with its source and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What is believed.
    pub value: FactValue,
    /// Who said so.
    pub source: Source,
    /// When we heard it.
    pub at: Timestamp,
}

/// All facts of one enrollment; the JSON document of the `facts` table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What the device says, by name.
    #[serde(default)]
    pub known: BTreeMap<FactName, Fact>,
    /// What Apple has attested, where it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<AttestedFacts>,
    /// When the device last answered `DeviceInformation`, or refused to; none since it enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// Since it enrolled, the device has answered a `DeviceInformation` of ours that went out when it was known that it can attest:
    /// an attestation was asked for then, if one was due. On a user channel: it has answered, and there is nothing more to ask for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attestation_asked: bool,
    /// What the device has since said otherwise of what identifies it, and that this was told.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub differs: BTreeSet<FactName>,
}

impl Facts {
    /// Notes that a `DeviceInformation` of ours was answered, or refused. To be called before what the answer says is learned: what
    /// was asked followed from what was known. A user channel is never asked for an attestation: asking it again is in vain.
    pub fn note_asked(&mut self, channel: Channel, now: Timestamp) {
        self.asked_at = Some(now);
        self.attestation_asked |= channel == Channel::User || can_attest(&self.silicon());
    }

    /// What is known of the device that an attestation depends on.
    pub(crate) fn silicon(&self) -> Asked {
        let hardware = hardware::classify(&Claims {
            product_name: self.text(FactName::ProductName),
            is_apple_silicon: self.flag(FactName::IsAppleSilicon),
            model: self.text(FactName::Model),
            model_name: self.text(FactName::ModelName),
        });
        let os_version = self.text(FactName::OsVersion).and_then(|version| version.parse().ok());
        Asked { platform: hardware.platform, os_version, hardware: hardware.attest }
    }

    /// Takes in one claim; the newer beats the older. True if it changed anything but the time. A text that is empty, too long or
    /// holds control characters is no claim: it would be shown to people.
    pub fn learn(&mut self, name: FactName, value: FactValue, source: Source, at: Timestamp) -> bool {
        let is_no_claim = |text: &str| text.is_empty() || text.len() > 1024 || text.contains(char::is_control);
        if matches!(&value, FactValue::Text(text) if is_no_claim(text)) {
            return false;
        }
        if self.known.get(&name).is_some_and(|old| at < old.at) {
            return false;
        }
        let changed = self.known.get(&name).is_none_or(|old| old.value != value);
        self.known.insert(name, Fact { value, source, at });
        changed
    }

    /// Takes in a claim about what never changes: the first one counts. False if it differs from what is known.
    pub fn learn_once(&mut self, name: FactName, value: &str, source: Source, at: Timestamp) -> bool {
        match self.known.get(&name).map(|known| &known.value) {
            Some(FactValue::Text(known)) => known.eq_ignore_ascii_case(value),
            Some(FactValue::Flag(_)) | None => {
                self.learn(name, FactValue::Text(value.to_owned()), source, at);
                true
            }
        }
    }

    /// Takes in a verdict on an attestation that came at `now`.
    pub fn learn_attested(&mut self, judged: &attestation::Judged, now: Timestamp) {
        self.attested = AttestedFacts::after(self.attested.take(), judged, now);
    }

    /// Takes in all of `other`.
    pub fn merge(&mut self, other: Self) {
        for (name, fact) in other.known {
            self.learn(name, fact.value, fact.source, fact.at);
        }
        self.asked_at = self.asked_at.max(other.asked_at);
        self.attestation_asked |= other.attestation_asked;
        self.differs.extend(other.differs);
        let newer = |a: &AttestedFacts, b: &AttestedFacts| a.judged_at > b.judged_at;
        if other.attested.as_ref().is_some_and(|b| self.attested.as_ref().is_none_or(|a| newer(b, a))) {
            self.attested = other.attested;
        }
    }

    /// The text of a fact, as the gate and the templates take it.
    pub fn text(&self, name: FactName) -> Option<&str> {
        let claimed = self.known.get(&name);
        let attested = self.attested.as_ref().and_then(|attested| attested.text(name, claimed.map(|fact| fact.at)));
        attested.or_else(|| match &claimed?.value {
            FactValue::Text(text) => Some(text),
            FactValue::Flag(_) => None,
        })
    }

    /// The yes or no of a fact.
    pub fn flag(&self, name: FactName) -> Option<bool> {
        match self.known.get(&name)?.value {
            FactValue::Flag(flag) => Some(flag),
            FactValue::Text(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
