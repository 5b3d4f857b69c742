//! `GET /api/v1/export`

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use policy::Bundle;
use serde::Deserialize;
use utoipa::IntoParams;

use super::BundleBody;
use crate::Shared;
use crate::extract::Query;
use crate::problem::{Problem, ProblemBody};

/// Which policies.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Names of ACME policies with commas between them: these alone, with the authorities and rules that they use.
    policies: Option<String>,
}

/// Certificate authorities, rules of labels and ACME policies with their scopes: what `POST /api/v1/apply` takes. No secret is in it.
#[utoipa::path(
    get, path = "/api/v1/export", tag = "acme-policies", params(Params),
    responses(
        (status = 200, description = "The document", body = BundleBody),
        (status = 404, description = "No such policy", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn export_bundle(
    State(shared): State<Shared>,
    Query(params): Query<Params>,
) -> Result<Json<serde_json::Value>, Problem> {
    let only: Option<BTreeSet<String>> =
        params.policies.map(|names| names.split(',').map(|name| name.trim().to_owned()).collect());
    let mut tx = shared.store.read().await?;
    let bundle = Bundle::stored(&mut tx, only.as_ref()).await?;
    let found = |name: &String| bundle.policies.iter().any(|(policy, _)| policy.name().as_str() == name);
    if let Some(name) = only.iter().flatten().find(|name| !found(name)) {
        return Err(Problem::not_found("ACME policy", name));
    }
    Ok(Json(bundle.to_value()))
}
