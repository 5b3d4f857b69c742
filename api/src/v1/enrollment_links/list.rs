//! `GET /api/v1/enrollment-links`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::LinkId;

use super::EnrollmentLink;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page, Params};
use crate::problem::Problem;

/// Enrollment links, newest first, without their URLs.
#[utoipa::path(
    get, path = "/api/v1/enrollment-links", tag = "enrollment-links", params(Params),
    responses((status = 200, description = "One page", body = Page<EnrollmentLink>)),
)]
pub(crate) async fn list_enrollment_links(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<EnrollmentLink>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<LinkId> = page::after("links", params.cursor.as_deref())?;
    let now = shared.clock.now();
    let mut tx = shared.store.read().await?;
    let mut items = Vec::new();
    for row in store::links::list(&mut tx, before, limit + 1).await? {
        items.push(super::shown(&mut tx, row, now).await?);
    }
    Ok(Json(page::page("links", limit, items, |item| item.id, |item| item)))
}
