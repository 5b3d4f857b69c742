//! The doors: each way into management, and how it is set.

pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod show;

use enroll::door::Settings;
use mdm_core::enrollment::Door;
use serde::Serialize;
use store::Tx;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::when::When;

/// The doors that can be set.
pub(crate) const DOORS: [Door; 4] = [Door::Link, Door::Ade, Door::Byod, Door::Adde];

/// A way into management, and how it is set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrollmentDoor {
    /// `link`, `ade`, `byod` or `adde`.
    name: &'static str,
    /// Every setting, also those that were left out: see docs/doors/README.md.
    #[schema(value_type = Object)]
    settings: Settings,
    /// Raised with every change; 0 where nobody has set the door.
    revision: i64,
    /// Who changed it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<When>,
}

/// The door of a path.
fn named(name: &str) -> Result<Door, Problem> {
    DOORS.into_iter().find(|door| door.as_str() == name).ok_or_else(|| Problem::not_found("enrollment door", name))
}

async fn shown(tx: &mut Tx, door: Door) -> Result<EnrollmentDoor, Problem> {
    let settings = enroll::door::load(tx, door).await?;
    let row = store::doors::get(tx, door).await?;
    Ok(EnrollmentDoor {
        name: door.as_str(),
        settings,
        revision: row.as_ref().map_or(0, |row| row.revision),
        updated_by: row.as_ref().map(|row| row.updated_by.clone()),
        updated_at: row.map(|row| When::ms(row.updated_at)),
    })
}
