//! `PUT /api/v1/label-rules/{label}`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::Label;
use policy::UniqueKeys;
use policy::label_rules::{LabelRule, Put};

use super::{LabelRuleView, find, label, shown};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{self, Json, Path};
use crate::problem::{Problem, ProblemBody};

/// Writes the rule of a label. From now on the label is on every device of which the rule holds, and on no other; it is never put on
/// or taken off by hand. Devices follow in the background.
///
/// The same rule again changes nothing. `label` may be left out of the body.
#[utoipa::path(
    put, path = "/api/v1/label-rules/{label}", tag = "label-rules", request_body = LabelRule,
    params(("label" = String, Path, description = "1 to 64 letters, digits, '.', '_' or '-'")),
    responses(
        (status = 201, description = "Created", body = LabelRuleView),
        (status = 200, description = "Replaced, or the same as before", body = LabelRuleView),
        (status = 422, description = "Every field that is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_label_rule(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    Json(UniqueKeys(body)): Json<UniqueKeys>,
) -> Result<(StatusCode, axum::Json<LabelRuleView>), Problem> {
    let label = label(&name)?;
    let rule = from_request(&label, body)?;
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let status = match policy::label_rules::put(&mut tx, &rule, &caller.actor, now).await? {
            Put::Created => StatusCode::CREATED,
            Put::Revised | Put::Same => StatusCode::OK,
        };
        let row = find(&mut tx, &label).await?;
        let view = shown(&mut tx, row).await?;
        tx.commit().await?;
        Ok((status, axum::Json(view)))
    })
    .await
}

/// The rule of a body; its label is that of the path.
fn from_request(label: &Label, mut body: serde_json::Value) -> Result<LabelRule, Problem> {
    let Some(object) = body.as_object_mut() else {
        return Err(Problem::field("body", "must be an object: the rule"));
    };
    match object.get("label") {
        None => drop(object.insert("label".to_owned(), label.as_str().into())),
        Some(inside) if inside == label.as_str() => {}
        Some(_) => return Err(Problem::field("label", "must be the label in the path, or absent")),
    }
    extract::json(body.to_string().as_bytes())
}
