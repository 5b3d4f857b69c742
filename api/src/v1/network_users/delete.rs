//! `DELETE /api/v1/network-users/{short_name}`

use axum::extract::State;
use http::StatusCode;
use serde_json::json;
use store::events::NewEvent;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Takes a network user off the list: the next login on a Mac is not managed.
#[utoipa::path(
    delete, path = "/api/v1/network-users/{short_name}", tag = "network-users",
    params(("short_name" = String, Path, description = "The name that is typed at the login window")),
    responses(
        (status = 204, description = "Gone"),
        (status = 404, description = "Nobody of that name", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_network_user(
    State(shared): State<Shared>,
    caller: Caller,
    Path(short_name): Path<String>,
) -> Result<StatusCode, Problem> {
    let short_name = super::checked(&short_name)?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    if !store::network_users::delete(&mut tx, short_name).await? {
        return Err(Problem::not_found("network user", short_name));
    }
    let event = NewEvent {
        summary: "a network user was taken off the list",
        data: &json!({ "short_name": short_name }),
        ..caller.event(now, "network_user.deleted")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
