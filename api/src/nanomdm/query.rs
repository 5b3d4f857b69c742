//! `POST /v1/enrollments/query`: finding enrollments, as proposed for NanoMDM.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use mdm_core::enrollment::EnrollmentState;
use mdm_core::ids::EnrollmentId;
use serde::{Deserialize, Serialize};
use store::enrollments::Enrollment as Row;
use store::{Tx, listing};
use utoipa::{IntoParams, ToSchema};

use super::ids;
use super::reply::{go_json, status_of};
use crate::Shared;
use crate::extract::{self, Query};
use crate::page;
use crate::problem::Problem;
use crate::when::When;

/// Where in the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// How many, 1 to 500.
    limit: Option<i64>,
    /// How many to leave out first.
    offset: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What to look for. `options` is taken and ignored: neither certificates nor unlock tokens leave through this address.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = NanoMdmQuery)]
pub(crate) struct Body {
    filter: Option<Filter>,
}

/// Everything that is given must hold; of a list, one entry.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = NanoMdmFilter)]
pub(crate) struct Filter {
    ids: Option<Vec<String>>,
    serials: Option<Vec<String>>,
    user_short_names: Option<Vec<String>>,
    /// `Device`, `User`, `Shared iPad`, `User Enrollment (Device)`, `User Enrollment`.
    types: Option<Vec<String>>,
    enabled: Option<bool>,
}

/// Enrollments found.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = NanoMdmEnrollments)]
pub(crate) struct Found {
    enrollments: Vec<Enrollment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// An enrollment in NanoMDM's form.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NanoMdmEnrollment)]
pub(crate) struct Enrollment {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    device: Device,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<When>,
}

/// Its device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NanoMdmDevice)]
pub(crate) struct Device {
    serial_number: String,
}

/// Its user, on a user channel.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NanoMdmUser)]
pub(crate) struct User {
    user_short_name: String,
    user_long_name: String,
}

/// Finds enrollments, newest first.
#[utoipa::path(
    post, path = "/v1/enrollments/query", tag = "nanomdm", params(Params), request_body = Body,
    responses((status = 200, description = "One page", body = Found), (status = 400, description = "A wrong query", body = Found)),
)]
pub(crate) async fn query_enrollments(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
    request: Request,
) -> Response {
    match search(&shared, params, request).await {
        Ok(found) => go_json(StatusCode::OK, &found),
        Err(problem) => go_json(status_of(&problem), &Found { error: Some(problem.line()), ..Found::default() }),
    }
}

async fn search(shared: &Shared, params: Params, request: Request) -> Result<Found, Problem> {
    let limit = usize::try_from(page::limit(params.limit)?).unwrap_or_default();
    let mut before: Option<EnrollmentId> = page::after("nanomdm", params.cursor.as_deref())?;
    let body = extract::body(request, shared).await?;
    let body: Body = if body.is_empty() { Body::default() } else { extract::json(&body)? };
    let filter = body.filter.unwrap_or_default();
    let mut tx = shared.store.read().await?;
    let (mut found, mut left_out) = (Vec::new(), params.offset.unwrap_or(0));
    loop {
        let rows = listing::enrollments(&mut tx, &filter.narrowed(), before, page::MAX_LIMIT).await?;
        let Some(last) = rows.last() else { break };
        before = Some(last.id);
        for row in rows {
            let id = row.id;
            let Some(enrollment) = filter.shown(&mut tx, row).await? else { continue };
            if left_out > 0 {
                left_out -= 1;
            } else if found.len() == limit {
                let next_cursor = found.last().map(|(last, _)| page::cursor("nanomdm", last));
                return Ok(Found {
                    enrollments: found.into_iter().map(|(_, e)| e).collect(),
                    next_cursor,
                    error: None,
                });
            } else {
                found.push((id, enrollment));
            }
        }
    }
    Ok(Found { enrollments: found.into_iter().map(|(_, e)| e).collect(), next_cursor: None, error: None })
}

impl Filter {
    /// What the database can look up by itself.
    fn narrowed(&self) -> listing::Enrollments {
        let single = |list: &Option<Vec<String>>| match list.as_deref() {
            Some([one]) => Some(one.clone()),
            _ => None,
        };
        listing::Enrollments {
            serial_number: single(&self.serials),
            udid: single(&self.ids).map(|id| id.split(':').next().unwrap_or_default().to_owned()),
            ..listing::Enrollments::default()
        }
    }

    /// The enrollment in NanoMDM's form, if it is one of those looked for.
    async fn shown(&self, tx: &mut Tx, row: Row) -> Result<Option<Enrollment>, Problem> {
        let device = match row.parent {
            Some(parent) => store::enrollments::get(tx, parent).await?,
            None => None,
        };
        let Some((id, kind)) = ids::names(&row, device.as_ref()) else { return Ok(None) };
        let serial_number = device.as_ref().unwrap_or(&row).serial_number.clone().unwrap_or_default();
        let enabled = matches!(row.state, EnrollmentState::Enrolled { .. });
        let short_name = row.user_short_name.clone().unwrap_or_default();
        let among =
            |list: &Option<Vec<String>>, value: &str| list.as_ref().is_none_or(|l| l.iter().any(|v| v == value));
        let wanted = among(&self.ids, &id)
            && among(&self.types, kind)
            && among(&self.serials, &serial_number)
            && among(&self.user_short_names, &short_name)
            && self.enabled.is_none_or(|wanted| wanted == enabled);
        let user = row.user_key.is_some().then(|| User {
            user_short_name: short_name,
            user_long_name: row.user_long_name.clone().unwrap_or_default(),
        });
        let last_seen = row.last_seen_at.map(When);
        Ok(wanted.then_some(Enrollment { id, kind, device: Device { serial_number }, user, enabled, last_seen }))
    }
}
