//! Rows of `door`: how each way into management is set. A door without a row has its defaults.

use mdm_core::enrollment::Door;
use mdm_core::time::Timestamp;

use crate::{Result, Tx};

/// The stored settings of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which door.
    pub name: String,
    /// The settings as JSON, as the API carries them.
    pub body: String,
    /// Raised with every change, from 1.
    pub revision: i64,
    /// Who changed it last.
    pub updated_by: String,
    /// When (ms).
    pub updated_at: i64,
}

from_row!(Row { name, body, revision, updated_by, updated_at });

/// The settings of this door, where somebody has set it.
pub async fn get(tx: &mut Tx, door: Door) -> Result<Option<Row>> {
    const GET: &str = "SELECT name, body, revision, updated_by, updated_at FROM door WHERE name = $1";
    Ok(run!(tx, c => sqlx::query_as(GET).bind(door.as_str()).fetch_optional(c).await)?)
}

/// Sets a door.
pub async fn put(tx: &mut Tx, door: Door, body: &str, by: &str, now: Timestamp) -> Result<()> {
    const PUT: &str = "INSERT INTO door (name, body, revision, updated_by, updated_at) VALUES ($1, $2, 1, $3, $4) \
        ON CONFLICT (name) DO UPDATE SET body = excluded.body, revision = door.revision + 1, \
        updated_by = excluded.updated_by, updated_at = excluded.updated_at";
    run!(tx, c => sqlx::query(PUT).bind(door.as_str()).bind(body).bind(by).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}
