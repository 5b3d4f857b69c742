//! `POST /api/v1/apply`

use axum::Json;
use axum::extract::State;
use policy::apply::{Author, Change, apply, plan};
use policy::{Bundle, UniqueKeys};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::BundleBody;
use crate::Shared;
use crate::auth::{Caller, Scope};
use crate::extract::{self, Query};
use crate::problem::{Problem, ProblemBody, Slug};

/// Whether to write.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Show what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// `plan` of a dry run: nothing is written unless the changes are still the same.
    plan: Option<String>,
}

/// What applying a document does, object by object.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Applied {
    /// It was a dry run: nothing is written.
    dry_run: bool,
    /// Stands for these changes; pass it with the request that writes them.
    plan: String,
    /// One entry for each object of the document.
    changes: Vec<Change>,
}

/// Writes certificate authorities, rules of labels and ACME policies with their scopes, all of them or none.
///
/// Only what differs from what is stored is written, so that the same document again changes nothing. What the document does not name
/// stays as it is; nothing is ever deleted. Raw companions, `signing_identity` and `removal.disallowed` that are new or changed need
/// a token with `commands:write` as well.
#[utoipa::path(
    post, path = "/api/v1/apply", tag = "acme-policies", request_body = BundleBody, params(Params),
    responses(
        (status = 200, description = "What has changed, or would", body = Applied),
        (status = 403, description = "The token may not write this", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The changes are no longer those of `plan`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Every field that is wrong, or a policy that no device could honour", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn apply_bundle(
    State(shared): State<Shared>,
    caller: Caller,
    Query(params): Query<Params>,
    extract::Json(UniqueKeys(body)): extract::Json<UniqueKeys>,
) -> Result<Json<Applied>, Problem> {
    let bundle = Bundle::from_value(body)?;
    let author = Author { actor: &caller.actor, sends_commands: caller.scopes.allow(Scope::CommandsWrite) };
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let changes = apply(&mut tx, &shared.policy, &bundle, author, now).await?;
        let plan = plan(&changes);
        if params.plan.as_ref().is_some_and(|seen| *seen != plan) {
            let detail = "what is stored has changed since the dry run: look at the differences again";
            return Err(Problem::new(Slug::Conflict, detail));
        }
        // A dry run is the whole of it without the commit.
        if !params.dry_run {
            tx.commit().await?;
        }
        Ok(Json(Applied { dry_run: params.dry_run, plan, changes }))
    })
    .await
}
