//! `PUT /api/v1/ade-profiles/{name}`

use axum::extract::State;
use http::StatusCode;
use serde_json::json;
use store::events::NewEvent;

use super::AdeProfile;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// Creates a profile, or replaces it by a new revision. What is defined at Apple can't be changed: a new revision is defined
/// anew and assigned to each device that has the former one. Devices read it in Setup Assistant only.
#[utoipa::path(
    put, path = "/api/v1/ade-profiles/{name}", tag = "ade", request_body = ade::Definition,
    params(("name" = String, Path, description = "1 to 64 letters, digits, '.', '_' or '-'")),
    responses(
        (status = 201, description = "Created", body = AdeProfile),
        (status = 200, description = "Replaced, or the same as before", body = AdeProfile),
        (status = 422, description = "Every key that is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_ade_profile(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    Json(definition): Json<ade::Definition>,
) -> Result<(StatusCode, axum::Json<AdeProfile>), Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let (profile, created) = ade::profiles::put(&mut tx, &shared.ade, &name, &definition, &caller.actor, now).await?;
    let event = NewEvent {
        summary: &format!("the ADE profile {name} was {}", if created { "created" } else { "replaced" }),
        data: &json!({ "ade_profile": name, "revision": profile.revision }),
        ..caller.event(now, "ade.profile_put")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(profile.into())))
}
