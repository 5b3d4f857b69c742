//! `DELETE /api/v1/identities/{sha256}`

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::Fingerprint;
use serde_json::json;
use store::events::NewEvent;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// Revokes an identity certificate: every server refuses it from its next request on.
///
/// The device stays enrolled in its own eyes, but cannot speak with this server any more, and its identity is not renewed: a
/// certificate that it asked for before and did not use yet is good for nothing. A certificate of the built-in CA is in its list
/// of revoked certificates (`/crl` on the device listener) a few minutes later.
#[utoipa::path(
    delete, path = "/api/v1/identities/{sha256}", tag = "identities",
    params(("sha256" = String, Path, description = "SHA-256 of the certificate, hexadecimal")),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 404, description = "No such identity", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_identity(
    State(shared): State<Shared>,
    caller: Caller,
    Path(sha256): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.must_destroy(&shared)?;
    let bytes = hex::decode(&sha256).ok().and_then(|bytes| bytes.try_into().ok());
    let fingerprint = Fingerprint(bytes.ok_or_else(|| Problem::field("sha256", "must be 64 hexadecimal digits"))?);
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let identity = store::identities::find_by_fingerprint(&mut tx, fingerprint).await?;
    let identity = identity.ok_or_else(|| Problem::not_found("identity", &sha256))?;
    store::enrollments::lock(&mut tx, identity.enrollment).await?;
    // Read again under the lock: a newer one may have taken its place meanwhile.
    let identity = store::identities::find_by_fingerprint(&mut tx, fingerprint).await?.unwrap_or(identity);
    let mut changed = store::identities::revoke(&mut tx, fingerprint, now).await?;
    if let Some(issuance) = identity.issuance {
        changed |= store::issuance::revoke(&mut tx, issuance, now).await?;
    }
    store::renewals::revoked(&mut tx, &identity, now).await?;
    if changed {
        let event = NewEvent {
            enrollment: Some(identity.enrollment),
            summary: "an identity certificate was revoked",
            data: &json!({ "certificate_sha256": fingerprint.to_string(), "issuance_id": identity.issuance }),
            ..caller.event(now, "identity.revoked")
        };
        store::events::record(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
