//! The secrets that a device leaves with the server, sealed, and those of its former enrollments.

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// Copies an enrollment's sealed secrets to the archive, under these ids, before a new enrollment of the device begins.
/// They stay sealed for the column and row that they come from.
pub async fn archive_escrow(tx: &mut Tx, id: EnrollmentId, archive: [Uuid; 2], now: Timestamp) -> Result<()> {
    const UNLOCK: &str = "INSERT INTO escrow_archive (id, enrollment_id, generation, kind, sealed, archived_at) \
        SELECT $2, id, generation, 'unlock_token', unlock_token_sealed, $3 FROM enrollment \
        WHERE id = $1 AND unlock_token_sealed IS NOT NULL";
    const BOOTSTRAP: &str = "INSERT INTO escrow_archive (id, enrollment_id, generation, kind, sealed, archived_at) \
        SELECT $2, id, generation, 'bootstrap_token', bootstrap_token_sealed, $3 FROM enrollment \
        WHERE id = $1 AND bootstrap_token_sealed IS NOT NULL";
    for (sql, key) in [UNLOCK, BOOTSTRAP].into_iter().zip(archive) {
        run!(tx, c => sqlx::query(sql).bind(id.0).bind(key).bind(now.0).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// A secret of a former enrollment of this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Of which generation.
    pub generation: i64,
    /// `unlock_token` or `bootstrap_token`.
    pub kind: String,
    /// Sealed as it was in the enrollment's row.
    pub sealed: Vec<u8>,
    /// When it was put here (ms).
    pub archived_at: i64,
}

from_row!(Archived { generation, kind, sealed, archived_at });

/// The secrets of former enrollments of this device, the newest first.
pub async fn archived_escrow(tx: &mut Tx, id: EnrollmentId) -> Result<Vec<Archived>> {
    const GET: &str = "SELECT generation, kind, sealed, archived_at FROM escrow_archive WHERE enrollment_id = $1 \
        ORDER BY generation DESC, kind";
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id.0).fetch_all(c).await)?)
}

/// The bootstrap token of a device, sealed, and the signing time of the message that brought it.
pub async fn bootstrap_token(tx: &mut Tx, id: EnrollmentId) -> Result<(Option<Vec<u8>>, Option<Timestamp>)> {
    const GET: &str = "SELECT bootstrap_token_sealed, bootstrap_signed_at FROM enrollment WHERE id = $1";
    let row: Option<(Option<Vec<u8>>, Option<i64>)> =
        run!(tx, c => sqlx::query_as(GET).bind(id.0).fetch_optional(c).await)?;
    let (sealed, signed_at) = row.unwrap_or_default();
    Ok((sealed, signed_at.map(Timestamp)))
}

/// Keeps a bootstrap token, sealed by the caller, or forgets it.
pub async fn set_bootstrap_token(
    tx: &mut Tx,
    id: EnrollmentId,
    sealed: Option<&[u8]>,
    signed_at: Option<Timestamp>,
) -> Result<()> {
    const SET: &str = "UPDATE enrollment SET bootstrap_token_sealed = $2, bootstrap_signed_at = $3 WHERE id = $1";
    run!(tx, c => sqlx::query(SET).bind(id.0).bind(sealed).bind(signed_at.map(|t| t.0)).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// The unlock token of a device, sealed.
pub async fn unlock_token(tx: &mut Tx, id: EnrollmentId) -> Result<Option<Vec<u8>>> {
    const GET: &str = "SELECT unlock_token_sealed FROM enrollment WHERE id = $1";
    let row: Option<Option<Vec<u8>>> = run!(tx, c => sqlx::query_scalar(GET).bind(id.0).fetch_optional(c).await)?;
    Ok(row.flatten())
}
