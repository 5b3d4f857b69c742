//! `PUT /api/v1/acme-policies/{name}/assignments`

use axum::extract::State;
use http::StatusCode;
use policy::{Scope, ScopeChange};

use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// Says who the policy is for, in place of what was said before: whom it takes in, and whom it leaves out. Devices follow in the
/// background.
#[utoipa::path(
    put, path = "/api/v1/acme-policies/{name}/assignments", tag = "acme-policies", request_body = Scope,
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 202, description = "Noted", body = ScopeChange),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn assign_acme_policy(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    Json(scope): Json<Scope>,
) -> Result<(StatusCode, axum::Json<ScopeChange>), Problem> {
    if scope.is_empty() {
        return Err(Problem::field(
            "labels",
            "name labels, enrollment_ids or all; to take the policy back, use DELETE",
        ));
    }
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let row = super::find(&mut tx, &name).await?;
        let change = policy::set_scope(&mut tx, row.id(), &scope, &caller.actor, now).await?;
        tx.commit().await?;
        Ok((StatusCode::ACCEPTED, axum::Json(change)))
    })
    .await
}
