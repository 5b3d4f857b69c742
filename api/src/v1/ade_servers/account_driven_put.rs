//! `PUT /api/v1/ade-servers/{id}/account-driven-enrollment`

use axum::extract::State;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Tells Apple where service discovery of account-driven enrollment is: this server's
/// `/.well-known/com.apple.remotemanagement`. Then no file is needed on the organization's own web site.
#[utoipa::path(
    put, path = "/api/v1/ade-servers/{id}/account-driven-enrollment", tag = "ade",
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 200, description = "Told", body = ade::Discovery),
        (status = 404, description = "No such server", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Apple does not take it", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_discovery(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<ade::Discovery>, Problem> {
    let server = super::find(&mut shared.store.read().await?, id).await?;
    let url = shared.about.public_url.join("/.well-known/com.apple.remotemanagement");
    let url = url.map_err(|e| Problem::internal(&e))?;
    ade::put_discovery(&shared.ade, &server, &url).await?;
    let mut tx = shared.store.begin().await?;
    let event = NewEvent {
        summary: &format!("Apple was told by the ADE server {} where service discovery is", server.name),
        data: &super::about(&server),
        ..caller.event(shared.clock.now(), "ade.discovery_put")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(axum::Json(ade::Discovery { mdm_service_discovery_url: Some(url.into()) }))
}
