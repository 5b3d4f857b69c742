//! `GET /api/v1/label-rules/{label}`

use axum::Json;
use axum::extract::State;

use super::{LabelRuleView, find, label, shown};
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// The rule of one label.
#[utoipa::path(
    get, path = "/api/v1/label-rules/{label}", tag = "label-rules",
    params(("label" = String, Path, description = "The label")),
    responses(
        (status = 200, description = "The rule", body = LabelRuleView),
        (status = 404, description = "The label has no rule", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_label_rule(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<LabelRuleView>, Problem> {
    let label = label(&name)?;
    let mut tx = shared.store.read().await?;
    let row = find(&mut tx, &label).await?;
    Ok(Json(shown(&mut tx, row).await?))
}
