//! `GET /api/v1/certificate-authorities`

use axum::Json;
use axum::extract::State;

use super::{CertificateAuthorityView, view};
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page, Params};
use crate::problem::Problem;

/// Certificate authorities, by name.
#[utoipa::path(
    get, path = "/api/v1/certificate-authorities", tag = "certificate-authorities", params(Params),
    responses((status = 200, description = "One page", body = Page<CertificateAuthorityView>)),
)]
pub(crate) async fn list_certificate_authorities(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<CertificateAuthorityView>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<String> = page::after("certificate-authorities", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let rows = store::authorities::list(&mut tx, after.as_deref().unwrap_or(""), limit + 1).await?;
    let page = page::page("certificate-authorities", limit, rows, |row| row.name.clone(), |row| view(&shared, row));
    let items = page.items.into_iter().collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}
