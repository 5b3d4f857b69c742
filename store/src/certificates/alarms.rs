//! Certificates that end and have no successor.
//!
//! What counts is in use: verified, of a policy that is on an enrolled device and is not being taken off it.

use mdm_core::ids::Fingerprint;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

// `$1` is now, `$2` the longest time before its end that a certificate is worried about, `$3` the share of its life (one in so
// many parts) where that is shorter.
macro_rules! near_end {
    () => {
        "c.state = 'verified' AND c.not_after <= $1 + $2 AND c.not_after - (c.not_after - c.not_before) / $3 <= $1 \
         AND EXISTS (SELECT 1 FROM assignment a WHERE a.enrollment_id = c.enrollment_id AND a.policy_id = c.policy_id \
                     AND a.state <> 'removing') \
         AND EXISTS (SELECT 1 FROM enrollment e WHERE e.id = c.enrollment_id AND e.state = 'enrolled')"
    };
}

/// When a certificate is worried about: the longer before its end of `share` of its life, `longest` at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worry {
    /// In milliseconds.
    pub longest: i64,
    /// One in so many parts of its life.
    pub share: i64,
}

/// How many certificates in use have no successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    /// They end soon.
    pub soon: i64,
    /// They have ended.
    pub ended: i64,
}

from_row!(Ends { soon, ended });

/// How many certificates in use end soon, or have ended, and have no successor.
pub async fn ends(tx: &mut Tx, worry: Worry, now: Timestamp) -> Result<Ends> {
    const ENDS: &str = concat!(
        "SELECT COUNT(CASE WHEN c.not_after > $1 THEN 1 END) AS soon, COUNT(CASE WHEN c.not_after <= $1 THEN 1 END) AS ended \
           FROM acme_certificate c WHERE ",
        near_end!()
    );
    Ok(run!(tx, c => sqlx::query_as(ENDS).bind(now.0).bind(worry.longest).bind(worry.share).fetch_one(c).await)?)
}

/// A certificate of which something is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarmed {
    /// SHA-256 of the certificate.
    pub sha256: Vec<u8>,
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The policy.
    pub policy_id: Uuid,
    /// The attempt that it came by.
    pub attempt_id: Uuid,
    /// Its end (ms).
    pub not_after: i64,
    /// The attempt to renew it that is under way or was the last.
    pub renewal_id: Option<Uuid>,
    /// Reason code of the assignment: why the last renewal failed.
    pub reason: Option<String>,
}

from_row!(Alarmed { sha256, enrollment_id, policy_id, attempt_id, not_after, renewal_id, reason });

/// Up to `limit` certificates in use of which it was not said yet that they end soon, or have ended.
pub async fn unsaid(tx: &mut Tx, worry: Worry, now: Timestamp, limit: i64) -> Result<Vec<Alarmed>> {
    const UNSAID: &str = concat!(
        "SELECT c.sha256, c.enrollment_id, c.policy_id, c.attempt_id, c.not_after, \
                (SELECT a.attempt_id FROM assignment a WHERE a.enrollment_id = c.enrollment_id AND a.policy_id = c.policy_id \
                    AND a.attempt_id <> c.attempt_id) AS renewal_id, \
                (SELECT a.reason FROM assignment a WHERE a.enrollment_id = c.enrollment_id AND a.policy_id = c.policy_id) AS reason \
           FROM acme_certificate c WHERE ",
        near_end!(),
        " AND (c.alarm IS NULL OR (c.alarm = 'ends_soon' AND c.not_after <= $1)) ORDER BY c.not_after LIMIT $4"
    );
    Ok(run!(tx, c => sqlx::query_as(UNSAID).bind(now.0).bind(worry.longest).bind(worry.share).bind(limit)
        .fetch_all(c).await)?)
}

/// It was said of a certificate: `ends_soon` or `ended`. False where somebody else was first.
pub async fn alarmed(tx: &mut Tx, sha256: Fingerprint, alarm: &str) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE acme_certificate SET alarm = $2 WHERE sha256 = $1 AND (alarm IS NULL OR alarm <> $2)")
        .bind(sha256.0.to_vec()).bind(alarm).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}
