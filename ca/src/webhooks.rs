//! The webhooks by which an authority asks before it issues, and the secrets that it signs its calls with.
//!
//! step-ca makes the id and the secret of a webhook itself (`step ca provisioner webhook add` prints them) and signs with
//! HMAC-SHA256; for another authority Assay makes both. A secret is sealed, and shown at most once: when Assay made it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::Tx;
use store::authorities::{self, Webhook};

use crate::authority::Adapter;
use crate::error::{Error, Result};
use crate::records::{record, stored};

/// The fewest bytes of a secret that is brought along: step-ca's have 64.
const MIN_SECRET: usize = 32;
/// The most.
const MAX_SECRET: usize = 256;

/// When an authority calls a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookKind)]
pub enum WebhookKind {
    /// step-ca's `ENRICHING`: with the request, before the certificate is made. The answer carries what its template may use.
    Enriching,
    /// step-ca's `AUTHORIZING`: with the certificate as it would be signed.
    Authorizing,
    /// The signed webhook of other authorities.
    Generic,
}

impl WebhookKind {
    /// As text in its row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enriching => "enriching",
            Self::Authorizing => "authorizing",
            Self::Generic => "generic",
        }
    }

    /// Reads the text that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Enriching, Self::Authorizing, Self::Generic].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A webhook to be added.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// When it is called.
    pub kind: WebhookKind,
    /// Its id as the authority prints it; none: Assay makes one.
    pub webhook_id: Option<&'a str>,
    /// Its secret as the authority prints it, base64; none: Assay makes one.
    pub secret: Option<&'a Secret<String>>,
}

/// A webhook that was added.
#[derive(Debug)]
pub struct Added {
    /// Its row.
    pub row: Webhook,
    /// Its secret, base64, where Assay made it: known only now.
    pub secret: Option<Secret<String>>,
}

/// Adds a webhook to the authority of this name.
pub async fn add(
    tx: &mut Tx,
    (sealer, random): (&Sealer, &Random),
    authority: &str,
    new: &New<'_>,
    actor: &str,
    now: Timestamp,
) -> Result<Added> {
    let owner = authorities::by_name(tx, authority).await?.ok_or_else(|| Error::NoAuthority(authority.to_owned()))?;
    let (_, known) = stored(&owner)?;
    match (known.adapter, new.kind) {
        (Adapter::StepCa, WebhookKind::Generic) => {
            return Err(Error::field("kind", "enriching or authorizing with step-ca"));
        }
        (Adapter::Generic, WebhookKind::Enriching | WebhookKind::Authorizing) => {
            return Err(Error::field("kind", "generic, unless the authority is a step-ca"));
        }
        _ => {}
    }
    let id = random.uuid_v7(now);
    let webhook_id = match new.webhook_id {
        Some(given) if is_webhook_id(given) => given.to_owned(),
        Some(_) => return Err(Error::field("webhook_id", "1 to 128 letters, digits, '.', '_' or '-'")),
        None => id.to_string(),
    };
    let (bytes, made) = if let Some(given) = new.secret {
        (Secret::new(decoded(given.expose())?), None)
    } else {
        let bytes = Secret::new(random.bytes::<32>().to_vec());
        let text = Secret::new(STANDARD.encode(bytes.expose()));
        (bytes, Some(text))
    };
    let row = Webhook {
        id,
        authority_id: owner.id,
        kind: new.kind.as_str().to_owned(),
        secret_sealed: sealer.seal(&place(id), bytes.expose(), random),
        last_used_at: None,
        revoked_at: None,
        created_by: actor.to_owned(),
        created_at: now.0,
        webhook_id,
    };
    if authorities::webhook(tx, &row.webhook_id).await?.is_some() {
        return Err(Error::WebhookKnown(row.webhook_id));
    }
    authorities::add_webhook(tx, &row).await?;
    record(tx, "authority.webhook_added", "Webhook added to the certificate authority", authority, actor, now).await?;
    Ok(Added { row, secret: made })
}

/// Revokes a webhook of the authority of this name; false where it has none such.
pub async fn revoke(tx: &mut Tx, authority: &str, webhook: uuid::Uuid, actor: &str, now: Timestamp) -> Result<bool> {
    let owner = authorities::by_name(tx, authority).await?.ok_or_else(|| Error::NoAuthority(authority.to_owned()))?;
    let revoked = authorities::revoke_webhook(tx, owner.id(), webhook, now).await?;
    if revoked {
        record(tx, "authority.webhook_revoked", "Webhook of the certificate authority revoked", authority, actor, now)
            .await?;
    }
    Ok(revoked)
}

/// The secret of a webhook.
pub fn secret(row: &Webhook, sealer: &Sealer) -> Result<Secret<Vec<u8>>> {
    let opened = sealer.open(&place(row.id), &row.secret_sealed);
    opened.map_err(|_| store::Error::Corrupt("ca_webhook.secret_sealed").into())
}

fn place(id: uuid::Uuid) -> String {
    format!("ca_webhook.secret_sealed:{id}")
}

/// Whether a header can carry this as the id of a webhook.
fn is_webhook_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn decoded(text: &str) -> Result<Vec<u8>> {
    match STANDARD.decode(text.trim()) {
        Ok(bytes) if (MIN_SECRET..=MAX_SECRET).contains(&bytes.len()) => Ok(bytes),
        _ => Err(Error::field("secret", "32 to 256 bytes in base64, as `step ca provisioner webhook add` prints it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_enough_base64() {
        assert_eq!(decoded(&format!("{}\n", STANDARD.encode([7; 64]))).unwrap(), vec![7; 64]);
        for bad in ["", "hunter2", &STANDARD.encode([7; 31]), &STANDARD.encode([7; 257])] {
            let error = decoded(bad).unwrap_err().to_string();
            assert!(error.starts_with("secret must be") && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
    }

    #[test]
    fn kinds_read_back_and_ids_fit_a_header() {
        for kind in [WebhookKind::Enriching, WebhookKind::Authorizing, WebhookKind::Generic] {
            assert_eq!(WebhookKind::from_text(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert!(is_webhook_id("7d3c64dc-ec0e-4a0f-a489-241650554bd7"));
        assert!(!is_webhook_id("") && !is_webhook_id("a b") && !is_webhook_id(&"x".repeat(129)));
    }
}
