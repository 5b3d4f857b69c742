//! `POST /api/v1/account-tokens/revoke`

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::NewEvent;
use utoipa::ToSchema;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::Problem;

/// Whose tokens.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeAccount {
    /// The Managed Apple Account, in any case.
    #[schema(example = "ada@example.org")]
    managed_apple_account: String,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevokedAccount {
    /// How many tokens were not revoked before.
    revoked: u64,
}

/// Revokes every bearer token of one person, for example of one who left. Their devices stay enrolled, but must sign in again
/// before anything more is sent to them.
#[utoipa::path(
    post, path = "/api/v1/account-tokens/revoke", tag = "account-tokens", request_body = RevokeAccount,
    responses((status = 200, description = "Revoked, now or before", body = RevokedAccount)),
)]
pub(crate) async fn revoke_account(
    State(shared): State<Shared>,
    caller: Caller,
    Json(whose): Json<RevokeAccount>,
) -> Result<axum::Json<RevokedAccount>, Problem> {
    let account = whose.managed_apple_account.trim();
    if account.is_empty() {
        return Err(Problem::field("managed_apple_account", "must name a Managed Apple Account"));
    }
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let revoked = store::account_tokens::revoke_account(&mut tx, account, now).await?;
    if revoked > 0 {
        let event = NewEvent {
            summary: "All bearer tokens of a Managed Apple Account were revoked",
            data: &json!({ "managed_apple_account": account, "revoked": revoked }),
            ..caller.event(now, "account.revoked")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(axum::Json(RevokedAccount { revoked }))
}
