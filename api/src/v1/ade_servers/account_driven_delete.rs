//! `DELETE /api/v1/ade-servers/{id}/account-driven-enrollment`

use axum::extract::State;
use http::StatusCode;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Tells Apple that service discovery of account-driven enrollment is no longer here.
#[utoipa::path(
    delete, path = "/api/v1/ade-servers/{id}/account-driven-enrollment", tag = "ade",
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 204, description = "Told"),
        (status = 404, description = "No such server", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Apple does not take it", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_discovery(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let server = super::find(&mut shared.store.read().await?, id).await?;
    ade::forget_discovery(&shared.ade, &server).await?;
    let mut tx = shared.store.begin().await?;
    let event = NewEvent {
        summary: &format!("Apple was told by the ADE server {} to forget service discovery", server.name),
        data: &super::about(&server),
        ..caller.event(shared.clock.now(), "ade.discovery_deleted")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
