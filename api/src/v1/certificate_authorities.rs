//! Certificate authorities that policies name, and the webhooks by which they ask.

pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod show;
pub(crate) mod webhook_add;
pub(crate) mod webhook_revoke;

use ca::Document;
use ca::webhooks::WebhookKind;
use serde::Serialize;
use store::Tx;
use store::authorities::{self, Authority as Row};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Shared;
use crate::problem::Problem;
use crate::when::When;

/// A certificate authority.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CertificateAuthorityView {
    /// Its name.
    name: String,
    /// The number of its revision, from 1; raised by each change.
    revision: i64,
    /// What is said of it.
    certificate_authority: Document,
    /// Where its webhooks call.
    webhook_url: String,
    /// When it was made.
    created_at: When,
    /// When it last changed.
    updated_at: When,
}

/// A webhook of a certificate authority, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CertificateAuthorityWebhook {
    /// Its key.
    id: Uuid,
    /// What its calls carry in `X-Smallstep-Webhook-ID`, or `X-Assay-Webhook-ID`.
    webhook_id: String,
    /// When it is called.
    #[schema(value_type = WebhookKind)]
    kind: String,
    /// When a well-signed call came last.
    last_used_at: Option<When>,
    /// Who added it.
    created_by: String,
    /// When it was added.
    created_at: When,
}

impl From<authorities::Webhook> for CertificateAuthorityWebhook {
    fn from(row: authorities::Webhook) -> Self {
        Self {
            id: row.id,
            webhook_id: row.webhook_id,
            kind: row.kind,
            last_used_at: row.last_used_at.map(When::ms),
            created_by: row.created_by,
            created_at: When::ms(row.created_at),
        }
    }
}

/// The authority of this name, or 404.
async fn find(tx: &mut Tx, name: &str) -> Result<Row, Problem> {
    authorities::by_name(tx, name).await?.ok_or_else(|| Problem::not_found("certificate authority", name))
}

fn view(shared: &Shared, row: Row) -> Result<CertificateAuthorityView, Problem> {
    let (document, _) = ca::stored(&row)?;
    let form = if document.kind == ca::Kind::StepCa { "step-ca" } else { "acme" };
    // A name has only characters that stand in a URL as they are.
    let url = shared.about.public_url.join(&format!("webhook/{form}/{}", row.name));
    Ok(CertificateAuthorityView {
        webhook_url: url.map(String::from).map_err(|e| Problem::internal(&e))?,
        certificate_authority: document,
        name: row.name,
        revision: row.revision,
        created_at: When::ms(row.created_at),
        updated_at: When::ms(row.updated_at),
    })
}
