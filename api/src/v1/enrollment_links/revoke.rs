//! `DELETE /api/v1/enrollment-links/{id}`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::LinkId;
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Revokes an enrollment link, and every challenge that it gave out and nobody used. Enrolled devices stay.
#[utoipa::path(
    delete, path = "/api/v1/enrollment-links/{id}", tag = "enrollment-links",
    params(("id" = Uuid, Path, description = "The link")),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 404, description = "No such link", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_enrollment_link(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let known = store::links::get(&mut tx, LinkId(id)).await?;
    known.ok_or_else(|| Problem::not_found("enrollment link", id))?;
    if enroll::link::revoke(&mut tx, LinkId(id), now).await? {
        let event = NewEvent {
            summary: "an enrollment link was revoked",
            data: &json!({ "link_id": id }),
            ..caller.event(now, "link.revoked")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
