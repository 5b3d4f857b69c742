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
    let pin = match record.fingerprint {
        Some(fingerprint) => store::identities::find_by_fingerprint(&mut tx, fingerprint).await?,
        None => None,
    };
    if let Some(pin) = &pin {
        store::enrollments::lock(&mut tx, pin.enrollment).await?;
    }
    let mut changed = store::issuance::revoke(&mut tx, record.id, now).await?;
    if let Some(pin) = pin {
        changed |= store::identities::revoke(&mut tx, pin.fingerprint, now).await?;
        // Read under the lock: a newer one may have taken its place meanwhile.
        let pin = store::identities::find_by_fingerprint(&mut tx, pin.fingerprint).await?.unwrap_or(pin);
        store::renewals::revoked(&mut tx, &pin, now).await?;
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
