//! `GET /api/v1/enrollments`

use axum::Json;
use axum::extract::State;
use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::ids::{EnrollmentId, Label};
use serde::Deserialize;
use store::listing;
use utoipa::IntoParams;

use super::Enrollment;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;
use crate::when::When;

/// Which enrollments; everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// `authenticated`, `enrolled` or `unenrolled`.
    #[param(example = "enrolled")]
    state: Option<String>,
    /// `device`, `automated`, `user` or `shared_ipad`.
    #[param(value_type = Option<String>)]
    kind: Option<EnrollmentKind>,
    /// `device` or `user`.
    #[param(value_type = Option<String>)]
    channel: Option<Channel>,
    /// Serial number of the device; finds its user channels too.
    serial: Option<String>,
    /// UDID (or Apple's EnrollmentID) of the device; finds its user channels too.
    udid: Option<String>,
    /// Only those with this label.
    #[param(value_type = Option<String>)]
    label: Option<Label>,
    /// How ProductName begins.
    #[param(example = "iPhone17,")]
    product_name: Option<String>,
    /// Not heard of since this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    last_seen_before: Option<When>,
    /// Heard of since this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    last_seen_after: Option<When>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl Params {
    fn filter(self) -> Result<listing::Enrollments, Problem> {
        if self.state.as_deref().is_some_and(|state| !["authenticated", "enrolled", "unenrolled"].contains(&state)) {
            return Err(Problem::field("state", "must be authenticated, enrolled or unenrolled"));
        }
        Ok(listing::Enrollments {
            state: self.state,
            kind: self.kind,
            channel: self.channel,
            serial_number: self.serial,
            udid: self.udid,
            label: self.label,
            product_name: self.product_name,
            last_seen_before: self.last_seen_before.map(|when| when.0),
            last_seen_after: self.last_seen_after.map(|when| when.0),
        })
    }
}

/// Enrollments, newest first.
#[utoipa::path(
    get, path = "/api/v1/enrollments", tag = "enrollments", params(Params),
    responses((status = 200, description = "One page", body = Page<Enrollment>)),
)]
pub(crate) async fn list_enrollments(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Enrollment>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<EnrollmentId> = page::after("enrollments", params.cursor.as_deref())?;
    let filter = params.filter()?;
    let mut tx = shared.store.read().await?;
    let rows = listing::enrollments(&mut tx, &filter, before, limit + 1).await?;
    let items = super::shown(&mut tx, rows).await?;
    Ok(Json(page::page("enrollments", limit, items, |item| item.id, |item| item)))
}
