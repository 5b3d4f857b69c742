//! The MDM payload (`com.apple.mdm`): makes the device managed.
//!
//! Source: Apple, "MDM" (`com.apple.mdm.yaml`). There is exactly one on a device.

use uuid::Uuid;

use super::{Payload, uuid_text};
use crate::plist::{Dictionary, Value};

/// All of `AccessRights`: an update of the profile may not add a right, so a new enrollment asks for all.
pub const ALL_ACCESS_RIGHTS: i64 = 8191;

/// By which mode the device is managed, and what only that mode writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Device enrollment: `AccessRights` is written, nothing else.
    Device,
    /// Account-driven User Enrollment (`EnrollmentMode` `BYOD`): `AssignedManagedAppleID` is written and `AccessRights`
    /// must not be there, else the device gives up.
    User {
        /// The person's Managed Apple Account.
        managed_apple_id: String,
    },
    /// Account-driven device enrollment (`EnrollmentMode` `ADDE`): `AssignedManagedAppleID` and `AccessRights` are written.
    AccountDevice {
        /// The person's Managed Apple Account.
        managed_apple_id: String,
    },
}

/// The MDM payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdmPayload {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`.
    pub uuid: Uuid,
    /// `IdentityCertificateUUID`: the identity payload of the same profile.
    pub identity: Uuid,
    /// `Topic`: the UID of the push certificate's subject; can't be changed later.
    pub topic: String,
    /// `ServerURL`, https; can't be changed later.
    pub server_url: String,
    /// `CheckInURL`, https; can't be changed later.
    pub check_in_url: String,
    /// `SignMessage`: whether the device sends `Mdm-Signature`, for servers behind a proxy that ends TLS.
    pub sign_message: bool,
    /// `UseDevelopmentAPNS`: push by APNs' sandbox; written only where true.
    pub use_development_apns: bool,
    /// The mode.
    pub mode: Mode,
    /// `ServerURLPinningCertificateUUIDs` and `CheckInURLPinningCertificateUUIDs`: certificate payloads of this profile,
    /// one of which must be in the server's chain. Empty: not written.
    pub pinning: Vec<Uuid>,
    /// `PinningRevocationCheckRequired`: a pinned chain fails without a positive answer about revocation; written only where true.
    pub pinning_revocation_check: bool,
}

impl From<MdmPayload> for Payload {
    fn from(mdm: MdmPayload) -> Self {
        let mut keys = Dictionary::new();
        keys.insert("IdentityCertificateUUID".into(), uuid_text(mdm.identity).into());
        keys.insert("Topic".into(), mdm.topic.into());
        keys.insert("ServerURL".into(), mdm.server_url.into());
        keys.insert("CheckInURL".into(), mdm.check_in_url.into());
        keys.insert("SignMessage".into(), mdm.sign_message.into());
        keys.insert("CheckOutWhenRemoved".into(), true.into());
        if mdm.use_development_apns {
            keys.insert("UseDevelopmentAPNS".into(), true.into());
        }
        match mdm.mode {
            Mode::Device => {
                keys.insert("AccessRights".into(), ALL_ACCESS_RIGHTS.into());
            }
            Mode::User { managed_apple_id } => {
                keys.insert("EnrollmentMode".into(), "BYOD".into());
                keys.insert("AssignedManagedAppleID".into(), managed_apple_id.into());
            }
            Mode::AccountDevice { managed_apple_id } => {
                keys.insert("AccessRights".into(), ALL_ACCESS_RIGHTS.into());
                keys.insert("EnrollmentMode".into(), "ADDE".into());
                keys.insert("AssignedManagedAppleID".into(), managed_apple_id.into());
            }
        }
        // per-user-connections can't be added by an update, so it is there from the start.
        let capabilities = ["com.apple.mdm.per-user-connections", "com.apple.mdm.bootstraptoken"];
        keys.insert("ServerCapabilities".into(), Value::Array(capabilities.map(Value::from).to_vec()));
        if !mdm.pinning.is_empty() {
            let uuids = || Value::Array(mdm.pinning.iter().map(|u| uuid_text(*u).into()).collect());
            keys.insert("ServerURLPinningCertificateUUIDs".into(), uuids());
            keys.insert("CheckInURLPinningCertificateUUIDs".into(), uuids());
        }
        if mdm.pinning_revocation_check {
            keys.insert("PinningRevocationCheckRequired".into(), true.into());
        }
        Self {
            payload_type: "com.apple.mdm".into(),
            identifier: mdm.identifier,
            uuid: mdm.uuid,
            display_name: Some("Device management".into()),
            keys,
        }
    }
}
