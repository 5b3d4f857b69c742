//! Facts: what is believed of a device, each with its source and its time.
//!
//! A device's word is *claimed*; what Apple has signed is *attested* and beats it. Of two of the same rank the newer
//! one counts, so that a late message never overwrites newer knowledge (RG-24).

use std::collections::BTreeMap;

use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a fact comes from; the later one in this list is believed more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The device said so in `Authenticate`.
    Authenticate,
    /// The device said so in an answer to `DeviceInformation`.
    DeviceInformation,
    /// Apple signed it in an attestation.
    Attested,
}

impl Source {
    fn rank(self) -> u8 {
        match self {
            Self::Authenticate | Self::DeviceInformation => 0,
            Self::Attested => 1,
        }
    }
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

impl FactName {
    /// Every fact that is kept.
    pub const ALL: &[Self] = &[
        Self::ProductName,
        Self::OsVersion,
        Self::BuildVersion,
        Self::Model,
        Self::ModelName,
        Self::DeviceName,
        Self::SerialNumber,
        Self::Udid,
        Self::ProvisioningUdid,
        Self::IsAppleSilicon,
    ];

    /// The query of `DeviceInformation` that asks for it.
    pub fn query(self) -> &'static str {
        match self {
            Self::ProductName => "ProductName",
            Self::OsVersion => "OSVersion",
            Self::BuildVersion => "BuildVersion",
            Self::Model => "Model",
            Self::ModelName => "ModelName",
            Self::DeviceName => "DeviceName",
            Self::SerialNumber => "SerialNumber",
            Self::Udid => "UDID",
            Self::ProvisioningUdid => "ProvisioningUDID",
            Self::IsAppleSilicon => "IsAppleSilicon",
        }
    }

    /// Apple's schema forbids the query in User Enrollment (Q22).
    pub fn is_forbidden_in_user_enrollment(self) -> bool {
        matches!(self, Self::SerialNumber | Self::Udid | Self::ProvisioningUdid)
    }
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
    /// The facts by name.
    #[serde(default)]
    pub known: BTreeMap<FactName, Fact>,
    /// When the device last answered `DeviceInformation`, or refused to; none since it enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
}

impl Facts {
    /// Takes in one statement; attested beats claimed, newer beats older. True if it changed anything but the time.
    pub fn learn(&mut self, name: FactName, value: FactValue, source: Source, at: Timestamp) -> bool {
        if matches!(&value, FactValue::Text(text) if text.is_empty() || text.len() > 1024) {
            return false;
        }
        if let Some(old) = self.known.get(&name) {
            let beaten = (source.rank(), at) < (old.source.rank(), old.at);
            if beaten {
                return false;
            }
        }
        let changed = self.known.get(&name).is_none_or(|old| old.value != value);
        self.known.insert(name, Fact { value, source, at });
        changed
    }

    /// Takes in all of `other`.
    pub fn merge(&mut self, other: Self) {
        for (name, fact) in other.known {
            self.learn(name, fact.value, fact.source, fact.at);
        }
        self.asked_at = self.asked_at.max(other.asked_at);
    }

    /// The text of a fact.
    pub fn text(&self, name: FactName) -> Option<&str> {
        match &self.known.get(&name)?.value {
            FactValue::Text(text) => Some(text),
            FactValue::Flag(_) => None,
        }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(s: &str) -> FactValue {
        FactValue::Text(s.into())
    }

    #[test]
    fn attested_beats_claimed_and_newer_beats_older() {
        let mut facts = Facts::default();
        let t = Timestamp;
        assert!(facts.learn(FactName::OsVersion, text("17.0"), Source::Authenticate, t(10)));
        assert!(facts.learn(FactName::OsVersion, text("17.1"), Source::DeviceInformation, t(20)));
        assert!(!facts.learn(FactName::OsVersion, text("16.0"), Source::DeviceInformation, t(15)), "late");
        assert_eq!(facts.text(FactName::OsVersion), Some("17.1"));
        assert!(facts.learn(FactName::OsVersion, text("17.2"), Source::Attested, t(5)));
        assert!(!facts.learn(FactName::OsVersion, text("99.0"), Source::DeviceInformation, t(30)));
        assert_eq!(facts.text(FactName::OsVersion), Some("17.2"));
        assert!(!facts.learn(FactName::DeviceName, text(""), Source::DeviceInformation, t(30)));
    }

    #[test]
    fn the_document_reads_back() {
        let mut facts = Facts { asked_at: Some(Timestamp(40)), ..Facts::default() };
        facts.learn(FactName::IsAppleSilicon, FactValue::Flag(true), Source::DeviceInformation, Timestamp(40));
        let json = serde_json::to_string(&facts).unwrap();
        assert!(json.contains(r#""is_apple_silicon":{"value":true,"source":"device_information""#), "{json}");
        assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(mut statements in prop::collection::vec((0i64..50, any::<bool>()), 1..8)) {
            statements.sort_unstable();
            statements.dedup();
            let tell = |list: &[(i64, bool)]| {
                let mut facts = Facts::default();
                for (at, attested) in list {
                    let source = if *attested { Source::Attested } else { Source::DeviceInformation };
                    facts.learn(FactName::OsVersion, text(&format!("{at}-{attested}")), source, Timestamp(*at));
                }
                facts
            };
            let forward = tell(&statements);
            statements.reverse();
            prop_assert_eq!(forward, tell(&statements));
        }
    }
}
