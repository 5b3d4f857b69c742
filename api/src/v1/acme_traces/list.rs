//! `GET /api/v1/acme-traces`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{AttemptId, EnrollmentId};
use serde::{Deserialize, Serialize};
use store::attempts::Attempt;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::Shared;
use crate::extract::Query;
use crate::page::{self, Page};
use crate::problem::Problem;
use crate::when::When;

/// Which attempts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Those of this enrollment.
    enrollment_id: Uuid,
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// An attempt to get a certificate onto a device, in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcmeAttempt {
    /// Its time line: GET /api/v1/acme-traces/{id}.
    trace_id: Uuid,
    /// The policy's id, which its events carry.
    policy_id: Uuid,
    /// The revision of the policy.
    revision: i64,
    /// `install`, or `renewal` of a certificate that was proved before.
    purpose: String,
    /// `queued`, `delivered`, `acknowledged`, `proved`, `failed` or `void`.
    state: String,
    /// Why it failed or is void.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// When the policy decided.
    queued_at: When,
    /// When the profile was made and handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<When>,
    /// When it ended, whichever way.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<When>,
}

impl From<Attempt> for AcmeAttempt {
    fn from(row: Attempt) -> Self {
        Self {
            trace_id: row.id,
            policy_id: row.policy_id,
            revision: row.revision,
            purpose: row.purpose,
            state: row.state,
            why: row.why,
            queued_at: When::ms(row.queued_at),
            delivered_at: row.delivered_at.map(When::ms),
            ended_at: row.ended_at.map(When::ms),
        }
    }
}

/// The attempts of one enrollment, newest first.
#[utoipa::path(
    get, path = "/api/v1/acme-traces", tag = "acme-policies", params(Params),
    responses((status = 200, description = "One page", body = Page<AcmeAttempt>)),
)]
pub(crate) async fn list_acme_traces(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<Page<AcmeAttempt>>, Problem> {
    const LIST: &str = "acme-traces";
    let limit = page::limit(params.limit)?;
    let before: Option<AttemptId> = page::after(LIST, params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let enrollment = EnrollmentId(params.enrollment_id);
    let rows = store::attempts::of_enrollment(&mut tx, enrollment, before, limit + 1).await?;
    Ok(Json(page::page(LIST, limit, rows, |row: &Attempt| row.id, AcmeAttempt::from)))
}
