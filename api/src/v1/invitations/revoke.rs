//! `DELETE /api/v1/invitations/{id}`

use axum::extract::State;
use http::StatusCode;
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Revokes an invitation. Whoever signed in by it a moment ago must sign in anew; enrolled devices, and tokens that were given
/// out already, stay.
#[utoipa::path(
    delete, path = "/api/v1/invitations/{id}", tag = "invitations",
    params(("id" = Uuid, Path, description = "The invitation")),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 404, description = "No such invitation", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_invitation(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    store::invitations::get(&mut tx, id).await?.ok_or_else(|| Problem::not_found("invitation", id))?;
    if signin::invitation::revoke(&mut tx, id, now).await? {
        let event = NewEvent {
            summary: "an invitation was revoked",
            data: &json!({ "invitation": id }),
            ..caller.event(now, "invitation.revoked")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
