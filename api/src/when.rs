//! A moment as the API writes and reads it.

use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// RFC 3339 in UTC, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = DateTime, example = "2026-11-22T05:00:00.000Z")]
pub(crate) struct When(pub(crate) Timestamp);

impl When {
    /// From a database column in milliseconds.
    pub(crate) fn ms(ms: i64) -> Self {
        Self(Timestamp(ms))
    }
}

impl From<Timestamp> for When {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}
