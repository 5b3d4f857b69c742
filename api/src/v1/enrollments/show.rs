//! `GET /api/v1/enrollments/{id}`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::EnrollmentId;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Enrollment;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};
use crate::when::When;

/// An enrollment with everything known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrollmentDetail {
    /// The enrollment itself.
    enrollment: Enrollment,
    /// Its labels.
    labels: Vec<String>,
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
    let push = store::push::intent(&mut tx, EnrollmentId(id)).await?.map(Push::from);
    let enrollment =
        super::shown(&mut tx, vec![row]).await?.pop().ok_or_else(|| Problem::not_found("enrollment", id))?;
    Ok(Json(EnrollmentDetail { enrollment, labels, push }))
}
