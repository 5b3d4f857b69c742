//! Rows of `invitation`: codes that stand in for a sign-in where there is no OpenID Connect provider. The code itself is
//! never stored.

use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Dialect, Result, Tx};

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub id: Uuid,
    /// The Managed Apple Account that its code signs in.
    pub managed_apple_account: String,
    /// `byod` or `adde`.
    pub mode: String,
    /// What the operator noted.
    pub note: String,
    /// The label that each enrollment gets.
    pub label: Option<String>,
    /// How often its code may be used.
    pub max_uses: i64,
    /// How often it was.
    pub uses: i64,
    /// When it ends (ms).
    pub expires_at: i64,
    /// When an operator ended it (ms).
    pub revoked_at: Option<i64>,
    /// Who made it.
    pub created_by: String,
    /// When (ms).
    pub created_at: i64,
}

from_row!(Row {
    id,
    managed_apple_account,
    mode,
    note,
    label,
    max_uses,
    uses,
    expires_at,
    revoked_at,
    created_by,
    created_at
});

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, managed_apple_account, mode, note, label, max_uses, uses, expires_at, revoked_at, created_by, \
             created_at FROM invitation ",
            $rest
        )
    };
}

/// Stores an invitation under the hash of its code. `uses` and `revoked_at` of the row are not read.
pub async fn insert(tx: &mut Tx, row: &Row, code_sha256: [u8; 32]) -> Result<()> {
    const INSERT: &str = "INSERT INTO invitation (id, code_sha256, managed_apple_account, mode, note, label, max_uses, \
        expires_at, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    run!(tx, c => sqlx::query(INSERT).bind(row.id).bind(code_sha256.to_vec()).bind(&row.managed_apple_account)
        .bind(&row.mode).bind(&row.note).bind(&row.label).bind(row.max_uses).bind(row.expires_at)
        .bind(&row.created_by).bind(row.created_at).execute(c).await.map(drop))?;
    Ok(())
}

/// The invitation whose code has this hash.
pub async fn find(tx: &mut Tx, code_sha256: [u8; 32]) -> Result<Option<Row>> {
    const FIND: &str = select!("WHERE code_sha256 = $1");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(code_sha256.to_vec()).fetch_optional(c).await)?)
}

/// The invitation with this key.
pub async fn get(tx: &mut Tx, id: Uuid) -> Result<Option<Row>> {
    const GET: &str = select!("WHERE id = $1");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id).fetch_optional(c).await)?)
}

/// Invitations, newest first, those older than `before`.
pub async fn list(tx: &mut Tx, before: Option<Uuid>, limit: i64) -> Result<Vec<Row>> {
    const LIST: &str = select!("WHERE id < $1 ORDER BY id DESC LIMIT $2");
    let before = before.unwrap_or(Uuid::max());
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(before).bind(limit).fetch_all(c).await)?)
}

/// Ends an invitation; false where there is none or it had ended so before.
pub async fn revoke(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool> {
    const REVOKE: &str = "UPDATE invitation SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    let rows = run!(tx, c => sqlx::query(REVOKE).bind(id).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Takes one use, if the invitation still has one: the one statement that decides, whoever else asks at the same time.
pub async fn take_use(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool> {
    const TAKE: &str = "UPDATE invitation SET uses = uses + 1 \
        WHERE id = $1 AND uses < max_uses AND revoked_at IS NULL AND expires_at > $2";
    let rows = run!(tx, c => sqlx::query(TAKE).bind(id).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Takes the lock that keeps a use and a revocation apart. On SQLite the write transaction is that lock.
pub async fn lock(tx: &mut Tx, id: Uuid) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM invitation WHERE id = $1 FOR UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(id).execute(c).await.map(drop))?;
    }
    Ok(())
}
