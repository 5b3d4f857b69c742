//! `GET /api/v1/acme-certificates`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use serde::Deserialize;
use store::certificates::{Filter, Listed, State as Standing};
use utoipa::IntoParams;
use uuid::Uuid;

use super::AcmeCertificate;
use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::{Problem, ProblemBody};
use crate::v1::acme_policies;

/// Which certificates.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Only those of this policy, by its name.
    policy: Option<String>,
    /// Only those of this enrollment.
    enrollment_id: Option<Uuid>,
    /// Only those in this state: `reported`, `verified`, `replaced` or `gone`.
    state: Option<String>,
    /// Only those that end within so many days, or have ended.
    #[param(minimum = 0, maximum = 3650)]
    ends_within_days: Option<u32>,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Where a page ends: the end and the fingerprint of its last certificate.
struct Last(Timestamp, Fingerprint);

impl std::str::FromStr for Last {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (end, fingerprint) = text.split_once('.').ok_or(())?;
        let bytes = hex::decode(fingerprint).map_err(|_| ())?;
        Ok(Self(Timestamp(end.parse().map_err(|_| ())?), Fingerprint(bytes.try_into().map_err(|_| ())?)))
    }
}

/// Certificates that came by ACME policies, the soonest end first.
#[utoipa::path(
    get, path = "/api/v1/acme-certificates", tag = "acme-policies", params(Params),
    responses(
        (status = 200, description = "One page", body = Page<AcmeCertificate>),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_acme_certificates(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<AcmeCertificate>>, Problem> {
    const LIST: &str = "acme-certificates";
    let limit = page::limit(params.limit)?;
    let after: Option<Last> = page::after(LIST, params.cursor.as_deref())?;
    let state = match params.state.as_deref() {
        None => None,
        Some(text) => {
            let state = Standing::from_text(text);
            Some(state.ok_or_else(|| Problem::field("state", "must be reported, verified, replaced or gone"))?)
        }
    };
    if params.ends_within_days.is_some_and(|days| days > 3650) {
        return Err(Problem::field("ends_within_days", "must be between 0 and 3650"));
    }
    let now = shared.clock.now();
    let mut tx = shared.store.read().await?;
    let policy = match &params.policy {
        None => None,
        Some(name) => Some(acme_policies::find(&mut tx, name).await?.id()),
    };
    let filter = Filter {
        state,
        enrollment: params.enrollment_id.map(EnrollmentId),
        policy,
        ends_before: params.ends_within_days.map(|days| now.plus(Duration::from_secs(u64::from(days) * 86_400))),
    };
    let after = after.map(|Last(end, fingerprint)| (end, fingerprint));
    let rows = store::certificates::list(&mut tx, &filter, after, limit + 1).await?;
    let key = |row: &Listed| format!("{}.{}", row.not_after, hex::encode(&row.sha256));
    Ok(Json(page::page(LIST, limit, rows, key, AcmeCertificate::from)))
}
