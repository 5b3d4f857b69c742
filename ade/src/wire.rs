//! What Apple's service answers, as far as it is used. Unknown keys are left alone; what is missing is not made up.

use std::collections::BTreeMap;

use mdm_core::time::Timestamp;
use serde::Deserialize;
use store::ade::devices::Seen;

/// `GET /session`.
#[derive(Deserialize)]
pub(crate) struct Session {
    pub(crate) auth_session_token: String,
}

/// `POST /server/devices` and `POST /devices/sync`.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) cursor: Option<String>,
    #[serde(default)]
    pub(crate) more_to_follow: bool,
    /// Each is read by itself, so that one that cannot be read does not hide the others (RG-19).
    #[serde(default)]
    pub(crate) devices: Vec<serde_json::Value>,
}

/// A device, or an operation on one.
#[derive(Debug, Deserialize)]
pub(crate) struct Device {
    pub(crate) serial_number: String,
    model: Option<String>,
    description: Option<String>,
    color: Option<String>,
    asset_tag: Option<String>,
    os: Option<String>,
    device_family: Option<String>,
    profile_status: Option<String>,
    profile_uuid: Option<String>,
    device_assigned_by: Option<String>,
    device_assigned_date: Option<String>,
    pub(crate) op_type: Option<String>,
    op_date: Option<String>,
}

impl Device {
    /// When the operation happened.
    pub(crate) fn op_date(&self) -> Option<Timestamp> {
        Timestamp::from_rfc3339(self.op_date.as_deref()?)
    }

    /// As a row.
    pub(crate) fn seen(self) -> Seen {
        Seen {
            op_date: self.op_date(),
            device_assigned_at: self.device_assigned_date.as_deref().and_then(Timestamp::from_rfc3339),
            serial_number: self.serial_number,
            model: self.model,
            description: self.description,
            color: self.color,
            asset_tag: self.asset_tag,
            os: self.os,
            device_family: self.device_family,
            profile_status: self.profile_status,
            profile_uuid: self.profile_uuid.filter(|uuid| !uuid.is_empty()),
            device_assigned_by: self.device_assigned_by,
        }
    }
}

/// `POST /profile`.
#[derive(Debug, Deserialize)]
pub(crate) struct Defined {
    pub(crate) profile_uuid: String,
}

/// `PUT` and `DELETE /profile/devices`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Assigned {
    #[serde(default)]
    pub(crate) devices: BTreeMap<String, String>,
    /// How long to leave throttled devices alone.
    pub(crate) retry_after_seconds: Option<u64>,
}
