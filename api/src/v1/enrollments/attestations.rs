//! `GET /api/v1/enrollments/{id}/attestations`

use attestation::{Identity, Values};
use axum::Json;
use axum::extract::State;
use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::attestations::{Nonce, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Shared;
use crate::extract::{Path, Query};
use crate::page::{self, Params};
use crate::problem::{Problem, ProblemBody};
use crate::when::When;

/// How an attestation was judged. The certificates are not shown: they name the device, and are kept for a time only.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attestation {
    /// Our key.
    id: Uuid,
    /// `device_information` or `acme`.
    source: String,
    /// `accepted`; `absent` where the device was asked and gave none; otherwise the stable word of the refusal.
    verdict: String,
    /// Whose it is: `matches`, `not_attested` (a genuine device, and Apple does not say which, as in User Enrollment), `mismatch`
    /// or `unknown`.
    identity: Identity,
    /// When the nonce was sent that it carries. Absent: unknown, as where a device answers with an attestation that it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh_as_of: Option<When>,
    /// When it came.
    received_at: When,
    /// What it says, without serial number and UDID.
    values: Values,
    /// SHA-256 over its certificates, in hexadecimal digits.
    chain_sha256: String,
    /// Whether its certificates are still kept.
    chain_kept: bool,
}

impl From<Row> for Attestation {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            source: row.source,
            verdict: row.verdict,
            identity: Identity::from_text(&row.identity).unwrap_or(Identity::Unknown),
            fresh_as_of: row.fresh_as_of.map(When::ms),
            received_at: When::ms(row.received_at),
            values: serde_json::from_str(&row.body).unwrap_or_default(),
            chain_sha256: hex::encode(row.chain_sha256),
            chain_kept: row.chain.is_some(),
        }
    }
}

/// The attestations of an enrollment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attestations {
    /// How they were judged, newest first.
    items: Vec<Attestation>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// When the newest nonce was first sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce_sent_at: Option<When>,
    /// From when a new nonce is sent, with the next question.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_nonce_from: Option<When>,
}

/// What Apple attested of a device, as it was judged: whether it is believed, whose it is, and how fresh it is.
#[utoipa::path(
    get, path = "/api/v1/enrollments/{id}/attestations", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment"), Params),
    responses(
        (status = 200, description = "One page", body = Attestations),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_attestations(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
    Query(params): Query<Params>,
) -> Result<Json<Attestations>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<Uuid> = page::after("attestations", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let enrollment = super::find(&mut tx, id).await?;
    let id = EnrollmentId(id);
    let rows = store::attestations::list(&mut tx, id, before, limit + 1).await?;
    let sent_at = |nonce: &Nonce| Timestamp(nonce.sent_at);
    let sent_at = store::attestations::last_nonce(&mut tx, id).await?.as_ref().map(sent_at);
    let page = page::page("attestations", limit, rows, |row| row.id, Attestation::from);
    Ok(Json(Attestations {
        items: page.items,
        next_cursor: page.next_cursor,
        nonce_sent_at: sent_at.map(When::from),
        next_nonce_from: sent_at.map(|at| When::from(attestation::next_nonce_from(enrollment.id, at))),
    }))
}
