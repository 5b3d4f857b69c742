//! `DELETE /api/v1/ade-servers/{id}`

use axum::extract::State;
use http::StatusCode;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Takes a server out of use and forgets its key and its token. Its devices can no longer enroll by Automated Device
/// Enrollment; those that are enrolled stay. Nothing changes at Apple.
#[utoipa::path(
    delete, path = "/api/v1/ade-servers/{id}", tag = "ade",
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 204, description = "Out of use"),
        (status = 404, description = "No such server", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_ade_server(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let server = super::find(&mut tx, id).await?;
    store::ade::servers::delete(&mut tx, id, now).await?;
    let event = NewEvent {
        summary: &format!("the ADE server {} was taken out of use", server.name),
        data: &super::about(&server),
        ..caller.event(now, "ade.server_deleted")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
