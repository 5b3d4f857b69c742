//! `DELETE /api/v1/account-tokens/{id}`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::EnrollmentId;
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Revokes a bearer token and all that came of the same sign-in. The device stays enrolled; at its next request it must ask the
/// person to sign in again.
#[utoipa::path(
    delete, path = "/api/v1/account-tokens/{id}", tag = "account-tokens",
    params(("id" = Uuid, Path, description = "The token's id")),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 404, description = "No such token", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_account_token(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let row = store::account_tokens::get(&mut tx, id).await?.ok_or_else(|| Problem::not_found("account token", id))?;
    if store::account_tokens::revoke(&mut tx, id, now).await? > 0 {
        let event = NewEvent {
            enrollment: row.enrollment_id.map(EnrollmentId),
            summary: "A bearer token of account-driven enrollment was revoked",
            data: &json!({ "token": id, "mode": row.mode, "managed_apple_account": row.managed_apple_account }),
            ..caller.event(now, "account.token_revoked")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
