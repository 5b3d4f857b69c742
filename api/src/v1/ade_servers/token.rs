//! `PUT /api/v1/ade-servers/{id}/token`

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

/// A server token of the portal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdeToken {
    /// The content of the `.p7m` file, as text.
    token: String,
    /// Take it although it belongs to another server of the portal than the present token. The list of devices is then read
    /// anew, and approvals of the former server's devices end.
    #[serde(default)]
    force: bool,
}

/// Puts the server token that the portal encrypted to this server's certificate; also the one of each year's renewal.
#[utoipa::path(
    put, path = "/api/v1/ade-servers/{id}/token", tag = "ade", request_body = AdeToken,
    params(("id" = Uuid, Path, description = "The server")),
    responses(
        (status = 200, description = "Stored; the list of devices is read at once", body = AdeServer),
        (status = 404, description = "No such server", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It belongs to another server of the portal, or is older than the present one",
            body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "It is no token for this server", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_ade_token(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(body): Json<AdeToken>,
) -> Result<axum::Json<AdeServer>, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let before = super::find(&mut tx, id).await?;
    let server = ade::servers::put_token(&mut tx, &shared.ade, id, body.token.as_bytes(), body.force, now).await?;
    let renewed = before.consumer_key == server.consumer_key;
    let what = if renewed { "renewed" } else { "put" };
    let event = NewEvent {
        summary: &format!("the token of the ADE server {} was {what}", server.name),
        data: &super::about(&server),
        ..caller.event(now, "ade.token_put")
    };
    store::events::record(&mut tx, &event).await?;
    let shown = super::shown(&mut tx, server).await?;
    tx.commit().await?;
    Ok(axum::Json(shown))
}
