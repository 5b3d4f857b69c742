//! Rows of `sealed_key`: the server's own keys with their certificates.

use mdm_core::time::Timestamp;

use crate::{Result, Tx};

/// A stored key. The private half is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which key: `identity-ca`, `scep-ra`, `profile-signer`, `server-tls`.
    pub name: String,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// PEM of the certificate's issuers, possibly empty.
    pub chain: Vec<u8>,
    /// The private key, PKCS#8, sealed.
    pub key_sealed: Vec<u8>,
    /// End of the certificate (ms).
    pub not_after: i64,
    /// When the row was made (ms).
    pub created_at: i64,
}

from_row!(Row { name, certificate, chain, key_sealed, not_after, created_at });

/// The key of that name.
pub async fn get(tx: &mut Tx, name: &str) -> Result<Option<Row>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT name, certificate, chain, key_sealed, not_after, created_at FROM sealed_key WHERE name = $1")
        .bind(name).fetch_optional(c).await)?)
}

/// Adds a key; false where there is one of that name, which then stays as it is.
pub async fn insert(tx: &mut Tx, row: &Row) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO sealed_key (name, certificate, chain, key_sealed, not_after, created_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING")
        .bind(&row.name)
        .bind(&row.certificate)
        .bind(&row.chain)
        .bind(&row.key_sealed)
        .bind(row.not_after)
        .bind(row.created_at)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Puts a new key and certificate in the place of the one that was made at `replaces`; false where another server was first.
pub async fn replace(tx: &mut Tx, row: &Row, replaces: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE sealed_key SET certificate = $2, chain = $3, key_sealed = $4, not_after = $5, created_at = $6
          WHERE name = $1 AND created_at = $7")
        .bind(&row.name)
        .bind(&row.certificate)
        .bind(&row.chain)
        .bind(&row.key_sealed)
        .bind(row.not_after)
        .bind(row.created_at)
        .bind(replaces.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}
