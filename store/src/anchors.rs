//! Which anchors and which server URL the profiles of enrolled devices carry, counted.

use mdm_core::ids::{EnrollmentId, Fingerprint};
use uuid::Uuid;

use crate::{Error, Result, Tx};

/// Live device-channel enrollments, without those that are to be unenrolled, whose profiles say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `ServerURL`; `None` where the profile was made before it was noted.
    pub server_url: Option<String>,
    /// SHA-256 of each anchor in the profile, in its order; `None` where that was not noted.
    pub anchors: Option<Vec<Fingerprint>>,
    /// How many.
    pub enrollments: i64,
}

struct Row {
    server_url: Option<String>,
    anchors: Option<String>,
    enrollments: i64,
}

from_row!(Row { server_url, anchors, enrollments });

/// The live enrollments of device channels by what their profiles carry. One that an operator wants to be gone counts no more.
pub async fn groups(tx: &mut Tx) -> Result<Vec<Group>> {
    let rows: Vec<Row> = run!(tx, c => sqlx::query_as(
        "SELECT server_url, anchors, COUNT(*) AS enrollments FROM enrollment
          WHERE channel = 'device' AND state <> 'unenrolled' AND unenroll_requested_at IS NULL
          GROUP BY server_url, anchors ORDER BY server_url, anchors")
        .fetch_all(c).await)?;
    rows.into_iter()
        .map(|row| {
            let anchors = row.anchors.as_deref().map(read).transpose()?;
            Ok(Group { server_url: row.server_url, anchors, enrollments: row.enrollments })
        })
        .collect()
}

/// How many device channels are live, without those that an operator wants to be gone.
pub async fn live(tx: &mut Tx) -> Result<i64> {
    Ok(run!(tx, c => sqlx::query_scalar(
        "SELECT COUNT(*) FROM enrollment
          WHERE channel = 'device' AND state <> 'unenrolled' AND unenroll_requested_at IS NULL")
        .fetch_one(c).await)?)
}

/// Enrolled device channels whose profiles carry exactly these anchors (`None`: not noted), by their ids, after `after`.
pub async fn holders(
    tx: &mut Tx,
    anchors: Option<&[Fingerprint]>,
    after: Option<EnrollmentId>,
    limit: i64,
) -> Result<Vec<EnrollmentId>> {
    let text = anchors.map(write).unwrap_or_default();
    let after = after.map_or(Uuid::nil(), |id| id.0);
    let ids: Vec<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT id FROM enrollment
          WHERE channel = 'device' AND state = 'enrolled' AND unenroll_requested_at IS NULL
            AND COALESCE(anchors, '') = $1 AND id > $2
          ORDER BY id LIMIT $3")
        .bind(&text).bind(after).bind(limit).fetch_all(c).await)?;
    Ok(ids.into_iter().map(EnrollmentId).collect())
}

/// The column's text: a JSON array of lower-case hexadecimal fingerprints.
pub fn write(anchors: &[Fingerprint]) -> String {
    let quoted: Vec<String> = anchors.iter().map(|anchor| format!("\"{anchor}\"")).collect();
    format!("[{}]", quoted.join(","))
}

/// Reads what [`write()`] wrote.
pub fn read(text: &str) -> Result<Vec<Fingerprint>> {
    const BAD: Error = Error::Corrupt("enrollment.anchors");
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(BAD)?;
    inner
        .split(',')
        .filter(|item| !item.is_empty())
        .map(|item| {
            let digits = item.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(BAD)?;
            let pairs = (0..digits.len()).step_by(2).map(|at| digits.get(at..at + 2));
            let bytes: Option<Vec<u8>> =
                pairs.map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())).collect();
            let bytes: [u8; 32] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(BAD)?;
            Ok(Fingerprint(bytes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_go_there_and_back_and_rubbish_is_refused() {
        let two = [Fingerprint([1; 32]), Fingerprint([0xfe; 32])];
        for some in [&two[..], &two[..1], &[]] {
            assert_eq!(read(&write(some)).unwrap(), some);
        }
        for rubbish in ["", "[", "[01]", "[\"01\"]", "{}", "[\"é\"]"] {
            assert!(read(rubbish).is_err(), "{rubbish}");
        }
    }
}
