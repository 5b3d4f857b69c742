//! Who a policy is for.

use mdm_core::enrollment::Channel;
use mdm_core::ids::{EnrollmentId, Label};
use serde::{Deserialize, Serialize};
use store::Tx;
use store::policies::{self, Scope};

use crate::acme::PolicyChannel;
use crate::error::{Result, corrupt};

/// One line of a scope. A line that names a device names its users too; the policy's channel chooses among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum ScopeItem {
    /// Every enrollment.
    All,
    /// Every enrollment with this label.
    #[schema(value_type = String)]
    Label(Label),
    /// This enrollment.
    #[schema(value_type = uuid::Uuid)]
    Enrollment(EnrollmentId),
}

impl ScopeItem {
    pub(crate) fn to_row(&self) -> Scope {
        let (kind, value) = match self {
            Self::All => ("all", String::new()),
            Self::Label(label) => ("label", label.to_string()),
            Self::Enrollment(id) => ("enrollment", id.0.simple().to_string()),
        };
        Scope { kind: kind.to_owned(), value }
    }

    /// Reads a stored line.
    pub fn from_row(row: &Scope) -> Result<Self> {
        let bad = || corrupt("policy_scope");
        match row.kind.as_str() {
            "all" => Ok(Self::All),
            "label" => row.value.parse().map(Self::Label).map_err(|_| bad()),
            "enrollment" => row.value.parse().map(Self::Enrollment).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

/// The enrollments in a scope that take commands, on the channels that the policy is for; none twice, oldest first.
pub(crate) async fn targets(tx: &mut Tx, scope: &[ScopeItem], channel: PolicyChannel) -> Result<Vec<EnrollmentId>> {
    let mut found = std::collections::BTreeSet::new();
    for item in scope {
        let rows = match item {
            ScopeItem::All => policies::all_enrolled(tx).await?,
            ScopeItem::Label(label) => policies::enrolled_by_label(tx, label.as_str()).await?,
            ScopeItem::Enrollment(id) => policies::enrolled_by_id(tx, *id).await?,
        };
        let wanted =
            rows.into_iter().filter(|row| Channel::from_text(&row.channel).is_some_and(|c| channel.includes(c)));
        found.extend(wanted.map(|row| EnrollmentId(row.id)));
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_from_its_row_and_from_json() {
        let id = EnrollmentId(uuid::Uuid::from_u128(7));
        for item in [ScopeItem::All, ScopeItem::Label("macs".parse().unwrap()), ScopeItem::Enrollment(id)] {
            assert_eq!(ScopeItem::from_row(&item.to_row()).unwrap(), item);
            let json = serde_json::to_string(&item).unwrap();
            assert_eq!(serde_json::from_str::<ScopeItem>(&json).unwrap(), item);
        }
        assert_eq!(serde_json::to_string(&ScopeItem::All).unwrap(), r#"{"kind":"all"}"#);
        assert!(serde_json::from_str::<ScopeItem>(r#"{"kind":"label","value":"../x"}"#).is_err());
    }
}
