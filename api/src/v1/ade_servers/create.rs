//! `POST /api/v1/ade-servers`

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use store::events::NewEvent;
use utoipa::ToSchema;

use super::AdeServer;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};

/// A server to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAdeServer {
    /// 1 to 64 letters, digits, spaces, '.', '_' or '-'.
    name: String,
}

/// Makes a key pair for a server of Apple's portal. Upload `certificate_pem` there, download the token, and put it with
/// `PUT /api/v1/ade-servers/{id}/token`.
#[utoipa::path(
    post, path = "/api/v1/ade-servers", tag = "ade", request_body = NewAdeServer,
    responses(
        (status = 201, description = "Made", body = AdeServer),
        (status = 409, description = "The name is taken", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_ade_server(
    State(shared): State<Shared>,
    caller: Caller,
    Json(new): Json<NewAdeServer>,
) -> Result<(StatusCode, axum::Json<AdeServer>), Problem> {
    let now = shared.clock.now();
    let key = ade::servers::PortalKey::generate(&shared.ade, &new.name)?;
    let mut tx = shared.store.begin().await?;
    let server = ade::servers::create(&mut tx, &shared.ade, &new.name, &key, now).await?;
    let event = NewEvent {
        summary: &format!("the ADE server {} was made", server.name),
        data: &super::about(&server),
        ..caller.event(now, "ade.server_created")
    };
    store::events::record(&mut tx, &event).await?;
    let shown = super::shown(&mut tx, server).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(shown)))
}
