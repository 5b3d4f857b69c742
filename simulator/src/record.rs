//! What a device knows about itself, and who uses it.

use openssl::hash::{MessageDigest, hash};

use crate::error::Result;
use crate::hardware::{Family, Hardware};
use crate::profile::Situation;

/// `UserID` of every Shared iPad user (protocol.md section 2).
const SHARED_IPAD_USER: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";

/// What a device knows about itself.
#[derive(Debug, Clone)]
pub struct Record {
    /// The product.
    pub hardware: &'static Hardware,
    /// `OSVersion`.
    pub os_version: String,
    /// `BuildVersion`.
    pub build_version: String,
    /// `SerialNumber`.
    pub serial_number: String,
    /// `UDID`; never sent in User Enrollment.
    pub udid: String,
    /// `ProvisioningUDID`, Macs only.
    pub provisioning_udid: Option<String>,
    /// `DeviceName`.
    pub device_name: String,
    /// `EnrollmentID`: the device enrolls as a person's own (User Enrollment), without its UDID.
    pub enrollment_id: Option<String>,
}

impl Record {
    /// A record whose identifiers come from `seed`: the same seed is the same device.
    pub fn new(hardware: &'static Hardware, os_version: &str, build_version: &str, seed: &str) -> Result<Self> {
        let mac = hardware.family == Family::Mac;
        let chip = format!("{}-{}", &hex_of("chip", seed)?[..8], &hex_of("unit", seed)?[..16]);
        Ok(Self {
            hardware,
            os_version: os_version.into(),
            build_version: build_version.into(),
            serial_number: format!("S{}", &hex_of("serial", seed)?[..11]),
            udid: if mac { uuid_of("udid", seed)? } else { chip.clone() },
            provisioning_udid: mac.then_some(chip),
            device_name: format!("Simulated {}", hardware.marketing_name),
            enrollment_id: None,
        })
    }

    /// The same device as a person's own: User Enrollment.
    pub fn into_user_enrollment(mut self, seed: &str) -> Result<Self> {
        self.enrollment_id = Some(uuid_of("enrollment", seed)?);
        Ok(self)
    }

    /// What the channel can install.
    pub fn situation(&self, user_channel: bool) -> Situation {
        Situation {
            user_channel,
            user_enrollment: self.enrollment_id.is_some(),
            ..Situation::new(self.hardware, &self.os_version)
        }
    }
}

fn hex_of(label: &str, seed: &str) -> Result<String> {
    let digest = hash(MessageDigest::sha256(), format!("{label}:{seed}").as_bytes())?;
    Ok(hex::encode_upper(digest))
}

fn uuid_of(label: &str, seed: &str) -> Result<String> {
    let digest = hash(MessageDigest::sha256(), format!("{label}:{seed}").as_bytes())?;
    let bytes = digest.first_chunk::<16>().copied().unwrap_or_default();
    Ok(upper(bytes))
}

fn upper(bytes: [u8; 16]) -> String {
    uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated().to_string().to_uppercase()
}

/// A UUID that nobody has seen, as Apple writes them.
pub(crate) fn fresh_uuid() -> Result<String> {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(upper(bytes))
}

/// A user of a Mac or of a Shared iPad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `UserID`.
    pub id: String,
    /// `UserShortName`.
    pub short_name: String,
    /// `UserLongName`.
    pub long_name: String,
}

impl User {
    /// A local user of a Mac.
    pub fn of_mac(short_name: &str, long_name: &str, seed: &str) -> Result<Self> {
        Ok(Self { id: uuid_of("user", seed)?, short_name: short_name.into(), long_name: long_name.into() })
    }

    /// A user of a Shared iPad, known by the Managed Apple Account only.
    pub fn of_shared_ipad(managed_account: &str) -> Self {
        Self { id: SHARED_IPAD_USER.into(), short_name: managed_account.into(), long_name: managed_account.into() }
    }
}
