//! Policies and all that they name, written and read as one document.

pub(crate) mod apply;
pub(crate) mod export;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Certificate authorities, rules of labels and ACME policies together. For the description only: it is read and written by
/// [`policy::Bundle`], which names every wrong field at once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Bundle)]
pub(crate) struct BundleBody {
    /// Certificate authorities.
    #[serde(default)]
    certificate_authorities: Vec<ca::Document>,
    /// Rules of labels.
    #[serde(default)]
    label_rules: Vec<policy::label_rules::LabelRule>,
    /// ACME policies.
    #[serde(default)]
    acme_policies: Vec<BundledPolicy>,
}

/// An ACME policy with its scope.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BundledPolicy {
    #[serde(flatten)]
    policy: policy::PolicyDocument,
    /// Who it is for; where it is left out, the stored scope stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<policy::Scope>,
}
