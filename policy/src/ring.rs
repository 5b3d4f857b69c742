//! The steps by which a revision reaches its devices, and which step admits a device.

use serde::{Deserialize, Serialize};

/// A plan: steps in order, and how many failures are borne.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {}
