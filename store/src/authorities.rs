//! Rows of `certificate_authority`, `ca_webhook` and `ca_webhook_call`: the authorities that policies name, the webhooks by which
//! they ask, and the calls that were answered.

use mdm_core::ids::{AttemptId, AuthorityId, EnrollmentId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Dialect, Result, Tx};

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Our key.
    pub id: Uuid,
    /// Its name, unique among those that are not deleted.
    pub name: String,
    /// The number of its revision, from 1.
    pub revision: i64,
    /// As the API carries it, JSON.
    pub body: String,
    /// When it was made (ms).
    pub created_at: i64,
    /// When it last changed (ms).
    pub updated_at: i64,
    /// When it was deleted (ms).
    pub deleted_at: Option<i64>,
}

from_row!(Authority { id, name, revision, body, created_at, updated_at, deleted_at });

impl Authority {
    /// Our key.
    pub fn id(&self) -> AuthorityId {
        AuthorityId(self.id)
    }
}

/// A webhook that an authority calls.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Our key.
    pub id: Uuid,
    /// The authority.
    pub authority_id: Uuid,
    /// What the call's header says: step-ca's `X-Smallstep-Webhook-ID`, or the generic one's.
    pub webhook_id: String,
    /// `enriching`, `authorizing` or `generic`.
    pub kind: String,
    /// The secret that its calls are signed with, sealed.
    pub secret_sealed: Vec<u8>,
    /// When a well-signed call came last (ms).
    pub last_used_at: Option<i64>,
    /// When it was revoked (ms).
    pub revoked_at: Option<i64>,
    /// Who made it.
    pub created_by: String,
    /// When it was made (ms).
    pub created_at: i64,
}

from_row!(Webhook {
    id,
    authority_id,
    webhook_id,
    kind,
    secret_sealed,
    last_used_at,
    revoked_at,
    created_by,
    created_at
});

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .field("webhook_id", &self.webhook_id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A call that was answered.
#[derive(Debug, Clone, Copy)]
pub struct NewCall<'a> {
    /// Key of the webhook.
    pub webhook: Uuid,
    /// SHA-256 of the body.
    pub body_sha256: &'a [u8],
    /// Of a yes that used a permission: the attempt.
    pub attempt: Option<AttemptId>,
    /// The answer, JSON.
    pub answer: &'a str,
}

macro_rules! authorities {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, revision, body, created_at, updated_at, deleted_at FROM certificate_authority ",
            $rest
        )
    };
}

macro_rules! webhooks {
    ($rest:literal) => {
        concat!(
            "SELECT id, authority_id, webhook_id, kind, secret_sealed, last_used_at, revoked_at, created_by, created_at
               FROM ca_webhook ",
            $rest
        )
    };
}

/// Makes an authority. [`crate::Error::Duplicate`] where the name is taken.
pub async fn insert(tx: &mut Tx, id: AuthorityId, name: &str, body: &str, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO certificate_authority (id, name, revision, body, created_at, updated_at) VALUES ($1, $2, 1, $3, $4, $4)")
        .bind(id.0).bind(name).bind(body).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Replaces what is said of an authority; false where there is none, or it was deleted.
pub async fn revise(tx: &mut Tx, id: AuthorityId, body: &str, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE certificate_authority SET body = $2, revision = revision + 1, updated_at = $3
          WHERE id = $1 AND deleted_at IS NULL")
        .bind(id.0).bind(body).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Takes the lock of the authority of this name, where there is one: whoever writes it, or a policy that names it, does so one after
/// the other. What was read before is to be read again. On SQLite the write transaction is that lock.
pub async fn lock(tx: &mut Tx, name: &str) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM certificate_authority WHERE name = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(name).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The authority with this key, deleted or not.
pub async fn get(tx: &mut Tx, id: AuthorityId) -> Result<Option<Authority>> {
    Ok(run!(tx, c => sqlx::query_as(authorities!("WHERE id = $1")).bind(id.0).fetch_optional(c).await)?)
}

/// The authority of this name that is not deleted.
pub async fn by_name(tx: &mut Tx, name: &str) -> Result<Option<Authority>> {
    Ok(run!(tx, c => sqlx::query_as(authorities!("WHERE name = $1 AND deleted_at IS NULL"))
        .bind(name).fetch_optional(c).await)?)
}

/// The authorities that are not deleted, by name, from the one after `after`.
pub async fn list(tx: &mut Tx, after: &str, limit: i64) -> Result<Vec<Authority>> {
    Ok(run!(tx, c => sqlx::query_as(authorities!("WHERE name > $1 AND deleted_at IS NULL ORDER BY name LIMIT $2"))
        .bind(after).bind(limit).fetch_all(c).await)?)
}

/// Deletes an authority: its name is free again, its webhooks are revoked. False where there is none.
pub async fn delete(tx: &mut Tx, id: AuthorityId, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE certificate_authority SET deleted_at = $2, updated_at = $2 WHERE id = $1 AND deleted_at IS NULL")
        .bind(id.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    run!(tx, c => sqlx::query("UPDATE ca_webhook SET revoked_at = $2 WHERE authority_id = $1 AND revoked_at IS NULL")
        .bind(id.0).bind(now.0).execute(c).await.map(drop))?;
    Ok(rows > 0)
}

/// Adds a webhook. [`crate::Error::Duplicate`] where its `webhook_id` is known already.
pub async fn add_webhook(tx: &mut Tx, row: &Webhook) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO ca_webhook (id, authority_id, webhook_id, kind, secret_sealed, created_by, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(row.id)
        .bind(row.authority_id)
        .bind(&row.webhook_id)
        .bind(&row.kind)
        .bind(&row.secret_sealed)
        .bind(&row.created_by)
        .bind(row.created_at)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The webhook that a call's header names, revoked or not.
pub async fn webhook(tx: &mut Tx, webhook_id: &str) -> Result<Option<Webhook>> {
    Ok(run!(tx, c => sqlx::query_as(webhooks!("WHERE webhook_id = $1")).bind(webhook_id).fetch_optional(c).await)?)
}

/// The webhooks of an authority that are not revoked, oldest first.
pub async fn webhooks(tx: &mut Tx, authority: AuthorityId) -> Result<Vec<Webhook>> {
    Ok(run!(tx, c => sqlx::query_as(webhooks!("WHERE authority_id = $1 AND revoked_at IS NULL ORDER BY id"))
        .bind(authority.0).fetch_all(c).await)?)
}

/// Revokes a webhook of this authority; false where there is none or it is revoked already.
pub async fn revoke_webhook(tx: &mut Tx, authority: AuthorityId, webhook: Uuid, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ca_webhook SET revoked_at = $3 WHERE id = $1 AND authority_id = $2 AND revoked_at IS NULL")
        .bind(webhook).bind(authority.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Notes a well-signed call. It also puts the calls of one webhook one after the other, where the database has several writers.
/// False where the webhook has been revoked.
pub async fn webhook_used(tx: &mut Tx, webhook: Uuid, at: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("UPDATE ca_webhook SET last_used_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(webhook).bind(at.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Writes down how a call was answered. [`crate::Error::Duplicate`] where the call was answered before, or where the webhook has
/// said yes to the attempt before.
pub async fn answered(tx: &mut Tx, call: &NewCall<'_>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO ca_webhook_call (webhook_id, body_sha256, attempt_id, answer, at) VALUES ($1, $2, $3, $4, $5)")
        .bind(call.webhook)
        .bind(call.body_sha256)
        .bind(call.attempt.map(|id| id.0))
        .bind(call.answer)
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The answer that the same call got before.
pub async fn answer(tx: &mut Tx, webhook: Uuid, body_sha256: &[u8]) -> Result<Option<String>> {
    Ok(
        run!(tx, c => sqlx::query_scalar("SELECT answer FROM ca_webhook_call WHERE webhook_id = $1 AND body_sha256 = $2")
        .bind(webhook).bind(body_sha256).fetch_optional(c).await)?,
    )
}

/// Whether this webhook has said yes to the attempt.
pub async fn has_allowed(tx: &mut Tx, webhook: Uuid, attempt: AttemptId) -> Result<bool> {
    let found: Option<i32> = run!(tx, c => sqlx::query_scalar(
        "SELECT 1 FROM ca_webhook_call WHERE webhook_id = $1 AND attempt_id = $2")
        .bind(webhook).bind(attempt.0).fetch_optional(c).await)?;
    Ok(found.is_some())
}

/// Forgets calls that were answered before `before`, as many as `limit`; how many. Only calls whose attempts have expired and whose
/// timestamps are refused by now may be forgotten: two days are enough.
pub async fn prune_calls(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "DELETE FROM ca_webhook_call WHERE (webhook_id, body_sha256) IN (
             SELECT webhook_id, body_sha256 FROM ca_webhook_call WHERE at < $1 ORDER BY at LIMIT $2)")
        .bind(before.0).bind(limit).execute(c).await.map(|done| done.rows_affected()))?)
}

/// The attempts of an authority whose permission was used for this key (SHA-256 of its SubjectPublicKeyInfo), the newest first.
pub async fn allowed(tx: &mut Tx, authority: AuthorityId, key_sha256: &[u8]) -> Result<Vec<AttemptId>> {
    let ids: Vec<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT id FROM attempt WHERE authorized_key_sha256 = $1 AND authority_id = $2 ORDER BY authorized_at DESC, id DESC")
        .bind(key_sha256).bind(authority.0).fetch_all(c).await)?;
    Ok(ids.into_iter().map(AttemptId).collect())
}

/// Takes the lock under which it is decided whose a key is, until the end of the transaction: [`is_key_of_another`] and
/// [`crate::attempts::authorize`] are two statements. On SQLite the write transaction is that lock.
pub async fn lock_key(tx: &mut Tx, key_sha256: &[u8; 32]) -> Result<()> {
    if tx.dialect() == Dialect::Postgres {
        let lock = key_sha256.iter().take(8).fold(0, |lock: i64, byte| (lock << 8) | i64::from(*byte));
        run!(tx, c => sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Whether a public key (SHA-256 of its SubjectPublicKeyInfo) was allowed or seen for another enrollment (TH-42).
pub async fn is_key_of_another(tx: &mut Tx, key_sha256: &[u8], enrollment: EnrollmentId) -> Result<bool> {
    let found: Option<i32> = run!(tx, c => sqlx::query_scalar(
        "SELECT 1 FROM attempt WHERE authorized_key_sha256 = $1 AND enrollment_id <> $2
         UNION ALL SELECT 1 FROM acme_certificate WHERE key_sha256 = $1 AND enrollment_id <> $2 LIMIT 1")
        .bind(key_sha256).bind(enrollment.0).fetch_optional(c).await)?;
    Ok(found.is_some())
}
