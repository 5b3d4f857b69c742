//! `PUT /api/v1/ade-servers/{id}/default-profile`

use axum::extract::State;
use serde::Deserialize;
use store::events::NewEvent;
use utoipa::ToSchema;
use uuid::Uuid;

use super::AdeServer;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// The profile of devices for which nobody wished another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DefaultProfile {
    /// Its name; `null`: none.
    profile: Option<String>,
}

/// Says which profile the devices of a server get, those to come too.
#[utoipa::path(
    put, path = "/api/v1/ade-servers/{id}/default-profile", tag = "ade", request_body = DefaultProfile,
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 200, description = "Said; devices are assigned within seconds", body = AdeServer),
        (status = 404, description = "No such server or profile", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_default_profile(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(body): Json<DefaultProfile>,
) -> Result<axum::Json<AdeServer>, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    super::find(&mut tx, id).await?;
    let profile = match &body.profile {
        Some(name) => Some(ade::profiles::find(&mut tx, name).await?.id),
        None => None,
    };
    store::ade::servers::set_default_profile(&mut tx, id, profile, now).await?;
    let server = super::find(&mut tx, id).await?;
    let event = NewEvent {
        summary: &format!(
            "the default profile of the ADE server {} is now {}",
            server.name,
            body.profile.as_deref().unwrap_or("none")
        ),
        data: &super::about(&server),
        ..caller.event(now, "ade.default_profile")
    };
    store::events::record(&mut tx, &event).await?;
    let shown = super::shown(&mut tx, server).await?;
    tx.commit().await?;
    Ok(axum::Json(shown))
}
