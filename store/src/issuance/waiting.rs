//! Records that wait for their certificate: how they are found, counted and given up.

use mdm_core::ids::{EnrollmentId, LinkId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use super::{Flow, Issuance, Purpose, Row, select_issuance};
use crate::{Result, Tx};

/// The open records for an ACME certificate whose `ClientIdentifier` has this SHA-256 and that have not ended, two at most.
pub async fn open_by_client_identifier(tx: &mut Tx, sha256: &[u8; 32], now: Timestamp) -> Result<Vec<Issuance>> {
    const FIND: &str = select_issuance!(
        "WHERE client_identifier_sha256 = $1 AND source = 'acme' AND state = 'open' AND challenge_expires_at > $2 \
         ORDER BY id LIMIT 2"
    );
    let rows: Vec<Row> = run!(tx, c => sqlx::query_as(FIND).bind(sha256.to_vec()).bind(now.0).fetch_all(c).await)?;
    rows.into_iter().map(Issuance::try_from).collect()
}

/// `open` or `issued` → `void` for all records of a link, when the link is revoked or fetched once more; how many there were.
/// A certificate that was issued and that no `Authenticate` came with is worth nothing then.
pub async fn void_of_link(tx: &mut Tx, link: LinkId) -> Result<u64> {
    Ok(
        run!(tx, c => sqlx::query("UPDATE issuance SET state = 'void' WHERE link_id = $1 AND state IN ('open', 'issued')")
        .bind(link.0).execute(c).await.map(|done| done.rows_affected()))?,
    )
}

/// `open` → `void` for the renewals of an enrollment, so that only the newest one holds; how many there were.
pub async fn void_renewals(tx: &mut Tx, enrollment: EnrollmentId) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE issuance SET state = 'void' WHERE enrollment_id = $1 AND state = 'open' AND purpose = 'renewal'")
        .bind(enrollment.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// `open` → `void` for the records with this `ClientIdentifier` and for the same purpose: only the newest one holds; how many
/// there were. What somebody does to enroll ends no renewal.
pub async fn void_client_identifier(tx: &mut Tx, sha256: &[u8; 32], purpose: Purpose) -> Result<u64> {
    const VOID: &str =
        "UPDATE issuance SET state = 'void' WHERE client_identifier_sha256 = $1 AND purpose = $2 AND state = 'open'";
    Ok(
        run!(tx, c => sqlx::query(VOID).bind(sha256.to_vec()).bind(purpose.as_str()).execute(c).await.map(|done| done.rows_affected()))?,
    )
}

/// `open` or `issued` → `void` for what a flow opened for this serial number: one challenge for each answer, and no certificate of
/// an older answer that waits to be used (TH-52); how many there were.
pub async fn void_of_serial(tx: &mut Tx, flow: Flow, serial: &str) -> Result<u64> {
    const VOID: &str =
        "UPDATE issuance SET state = 'void' WHERE expected_serial = $1 AND flow = $2 AND state IN ('open', 'issued')";
    Ok(run!(tx, c => sqlx::query(VOID).bind(serial).bind(flow.as_str()).execute(c).await.map(|r| r.rows_affected()))?)
}

struct CountRow {
    n: i64,
}

from_row!(CountRow { n });

/// How many records a flow opened for this serial number since then.
pub async fn opened_for_serial(tx: &mut Tx, flow: Flow, serial: &str, since: Timestamp) -> Result<i64> {
    const COUNT: &str =
        "SELECT COUNT(*) AS n FROM issuance WHERE expected_serial = $1 AND flow = $2 AND created_at > $3";
    let row: CountRow =
        run!(tx, c => sqlx::query_as(COUNT).bind(serial).bind(flow.as_str()).bind(since.0).fetch_one(c).await)?;
    Ok(row.n)
}

/// `open` or `issued` → `void` for what was fetched with this bearer token, so that only the newest profile holds; how many there
/// were.
pub async fn void_of_account_token(tx: &mut Tx, token: Uuid) -> Result<u64> {
    const VOID: &str = "UPDATE issuance SET state = 'void' WHERE account_token_id = $1 AND state IN ('open', 'issued')";
    Ok(run!(tx, c => sqlx::query(VOID).bind(token).execute(c).await.map(|done| done.rows_affected()))?)
}
