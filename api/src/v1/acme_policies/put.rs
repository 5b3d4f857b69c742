//! `PUT /api/v1/acme-policies/{name}`

use axum::extract::State;
use http::StatusCode;
use policy::lint::{Finding, lint};

use serde::Serialize;
use utoipa::ToSchema;

use super::{AcmePolicyView, PolicyBody, from_request};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// A policy as it was written, and what it comes to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Written {
    #[serde(flatten)]
    policy: AcmePolicyView,
    /// What it comes to on each kind of device, before it reaches one.
    findings: Vec<Finding>,
}

/// Creates an ACME policy, or replaces it by a new revision; devices that have it get the new profile.
///
/// The same policy again changes nothing. `name` may be left out of the body.
#[utoipa::path(
    put, path = "/api/v1/acme-policies/{name}", tag = "acme-policies", request_body = PolicyBody,
    params(("name" = String, Path, description = "1 to 64 letters, digits, '.', '_' or '-'")),
    responses(
        (status = 201, description = "Created", body = Written),
        (status = 200, description = "Replaced, or the same as before", body = Written),
        (status = 422, description = "Every field that is wrong, or a policy that no device could honour", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_acme_policy(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    Json(body): Json<serde_json::Value>,
) -> Result<(StatusCode, axum::Json<Written>), Problem> {
    let new = from_request(&name, body, "")?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let status = match store::policies::by_name(&mut tx, &name).await? {
        None => {
            policy::create(&mut tx, &shared.policy, &new, &caller.actor, now).await?;
            StatusCode::CREATED
        }
        Some(row) => {
            policy::revise(&mut tx, &shared.policy, row.id(), &new, &caller.actor, now).await?;
            StatusCode::OK
        }
    };
    let row = super::find(&mut tx, &name).await?;
    let findings = lint(&new, &policy::authority_of(&mut tx, &new).await?);
    tx.commit().await?;
    Ok((status, axum::Json(Written { policy: row.into(), findings })))
}
