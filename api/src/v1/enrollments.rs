//! Enrollments.

pub(crate) mod acme_decision;
pub(crate) mod attestations;
pub(crate) mod label_put;
pub(crate) mod label_remove;
mod labels;
pub(crate) mod list;
pub(crate) mod push;
pub(crate) mod renew;
pub(crate) mod show;
pub(crate) mod unenroll;

use std::collections::HashMap;

use mdm_core::enrollment::{DeviceKey, EnrollmentState, UserKey};
use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::Tx;
use store::enrollments::Enrollment as Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::Problem;
use crate::when::When;

/// One MDM relationship on one channel, as far as it is known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Enrollment {
    /// Our key.
    pub(crate) id: Uuid,
    /// `device`, `automated`, `user` (User Enrollment) or `shared_ipad`.
    kind: &'static str,
    /// `device` or `user`.
    channel: &'static str,
    /// `authenticated`, `enrolled` or `unenrolled`.
    state: &'static str,
    /// Since when it is in this state.
    state_since: When,
    /// `check_out`, `replaced` or `removed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    unenrolled_why: Option<&'static str>,
    /// When an operator asked that the device be told to unenroll.
    #[serde(skip_serializing_if = "Option::is_none")]
    unenroll_requested_at: Option<When>,
    /// On a user channel: the device channel it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<Uuid>,
    /// Apple's `UDID` of the device; absent in User Enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    udid: Option<String>,
    /// Apple's `EnrollmentID`, in User Enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    apple_enrollment_id: Option<String>,
    /// `UserID` or `EnrollmentUserID`, on a user channel of macOS.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// `UserShortName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_short_name: Option<String>,
    /// `UserLongName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_long_name: Option<String>,
    /// `SerialNumber` of the device; absent in User Enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    /// `ProductName` of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "iPhone17,1")]
    product_name: Option<String>,
    /// `Model` of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// `ModelName` of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_name: Option<String>,
    /// `DeviceName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_name: Option<String>,
    /// `OSVersion`, as the device said when it enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
    /// `BuildVersion`, as the device said when it enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    build_version: Option<String>,
    /// The push topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// When the push token came.
    #[serde(skip_serializing_if = "Option::is_none")]
    push_token_at: Option<When>,
    /// When APNs said that the push token is dead; the device must connect by itself before it can be woken again.
    #[serde(skip_serializing_if = "Option::is_none")]
    push_dead_at: Option<When>,
    /// By which door it came in: `link`, `ade`, `byod`, `adde` or `import`.
    door: &'static str,
    /// The person's Managed Apple Account, in account-driven enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_apple_account: Option<String>,
    /// The device (or the user of a Shared iPad) waits in Setup Assistant to be let go on.
    awaiting_configuration: bool,
    /// While it waits: when it is let go on at the latest, or, once it was told, looked at again.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_up_until: Option<When>,
    /// When it was first let go on: `DeviceConfigured` or `UserConfigured` was queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_up_done_at: Option<When>,
    /// Raised at every new enrollment of the same device.
    generation: i64,
    /// When it first came.
    created_at: When,
    /// When the first `TokenUpdate` of this generation came.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolled_at: Option<When>,
    /// When the device was last heard of, to within some seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<When>,
}

impl Enrollment {
    /// An enrollment as the API shows it; on a user channel the device's facts are those of `device`.
    fn new(row: Row, device: Option<&Row>) -> Self {
        let about = device.unwrap_or(&row);
        let key = about.device_key.as_ref();
        let (state_since, unenrolled_why) = match row.state {
            EnrollmentState::Authenticated { at } | EnrollmentState::Enrolled { since: at } => (at, None),
            EnrollmentState::Unenrolled { at, why } => (at, Some(why.as_str())),
        };
        let (udid, apple_enrollment_id) = match key {
            Some(DeviceKey::Udid(udid)) => (Some(udid.to_string()), None),
            Some(DeviceKey::EnrollmentId(id)) => (None, Some(id.to_string())),
            None => (None, None),
        };
        Self {
            id: row.id.0,
            kind: row.kind.as_str(),
            channel: row.channel.as_str(),
            state: row.state.as_str(),
            state_since: state_since.into(),
            unenrolled_why,
            unenroll_requested_at: about.unenroll_requested_at.map(When),
            parent_id: row.parent.map(|id| id.0),
            udid,
            apple_enrollment_id,
            user_id: match &row.user_key {
                Some(UserKey::UserId(id)) => Some(id.to_string()),
                _ => None,
            },
            serial_number: about.serial_number.clone(),
            product_name: about.product_name.clone(),
            model: about.model.clone(),
            model_name: about.model_name.clone(),
            device_name: about.device_name.clone(),
            os_version: about.os_version.clone(),
            build_version: about.build_version.clone(),
            push_token_at: row.token_at.map(When),
            push_dead_at: row.push_dead_at.map(When),
            door: row.door.as_str(),
            managed_apple_account: row.managed_apple_account,
            awaiting_configuration: row.awaiting_configuration,
            set_up_until: row.set_up_until.map(When),
            set_up_done_at: row.set_up_done_at.map(When),
            generation: row.generation,
            created_at: row.created_at.into(),
            enrolled_at: row.enrolled_at.map(When),
            last_seen_at: row.last_seen_at.map(When),
            user_short_name: row.user_short_name.or_else(|| match row.user_key {
                Some(UserKey::SharedIpad(name)) => Some(name.into_string()),
                _ => None,
            }),
            user_long_name: row.user_long_name,
            topic: row.topic,
        }
    }
}

/// Rows as the API shows them, user channels with the facts of their device.
pub(crate) async fn shown(tx: &mut Tx, rows: Vec<Row>) -> Result<Vec<Enrollment>, Problem> {
    let mut devices: HashMap<EnrollmentId, Row> = HashMap::new();
    for parent in rows.iter().filter_map(|row| row.parent) {
        if !devices.contains_key(&parent)
            && let Some(device) = store::enrollments::get(tx, parent).await?
        {
            devices.insert(parent, device);
        }
    }
    Ok(rows
        .into_iter()
        .map(|row| {
            let device = row.parent.and_then(|id| devices.get(&id));
            Enrollment::new(row, device)
        })
        .collect())
}

/// The enrollment with this id, or 404.
pub(crate) async fn find(tx: &mut Tx, id: Uuid) -> Result<Row, Problem> {
    store::enrollments::get(tx, EnrollmentId(id)).await?.ok_or_else(|| Problem::not_found("enrollment", id))
}

/// Wishes that the device be woken.
pub(crate) async fn wake(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<(), Problem> {
    store::push::due(tx, id, now).await?;
    tx.wake(store::Wake::Push);
    Ok(())
}
