//! `PUT /api/v1/network-users/{short_name}`

use axum::extract::State;
use http::StatusCode;
use mdm_core::crypto::digest_access::ha1;
use mdm_core::secret::Secret;
use serde::Deserialize;
use serde_json::json;
use store::events::NewEvent;
use store::network_users::Row;
use utoipa::ToSchema;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// A network user's password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Password {
    /// 1 to 256 bytes. Only a digest of it is kept, sealed.
    #[schema(min_length = 1, max_length = 256)]
    password: String,
}

/// Adds a network user, or gives them another password.
#[utoipa::path(
    put, path = "/api/v1/network-users/{short_name}", tag = "network-users", request_body = Password,
    params(("short_name" = String, Path, description = "The name that is typed at the login window")),
    responses(
        (status = 204, description = "Kept"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_network_user(
    State(shared): State<Shared>,
    caller: Caller,
    Path(short_name): Path<String>,
    Json(new): Json<Password>,
) -> Result<StatusCode, Problem> {
    let short_name = super::checked(&short_name)?;
    if new.password.is_empty() || new.password.len() > 256 {
        return Err(Problem::field("password", "must have 1 to 256 bytes"));
    }
    let now = shared.clock.now();
    let realm = shared.about.public_url.host_str().unwrap_or_default();
    let digest = ha1(short_name, realm, &Secret::new(new.password));
    let context = format!("network_user.digest_sealed:{short_name}");
    let row = Row {
        short_name: short_name.to_owned(),
        digest_sealed: shared.commands.sealer.seal(&context, digest.expose().as_bytes(), &shared.random),
        created_by: caller.actor.clone(),
        created_at: now.0,
    };
    let mut tx = shared.store.begin().await?;
    store::network_users::put(&mut tx, &row).await?;
    let event = NewEvent {
        summary: "a network user's password was set",
        data: &json!({ "short_name": short_name }),
        ..caller.event(now, "network_user.put")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
