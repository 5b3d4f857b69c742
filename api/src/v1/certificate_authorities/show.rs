//! `GET /api/v1/certificate-authorities/{name}`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{CertificateAuthorityView, CertificateAuthorityWebhook, find, view};
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// A certificate authority with its webhooks and the policies that name it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CertificateAuthorityDetail {
    /// The authority.
    certificate_authority: CertificateAuthorityView,
    /// Its webhooks that are not revoked, oldest first.
    webhooks: Vec<CertificateAuthorityWebhook>,
    /// The names of the policies that name it.
    acme_policies: Vec<String>,
}

/// One certificate authority.
#[utoipa::path(
    get, path = "/api/v1/certificate-authorities/{name}", tag = "certificate-authorities",
    params(("name" = String, Path, description = "The authority's name")),
    responses(
        (status = 200, description = "The authority", body = CertificateAuthorityDetail),
        (status = 404, description = "No such authority", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_certificate_authority(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<CertificateAuthorityDetail>, Problem> {
    let mut tx = shared.store.read().await?;
    let row = find(&mut tx, &name).await?;
    let webhooks = store::authorities::webhooks(&mut tx, row.id()).await?;
    let policies = policy::authority_users(&mut tx, &name).await?;
    Ok(Json(CertificateAuthorityDetail {
        certificate_authority: view(&shared, row)?,
        webhooks: webhooks.into_iter().map(Into::into).collect(),
        acme_policies: policies.into_iter().map(|policy| policy.name).collect(),
    }))
}
