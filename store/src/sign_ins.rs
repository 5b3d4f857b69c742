//! Rows of `sign_in`: one person's web sign-in, from its first page to its end. State and cookie are stored as hashes,
//! nonce and PKCE verifier sealed.

use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// A sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub id: Uuid,
    /// `link`, `ade`, `byod` or `adde`.
    pub purpose: String,
    /// JSON: what it is for; never a secret.
    pub subject_of: String,
    /// SHA-256 of the OAuth 2 state that is waited for.
    pub state_sha256: Vec<u8>,
    /// SHA-256 of the session cookie that the state is bound to.
    pub browser_sha256: Vec<u8>,
    /// Nonce and PKCE verifier, sealed.
    pub secrets_sealed: Vec<u8>,
    /// How often a way to sign in was tried.
    pub attempts: i64,
    /// When it ends (ms).
    pub expires_at: i64,
    /// When somebody signed in (ms).
    pub signed_in_at: Option<i64>,
    /// Who: an e-mail address or Managed Apple Account.
    pub person: Option<String>,
    /// The label that the enrollment gets.
    pub label: Option<String>,
    /// The invitation whose code was used.
    pub invitation_id: Option<Uuid>,
    /// When what it was for was given out (ms).
    pub finished_at: Option<i64>,
    /// When it began (ms).
    pub created_at: i64,
}

from_row!(Row {
    id,
    purpose,
    subject_of,
    state_sha256,
    browser_sha256,
    secrets_sealed,
    attempts,
    expires_at,
    signed_in_at,
    person,
    label,
    invitation_id,
    finished_at,
    created_at
});

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, purpose, subject_of, state_sha256, browser_sha256, secrets_sealed, attempts, expires_at, \
             signed_in_at, person, label, invitation_id, finished_at, created_at FROM sign_in ",
            $rest
        )
    };
}

/// Stores a sign-in that nobody has signed in to yet; only the fields that it begins with are read.
pub async fn insert(tx: &mut Tx, row: &Row) -> Result<()> {
    const INSERT: &str = "INSERT INTO sign_in (id, purpose, subject_of, state_sha256, browser_sha256, secrets_sealed, \
        expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    run!(tx, c => sqlx::query(INSERT).bind(row.id).bind(&row.purpose).bind(&row.subject_of).bind(&row.state_sha256)
        .bind(&row.browser_sha256).bind(&row.secrets_sealed).bind(row.expires_at).bind(row.created_at)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The sign-in with this key.
pub async fn get(tx: &mut Tx, id: Uuid) -> Result<Option<Row>> {
    const GET: &str = select!("WHERE id = $1");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id).fetch_optional(c).await)?)
}

/// The sign-in that waits for the state with this hash.
pub async fn find(tx: &mut Tx, state_sha256: [u8; 32]) -> Result<Option<Row>> {
    const FIND: &str = select!("WHERE state_sha256 = $1");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(state_sha256.to_vec()).fetch_optional(c).await)?)
}

/// Counts one try, up to `most`; false where there are no more, somebody has signed in, or the time is over.
pub async fn attempt(tx: &mut Tx, id: Uuid, most: i64, now: Timestamp) -> Result<bool> {
    const ATTEMPT: &str = "UPDATE sign_in SET attempts = attempts + 1 \
        WHERE id = $1 AND attempts < $2 AND signed_in_at IS NULL AND finished_at IS NULL AND expires_at > $3";
    let rows = run!(tx, c => sqlx::query(ATTEMPT).bind(id).bind(most).bind(now.0).execute(c).await
        .map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Waits for a state instead of `former`, with new secrets: a state that came in is replaced by one that nobody knows, so that
/// it is good once. False where `former` was replaced before.
pub async fn replace_state(
    tx: &mut Tx,
    id: Uuid,
    former: &[u8],
    state_sha256: [u8; 32],
    secrets_sealed: &[u8],
) -> Result<bool> {
    const REPLACE: &str =
        "UPDATE sign_in SET state_sha256 = $3, secrets_sealed = $4 WHERE id = $1 AND state_sha256 = $2";
    let rows = run!(tx, c => sqlx::query(REPLACE).bind(id).bind(former).bind(state_sha256.to_vec()).bind(secrets_sealed)
        .execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Who signed in.
#[derive(Debug, Clone, Copy)]
pub struct SignedIn<'a> {
    /// An e-mail address or Managed Apple Account.
    pub person: &'a str,
    /// The label that the enrollment gets.
    pub label: Option<&'a str>,
    /// The invitation whose code was used.
    pub invitation: Option<Uuid>,
}

/// Writes down who signed in; false where somebody has already, or the time is over.
pub async fn signed_in(tx: &mut Tx, id: Uuid, who: &SignedIn<'_>, now: Timestamp) -> Result<bool> {
    const SIGNED_IN: &str = "UPDATE sign_in SET signed_in_at = $2, person = $3, label = $4, invitation_id = $5 \
        WHERE id = $1 AND signed_in_at IS NULL AND finished_at IS NULL AND expires_at > $2";
    let rows = run!(tx, c => sqlx::query(SIGNED_IN).bind(id).bind(now.0).bind(who.person).bind(who.label)
        .bind(who.invitation).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Ends a sign-in, because what it was for is given out now; false where nobody has signed in, it was ended before, or the
/// time is over: the one statement that decides.
pub async fn finish(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool> {
    const FINISH: &str = "UPDATE sign_in SET finished_at = $2 \
        WHERE id = $1 AND signed_in_at IS NOT NULL AND finished_at IS NULL AND expires_at > $2";
    let rows = run!(tx, c => sqlx::query(FINISH).bind(id).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Ends the sign-ins that came of an invitation and have given nothing out yet; says how many.
pub async fn end_of_invitation(tx: &mut Tx, invitation: Uuid, now: Timestamp) -> Result<u64> {
    const END: &str =
        "UPDATE sign_in SET finished_at = $2 WHERE invitation_id = $1 AND finished_at IS NULL AND expires_at > $2";
    Ok(run!(tx, c => sqlx::query(END).bind(invitation).bind(now.0).execute(c).await.map(|r| r.rows_affected()))?)
}

/// Deletes sign-ins that ended before `before`, `limit` at a time, except those that a token came of; says how many.
pub async fn delete_ended(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    const DELETE: &str = "DELETE FROM sign_in WHERE id IN (SELECT s.id FROM sign_in s WHERE s.expires_at < $1 \
        AND NOT EXISTS (SELECT 1 FROM account_token t WHERE t.sign_in_id = s.id) LIMIT $2)";
    Ok(run!(tx, c => sqlx::query(DELETE).bind(before.0).bind(limit).execute(c).await.map(|r| r.rows_affected()))?)
}
