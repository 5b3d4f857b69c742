//! `GET /api/v1/api-tokens`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::TokenId;

use super::ApiToken;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page, Params};
use crate::problem::Problem;

/// API tokens, oldest first, expired and revoked ones too, without their texts.
#[utoipa::path(
    get, path = "/api/v1/api-tokens", tag = "api-tokens", params(Params),
    responses((status = 200, description = "One page", body = Page<ApiToken>)),
)]
pub(crate) async fn list_api_tokens(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<ApiToken>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<TokenId> = page::after("api-tokens", params.cursor.as_deref())?;
    let rows = store::tokens::list(&mut shared.store.read().await?, after, limit + 1).await?;
    Ok(Json(page::page("api-tokens", limit, rows, |row| row.id, ApiToken::from)))
}
