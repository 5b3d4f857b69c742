//! Devices that Apple says belong to the organization.

pub(crate) mod approve;
pub(crate) mod assign;
pub(crate) mod label;
pub(crate) mod list;
pub(crate) mod show;

use std::collections::BTreeMap;

use serde::Serialize;
use store::Tx;
use store::ade::Device;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::Problem;
use crate::when::When;

/// Most serial numbers in one request.
const MOST: usize = 1000;

/// A device of Automated Device Enrollment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdeDevice {
    /// Its serial number.
    serial_number: String,
    /// The server that lists it.
    ade_server: Uuid,
    /// Apple's word for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Apple's description.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Its colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<String>,
    /// The organization's own number for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    asset_tag: Option<String>,
    /// `iOS`, `iPadOS`, `OSX`, `tvOS` or `visionOS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<String>,
    /// `iPad`, `iPhone`, `iPod`, `Mac`, `AppleTV` or `Vision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_family: Option<String>,
    /// Who put it on the server in the portal.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_assigned_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_assigned_at: Option<When>,
    /// What Apple last said of its profile: `empty`, `assigned`, `pushed` or `removed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_status: Option<String>,
    /// The profile wished for it; absent: the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    /// `none` (nothing is wished), `due`, `assigned`, `throttled`, `not_accessible` or `failed`; the last three are tried
    /// again by themselves.
    assign_state: String,
    /// Attempts in a row that did not succeed.
    assign_attempts: i64,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    assign_due_at: Option<When>,
    /// When its profile was assigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    assigned_at: Option<When>,
    /// The label that its enrollment gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// When an operator vouched for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved_at: Option<When>,
    /// When a full list of Apple's did not have it any more: it cannot enroll until Apple lists it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    unlisted_at: Option<When>,
    /// When Apple first listed it.
    first_seen_at: When,
}

/// The names of profiles, looked up once each.
#[derive(Debug, Default)]
struct Names(BTreeMap<Uuid, String>);

impl Names {
    async fn of(&mut self, tx: &mut Tx, id: Uuid) -> Result<Option<String>, Problem> {
        if let Some(name) = self.0.get(&id) {
            return Ok(Some(name.clone()));
        }
        let name = store::ade::profiles::get(tx, id).await?.map(|profile| profile.name);
        self.0.extend(name.clone().map(|name| (id, name)));
        Ok(name)
    }

    async fn shown(&mut self, tx: &mut Tx, row: Device) -> Result<AdeDevice, Problem> {
        let profile = match row.profile_id {
            Some(id) => self.of(tx, id).await?,
            None => None,
        };
        Ok(AdeDevice {
            serial_number: row.serial_number,
            ade_server: row.server_id,
            model: row.model,
            description: row.description,
            color: row.color,
            asset_tag: row.asset_tag,
            os: row.os,
            device_family: row.device_family,
            device_assigned_by: row.device_assigned_by,
            device_assigned_at: row.device_assigned_at.map(When::ms),
            profile_status: row.profile_status,
            profile,
            assign_state: row.assign_state,
            assign_attempts: row.assign_attempts,
            assign_due_at: row.assign_due_at.map(When::ms),
            assigned_at: row.assigned_at.map(When::ms),
            label: row.label,
            approved_at: row.approved_at.map(When::ms),
            unlisted_at: row.unlisted_at.map(When::ms),
            first_seen_at: When::ms(row.first_seen_at),
        })
    }
}

/// The serial numbers of a request, 1 to 1000.
fn serials(given: &[String]) -> Result<(), Problem> {
    if (1..=MOST).contains(&given.len()) {
        Ok(())
    } else {
        Err(Problem::field("serial_numbers", "must hold 1 to 1000 serial numbers"))
    }
}
