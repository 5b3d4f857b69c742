//! `GET /api/v1/api-tokens`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::TokenId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiToken;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;

/// Where in the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

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
