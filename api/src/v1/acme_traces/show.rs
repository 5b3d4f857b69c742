//! `GET /api/v1/acme-traces/{id}`

use axum::Json;
use axum::extract::State;
use mdm_core::ids::AttemptId;
use policy::trace::Trace;
use uuid::Uuid;

use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};

/// One attempt as a time line: decided, queued, pushed, delivered, what the device and the certificate authority said, the
/// certificate as it was seen, its renewal and its end.
#[utoipa::path(
    get, path = "/api/v1/acme-traces/{id}", tag = "acme-policies",
    params(("id" = Uuid, Path, description = "The trace id: in events as `trace`, in the log as `trace.id`")),
    responses(
        (status = 200, description = "The time line", body = Trace),
        (status = 404, description = "No such attempt, or one that ended long ago", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_acme_trace(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Json<Trace>, Problem> {
    let mut tx = shared.store.read().await?;
    let trace = policy::trace::of(&mut tx, AttemptId(id), shared.clock.now()).await?;
    trace.map(Json).ok_or_else(|| Problem::not_found("trace", id))
}
