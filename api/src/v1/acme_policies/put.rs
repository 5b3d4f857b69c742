//! `PUT /api/v1/acme-policies/{name}`

use axum::extract::State;
use http::StatusCode;
use policy::UniqueKeys;
use policy::apply::needs_commands;
use policy::lint::{Finding, lint};

use serde::Serialize;
use utoipa::ToSchema;

use super::{AcmePolicyView, PolicyBody, from_request, parsed};
use crate::Shared;
use crate::auth::{Caller, Scope};
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
/// The same policy again changes nothing. `name` may be left out of the body. Raw companions, `signing_identity` and
/// `removal.disallowed` that are new or changed need a token with `commands:write` as well.
#[utoipa::path(
    put, path = "/api/v1/acme-policies/{name}", tag = "acme-policies", request_body = PolicyBody,
    params(("name" = String, Path, description = "1 to 64 letters, digits, '.', '_' or '-'")),
    responses(
        (status = 201, description = "Created", body = Written),
        (status = 200, description = "Replaced, or the same as before", body = Written),
        (status = 403, description = "The token may not write this", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Every field that is wrong, or a policy that no device could honour", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_acme_policy(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    Json(UniqueKeys(body)): Json<UniqueKeys>,
) -> Result<(StatusCode, axum::Json<Written>), Problem> {
    let new = from_request(&name, body, "")?;
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        policy::lock(&mut tx, &new).await?;
        let old = store::policies::by_name(&mut tx, &name).await?;
        let before = old.as_ref().map(parsed).transpose()?;
        let before = before.as_ref().map(policy::AcmePolicy::document);
        if needs_commands(before, new.document()) && !caller.scopes.allow(Scope::CommandsWrite) {
            return Err(policy::Error::NeedsCommands(name.clone()).into());
        }
        let status = match old {
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
    })
    .await
}
