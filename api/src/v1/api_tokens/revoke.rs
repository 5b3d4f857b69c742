//! `DELETE /api/v1/api-tokens/{id}`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::TokenId;
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Revokes an API token; the next request that carries it is refused, on every replica.
#[utoipa::path(
    delete, path = "/api/v1/api-tokens/{id}", tag = "api-tokens",
    params(("id" = Uuid, Path, description = "The token's id")),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 404, description = "No such token", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_api_token(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let row = store::tokens::find(&mut tx, TokenId(id)).await?.ok_or_else(|| Problem::not_found("API token", id))?;
    if store::tokens::revoke(&mut tx, TokenId(id), now).await? {
        let event = NewEvent {
            summary: &format!("API token {:?} was revoked", row.name),
            data: &json!({ "token_id": id }),
            ..caller.event(now, "token.revoked")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
