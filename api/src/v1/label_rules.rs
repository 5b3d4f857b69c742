//! Labels that follow from what is known of a device.

pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod show;

use mdm_core::ids::{InvalidId, Label};
use policy::label_rules::LabelRule;
use serde::Serialize;
use store::Tx;
use store::label_rules::Row;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::when::When;

/// The rule of a label.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LabelRuleView {
    /// The rule.
    label_rule: LabelRule,
    /// The number of its revision, from 1; raised by each change.
    revision: i64,
    /// How many enrollments have the label now.
    enrollments: i64,
    /// The rule is still being held against everybody: the number above will change.
    in_progress: bool,
    /// Who changed it last.
    updated_by: String,
    /// When.
    updated_at: When,
}

async fn shown(tx: &mut Tx, row: Row) -> Result<LabelRuleView, Problem> {
    let label_rule = policy::label_rules::stored(&row)?;
    let enrollments = store::labels::count(tx, &label_rule.label).await?;
    Ok(LabelRuleView {
        label_rule,
        revision: row.revision,
        enrollments,
        in_progress: row.apply_at.is_some(),
        updated_by: row.updated_by,
        updated_at: When::ms(row.updated_at),
    })
}

/// The label of a path.
fn label(text: &str) -> Result<Label, Problem> {
    text.parse().map_err(|e: InvalidId| Problem::field("label", e.why))
}

/// The rule of this label, or 404.
async fn find(tx: &mut Tx, label: &Label) -> Result<Row, Problem> {
    store::label_rules::get(tx, label).await?.ok_or_else(|| Problem::not_found("rule of a label", label))
}
