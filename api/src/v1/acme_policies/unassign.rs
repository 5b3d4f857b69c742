//! `DELETE /api/v1/acme-policies/{name}/assignments`

use axum::extract::State;
use http::StatusCode;
use policy::{Scope, ScopeChange};

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Takes the policy back from everyone. The policy itself stays.
#[utoipa::path(
    delete, path = "/api/v1/acme-policies/{name}/assignments", tag = "acme-policies",
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 202, description = "Noted", body = ScopeChange),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn unassign_acme_policy(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<(StatusCode, axum::Json<ScopeChange>), Problem> {
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let row = super::find(&mut tx, &name).await?;
        let change = policy::set_scope(&mut tx, row.id(), &Scope::default(), &caller.actor, now).await?;
        tx.commit().await?;
        Ok((StatusCode::ACCEPTED, axum::Json(change)))
    })
    .await
}
