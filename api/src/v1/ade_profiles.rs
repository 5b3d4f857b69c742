//! Profiles of Automated Device Enrollment, as operators write them.

pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod show;

use serde::Serialize;
use store::ade::Profile;
use utoipa::ToSchema;

use crate::when::When;

/// A profile of Automated Device Enrollment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdeProfile {
    /// Its name.
    name: String,
    /// Rises with each change; each is defined anew at Apple.
    revision: i64,
    /// Apple's keys. `url`, `configuration_web_url` and `anchor_certs` are this server's to fill in.
    #[schema(value_type = ade::Definition)]
    definition: serde_json::Value,
    /// Who made it.
    created_by: String,
    /// When it was made.
    created_at: When,
    /// When it last changed.
    updated_at: When,
}

impl From<Profile> for AdeProfile {
    fn from(row: Profile) -> Self {
        Self {
            definition: serde_json::from_str(&row.body).unwrap_or_default(),
            name: row.name,
            revision: row.revision,
            created_by: row.created_by,
            created_at: When::ms(row.created_at),
            updated_at: When::ms(row.updated_at),
        }
    }
}
