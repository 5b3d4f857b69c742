//! `GET /api/v1/acme-certificates/{sha256}`

use axum::Json;
use axum::extract::State;
use mdm_core::certificate::Certificate;
use mdm_core::ids::Fingerprint;
use serde::Serialize;
use utoipa::ToSchema;

use super::AcmeCertificate;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// A certificate with its bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcmeCertificateDetail {
    /// What is known of it.
    #[serde(flatten)]
    summary: AcmeCertificate,
    /// The certificate in PEM.
    pem: String,
}

/// One certificate that came by an ACME policy, by its fingerprint.
#[utoipa::path(
    get, path = "/api/v1/acme-certificates/{sha256}", tag = "acme-policies",
    params(("sha256" = String, Path, description = "SHA-256 of the certificate, hexadecimal")),
    responses(
        (status = 200, description = "The certificate", body = AcmeCertificateDetail),
        (status = 404, description = "No such certificate", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_acme_certificate(
    State(shared): State<Shared>,
    Path(sha256): Path<String>,
) -> Result<Json<AcmeCertificateDetail>, Problem> {
    let bytes = hex::decode(&sha256).ok().and_then(|bytes| bytes.try_into().ok());
    let fingerprint = Fingerprint(bytes.ok_or_else(|| Problem::field("sha256", "must be 64 hexadecimal digits"))?);
    let mut tx = shared.store.read().await?;
    let row = store::certificates::listed(&mut tx, fingerprint).await?;
    let bytes = store::certificates::get(&mut tx, fingerprint).await?;
    let (Some(row), Some(bytes)) = (row, bytes) else { return Err(Problem::not_found("certificate", sha256)) };
    let certificate = Certificate::from_der(&bytes.certificate).map_err(|e| Problem::internal(&e))?;
    Ok(Json(AcmeCertificateDetail { summary: row.into(), pem: certificate.to_pem() }))
}
