//! `POST /api/v1/api-tokens`

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::NewEvent;
use utoipa::ToSchema;

use super::ApiToken;
use crate::Shared;
use crate::auth::{self, Caller, Scope, Scopes};
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody, Slug};

/// The longest life of a token: ten years.
const LONGEST: u64 = 10 * 365 * 24 * 3600;

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// What it is called, 1 to 100 characters: who or what will use it.
    #[schema(min_length = 1, max_length = 100, example = "ticket system")]
    name: String,
    /// What it may do; at most what the token that asks may do.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// After how many seconds it expires: 60 to 315360000; 90 days where absent.
    #[schema(minimum = 60, maximum = 315_360_000, example = 7_776_000)]
    expires_in_seconds: Option<u64>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedToken {
    /// The token itself. It is shown this once and not stored.
    token: String,
    /// What is stored of it.
    api_token: ApiToken,
}

impl NewToken {
    fn checked(&self) -> Result<Duration, Problem> {
        if self.name.trim().is_empty() || self.name.chars().count() > 100 || self.name.chars().any(char::is_control) {
            return Err(Problem::field("name", "must have 1 to 100 characters, no control characters"));
        }
        if self.scopes.is_empty() {
            return Err(Problem::field("scopes", "must name at least one scope"));
        }
        match self.expires_in_seconds {
            None => Ok(auth::DEFAULT_LIFE),
            Some(seconds) if (60..=LONGEST).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            Some(_) => Err(Problem::field("expires_in_seconds", format!("must be between 60 and {LONGEST}"))),
        }
    }
}

/// Makes an API token; the answer is the only place where its text is ever shown.
#[utoipa::path(
    post, path = "/api/v1/api-tokens", tag = "api-tokens", request_body = NewToken,
    responses(
        (status = 201, description = "Made; keep the token now", body = CreatedToken),
        (status = 403, description = "A scope that the asking token does not have", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_api_token(
    State(shared): State<Shared>,
    caller: Caller,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, axum::Json<CreatedToken>), Problem> {
    let life = new.checked()?;
    let scopes = Scopes::new(&new.scopes);
    if !caller.scopes.contain(&scopes) {
        return Err(Problem::new(Slug::ScopeMissing, "a token can only make tokens with scopes of its own"));
    }
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let minted = auth::mint(&mut tx, &shared.random, now, &new.name, &scopes, life, &caller.actor).await?;
    let event = NewEvent {
        summary: &format!("API token {:?} was made", new.name),
        data: &json!({ "token_id": minted.row.id, "scopes": new.scopes, "expires_at": mdm_core::time::Timestamp(minted.row.expires_at) }),
        ..caller.event(now, "token.created")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    let created = CreatedToken { token: minted.text.expose().clone(), api_token: minted.row.into() };
    Ok((StatusCode::CREATED, axum::Json(created)))
}
