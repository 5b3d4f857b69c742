//! `DELETE /api/v1/certificate-authorities/{name}`

use axum::extract::State;
use http::StatusCode;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody, Slug};

/// Deletes a certificate authority that no policy names, and revokes its webhooks.
#[utoipa::path(
    delete, path = "/api/v1/certificate-authorities/{name}", tag = "certificate-authorities",
    params(("name" = String, Path, description = "The authority's name")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "No such authority", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "A policy names it", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_certificate_authority(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        // Nobody writes a policy that names it from here on.
        store::authorities::lock(&mut tx, &name).await?;
        super::find(&mut tx, &name).await?;
        if let Some(policy) = policy::authority_users(&mut tx, &name).await?.first() {
            let detail = format!(
                "the ACME policy {} names this certificate authority, in a revision that is in use",
                policy.name
            );
            return Err(Problem::new(Slug::Conflict, detail));
        }
        ca::delete(&mut tx, &name, &caller.actor, now).await?;
        tx.commit().await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
