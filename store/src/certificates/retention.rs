//! What is deleted after its time: certificates that are with nobody, attempts that led to none. In batches, so that
//! no transaction is long.

use mdm_core::time::Timestamp;

use crate::{Result, Tx};

/// Deletes up to `limit` certificates that ended before `before` and are in use nowhere; how many there were.
pub async fn prune_certificates(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    let sql = format!(
        "DELETE FROM acme_certificate WHERE sha256 IN (
             SELECT c.sha256 FROM acme_certificate c WHERE c.not_after < $1 AND c.state <> 'verified'
                AND NOT EXISTS (SELECT 1 FROM assignment a WHERE a.policy_id = c.policy_id
                                   AND a.enrollment_id = c.enrollment_id AND a.certificate_sha256 = c.sha256)
              LIMIT $2{})",
        tx.dialect().skip_locked_to_delete()
    );
    let sql = sqlx::AssertSqlSafe(sql);
    Ok(run!(tx, c => sqlx::query(sql).bind(before.0).bind(limit).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Deletes up to `limit` attempts that ended before `before`, have no certificate left and are no assignment's last one; how many
/// there were.
pub async fn prune_attempts(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    let sql = format!(
        "DELETE FROM attempt WHERE id IN (
             SELECT t.id FROM attempt t WHERE t.ended_at < $1
                AND NOT EXISTS (SELECT 1 FROM acme_certificate c WHERE c.attempt_id = t.id)
                AND NOT EXISTS (SELECT 1 FROM assignment a WHERE a.id = t.assignment_id AND a.attempt_id = t.id)
              LIMIT $2{})",
        tx.dialect().skip_locked_to_delete()
    );
    let sql = sqlx::AssertSqlSafe(sql);
    Ok(run!(tx, c => sqlx::query(sql).bind(before.0).bind(limit).execute(c).await.map(|done| done.rows_affected()))?)
}
