//! Rows of `network_user` and `user_challenge`: people of a directory whom Macs may ask for, and how they proved themselves.

use mdm_core::ids::{EnrollmentId, UserId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// A person whom `UserAuthenticate` may ask for a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The name that is typed at the login window.
    pub short_name: String,
    /// HA1 of RFC 2617, sealed.
    pub digest_sealed: Vec<u8>,
    /// Who made it.
    pub created_by: String,
    /// When (ms).
    pub created_at: i64,
}

from_row!(Row { short_name, digest_sealed, created_by, created_at });

/// Adds a person, or gives them another digest.
pub async fn put(tx: &mut Tx, row: &Row) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO network_user (short_name, digest_sealed, created_by, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (short_name) DO UPDATE SET digest_sealed = excluded.digest_sealed,
            created_by = excluded.created_by, created_at = excluded.created_at")
        .bind(&row.short_name).bind(&row.digest_sealed).bind(&row.created_by).bind(row.created_at)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The person of that name.
pub async fn get(tx: &mut Tx, short_name: &str) -> Result<Option<Row>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT short_name, digest_sealed, created_by, created_at FROM network_user WHERE short_name = $1")
        .bind(short_name).fetch_optional(c).await)?)
}

/// The people whose names come after this one, by name.
pub async fn list(tx: &mut Tx, after: Option<&str>, limit: i64) -> Result<Vec<Row>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT short_name, digest_sealed, created_by, created_at FROM network_user
          WHERE short_name > $1 ORDER BY short_name LIMIT $2")
        .bind(after.unwrap_or("")).bind(limit).fetch_all(c).await)?)
}

/// Takes a person off the list; false where nobody of that name is on it.
pub async fn delete(tx: &mut Tx, short_name: &str) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("DELETE FROM network_user WHERE short_name = $1")
        .bind(short_name).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Writes the nonce that a Mac was given for a user. The token of the last login stays until this one succeeds.
pub async fn challenge(
    tx: &mut Tx,
    device: EnrollmentId,
    user: &UserId,
    nonce_sha256: &[u8; 32],
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO user_challenge (enrollment_id, user_id, nonce_sha256, nonce_expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (enrollment_id, user_id) DO UPDATE
            SET nonce_sha256 = excluded.nonce_sha256, nonce_expires_at = excluded.nonce_expires_at")
        .bind(device.0).bind(user.as_str()).bind(nonce_sha256.to_vec()).bind(expires_at.0).bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Takes the nonce away; false where it is not the one that was given, or its time is over. It is good once.
pub async fn consume(
    tx: &mut Tx,
    device: EnrollmentId,
    user: &UserId,
    nonce_sha256: &[u8; 32],
    now: Timestamp,
) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE user_challenge SET nonce_sha256 = NULL, nonce_expires_at = NULL
          WHERE enrollment_id = $1 AND user_id = $2 AND nonce_sha256 = $3 AND nonce_expires_at > $4")
        .bind(device.0).bind(user.as_str()).bind(nonce_sha256.to_vec()).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Keeps the SHA-256 of the `AuthToken` that a right answer earned, in place of the last one.
pub async fn set_token(tx: &mut Tx, device: EnrollmentId, user: &UserId, token_sha256: &[u8; 32]) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE user_challenge SET token_sha256 = $3 WHERE enrollment_id = $1 AND user_id = $2")
        .bind(device.0).bind(user.as_str()).bind(token_sha256.to_vec()).execute(c).await.map(drop))?;
    Ok(())
}

/// SHA-256 of the `AuthToken` of this user on this device.
pub async fn token(tx: &mut Tx, device: EnrollmentId, user: &UserId) -> Result<Option<Vec<u8>>> {
    let row: Option<Option<Vec<u8>>> = run!(tx, c => sqlx::query_scalar(
        "SELECT token_sha256 FROM user_challenge WHERE enrollment_id = $1 AND user_id = $2")
        .bind(device.0).bind(user.as_str()).fetch_optional(c).await)?;
    Ok(row.flatten())
}

/// Forgets the challenges and tokens of a device that enrolls anew.
pub async fn forget(tx: &mut Tx, device: EnrollmentId) -> Result<()> {
    let id: Uuid = device.0;
    run!(tx, c => sqlx::query("DELETE FROM user_challenge WHERE enrollment_id = $1").bind(id).execute(c).await.map(drop))?;
    Ok(())
}
