//! What a policy requires of a device beyond its silicon: only what Apple has attested counts.

use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::reason::ReasonCode;

/// What an attestation must have shown. Empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirements {}

impl Requirements {
    /// Nothing is required.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is not met, with a detail for an operator.
pub fn unmet(_required: &Requirements, _facts: &Facts, _now: Timestamp) -> Option<(ReasonCode, Option<String>)> {
    None
}
