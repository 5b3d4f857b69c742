//! `GET /api/v1/enrollments/{id}`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{EnrollmentId, PolicyId};
use policy::facts::{Fact, FactName};
use serde::Serialize;
use store::Tx;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Enrollment;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};
use crate::v1::acme_policies::Assignment;
use crate::when::When;

/// An enrollment with everything known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrollmentDetail {
    /// The enrollment itself.
    enrollment: Enrollment,
    /// Its labels.
    labels: Vec<String>,
    /// What is believed of the device, each with who said so and when.
    #[schema(value_type = Object, example = json!({ "product_name": { "value": "iPhone17,1", "source": "device_information", "at": "2026-11-22T05:00:00Z" } }))]
    facts: BTreeMap<FactName, Fact>,
    /// When the device last answered DeviceInformation.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts_asked_at: Option<When>,
    /// The ACME policies assigned to it, each with its state and decision.
    acme_policies: Vec<Assignment>,
    /// The push that is due or under way, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<Push>,
}

/// The wish to wake a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Push {
    /// Since when it is wished for.
    since: When,
    /// When the next push is due.
    due_at: When,
    /// Pushes that APNs accepted and the device did not answer.
    attempts: i64,
    /// Failures in a row.
    failures: i64,
    /// When a push was last sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_sent_at: Option<When>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_outcome: Option<String>,
}

impl From<store::push::Intent> for Push {
    fn from(intent: store::push::Intent) -> Self {
        Self {
            since: When::ms(intent.created_at),
            due_at: When::ms(intent.due_at),
            attempts: intent.attempt,
            failures: intent.failures,
            last_sent_at: intent.last_sent_at.map(When::ms),
            last_outcome: intent.last_outcome,
        }
    }
}

async fn assignments(tx: &mut Tx, id: EnrollmentId) -> Result<Vec<Assignment>, Problem> {
    let mut shown = Vec::new();
    for row in store::assignments::of_enrollment(tx, id).await? {
        let policy = store::policies::get(tx, PolicyId(row.policy_id)).await?;
        shown.push(Assignment::new(row, policy.map(|p| p.name).unwrap_or_default()));
    }
    Ok(shown)
}

/// One enrollment with its labels, facts, policies and pending push.
#[utoipa::path(
    get, path = "/api/v1/enrollments/{id}", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment")),
    responses(
        (status = 200, description = "The enrollment", body = EnrollmentDetail),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_enrollment(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Json<EnrollmentDetail>, Problem> {
    let mut tx = shared.store.read().await?;
    let row = super::find(&mut tx, id).await?;
    let labels = store::labels::of(&mut tx, EnrollmentId(id)).await?;
    let facts = policy::facts_of(&mut tx, &row).await?;
    let acme_policies = assignments(&mut tx, EnrollmentId(id)).await?;
    let push = store::push::intent(&mut tx, EnrollmentId(id)).await?.map(Push::from);
    let enrollment =
        super::shown(&mut tx, vec![row]).await?.pop().ok_or_else(|| Problem::not_found("enrollment", id))?;
    let facts_asked_at = facts.asked_at.map(When);
    Ok(Json(EnrollmentDetail { enrollment, labels, facts: facts.known, facts_asked_at, acme_policies, push }))
}
