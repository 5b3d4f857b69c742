//! `GET /api/v1/identities`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use serde::Deserialize;
use store::identities::{Filter, Standing};
use utoipa::IntoParams;
use uuid::Uuid;

use super::Identity;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;

/// Which identities.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those of this enrollment.
    enrollment_id: Option<Uuid>,
    /// Only those in this state: `live`, `expired`, `retired` or `revoked`.
    state: Option<String>,
    /// Only those that end within so many days, or have ended.
    #[param(minimum = 0, maximum = 3650)]
    expiring_within_days: Option<u32>,
    /// `true`: only those of enrolled devices that are near their end – 30 days, or the last sixth of their life where that is
    /// shorter – and have no successor. These devices will be lost.
    near_end: Option<bool>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Where a page ends: the end and the fingerprint of its last identity.
struct Last(Timestamp, Fingerprint);

impl std::str::FromStr for Last {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (end, fingerprint) = text.split_once('.').ok_or(())?;
        let bytes = hex::decode(fingerprint).map_err(|_| ())?;
        Ok(Self(Timestamp(end.parse().map_err(|_| ())?), Fingerprint(bytes.try_into().map_err(|_| ())?)))
    }
}

/// Identity certificates, the soonest end first, each with where its renewal stands.
#[utoipa::path(
    get, path = "/api/v1/identities", tag = "identities", params(Params),
    responses((status = 200, description = "One page", body = Page<Identity>)),
)]
pub(crate) async fn list_identities(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Identity>>, Problem> {
    let now = shared.clock.now();
    let limit = page::limit(params.limit)?;
    let after: Option<Last> = page::after("identities", params.cursor.as_deref())?;
    let state = match params.state.as_deref() {
        None => None,
        Some(text) => {
            let state = Standing::from_text(text);
            Some(state.ok_or_else(|| Problem::field("state", "must be live, expired, retired or revoked"))?)
        }
    };
    if params.expiring_within_days.is_some_and(|days| days > 3650) {
        return Err(Problem::field("expiring_within_days", "must be between 0 and 3650"));
    }
    let filter = Filter {
        state,
        ends_before: params.expiring_within_days.map(|days| now.plus(Duration::from_secs(u64::from(days) * 86_400))),
        stuck: params.near_end.unwrap_or_default(),
        enrollment: params.enrollment_id.map(EnrollmentId),
    };
    let mut tx = shared.store.read().await?;
    let after = after.map(|Last(end, fingerprint)| (end, fingerprint));
    let rows = store::identities::list(&mut tx, &filter, after, now, limit + 1).await?;
    let key = |row: &store::identities::Listed| format!("{}.{}", row.not_after, hex::encode(&row.cert_sha256));
    Ok(Json(page::page("identities", limit, rows, key, |row| Identity::new(row, now))))
}
