//! `GET /api/v1/ade-devices`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use store::ade::devices::Filter;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{AdeDevice, Names};
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;

/// Which devices, and where in the list. Everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those of this server.
    ade_server: Option<Uuid>,
    /// Only with this state of assignment.
    assign_state: Option<String>,
    /// Only with this `profile_status` of Apple's.
    profile_status: Option<String>,
    /// Only approved ones, or only those that are not.
    approved: Option<bool>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Devices that Apple lists, by serial number.
#[utoipa::path(
    get, path = "/api/v1/ade-devices", tag = "ade", params(Params),
    responses((status = 200, description = "One page", body = Page<AdeDevice>)),
)]
pub(crate) async fn list_ade_devices(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<AdeDevice>>, Problem> {
    let limit = page::limit(params.limit)?;
    let after: Option<String> = page::after("ade-devices", params.cursor.as_deref())?;
    let after = after.as_deref().and_then(|key| key.rsplit_once('/'));
    let after = after.and_then(|(serial, server)| Some((serial, server.parse().ok()?)));
    let filter = Filter {
        server: params.ade_server,
        assign_state: params.assign_state,
        profile_status: params.profile_status,
        approved: params.approved,
    };
    let mut tx = shared.store.read().await?;
    let rows = store::ade::devices::list(&mut tx, &filter, after, limit + 1).await?;
    let key = |row: &store::ade::Device| format!("{}/{}", row.serial_number, row.server_id);
    let rows = page::page("ade-devices", limit, rows, key, |row| row);
    let (mut names, mut items) = (Names::default(), Vec::with_capacity(rows.items.len()));
    for row in rows.items {
        items.push(names.shown(&mut tx, row).await?);
    }
    Ok(Json(Page { items, next_cursor: rows.next_cursor }))
}
