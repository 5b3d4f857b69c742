//! `DELETE /api/v1/label-rules/{label}`

use axum::extract::State;
use http::StatusCode;

use super::{find, label};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Deletes the rule of a label. The label stays where it is, and is put on and taken off by hand from now on.
#[utoipa::path(
    delete, path = "/api/v1/label-rules/{label}", tag = "label-rules",
    params(("label" = String, Path, description = "The label")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "The label has no rule", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_label_rule(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let label = label(&name)?;
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        find(&mut tx, &label).await?;
        policy::label_rules::delete(&mut tx, &label, &caller.actor, now).await?;
        tx.commit().await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
