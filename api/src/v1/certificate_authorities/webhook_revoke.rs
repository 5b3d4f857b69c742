//! `DELETE /api/v1/certificate-authorities/{name}/webhooks/{id}`

use axum::extract::State;
use http::StatusCode;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Revokes a webhook; its next call is refused, on every replica.
#[utoipa::path(
    delete, path = "/api/v1/certificate-authorities/{name}/webhooks/{id}", tag = "certificate-authorities",
    params(
        ("name" = String, Path, description = "The authority's name"),
        ("id" = Uuid, Path, description = "The webhook's key"),
    ),
    responses(
        (status = 204, description = "Revoked"),
        (status = 404, description = "No such authority or webhook", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_webhook(
    State(shared): State<Shared>,
    caller: Caller,
    Path((name, id)): Path<(String, Uuid)>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    if !ca::webhooks::revoke(&mut tx, &name, id, &caller.actor, now).await? {
        return Err(Problem::not_found("webhook", id));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
