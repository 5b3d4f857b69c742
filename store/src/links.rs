//! Rows of `enrollment_link`: our permission to enroll, given to a person as a link. The code itself is never stored.

use mdm_core::ids::{IssuanceId, LinkId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Dialect, Result, Tx};

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub id: Uuid,
    /// `device` or `user`.
    pub kind: String,
    /// What the operator noted.
    pub note: String,
    /// The serial number that the device must have.
    pub expected_serial: Option<String>,
    /// The `UDID` that the device must have.
    pub expected_udid: Option<String>,
    /// The person's Managed Apple Account; kind `user`.
    pub managed_apple_account: Option<String>,
    /// The label that each enrollment gets.
    pub label: Option<String>,
    /// A person signs in before the profile is given out.
    pub sign_in: bool,
    /// How often a profile may be fetched by it.
    pub max_uses: i64,
    /// How often one was.
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
    kind,
    note,
    expected_serial,
    expected_udid,
    managed_apple_account,
    label,
    sign_in,
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
            "SELECT id, kind, note, expected_serial, expected_udid, managed_apple_account, label, sign_in, max_uses, uses, \
             expires_at, revoked_at, created_by, created_at FROM enrollment_link ",
            $rest
        )
    };
}

/// Stores a link under the hash of its code. `uses` and `revoked_at` of the row are not read.
pub async fn insert(tx: &mut Tx, link: &Row, code_sha256: [u8; 32]) -> Result<()> {
    const INSERT: &str = "INSERT INTO enrollment_link (id, code_sha256, kind, note, expected_serial, expected_udid, \
        managed_apple_account, label, max_uses, expires_at, created_by, created_at, sign_in) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    run!(tx, c => sqlx::query(INSERT).bind(link.id).bind(code_sha256.to_vec()).bind(&link.kind).bind(&link.note)
        .bind(&link.expected_serial).bind(&link.expected_udid).bind(&link.managed_apple_account).bind(&link.label)
        .bind(link.max_uses).bind(link.expires_at).bind(&link.created_by).bind(link.created_at).bind(link.sign_in)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The link whose code has this hash.
pub async fn find(tx: &mut Tx, code_sha256: [u8; 32]) -> Result<Option<Row>> {
    const FIND: &str = select!("WHERE code_sha256 = $1");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(code_sha256.to_vec()).fetch_optional(c).await)?)
}

/// The link with this key.
pub async fn get(tx: &mut Tx, id: LinkId) -> Result<Option<Row>> {
    const GET: &str = select!("WHERE id = $1");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id.0).fetch_optional(c).await)?)
}

/// Links, newest first, those older than `before`.
pub async fn list(tx: &mut Tx, before: Option<LinkId>, limit: i64) -> Result<Vec<Row>> {
    const LIST: &str = select!("WHERE id < $1 ORDER BY id DESC LIMIT $2");
    let before = before.map_or(Uuid::max(), |id| id.0);
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(before).bind(limit).fetch_all(c).await)?)
}

/// Ends a link; false where there is none or it had ended so before.
pub async fn revoke(tx: &mut Tx, id: LinkId, now: Timestamp) -> Result<bool> {
    const REVOKE: &str = "UPDATE enrollment_link SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    let rows = run!(tx, c => sqlx::query(REVOKE).bind(id.0).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Takes the lock under which a link is used: one fetch at a time. On SQLite the write transaction is that lock.
pub async fn lock(tx: &mut Tx, id: LinkId) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM enrollment_link WHERE id = $1 FOR UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(id.0).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Takes one use, if the link still has one: the one statement that decides, whoever else asks at the same time.
pub async fn take_use(tx: &mut Tx, id: LinkId, now: Timestamp) -> Result<bool> {
    const TAKE: &str = "UPDATE enrollment_link SET uses = uses + 1 \
        WHERE id = $1 AND uses < max_uses AND revoked_at IS NULL AND expires_at > $2";
    let rows = run!(tx, c => sqlx::query(TAKE).bind(id.0).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// An issuance record that a link opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its key.
    pub id: IssuanceId,
    /// Its state, as text.
    pub state: String,
    /// When the link opened its first one.
    pub first_at: Timestamp,
}

struct OpenedRow {
    id: Uuid,
    state: String,
    first_at: i64,
}

from_row!(OpenedRow { id, state, first_at });

/// The newest issuance record of this link, with the moment of its first.
pub async fn newest_issuance(tx: &mut Tx, id: LinkId) -> Result<Option<Opened>> {
    const NEWEST: &str = "SELECT i.id, i.state, (SELECT MIN(f.created_at) FROM issuance f WHERE f.link_id = $1) AS first_at \
        FROM issuance i WHERE i.link_id = $1 ORDER BY i.id DESC LIMIT 1";
    let row: Option<OpenedRow> = run!(tx, c => sqlx::query_as(NEWEST).bind(id.0).fetch_optional(c).await)?;
    Ok(row.map(|r| Opened { id: IssuanceId(r.id), state: r.state, first_at: Timestamp(r.first_at) }))
}
