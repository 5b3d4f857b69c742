//! A handful of devices for each door, with the identity that each must get written by hand beside it.
//!
//! The expectations stand for doors that prefer ACME with hardware-bound, attested keys wherever the silicon has them, fall
//! back to SCEP, name devices by random ClientIdentifiers, and use an authority that also takes devices without attestation.
//! They are never computed. Sources: as for [`crate::fleet`]; a door knows only what MachineInfo tells, and that has OS_VERSION
//! from iOS 17, macOS 14 and tvOS 17 on.

use crate::error::{Error, Result};
use crate::hardware;
use crate::identity::Source;
use crate::record::Record;

/// How a device gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// An enrollment link in a browser.
    Link,
    /// Automated Device Enrollment, by POST.
    Ade,
    /// Automated Device Enrollment in a web view, where a person signs in.
    AdeWeb,
    /// Account-driven User Enrollment.
    Byod,
    /// Account-driven device enrollment.
    Adde,
}

impl Entry {
    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Ade => "ADE",
            Self::AdeWeb => "ADE, web sign-in",
            Self::Byod => "account, user",
            Self::Adde => "account, device",
        }
    }
}

/// One device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// How it gets in.
    pub entry: Entry,
    /// `ProductName`.
    pub product_name: &'static str,
    /// `OSVersion`.
    pub os_version: &'static str,
    /// `BuildVersion`.
    pub build_version: &'static str,
    /// The identity that it must get when it enrolls.
    pub expected: Source,
    /// Why that one.
    pub why: &'static str,
    /// The identity that it must get when that is renewed, once the server knows the device.
    pub renewed: Source,
}

impl Arrival {
    /// The device's record. `run` keeps the identifiers of two runs apart, `number` those of two devices.
    pub fn record(&self, run: &str, number: usize) -> Result<Record> {
        let hardware = hardware::find(self.product_name)
            .ok_or_else(|| Error::Options(format!("no hardware called {}", self.product_name)))?;
        Record::new(hardware, self.os_version, self.build_version, &format!("{run}/arrival/{number}"))
    }
}

const ATTESTED: Source = Source::Acme { hardware_bound: true, attested: true };
const BOUND: Source = Source::Acme { hardware_bound: true, attested: false };
const UNBOUND: Source = Source::Acme { hardware_bound: false, attested: false };

/// The devices, door by door.
pub fn arrivals() -> Vec<Arrival> {
    use Entry::{Adde, Ade, AdeWeb, Byod, Link};
    let one = |entry, product_name, os_version, build_version, expected, why| Arrival {
        entry,
        product_name,
        os_version,
        build_version,
        expected,
        why,
        renewed: expected,
    };
    let later = |arrival: Arrival, renewed| Arrival { renewed, ..arrival };
    vec![
        later(one(Link, "iPhone15,4", "18.5", "22F76", Source::Scep, "a link does not know the device"), ATTESTED),
        later(one(Link, "Macmini8,1", "15.1", "24B83", Source::Scep, "a link does not know the device"), BOUND),
        one(Ade, "iPhone17,2", "18.1", "22B83", ATTESTED, "A18 Pro attests"),
        one(Ade, "iPad7,11", "18.5", "22F76", BOUND, "A10 ignores Attest"),
        one(Ade, "Mac16,10", "15.6", "24G84", ATTESTED, "Apple silicon on macOS 14 or later attests"),
        one(Ade, "MacBookPro16,1", "14.5", "23F79", BOUND, "T2 ignores Attest"),
        one(Ade, "iMac19,1", "14.5", "23F79", UNBOUND, "neither T2 nor Apple silicon"),
        one(Ade, "AppleTV14,1", "18.5", "22L572", ATTESTED, "A15 attests"),
        later(
            one(Ade, "iPhone10,6", "16.0", "20A362", Source::Scep, "MachineInfo has no OS_VERSION before iOS 17"),
            ATTESTED,
        ),
        one(AdeWeb, "iPhone18,1", "26.1", "23B85", ATTESTED, "A19 Pro attests"),
        one(Byod, "iPhone18,4", "26.1", "23B85", ATTESTED, "A19 Pro attests, without serial number and UDID"),
        one(Byod, "iPad7,5", "17.7", "21H16", BOUND, "A10 ignores Attest"),
        one(Byod, "Mac14,2", "15.1", "24B83", ATTESTED, "Apple silicon on macOS 14 or later attests"),
        one(Adde, "iPhone14,5", "18.1", "22B83", ATTESTED, "A15 attests"),
        one(Adde, "MacBookAir10,1", "14.5", "23F79", ATTESTED, "Apple silicon on macOS 14 or later attests"),
        later(
            one(Adde, "iPad8,1", "16.1", "20B82", Source::Scep, "MachineInfo has no OS_VERSION before iPadOS 17"),
            ATTESTED,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Attestation, Version};
    use crate::machine_info::MachineInfo;

    /// Two lists by hand, this one and the table of hardware, agree.
    #[test]
    fn what_is_expected_is_possible_and_every_door_has_somebody() {
        let arrivals = arrivals();
        for (number, arrival) in arrivals.iter().enumerate() {
            let record = arrival.record("run", number).unwrap();
            let hardware = record.hardware;
            for source in [arrival.expected, arrival.renewed] {
                let Source::Acme { hardware_bound, attested } = source else { continue };
                assert_eq!(attested, hardware.attestation == Attestation::Supported, "{}", arrival.product_name);
                assert_eq!(hardware_bound, hardware.secure_enclave, "{}", arrival.product_name);
            }
            let tells = MachineInfo::of(&record).os_version.is_some();
            let known = tells && arrival.entry != Entry::Link;
            assert_eq!(arrival.expected != Source::Scep, known, "{}", arrival.product_name);
            assert!(Version::parse(arrival.os_version) >= Version::new(14, 0));
        }
        for entry in [Entry::Link, Entry::Ade, Entry::AdeWeb, Entry::Byod, Entry::Adde] {
            assert!(arrivals.iter().any(|arrival| arrival.entry == entry), "{}", entry.name());
        }
    }
}
