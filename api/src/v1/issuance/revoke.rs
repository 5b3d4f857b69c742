//! `POST /api/v1/issuance/{id}/revoke`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::IssuanceId;
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Revokes an issuance record and the certificate that was issued on it: whoever has it is refused from now on.
///
/// The device stays enrolled in its own eyes, but cannot speak with this server any more.
#[utoipa::path(
    post, path = "/api/v1/issuance/{id}/revoke", tag = "issuance",
    params(("id" = Uuid, Path, description = "The record")),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 404, description = "No such record", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_issuance(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    caller.must_destroy(&shared)?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let record = store::issuance::get(&mut tx, IssuanceId(id)).await?;
    let record = record.ok_or_else(|| Problem::not_found("issuance record", id))?;
    let mut changed = store::issuance::revoke(&mut tx, record.id, now).await?;
    if let Some(fingerprint) = record.fingerprint {
        changed |= store::identities::revoke(&mut tx, fingerprint, now).await?;
    }
    if changed {
        let event = NewEvent {
            enrollment: record.enrollment,
            summary: "an identity certificate was revoked",
            data: &json!({ "issuance_id": id }),
            ..caller.event(now, "issuance.revoked")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
