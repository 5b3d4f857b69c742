//! `GET /api/v1/account-tokens`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::EnrollmentId;
use serde::Deserialize;
use store::account_tokens::Filter;
use utoipa::IntoParams;
use uuid::Uuid;

use super::AccountToken;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;

/// Which tokens; everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those of this enrollment (a device channel).
    enrollment_id: Option<Uuid>,
    /// Only those of this Managed Apple Account.
    #[param(example = "ada@example.org")]
    managed_apple_account: Option<String>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Bearer tokens of account-driven enrollments, newest first, ended ones too, without their texts.
#[utoipa::path(
    get, path = "/api/v1/account-tokens", tag = "account-tokens", params(Params),
    responses((status = 200, description = "One page", body = Page<AccountToken>)),
)]
pub(crate) async fn list_account_tokens(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<AccountToken>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<Uuid> = page::after("account-tokens", params.cursor.as_deref())?;
    let account = params.managed_apple_account.filter(|account| !account.is_empty());
    let filter = Filter { enrollment: params.enrollment_id.map(EnrollmentId), account };
    let rows = store::account_tokens::list(&mut shared.store.read().await?, &filter, before, limit + 1).await?;
    Ok(Json(page::page("account-tokens", limit, rows, |row| row.id, AccountToken::from)))
}
