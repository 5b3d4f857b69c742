//! `GET /api/v1/acme-policies/{name}/revisions`

use axum::Json;
use axum::extract::State;
use policy::Difference;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Shared;
use crate::extract::{Path, Query};
use crate::page::{self, Page, Params};
use crate::problem::{Problem, ProblemBody};
use crate::when::When;

/// One revision of an ACME policy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionView {
    /// Its number, from 1.
    revision: i64,
    /// It is the one that devices are given.
    current: bool,
    /// The policy as it was.
    #[schema(value_type = super::PolicyBody)]
    policy: serde_json::Value,
    /// What it changed of the revision before it; empty for the first one.
    differences: Vec<Difference>,
    /// Who wrote it.
    created_by: String,
    /// When.
    created_at: When,
}

/// The revisions of an ACME policy, the newest first, each with what it changed.
#[utoipa::path(
    get, path = "/api/v1/acme-policies/{name}/revisions", tag = "acme-policies",
    params(("name" = String, Path, description = "The policy's name"), Params),
    responses(
        (status = 200, description = "One page", body = Page<RevisionView>),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_revisions(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Page<RevisionView>>, Problem> {
    let limit = page::limit(params.limit)?;
    let before: Option<i64> = page::after("revisions", params.cursor.as_deref())?;
    let mut tx = shared.store.read().await?;
    let policy = super::find(&mut tx, &name).await?;
    // One more than a page, so that the last one of it has something to be compared with.
    let rows = store::policies::revisions(&mut tx, policy.id(), before, limit + 1).await?;
    let bodies: Vec<serde_json::Value> =
        rows.iter().map(|row| serde_json::from_str(&row.body).unwrap_or_default()).collect();
    let mut older = bodies.iter().skip(1);
    let views: Vec<RevisionView> = rows
        .into_iter()
        .zip(&bodies)
        .map(|(row, body)| RevisionView {
            revision: row.revision,
            current: row.revision == policy.revision,
            differences: older.next().map(|older| policy::differences(older, body)).unwrap_or_default(),
            policy: body.clone(),
            created_by: row.created_by,
            created_at: When::ms(row.created_at),
        })
        .collect();
    Ok(Json(page::page("revisions", limit, views, |view| view.revision, |view| view)))
}
