//! `GET /api/v1/push-certs`

use axum::Json;
use axum::extract::State;

use super::PushCert;
use crate::Shared;
use crate::page::Page;
use crate::problem::Problem;

/// The stored push certificates, by topic; there are few, so they are one page.
#[utoipa::path(
    get, path = "/api/v1/push-certs", tag = "push-certs",
    responses((status = 200, description = "All of them", body = Page<PushCert>)),
)]
pub(crate) async fn list_push_certs(State(shared): State<Shared>) -> Result<Json<Page<PushCert>>, Problem> {
    let certs = push::cert::list(&mut shared.store.read().await?).await?;
    Ok(Json(Page { items: certs.into_iter().map(PushCert::from).collect(), next_cursor: None }))
}
