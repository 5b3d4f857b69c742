//! `POST /api/v1/certificate-authorities/{name}/webhooks`

use axum::extract::State;
use ca::webhooks::{self, New, WebhookKind};
use http::StatusCode;
use mdm_core::secret::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::CertificateAuthorityWebhook;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// A webhook to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// When it is called: `enriching` or `authorizing` by step-ca, `generic` by any other.
    kind: WebhookKind,
    /// Its id, as `step ca provisioner webhook add` prints it. Left out, Assay makes one.
    webhook_id: Option<String>,
    /// Its secret in base64, as `step ca provisioner webhook add` prints it. Left out, Assay makes one and shows it this once.
    secret: Option<String>,
}

/// A webhook that was added.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedWebhook {
    /// The secret in base64, where Assay made it. It is shown this once, and kept sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// The webhook.
    webhook: CertificateAuthorityWebhook,
}

/// Adds a webhook, whose calls are signed with a secret of its own.
#[utoipa::path(
    post, path = "/api/v1/certificate-authorities/{name}/webhooks", tag = "certificate-authorities", request_body = NewWebhook,
    params(("name" = String, Path, description = "The authority's name")),
    responses(
        (status = 201, description = "Added; keep the secret now", body = CreatedWebhook),
        (status = 404, description = "No such authority", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "A webhook with this id is known already", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn add_webhook(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    Json(body): Json<NewWebhook>,
) -> Result<(StatusCode, axum::Json<CreatedWebhook>), Problem> {
    let now = shared.clock.now();
    let secret = body.secret.map(Secret::new);
    let new = New { kind: body.kind, webhook_id: body.webhook_id.as_deref(), secret: secret.as_ref() };
    let mut tx = shared.store.begin().await?;
    let sealing = (&shared.commands.sealer, &shared.random);
    let added = webhooks::add(&mut tx, sealing, &name, &new, &caller.actor, now).await?;
    tx.commit().await?;
    let secret = added.secret.map(|secret| secret.expose().clone());
    Ok((StatusCode::CREATED, axum::Json(CreatedWebhook { secret, webhook: added.row.into() })))
}
