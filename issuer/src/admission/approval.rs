//! An operator's word for an `Authenticate` that was quarantined, and what it covers (TH-02).

use mdm_core::enrollment::DeviceKey;
use mdm_core::ids::Fingerprint;
use mdm_core::time::Timestamp;
use store::issuance::{Flow, Issuance};

use super::{key_text, same, same_kind};

/// An operator's word for an `Authenticate` that was quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The certificate that it came under.
    pub certificate: Fingerprint,
    /// How it named the device.
    pub device: DeviceKey,
    /// Its `SerialNumber`.
    pub serial: Option<String>,
    /// The record that the certificate was issued by.
    pub record: Option<Issuance>,
    /// The record's link is for one device only: it works once, or it names the device.
    pub one_device: bool,
    /// How long the word holds.
    pub until: Timestamp,
}

impl Approval {
    /// Whether the word covers this `Authenticate`: the same device with the same serial number, under the same certificate or
    /// under one of a newer record that the same person or device was given the same way. A device whose `Authenticate` was
    /// refused has to fetch a new profile, and with it gets a new certificate. By a link that many people were given, anybody
    /// could have it: the same certificate must come, then.
    pub fn covers(
        &self,
        device: &DeviceKey,
        serial: Option<&str>,
        certificate: Fingerprint,
        record: Option<&Issuance>,
        now: Timestamp,
    ) -> bool {
        let same_serial = match (&self.serial, serial) {
            (Some(approved), Some(sent)) => same(approved, sent),
            (None, None) => true,
            _ => false,
        };
        now < self.until
            && same_kind(&self.device, device)
            && same(key_text(&self.device), key_text(device))
            && same_serial
            && (self.certificate == certificate
                || self.record.as_ref().zip(record).is_some_and(|(of, newer)| self.is_newer_of_same_origin(of, newer)))
    }

    /// Whether a record came about the same way as an older one: by the same link, for the same serial number of Automated Device
    /// Enrollment, or for the same account.
    fn is_newer_of_same_origin(&self, of: &Issuance, newer: &Issuance) -> bool {
        fn equal<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.is_some() && a == b
        }
        newer.created_at >= of.created_at
            && newer.flow == of.flow
            && newer.kind == of.kind
            && newer.purpose == of.purpose
            && match of.flow {
                Flow::Link => self.one_device && equal(of.link.as_ref(), newer.link.as_ref()),
                Flow::Ade => equal(of.expected_serial.as_ref(), newer.expected_serial.as_ref()),
                Flow::Byod | Flow::Adde => {
                    equal(of.managed_apple_account.as_ref(), newer.managed_apple_account.as_ref())
                }
                Flow::Renewal => equal(of.enrollment.as_ref(), newer.enrollment.as_ref()),
                Flow::Import => false,
            }
    }
}
