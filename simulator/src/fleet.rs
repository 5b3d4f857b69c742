//! A fleet on both sides of each boundary of the ACME payload, with the outcome that Apple's pages demand written by
//! hand beside each device.
//!
//! The expectations stand for one policy: `hardware_bound` and `attest` wherever they are supported, an elliptic curve
//! key, and a CA that also takes devices without attestation. They are never computed, least of all by the code under
//! test. Sources: Apple, "ACMECertificate" (availability, `HardwareBound`, `Attest`, the note "ACME attestation hardware
//! support"); for iPadOS 16.1, "Managed Device Attestation" in Apple's deployment guide.

use crate::acme::Acme;
use crate::device::{Behaviour, Record, Transport, User};
use crate::error::{Error, Result};
use crate::hardware;

/// How `Attest` must stand in the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attest {
    /// True.
    True,
    /// False, written out: macOS before 14 requires the key.
    WrittenFalse,
    /// Left out: watchOS before 10 does not know the key.
    LeftOut,
    /// False or left out, which mean the same.
    NotTrue,
}

/// Why a device gets less than the policy wishes, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The operating system does not know the payload.
    OldSystem,
    /// macOS before 14: both must be false.
    MacBefore14,
    /// A Mac without T2 or Apple silicon: both must be false.
    NoSecureEnclave,
    /// A virtual Mac.
    VirtualMac,
    /// The chip ignores `Attest`.
    IgnoredBySilicon,
    /// iPadOS 16.0 does not attest yet.
    IPadBefore161,
    /// watchOS 9 has no `Attest` key.
    WatchBefore10,
    /// Nobody knows the model.
    UnknownModel,
    /// On the user channel of a Mac a hardware-bound key is only for policies that say so.
    UserChannel,
    /// The user channel of a Shared iPad takes no ACME payload.
    SharedIPadUser,
}

/// What must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A profile with these keys; `because` where it is less than the policy wishes.
    Profile {
        /// `HardwareBound`.
        hardware_bound: bool,
        /// `Attest`.
        attest: Attest,
        /// Why it is less.
        because: Option<Because>,
    },
    /// No profile at all.
    Refused(Because),
}

const FULL: Expected = Expected::Profile { hardware_bound: true, attest: Attest::True, because: None };

const fn bound(attest: Attest, because: Because) -> Expected {
    Expected::Profile { hardware_bound: true, attest, because: Some(because) }
}

const fn unbound(attest: Attest, because: Because) -> Expected {
    Expected::Profile { hardware_bound: false, attest, because: Some(because) }
}

impl Expected {
    /// Says what is wrong with a payload that a device took, or with its absence.
    pub fn check(&self, mac: bool, seen: Option<&Acme>) -> std::result::Result<(), String> {
        let (hardware_bound, attest) = match (self, seen) {
            (Self::Refused(_), None) => return Ok(()),
            (Self::Refused(because), Some(_)) => return Err(format!("a profile although {because:?}")),
            (Self::Profile { .. }, None) => return Err("no profile".into()),
            (Self::Profile { hardware_bound, attest, .. }, Some(_)) => (*hardware_bound, *attest),
        };
        let Some(acme) = seen else { return Ok(()) };
        if acme.hardware_bound != hardware_bound {
            return Err(format!("HardwareBound is {}, must be {hardware_bound}", acme.hardware_bound));
        }
        let fits = match attest {
            Attest::True => acme.attest == Some(true),
            Attest::WrittenFalse => acme.attest == Some(false),
            Attest::LeftOut => acme.attest.is_none(),
            Attest::NotTrue => acme.attest != Some(true),
        };
        if !fits {
            return Err(format!("Attest is {:?}, must be {attest:?}", acme.attest));
        }
        let mac_keys = acme.key_is_extractable.is_some() || acme.allow_all_apps_access.is_some();
        if mac_keys && !mac {
            return Err("KeyIsExtractable or AllowAllAppsAccess outside macOS".into());
        }
        Ok(())
    }

    /// The reason, where there is one.
    pub fn because(&self) -> Option<Because> {
        match self {
            Self::Profile { because, .. } => *because,
            Self::Refused(because) => Some(*because),
        }
    }
}

/// Who else uses the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// Nobody with a channel of their own.
    Nobody,
    /// A local user of a Mac, and what their channel must get.
    OfMac(Expected),
    /// A user of a Shared iPad, and what their channel must get.
    OfSharedIPad(Expected),
}

/// One device of the fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// `ProductName`.
    pub product_name: &'static str,
    /// `OSVersion`.
    pub os_version: &'static str,
    /// `BuildVersion`.
    pub build_version: &'static str,
    /// User Enrollment, without a UDID.
    pub own_device: bool,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// A second channel.
    pub person: Person,
    /// What the device channel must get.
    pub expected: Expected,
}

impl Member {
    /// The device's record. `run` keeps the identifiers of two runs apart, `number` those of two devices.
    pub fn record(&self, run: &str, number: usize) -> Result<Record> {
        let hardware = hardware::find(self.product_name)
            .ok_or_else(|| Error::Options(format!("no hardware called {}", self.product_name)))?;
        let seed = format!("{run}/{number}");
        let record = Record::new(hardware, self.os_version, self.build_version, &seed)?;
        if self.own_device { record.into_user_enrollment(&seed) } else { Ok(record) }
    }

    /// The person with a channel of their own, and what it must get.
    pub fn user(&self, run: &str, number: usize) -> Result<Option<(User, Expected)>> {
        Ok(match self.person {
            Person::Nobody => None,
            Person::OfMac(expected) => {
                Some((User::of_mac("ada", "Ada Example", &format!("{run}/{number}"))?, expected))
            }
            Person::OfSharedIPad(expected) => {
                Some((User::of_shared_ipad(&format!("pupil{number}@school.example")), expected))
            }
        })
    }

    /// Answers this command with `NotNow` the first time.
    fn not_now(mut self, request_type: &str) -> Self {
        self.behaviour.not_now.insert(request_type.into(), 1);
        self
    }

    /// Says nothing of itself in Authenticate.
    fn sparse(mut self) -> Self {
        self.behaviour.sparse_authenticate = true;
        self
    }

    fn transport(mut self, transport: Transport) -> Self {
        self.behaviour.transport = transport;
        self
    }

    fn person(mut self, person: Person) -> Self {
        self.person = person;
        self
    }

    fn own(mut self) -> Self {
        self.own_device = true;
        self
    }
}

fn device(
    product_name: &'static str,
    os_version: &'static str,
    build_version: &'static str,
    expected: Expected,
) -> Member {
    Member {
        product_name,
        os_version,
        build_version,
        own_device: false,
        behaviour: Behaviour::default(),
        person: Person::Nobody,
        expected,
    }
}

/// The whole fleet.
pub fn fleet() -> Vec<Member> {
    use Attest::{LeftOut, NotTrue, WrittenFalse};
    use Because::{
        IPadBefore161, IgnoredBySilicon, MacBefore14, NoSecureEnclave, OldSystem, SharedIPadUser, UnknownModel,
        UserChannel, VirtualMac, WatchBefore10,
    };
    let refused = Expected::Refused;
    let user_channel = Person::OfMac(unbound(NotTrue, UserChannel));
    vec![
        // iPhone and iPod touch: iOS 16, A11.
        device("iPhone8,1", "15.8.3", "19H386", refused(OldSystem)),
        device("iPhone9,1", "15.8.3", "19H386", refused(OldSystem)),
        device("iPhone9,3", "15.7", "19H12", refused(OldSystem)).sparse(),
        device("iPod9,1", "15.8.4", "19H390", refused(OldSystem)),
        device("iPhone10,6", "15.7.9", "19H365", refused(OldSystem)),
        device("iPhone10,6", "16.0", "20A362", FULL),
        device("iPhone10,1", "16.7.10", "20H350", FULL).sparse(),
        device("iPhone11,2", "16.1", "20B82", FULL).transport(Transport::ClientCertificate),
        device("iPhone12,8", "17.6.1", "21G93", FULL),
        device("iPhone14,5", "18.1", "22B83", FULL).not_now("InstallProfile"),
        device("iPhone15,4", "18.5", "22F76", FULL).transport(Transport::Signature),
        device("iPhone17,2", "26.1", "23B85", FULL),
        device("iPhone18,1", "26.1", "23B85", FULL),
        device("iPhone19,2", "27.0", "24A350", FULL),
        device("iPhone23,1", "31.0", "28A300", FULL).sparse(),
        device("iPhone18,4", "26.1", "23B85", FULL).own(),
        // iPad: iPadOS 16, attestation from 16.1 and A12.
        device("iPad6,11", "15.8.4", "19H390", refused(OldSystem)),
        device("iPad6,11", "16.7.10", "20H350", bound(NotTrue, IgnoredBySilicon)),
        device("iPad7,5", "17.7", "21H16", bound(NotTrue, IgnoredBySilicon)).sparse(),
        device("iPad7,3", "17.7", "21H16", bound(NotTrue, IgnoredBySilicon)),
        device("iPad7,11", "18.5", "22F76", bound(NotTrue, IgnoredBySilicon)),
        device("iPad8,1", "16.0", "20A5349b", bound(NotTrue, IPadBefore161)),
        device("iPad8,1", "16.1", "20B82", FULL),
        device("iPad13,18", "18.1", "22B83", FULL).person(Person::OfSharedIPad(refused(SharedIPadUser))),
        device("iPad13,16", "17.6.1", "21G93", FULL),
        device("iPad16,3", "18.5", "22F76", FULL).transport(Transport::ClientCertificate),
        device("iPad17,1", "26.1", "23B85", FULL),
        // Mac: macOS 13.1; from 14 hardware-bound on T2 and Apple silicon, attested on Apple silicon.
        device("MacBookPro13,1", "12.7.6", "21H1320", refused(OldSystem)),
        device("MacBookPro14,2", "13.6.9", "22G830", unbound(WrittenFalse, NoSecureEnclave)),
        device("iMac19,1", "14.5", "23F79", unbound(NotTrue, NoSecureEnclave)),
        device("MacBookPro15,1", "13.0", "22A380", refused(OldSystem)),
        device("MacBookPro15,1", "13.1", "22C65", unbound(WrittenFalse, MacBefore14)),
        device("MacBookPro16,1", "13.6.9", "22G830", unbound(WrittenFalse, MacBefore14)).sparse(),
        device("iMac20,1", "14.5", "23F79", bound(NotTrue, IgnoredBySilicon)),
        device("Macmini8,1", "15.1", "24B83", bound(NotTrue, IgnoredBySilicon)).not_now("DeviceInformation"),
        device("MacBookAir10,1", "13.6.9", "22G830", unbound(WrittenFalse, MacBefore14)),
        device("MacBookAir10,1", "14.0", "23A344", FULL),
        device("Mac14,2", "15.1", "24B83", FULL).person(user_channel),
        device("Mac16,10", "15.6", "24G84", FULL).sparse(),
        device("Mac17,2", "26.1", "25B78", FULL).person(user_channel),
        device("Mac17,5", "26.4", "25E230", FULL),
        device("VirtualMac2,1", "14.5", "23F79", unbound(NotTrue, VirtualMac)),
        // Apple TV: tvOS 16, A12.
        device("AppleTV5,3", "15.6", "19M65", refused(OldSystem)),
        device("AppleTV6,2", "16.6", "20M73", bound(NotTrue, IgnoredBySilicon)),
        device("AppleTV6,2", "17.6", "21M71", bound(NotTrue, IgnoredBySilicon)),
        device("AppleTV11,1", "15.6", "19M65", refused(OldSystem)),
        device("AppleTV14,1", "16.1", "20K71", FULL),
        device("AppleTV14,1", "18.5", "22L572", FULL).sparse(),
        // Apple Watch: watchOS 9, `Attest` from 10, S4.
        device("Watch3,4", "8.8.1", "19U512", refused(OldSystem)),
        device("Watch6,2", "9.6.3", "20U502", bound(LeftOut, WatchBefore10)),
        device("Watch7,3", "10.6", "21U577", FULL),
        // Vision and what nobody knows.
        device("RealityDevice14,1", "1.1", "21O209", FULL),
        device("RealityDevice14,1", "26.1", "23N47", FULL),
        device("Hologram1,1", "30.0", "27A100", unbound(NotTrue, UnknownModel)),
    ]
}

/// A choice of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mix {
    /// Everything.
    Fleet,
    /// Only iPhones.
    Iphone,
    /// Only Macs.
    Mac,
}

/// `count` devices of a mix, the fleet repeated as often as needed. Devices in User Enrollment are left out: they need
/// a link made for them.
pub fn members(mix: Mix, count: usize) -> Vec<Member> {
    let of_mix = |member: &Member| {
        !member.own_device
            && match mix {
                Mix::Fleet => true,
                Mix::Iphone => member.product_name.starts_with("iPhone"),
                Mix::Mac => {
                    hardware::find(member.product_name).is_some_and(|hardware| hardware.family == hardware::Family::Mac)
                }
            }
    };
    let chosen: Vec<Member> = fleet().into_iter().filter(of_mix).collect();
    chosen.iter().cycle().take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_hardware_and_ids_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        let fleet = fleet();
        assert!(fleet.len() >= 36);
        for (number, member) in fleet.iter().enumerate() {
            let record = member.record("run", number).unwrap();
            assert!(seen.insert(record.serial_number.clone()) && seen.insert(record.udid.clone()));
            assert_eq!(record.enrollment_id.is_some(), member.own_device);
        }
    }

    /// No expectation asks for something that the strict device would refuse: the two lists, both by hand, agree.
    #[test]
    fn what_is_expected_is_what_the_device_accepts() {
        use crate::plist::parse;
        for member in fleet() {
            let record = member.record("run", 0).unwrap();
            let Expected::Profile { hardware_bound, attest, .. } = member.expected else {
                continue;
            };
            let attest = match attest {
                Attest::True => "<key>Attest</key><true/>",
                Attest::WrittenFalse => "<key>Attest</key><false/>",
                Attest::LeftOut | Attest::NotTrue => "",
            };
            let payload = format!(
                "<plist><dict><key>DirectoryURL</key><string>https://ca.example/acme</string>\
                 <key>ClientIdentifier</key><string>x</string><key>KeyType</key><string>ECSECPrimeRandom</string>\
                 <key>KeySize</key><integer>384</integer><key>HardwareBound</key><{hardware_bound}/>{attest}\
                 <key>Subject</key><array><array><array><string>O</string><string>x</string></array></array></array>\
                 </dict></plist>"
            );
            let checked = crate::acme::check(&parse(payload.as_bytes()).unwrap(), &record.situation(false));
            let acme = checked.unwrap_or_else(|refusal| panic!("{}: {}", member.product_name, refusal.text));
            member.expected.check(member.product_name.contains("Mac"), Some(&acme)).unwrap();
        }
    }

    #[test]
    fn a_wrong_outcome_is_told() {
        assert!(Expected::Refused(Because::OldSystem).check(false, None).is_ok());
        assert!(FULL.check(false, None).is_err());
        assert_eq!(members(Mix::Mac, 100).len(), 100);
    }
}
