//! `DELETE /api/v1/acme-policies/{name}`

use axum::extract::State;
use http::StatusCode;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Deletes an ACME policy; its profile is removed from the devices that have it.
#[utoipa::path(
    delete, path = "/api/v1/acme-policies/{name}", tag = "acme-policies",
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 202, description = "Deleted; devices lose the profile when they next connect"),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_acme_policy(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let row = super::find(&mut tx, &name).await?;
        policy::delete(&mut tx, row.id(), &caller.actor, now).await?;
        tx.commit().await?;
        Ok(StatusCode::ACCEPTED)
    })
    .await
}
