//! `permanent-identifier`: what may stand in an order, and whose it is.
//!
//! Octets are compared, nothing is folded or trimmed, and what is empty equals nothing (TH-40, TH-41, TH-44).

use mdm_core::hardware::Platform;

/// The longest identifier that is taken, in bytes: a serial number has some 12, a one-time identifier 43.
pub const MAX_BYTES: usize = 255;

/// Whether this can be the value of a `permanent-identifier` (draft-ietf-acme-device-attest, "Permanent Identifier"; RFC 4043): one
/// text, and after a `/` at most the object identifier of who assigned it.
pub fn is_well_formed(text: &str) -> bool {
    let (value, assigner) = text.split_once('/').map_or((text, None), |(value, assigner)| (value, Some(assigner)));
    (1..=MAX_BYTES).contains(&text.len())
        && !value.is_empty()
        && value.trim() == value
        && !value.chars().any(char::is_control)
        && assigner.is_none_or(is_object_identifier)
}

fn is_object_identifier(text: &str) -> bool {
    let arcs: Vec<&str> = text.split('.').collect();
    let arc = |a: &&str| !a.is_empty() && a.bytes().all(|b| b.is_ascii_digit()) && (*a == "0" || !a.starts_with('0'));
    arcs.len() >= 2 && arcs.iter().all(arc)
}

/// How a device is called, as far as it has told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names<'a> {
    /// Its operating system.
    pub platform: Option<Platform>,
    /// `SerialNumber`.
    pub serial_number: Option<&'a str>,
    /// `UDID`.
    pub udid: Option<&'a str>,
    /// `ProvisioningUDID`: what an attestation of a Mac calls its UDID.
    pub provisioning_udid: Option<&'a str>,
}

/// Which name of the device an identifier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// A name that an attestation of this device carries: the serial number, or the UDID that Apple attests.
    Attested,
    /// The UDID of a Mac, which no attestation carries where it differs from the `ProvisioningUDID`.
    MacUdid,
    /// None of this device's names.
    None,
}

impl Names<'_> {
    /// Which name of the device this is.
    pub fn find(&self, identifier: &str) -> Match {
        let is = |name: Option<&str>| name.is_some_and(|name| !name.is_empty() && name == identifier);
        let mac = self.platform == Some(Platform::Macos);
        let attested_udid = if mac { self.provisioning_udid } else { self.udid };
        if is(self.serial_number) || is(attested_udid) {
            Match::Attested
        } else if mac && is(self.udid) {
            Match::MacUdid
        } else {
            Match::None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn th_44_an_identifier_is_one_text_with_at_most_an_assigner() {
        for good in ["C02XK1", "00008110-001A", "name/1.2.840.113635", "günther", &"x".repeat(255)] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in
            ["", " C02", "C02 ", "a/b", "a/1", "a/1.2/3", "a/01.2", "/1.2", "a/", "a\n", "a\0b", &"x".repeat(256)]
        {
            assert!(!is_well_formed(bad), "{bad:?}");
        }
    }

    #[test]
    fn th_40_the_udid_of_a_mac_is_the_provisioning_udid() {
        let names =
            Names { serial_number: Some("C02"), udid: Some("U"), provisioning_udid: Some("P"), ..Names::default() };
        let phone = Names { platform: Some(Platform::Ios), provisioning_udid: None, ..names };
        assert_eq!(
            (phone.find("C02"), phone.find("U"), phone.find("P")),
            (Match::Attested, Match::Attested, Match::None)
        );
        let mac = Names { platform: Some(Platform::Macos), ..names };
        assert_eq!((mac.find("C02"), mac.find("U"), mac.find("P")), (Match::Attested, Match::MacUdid, Match::Attested));
        let intel = Names { provisioning_udid: Some("U"), ..mac };
        assert_eq!(intel.find("U"), Match::Attested, "on an Intel Mac both are the same");
    }

    #[test]
    fn th_41_what_is_empty_or_missing_equals_nothing() {
        assert_eq!(Names::default().find(""), Match::None);
        let blank = Names { serial_number: Some(""), udid: Some(""), provisioning_udid: Some(""), ..Names::default() };
        for platform in [None, Some(Platform::Macos), Some(Platform::Ios)] {
            assert_eq!(Names { platform, ..blank }.find(""), Match::None);
        }
    }

    proptest! {
        #[test]
        fn th_44_nothing_but_the_same_octets_is_a_name(serial in "[A-Z0-9]{1,12}", other in ".{0,14}") {
            let names = Names { serial_number: Some(&serial), ..Names::default() };
            prop_assert_eq!(names.find(&other) == Match::Attested, other == serial);
            prop_assert_eq!(names.find(&serial.to_lowercase()) == Match::Attested, serial.to_lowercase() == serial);
            let padded = format!("{serial} ");
            prop_assert_eq!(names.find(&padded), Match::None);
        }
    }
}
