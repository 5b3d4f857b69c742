//! `GET /api/v1/label-rules`

use axum::Json;
use axum::extract::State;

use super::{LabelRuleView, shown};
use crate::Shared;
use crate::problem::Problem;

/// Every label that has a rule, in the order of the labels.
#[utoipa::path(
    get, path = "/api/v1/label-rules", tag = "label-rules",
    responses((status = 200, description = "The rules", body = Vec<LabelRuleView>)),
)]
pub(crate) async fn list_label_rules(State(shared): State<Shared>) -> Result<Json<Vec<LabelRuleView>>, Problem> {
    let mut tx = shared.store.read().await?;
    let mut rules = Vec::new();
    for row in store::label_rules::all(&mut tx).await? {
        rules.push(shown(&mut tx, row).await?);
    }
    Ok(Json(rules))
}
