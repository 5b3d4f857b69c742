//! Authorities as rows.

use mdm_core::ids::AuthorityId;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::events::NewEvent;
use store::{Tx, authorities};

use crate::authority::Authority;
use crate::document::Document;
use crate::error::{Error, Result};

/// What became of writing an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    Created,
    /// It was replaced.
    Changed,
    /// It is as it was.
    Same,
}

/// Writes an authority by its name. The same again changes nothing.
pub async fn put(tx: &mut Tx, random: &Random, document: &Document, actor: &str, now: Timestamp) -> Result<Put> {
    let wrong = document.check();
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    let body = serde_json::to_string(document).map_err(|_| store::Error::Corrupt("certificate_authority.body"))?;
    authorities::lock(tx, &document.name).await?;
    let (put, kind, summary) = match authorities::by_name(tx, &document.name).await? {
        Some(old) if old.body == body => return Ok(Put::Same),
        Some(old) => {
            authorities::revise(tx, old.id(), &body, now).await?;
            (Put::Changed, "authority.changed", "Certificate authority changed")
        }
        None => {
            let id = AuthorityId(random.uuid_v7(now));
            authorities::insert(tx, id, &document.name, &body, now).await?;
            (Put::Created, "authority.created", "Certificate authority created")
        }
    };
    record(tx, kind, summary, &document.name, actor, now).await?;
    Ok(put)
}

/// Deletes an authority and revokes its webhooks. That no policy names it is the caller's to see to.
pub async fn delete(tx: &mut Tx, name: &str, actor: &str, now: Timestamp) -> Result<()> {
    authorities::lock(tx, name).await?;
    let row = authorities::by_name(tx, name).await?.ok_or_else(|| Error::NoAuthority(name.to_owned()))?;
    authorities::delete(tx, row.id(), now).await?;
    record(tx, "authority.deleted", "Certificate authority deleted", name, actor, now).await
}

/// The document and the authority that a row holds.
pub fn stored(row: &authorities::Authority) -> Result<(Document, Authority)> {
    let document: Document =
        serde_json::from_str(&row.body).map_err(|_| store::Error::Corrupt("certificate_authority.body"))?;
    let authority = Authority::of(row.id, &row.name, &document);
    Ok((document, authority))
}

pub(crate) async fn record(
    tx: &mut Tx,
    kind: &str,
    summary: &str,
    name: &str,
    actor: &str,
    now: Timestamp,
) -> Result<()> {
    let summary = format!("{summary}: {name}");
    let data = json!({ "authority": name });
    let event = NewEvent { at: now, kind, enrollment: None, command: None, actor, summary: &summary, data: &data };
    Ok(store::events::record(tx, &event).await?)
}
