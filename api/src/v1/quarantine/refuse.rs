//! `POST /api/v1/quarantine/{id}/refuse`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{EnrollmentId, Fingerprint, IssuanceId};
use serde::Serialize;
use serde_json::json;
use store::Tx;
use store::events::NewEvent;
use store::quarantine::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Quarantined;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody, Slug};

/// A quarantined device that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusedDevice {
    /// The quarantined device.
    quarantined: Quarantined,
    /// Whether its certificate was revoked. One that is pinned to an enrollment is not: that would cut off the device that holds it
    /// by right; revoke it by its issuance record or its identity where it is known to be stolen.
    certificate_revoked: bool,
}

/// Refuses the device for good: its certificate is revoked, and whatever comes under it is refused from now on.
#[utoipa::path(
    post, path = "/api/v1/quarantine/{id}/refuse", tag = "quarantine",
    params(("id" = Uuid, Path, description = "The quarantined device")),
    responses(
        (status = 200, description = "Refused, now or before", body = RefusedDevice),
        (status = 404, description = "No such one", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "A device enrolled by its approval", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn refuse_quarantined(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<RefusedDevice>, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let row = super::find(&mut tx, id).await?;
    if !store::quarantine::refuse(&mut tx, id, &caller.actor, now).await? {
        return Err(Problem::new(Slug::Conflict, "a device has enrolled by its approval: unenroll that one"));
    }
    let revocable = is_unpinned(&mut tx, &row).await?;
    if let (true, Some(record)) = (revocable, row.issuance_id) {
        store::issuance::revoke(&mut tx, IssuanceId(record), now).await?;
    }
    let event = NewEvent {
        enrollment: row.enrollment_id.map(EnrollmentId),
        summary: "a quarantined device was refused; the enrollment that it claimed to be goes on",
        data: &json!({ "quarantine_id": id, "reason": row.reason, "certificate_revoked": revocable }),
        ..caller.event(now, "quarantine.refused")
    };
    store::events::record(&mut tx, &event).await?;
    let quarantined = super::find(&mut tx, id).await?.into();
    tx.commit().await?;
    Ok(Json(RefusedDevice { quarantined, certificate_revoked: revocable }))
}

async fn is_unpinned(tx: &mut Tx, row: &Row) -> Result<bool, Problem> {
    let Ok(fingerprint) = row.cert_sha256.as_slice().try_into().map(Fingerprint) else { return Ok(false) };
    Ok(store::identities::find_by_fingerprint(tx, fingerprint).await?.is_none())
}
