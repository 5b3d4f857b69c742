//! `DevicePropertiesAttestation`: what a device answers to DeviceInformation about its own state.
//!
//! Source: Apple, "DeviceInformation" (`DeviceAttestationNonce`: a new attestation at most every seven days, else the
//! cached one; the table "DeviceInformation attestation hardware support").

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;

use super::Facts;
use crate::device::Device;
use crate::error::Result;
use crate::hardware::{Attestation, Family, Version};

/// No new attestation is made before this many seconds have passed since the last.
const AT_MOST_EVERY: i64 = 7 * 86_400;
/// `DeviceAttestationNonce` may have this many bytes.
const LONGEST_NONCE: usize = 32;

/// The attestation that a device keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceAttestation {
    /// The freshness code in it.
    pub nonce: Vec<u8>,
    /// When it was made, seconds since 1970.
    pub made_at: i64,
    /// The chain, DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
}

impl Device {
    /// What time it is for the device, seconds since 1970.
    pub(crate) fn time(&self) -> i64 {
        self.behaviour.time.unwrap_or_else(|| time::OffsetDateTime::now_utc().unix_timestamp())
    }

    /// Whether silicon and system know the query; others ignore it.
    pub fn attests_itself(&self) -> bool {
        let record = &self.record;
        let since = match record.hardware.family {
            Family::IPhone | Family::IPad | Family::IPod | Family::AppleTv => Version::new(16, 0),
            Family::Mac => Version::new(14, 0),
            Family::Watch => Version::new(10, 0),
            Family::Vision => Version::new(1, 0),
        };
        record.hardware.attestation == Attestation::Supported && Version::parse(&record.os_version) >= since
    }

    /// The chain to answer with; `None` where the key is ignored or Apple gives nothing.
    pub(crate) fn attest_properties(&mut self, nonce: Option<&[u8]>) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(authority) = self.attestation.clone().filter(|_| self.attests_itself()) else { return Ok(None) };
        let now = self.time();
        if nonce.is_some_and(|nonce| nonce.len() > LONGEST_NONCE) {
            return Ok(None);
        }
        let cached = self.kept_attestation.as_ref().filter(|kept| {
            nonce.is_none_or(|nonce| nonce == kept.nonce) || now.saturating_sub(kept.made_at) < AT_MOST_EVERY
        });
        if let Some(kept) = cached {
            return Ok(Some(kept.chain.clone()));
        }
        let nonce = nonce.unwrap_or_default().to_vec();
        let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::SECP384R1)?)?)?;
        let facts = Facts::of(&self.record);
        let made = authority.attest_with(&facts, &key, &nonce, &self.behaviour.attestation_fault)?;
        self.kept_attestation = made.clone().map(|chain| DeviceAttestation { nonce, made_at: now, chain });
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use crate::attestation::{Authority, FRESHNESS, extension};
    use crate::device::{Behaviour, Device, Record};
    use crate::http::Trust;

    fn device(product: &str, os: &str) -> Device {
        let record = Record::new(crate::hardware::find(product).unwrap(), os, "1A1", "kept").unwrap();
        let behaviour = Behaviour { time: Some(0), ..Behaviour::default() };
        Device::new(record, Trust::public(), behaviour).unwrap().attested_by(Authority::new().unwrap())
    }

    #[test]
    fn a_new_attestation_is_made_once_in_seven_days() {
        let mut device = device("iPhone17,2", "18.1");
        let nonce_of = |device: &mut Device, nonce: Option<&[u8]>| {
            let chain = device.attest_properties(nonce).unwrap().unwrap();
            extension(&chain[0], FRESHNESS).unwrap().unwrap()
        };
        assert_eq!(nonce_of(&mut device, Some(b"one")), b"one");
        device.behaviour.time = Some(7 * 86_400 - 1);
        assert_eq!(nonce_of(&mut device, Some(b"two")), b"one");
        device.behaviour.time = Some(7 * 86_400);
        assert_eq!(nonce_of(&mut device, None), b"one");
        assert_eq!(nonce_of(&mut device, Some(b"two")), b"two");
        assert!(device.attest_properties(Some(&[0; 33])).unwrap().is_none());
    }

    #[test]
    fn silicon_and_systems_that_cannot_say_nothing() {
        for (product, os) in [
            ("iPhone9,1", "15.8"),
            ("iPad7,5", "17.0"),
            ("Macmini8,1", "15.0"),
            ("Mac14,2", "13.6"),
            ("Watch6,2", "9.6"),
        ] {
            assert!(device(product, os).attest_properties(Some(b"n")).unwrap().is_none(), "{product} {os}");
        }
        assert!(device("Mac14,2", "14.0").attest_properties(Some(b"n")).unwrap().is_some());
    }
}
