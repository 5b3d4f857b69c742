//! `DELETE /api/v1/ade-profiles/{name}`

use axum::extract::State;
use http::StatusCode;
use serde_json::json;
use store::events::NewEvent;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Deletes a profile that is no server's default and no device's wish.
#[utoipa::path(
    delete, path = "/api/v1/ade-profiles/{name}", tag = "ade",
    params(("name" = String, Path, description = "The profile's name")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "No such profile", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It is in use", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_ade_profile(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    ade::profiles::delete(&mut tx, &name, now).await?;
    let event = NewEvent {
        summary: &format!("the ADE profile {name} was deleted"),
        data: &json!({ "ade_profile": name }),
        ..caller.event(now, "ade.profile_deleted")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
