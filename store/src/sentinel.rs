//! The one row of `seal_sentinel`: proof of which key this database was sealed with.

use mdm_core::time::Timestamp;

use crate::{Dialect, Result, Tx};

/// The sentinel.
#[derive(Debug)]
pub struct Sentinel {
    /// Id of the key.
    pub key_id: String,
    /// A known text, sealed with it.
    pub sealed: Vec<u8>,
}

from_row!(Sentinel { key_id, sealed });

/// The sentinel, if the database was ever sealed.
pub async fn get(tx: &mut Tx) -> Result<Option<Sentinel>> {
    const GET: &str = "SELECT key_id, sealed FROM seal_sentinel WHERE id = 1";
    Ok(run!(tx, c => sqlx::query_as(GET).fetch_optional(c).await)?)
}

/// Writes the sentinel of a database that has none; one that is there stays, and the statement fails.
pub async fn insert(tx: &mut Tx, key_id: &str, sealed: &[u8], now: Timestamp) -> Result<()> {
    const INSERT: &str = "INSERT INTO seal_sentinel (id, key_id, sealed, created_at) VALUES (1, $1, $2, $3)";
    run!(tx, c => sqlx::query(INSERT).bind(key_id).bind(sealed).bind(now.0).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Names another key, once everything is sealed with it, the sentinel too.
pub async fn named(tx: &mut Tx, key_id: &str) -> Result<()> {
    const UPDATE: &str = "UPDATE seal_sentinel SET key_id = $1 WHERE id = 1";
    run!(tx, c => sqlx::query(UPDATE).bind(key_id).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// What the database server's own clock says; SQLite has none of its own.
pub async fn database_clock(tx: &mut Tx) -> Result<Option<Timestamp>> {
    const NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
    if tx.dialect() == Dialect::Sqlite {
        return Ok(None);
    }
    let now: i64 = run!(tx, c => sqlx::query_scalar(NOW).fetch_one(c).await)?;
    Ok(Some(Timestamp(now)))
}
