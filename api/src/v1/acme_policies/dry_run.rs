//! `POST /api/v1/acme-policies/{name}/dry-run`

use axum::Json;
use axum::extract::State;
use policy::{DryRun, InvalidPolicy, Scope, UniqueKeys};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{PolicyBody, from_request};
use crate::Shared;
use crate::extract::{self, Path};
use crate::problem::{Problem, ProblemBody};

/// What to try. Where nothing is given: the stored policy on the enrollments that it is for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trial {
    /// A policy in place of the stored one; it is not stored, and none need be.
    #[schema(value_type = Option<PolicyBody>)]
    policy: Option<UniqueKeys>,
    /// Enrollments in place of those that the policy is for.
    scope: Option<Scope>,
}

/// Decides for each enrollment what it would get and why, counted by reason, and changes nothing.
#[utoipa::path(
    post, path = "/api/v1/acme-policies/{name}/dry-run", tag = "acme-policies", request_body = Trial,
    params(("name" = String, Path, description = "The policy's name")),
    responses(
        (status = 200, description = "The decisions", body = DryRun),
        (status = 404, description = "No such policy, and none in the body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn dry_run(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    extract::Json(trial): extract::Json<Trial>,
) -> Result<Json<DryRun>, Problem> {
    let mut tx = shared.store.read().await?;
    let stored = store::policies::by_name(&mut tx, &name).await?;
    let tried = match (trial.policy, &stored) {
        (Some(UniqueKeys(body)), _) => from_request(&name, body, "policy.")?,
        (None, Some(row)) => super::parsed(row)?,
        (None, None) => return Err(Problem::not_found("ACME policy", name)),
    };
    let scope = match (trial.scope, &stored) {
        (Some(scope), _) => {
            let wrong = scope.check();
            if !wrong.is_empty() {
                return Err(Problem::from(InvalidPolicy(wrong)).under("scope."));
            }
            scope
        }
        (None, Some(row)) => policy::scope(&mut tx, row.id()).await?,
        (None, None) => return Err(Problem::field("scope", "is required where no policy of this name is stored")),
    };
    Ok(Json(policy::dry_run(&mut tx, &tried, &scope, shared.clock.now()).await?))
}
