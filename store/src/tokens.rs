//! Rows of `api_token`: what is kept of a token is its SHA-256, never the token.

use mdm_core::ids::TokenId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// A stored API token.
#[derive(Debug, Clone)]
pub struct Row {
    /// Our key; part of the token's text, not secret.
    pub id: Uuid,
    /// What the operator calls it.
    pub name: String,
    /// SHA-256 of the whole token.
    pub sha256: Vec<u8>,
    /// Scopes, separated by spaces.
    pub scopes: String,
    /// When it stops being accepted (ms).
    pub expires_at: i64,
    /// When it was last used (ms), to within the interval at which uses are written.
    pub last_used_at: Option<i64>,
    /// When it was revoked (ms).
    pub revoked_at: Option<i64>,
    /// Who made it.
    pub created_by: String,
    /// When it was made (ms).
    pub created_at: i64,
}

from_row!(Row { id, name, sha256, scopes, expires_at, last_used_at, revoked_at, created_by, created_at });

/// Adds a token.
pub async fn insert(tx: &mut Tx, row: &Row) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO api_token (id, name, sha256, scopes, expires_at, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(row.id)
        .bind(&row.name)
        .bind(&row.sha256)
        .bind(&row.scopes)
        .bind(row.expires_at)
        .bind(&row.created_by)
        .bind(row.created_at)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The token with this id, expired and revoked ones too.
pub async fn find(tx: &mut Tx, id: TokenId) -> Result<Option<Row>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT id, name, sha256, scopes, expires_at, last_used_at, revoked_at, created_by, created_at FROM api_token WHERE id = $1")
        .bind(id.0).fetch_optional(c).await)?)
}

/// Tokens, oldest first, that come after `after`.
pub async fn list(tx: &mut Tx, after: Option<TokenId>, limit: i64) -> Result<Vec<Row>> {
    let after = after.map_or(Uuid::nil(), |id| id.0);
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT id, name, sha256, scopes, expires_at, last_used_at, revoked_at, created_by, created_at
           FROM api_token WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(after).bind(limit).fetch_all(c).await)?)
}

/// Revokes a token from this moment; false where there is none or it is revoked already.
pub async fn revoke(tx: &mut Tx, id: TokenId, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("UPDATE api_token SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(id.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Notes a use, unless a later one is noted.
pub async fn used(tx: &mut Tx, id: TokenId, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE api_token SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)")
        .bind(id.0).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}
