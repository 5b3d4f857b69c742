//! `GET /api/v1/enrollments/{id}/acme-decision`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::EnrollmentId;
use policy::Decision;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::Shared;
use crate::extract::{Path, Query};
use crate::problem::{Problem, ProblemBody};
use crate::v1::acme_policies;

/// Which policy.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// The policy's name; it need not be assigned to this enrollment.
    policy: String,
}

/// What a policy gives this device, and why: the rule of Apple's that each limit rests on, and what can be done.
#[utoipa::path(
    get, path = "/api/v1/enrollments/{id}/acme-decision", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment"), Params),
    responses(
        (status = 200, description = "The decision", body = Decision),
        (status = 404, description = "No such enrollment or policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn explain_decision(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
    Query(params): Query<Params>,
) -> Result<Json<Decision>, Problem> {
    let mut tx = shared.store.read().await?;
    let policy = acme_policies::parsed(&acme_policies::find(&mut tx, &params.policy).await?)?;
    let decision = policy::explain(&mut tx, &policy, EnrollmentId(id), shared.clock.now()).await?;
    decision.map(Json).ok_or_else(|| Problem::not_found("enrollment", id))
}
