//! Certificates that end and have no successor.
//!
//! What counts is in use: verified, of a policy that is on an enrolled device and is not being taken off it.

use std::time::Duration;

use mdm_core::ids::Fingerprint;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

macro_rules! share {
    () => {
        15
    };
}

// `$1` is now, `$2` the longest time before its end that a certificate is worried about; the share of its life where that is
// shorter. The index acme_certificate_end is over that expression, so that a fleet of short-lived certificates that are renewed
// in time is not read; `+` keeps the other indexes out, which would read it.
macro_rules! near_end {
    () => {
        concat!(
            "c.state = 'verified' AND c.not_after - (c.not_after - c.not_before) / ",
            share!(),
            " <= $1 AND +c.not_after <= $1 + $2 \
         AND EXISTS (SELECT 1 FROM assignment a WHERE a.enrollment_id = c.enrollment_id AND a.policy_id = c.policy_id \
                     AND a.state <> 'removing') \
         AND EXISTS (SELECT 1 FROM enrollment e WHERE e.id = c.enrollment_id AND e.state = 'enrolled')"
        )
    };
}

/// One in so many parts of its life before its end, a certificate that has no successor is worried about.
pub const WORRY_SHARE: u32 = share!();

/// How many certificates in use have no successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    /// They end soon.
    pub soon: i64,
    /// They have ended.
    pub ended: i64,
}

from_row!(Ends { soon, ended });

/// The statement of [`ends`], for a look at its plan.
pub const ENDS: &str = concat!(
    "SELECT COUNT(CASE WHEN c.not_after > $1 THEN 1 END) AS soon, COUNT(CASE WHEN c.not_after <= $1 THEN 1 END) AS ended \
       FROM acme_certificate c WHERE ",
    near_end!()
);

/// How many certificates in use end soon, or have ended, and have no successor. None is worried about earlier than `longest`
/// before its end.
pub async fn ends(tx: &mut Tx, longest: Duration, now: Timestamp) -> Result<Ends> {
    Ok(run!(tx, c => sqlx::query_as(ENDS).bind(now.0).bind(millis(longest)).fetch_one(c).await)?)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
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

/// The statement of [`unsaid`], for a look at its plan.
pub const UNSAID: &str = concat!(
    "SELECT c.sha256, c.enrollment_id, c.policy_id, c.attempt_id, c.not_after, \
            (SELECT a.attempt_id FROM assignment a WHERE a.enrollment_id = c.enrollment_id AND a.policy_id = c.policy_id \
                AND a.attempt_id <> c.attempt_id) AS renewal_id, \
            (SELECT a.reason FROM assignment a WHERE a.enrollment_id = c.enrollment_id AND a.policy_id = c.policy_id) AS reason \
       FROM acme_certificate c WHERE ",
    near_end!(),
    " AND (c.alarm IS NULL OR (c.alarm = 'ends_soon' AND c.not_after <= $1)) ORDER BY +c.not_after LIMIT $3"
);

/// Up to `limit` certificates in use of which it was not said yet that they end soon, or have ended; as [`ends`] counts them.
pub async fn unsaid(tx: &mut Tx, longest: Duration, now: Timestamp, limit: i64) -> Result<Vec<Alarmed>> {
    Ok(run!(tx, c => sqlx::query_as(UNSAID).bind(now.0).bind(millis(longest)).bind(limit).fetch_all(c).await)?)
}

/// It was said of a certificate: `ends_soon` or `ended`. False where somebody else was first.
pub async fn alarmed(tx: &mut Tx, sha256: Fingerprint, alarm: &str) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE acme_certificate SET alarm = $2 WHERE sha256 = $1 AND (alarm IS NULL OR alarm <> $2)")
        .bind(sha256.0.to_vec()).bind(alarm).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}
