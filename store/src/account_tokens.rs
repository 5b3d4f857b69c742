//! Rows of `account_token`: what a device of an account-driven enrollment shows as `Authorization: Bearer` with every request.
//!
//! Only hashes are kept. `code` (apple-oauth2: the authorization code waits to be exchanged) → `live` → `replaced` (refreshed, or
//! another sign-in took its place) or `revoked`. All tokens that came of one sign-in are a family, named by `sign_in_id`: they are
//! bound to one enrollment together and revoked together.

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Dialect, Result, Tx};

/// A token, or the authorization code that one will be given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub id: Uuid,
    /// SHA-256 of the access token; of nothing that anybody knows while the state is `code`.
    pub sha256: Vec<u8>,
    /// SHA-256 of the refresh token; apple-oauth2.
    pub refresh_sha256: Option<Vec<u8>>,
    /// SHA-256 of the authorization code; apple-oauth2.
    pub code_sha256: Option<Vec<u8>>,
    /// When the code ends (ms).
    pub code_expires_at: Option<i64>,
    /// `code_challenge` of PKCE (S256), where the device sent one.
    pub code_challenge: Option<String>,
    /// `redirect_uri` of the request that the code answers.
    pub redirect_uri: Option<String>,
    /// `apple-as-web` or `apple-oauth2`.
    pub method: String,
    /// `byod` or `adde`.
    pub mode: String,
    /// Who signed in.
    pub managed_apple_account: String,
    /// Put on the enrollment that comes of it.
    pub label: Option<String>,
    /// The sign-in that it came of: its family.
    pub sign_in_id: Option<Uuid>,
    /// The enrollment that it belongs to, from `Authenticate` on.
    pub enrollment_id: Option<Uuid>,
    /// `code`, `live`, `replaced` or `revoked`.
    pub state: String,
    /// When the access token ends (ms); `None`: with the enrollment.
    pub expires_at: Option<i64>,
    /// When it was replaced or revoked (ms).
    pub revoked_at: Option<i64>,
    /// When a device last showed it (ms), to within the interval at which uses are written.
    pub last_used_at: Option<i64>,
    /// When it was made (ms).
    pub created_at: i64,
}

from_row!(Row {
    id,
    sha256,
    refresh_sha256,
    code_sha256,
    code_expires_at,
    code_challenge,
    redirect_uri,
    method,
    mode,
    managed_apple_account,
    label,
    sign_in_id,
    enrollment_id,
    state,
    expires_at,
    revoked_at,
    last_used_at,
    created_at
});

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, sha256, refresh_sha256, code_sha256, code_expires_at, code_challenge, redirect_uri, method, mode, \
             managed_apple_account, label, sign_in_id, enrollment_id, state, expires_at, revoked_at, last_used_at, created_at \
             FROM account_token ",
            $rest
        )
    };
}

/// Stores a token, or a code. `revoked_at` and `last_used_at` of the row are not read.
pub async fn insert(tx: &mut Tx, row: &Row) -> Result<()> {
    const INSERT: &str = "INSERT INTO account_token (id, sha256, refresh_sha256, code_sha256, code_expires_at, code_challenge, \
        redirect_uri, method, mode, managed_apple_account, label, sign_in_id, enrollment_id, state, expires_at, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    run!(tx, c => sqlx::query(INSERT).bind(row.id).bind(&row.sha256).bind(&row.refresh_sha256).bind(&row.code_sha256)
        .bind(row.code_expires_at).bind(&row.code_challenge).bind(&row.redirect_uri).bind(&row.method).bind(&row.mode)
        .bind(&row.managed_apple_account).bind(&row.label).bind(row.sign_in_id).bind(row.enrollment_id).bind(&row.state)
        .bind(row.expires_at).bind(row.created_at).execute(c).await.map(drop))?;
    Ok(())
}

/// The token with this key.
pub async fn get(tx: &mut Tx, id: Uuid) -> Result<Option<Row>> {
    const GET: &str = select!("WHERE id = $1");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id).fetch_optional(c).await)?)
}

/// Takes the lock of a token's family: whatever gives one of its tokens out, binds or revokes it is done one after the other. What
/// was read before is to be read again. On SQLite the write transaction is that lock.
pub async fn lock(tx: &mut Tx, id: Uuid) -> Result<()> {
    const FAMILY: &str =
        "SELECT 1 FROM sign_in WHERE id = (SELECT t.sign_in_id FROM account_token t WHERE t.id = $1) FOR UPDATE";
    const TOKEN: &str = "SELECT 1 FROM account_token WHERE id = $1 FOR UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(FAMILY).bind(id).execute(c).await.map(drop))?;
        run!(tx, c => sqlx::query(TOKEN).bind(id).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The token whose access token has this hash.
pub async fn find(tx: &mut Tx, sha256: [u8; 32]) -> Result<Option<Row>> {
    const FIND: &str = select!("WHERE sha256 = $1");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(sha256.to_vec()).fetch_optional(c).await)?)
}

/// The token whose refresh token has this hash.
pub async fn find_by_refresh(tx: &mut Tx, sha256: [u8; 32]) -> Result<Option<Row>> {
    const FIND: &str = select!("WHERE refresh_sha256 = $1");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(sha256.to_vec()).fetch_optional(c).await)?)
}

/// The token that the code with this hash is, or was, exchanged for.
pub async fn find_by_code(tx: &mut Tx, sha256: [u8; 32]) -> Result<Option<Row>> {
    const FIND: &str = select!("WHERE code_sha256 = $1");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(sha256.to_vec()).fetch_optional(c).await)?)
}

/// What a code or a refresh token is exchanged for.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// SHA-256 of the access token.
    pub sha256: [u8; 32],
    /// SHA-256 of the refresh token.
    pub refresh_sha256: [u8; 32],
    /// When the access token ends.
    pub expires_at: Timestamp,
}

/// Exchanges a code; false where it was exchanged before: the one statement that decides.
pub async fn redeem(tx: &mut Tx, id: Uuid, given: &Given, now: Timestamp) -> Result<bool> {
    const REDEEM: &str = "UPDATE account_token SET state = 'live', sha256 = $2, refresh_sha256 = $3, expires_at = $4 \
        WHERE id = $1 AND state = 'code' AND code_expires_at > $5";
    let rows = run!(tx, c => sqlx::query(REDEEM).bind(id).bind(given.sha256.to_vec()).bind(given.refresh_sha256.to_vec())
        .bind(given.expires_at.0).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Marks a token as replaced by another; false where it is not live (any more).
pub async fn replace(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool> {
    const REPLACE: &str =
        "UPDATE account_token SET state = 'replaced', revoked_at = $2 WHERE id = $1 AND state = 'live'";
    let rows = run!(tx, c => sqlx::query(REPLACE).bind(id).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// The live token of a family.
pub async fn live_of(tx: &mut Tx, sign_in: Uuid) -> Result<Option<Row>> {
    const LIVE: &str = select!("WHERE sign_in_id = $1 AND state = 'live' ORDER BY id DESC LIMIT 1");
    Ok(run!(tx, c => sqlx::query_as(LIVE).bind(sign_in).fetch_optional(c).await)?)
}

/// Revokes a token with its whole family; says how many were not revoked before.
pub async fn revoke(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<u64> {
    const REVOKE: &str = "UPDATE account_token SET state = 'revoked', revoked_at = $2 WHERE state <> 'revoked' AND (id = $1 \
        OR sign_in_id = (SELECT t.sign_in_id FROM account_token t WHERE t.id = $1))";
    lock(tx, id).await?;
    Ok(run!(tx, c => sqlx::query(REVOKE).bind(id).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?)
}

/// Revokes all tokens of one Managed Apple Account; says how many were not revoked before.
pub async fn revoke_account(tx: &mut Tx, account: &str, now: Timestamp) -> Result<u64> {
    const REVOKE: &str = "UPDATE account_token SET state = 'revoked', revoked_at = $2 \
        WHERE LOWER(managed_apple_account) = LOWER($1) AND state <> 'revoked'";
    // In one order, so that two of these never wait for each other.
    const FAMILIES: &str = "SELECT 1 FROM sign_in WHERE id IN (SELECT t.sign_in_id FROM account_token t \
        WHERE LOWER(t.managed_apple_account) = LOWER($1)) ORDER BY id FOR UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(FAMILIES).bind(account).execute(c).await.map(drop))?;
    }
    Ok(run!(tx, c => sqlx::query(REVOKE).bind(account).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?)
}

/// Binds a token with its family to an enrollment, and lets it replace those that the enrollment had before. A token of
/// apple-as-web is good for the life of the enrollment from then on. False where the token is unknown, revoked, not given out yet,
/// or another enrollment's; then nothing is changed. Binding twice is the same as once.
pub async fn bind(tx: &mut Tx, token: Uuid, enrollment: EnrollmentId, now: Timestamp) -> Result<bool> {
    const BIND: &str = "UPDATE account_token SET enrollment_id = $2, \
        expires_at = CASE WHEN method = 'apple-as-web' THEN NULL ELSE expires_at END \
        WHERE state IN ('live', 'replaced') AND (enrollment_id IS NULL OR enrollment_id = $2) \
        AND (id = $1 OR sign_in_id = (SELECT t.sign_in_id FROM account_token t WHERE t.id = $1))";
    const OTHERS: &str = "UPDATE account_token SET state = 'replaced', revoked_at = $3 \
        WHERE enrollment_id = $2 AND state = 'live' AND id <> $1 \
        AND (sign_in_id IS NULL OR sign_in_id NOT IN \
            (SELECT t.sign_in_id FROM account_token t WHERE t.id = $1 AND t.sign_in_id IS NOT NULL))";
    lock(tx, token).await?;
    let rows =
        run!(tx, c => sqlx::query(BIND).bind(token).bind(enrollment.0).execute(c).await.map(|r| r.rows_affected()))?;
    if rows == 0 {
        return Ok(false);
    }
    run!(tx, c => sqlx::query(OTHERS).bind(token).bind(enrollment.0).bind(now.0).execute(c).await.map(drop))?;
    Ok(true)
}

/// Whether a token was ever bound to this enrollment.
pub async fn was_bound(tx: &mut Tx, enrollment: EnrollmentId) -> Result<bool> {
    const ANY: &str = "SELECT id FROM account_token WHERE enrollment_id = $1 LIMIT 1";
    let row: Option<(Uuid,)> = run!(tx, c => sqlx::query_as(ANY).bind(enrollment.0).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// Notes a use, unless one at or after `unless_after` is noted.
pub async fn used(tx: &mut Tx, id: Uuid, now: Timestamp, unless_after: Timestamp) -> Result<()> {
    const USED: &str =
        "UPDATE account_token SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $3)";
    run!(tx, c => sqlx::query(USED).bind(id).bind(now.0).bind(unless_after.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Which tokens to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this enrollment.
    pub enrollment: Option<EnrollmentId>,
    /// Only those of this Managed Apple Account.
    pub account: Option<String>,
}

/// Tokens, newest first, those older than `before`.
pub async fn list(tx: &mut Tx, filter: &Filter, before: Option<Uuid>, limit: i64) -> Result<Vec<Row>> {
    const LIST: &str = select!(
        "WHERE id < $1 AND (enrollment_id = $2 OR $3 = 1) AND (LOWER(managed_apple_account) = LOWER($4) OR $4 = '') \
         ORDER BY id DESC LIMIT $5"
    );
    let enrollment = filter.enrollment.map_or(Uuid::nil(), |id| id.0);
    let any = i64::from(filter.enrollment.is_none());
    let account = filter.account.as_deref().unwrap_or_default();
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(before.unwrap_or(Uuid::max())).bind(enrollment).bind(any).bind(account)
        .bind(limit).fetch_all(c).await)?)
}

/// Deletes tokens and codes older than `before` that never came to belong to an enrollment, `limit` at a time; says how many.
pub async fn delete_unbound(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    const DELETE: &str = "DELETE FROM account_token WHERE id IN \
        (SELECT t.id FROM account_token t WHERE t.enrollment_id IS NULL AND t.created_at < $1 LIMIT $2)";
    Ok(run!(tx, c => sqlx::query(DELETE).bind(before.0).bind(limit).execute(c).await.map(|r| r.rows_affected()))?)
}

/// Deletes tokens that ended before `before` while their enrollment goes on with a newer one, and all tokens of enrollments that
/// ended before it, `limit` at a time; says how many. The newest token of an enrollment that goes on stays, however it ended: by
/// it is known that one is to be asked for.
pub async fn delete_ended(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    const DELETE: &str = "DELETE FROM account_token WHERE id IN (SELECT t.id FROM account_token t \
        JOIN enrollment e ON e.id = t.enrollment_id \
        WHERE (e.state = 'unenrolled' AND e.state_at < $1) OR (t.state IN ('replaced', 'revoked') AND t.revoked_at < $1 \
        AND EXISTS (SELECT 1 FROM account_token n WHERE n.enrollment_id = t.enrollment_id AND n.id > t.id)) LIMIT $2)";
    Ok(run!(tx, c => sqlx::query(DELETE).bind(before.0).bind(limit).execute(c).await.map(|r| r.rows_affected()))?)
}

/// Whether an enrollment of this mode has not ended: its person may have to sign in again, though the door is closed.
pub async fn is_mode_in_use(tx: &mut Tx, mode: &str) -> Result<bool> {
    const ANY: &str = "SELECT id FROM enrollment WHERE door = $1 AND state <> 'unenrolled' LIMIT 1";
    let row: Option<(Uuid,)> = run!(tx, c => sqlx::query_as(ANY).bind(mode).fetch_optional(c).await)?;
    Ok(row.is_some())
}
