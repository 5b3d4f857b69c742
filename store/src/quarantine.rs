//! Rows of `quarantine`: an `Authenticate` that does not fit and that an operator decides on (TH-02).

use mdm_core::enrollment::DeviceKey;
use mdm_core::ids::{EnrollmentId, Fingerprint, IssuanceId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// A refused `Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Our key.
    pub id: Uuid,
    /// SHA-256 of the certificate that it came under.
    pub cert_sha256: Vec<u8>,
    /// That certificate, DER.
    pub certificate: Vec<u8>,
    /// `UDID`, as claimed.
    pub udid: Option<String>,
    /// `EnrollmentID`, as claimed.
    pub apple_enrollment_id: Option<String>,
    /// `SerialNumber`, as claimed.
    pub serial_number: Option<String>,
    /// `ProductName`, as claimed.
    pub product_name: Option<String>,
    /// `OSVersion`, as claimed.
    pub os_version: Option<String>,
    /// The refusal's stable word.
    pub reason: String,
    /// The enrollment that it claims to be.
    pub enrollment_id: Option<Uuid>,
    /// The record that the certificate was issued by.
    pub issuance_id: Option<Uuid>,
    /// `waiting`, `approved`, `refused` or `used`.
    pub state: String,
    /// When it first came (ms).
    pub first_at: i64,
    /// When it last came (ms).
    pub last_at: i64,
    /// How often it came.
    pub times: i64,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When (ms).
    pub decided_at: Option<i64>,
    /// Until when an approval holds (ms).
    pub approved_until: Option<i64>,
}

from_row!(Row {
    id,
    cert_sha256,
    certificate,
    udid,
    apple_enrollment_id,
    serial_number,
    product_name,
    os_version,
    reason,
    enrollment_id,
    issuance_id,
    state,
    first_at,
    last_at,
    times,
    decided_by,
    decided_at,
    approved_until,
});

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, cert_sha256, certificate, udid, apple_enrollment_id, serial_number, product_name, os_version, \
             reason, enrollment_id, issuance_id, state, first_at, last_at, times, decided_by, decided_at, approved_until \
             FROM quarantine ",
            $rest
        )
    };
}

/// A refused `Authenticate` to be kept.
#[derive(Debug)]
pub struct New<'a> {
    /// Our key.
    pub id: Uuid,
    /// The certificate that it came under, and its SHA-256.
    pub certificate: (&'a [u8], Fingerprint),
    /// How it names the device.
    pub device: &'a DeviceKey,
    /// `SerialNumber`.
    pub serial_number: Option<&'a str>,
    /// `ProductName`.
    pub product_name: Option<&'a str>,
    /// `OSVersion`.
    pub os_version: Option<&'a str>,
    /// The refusal's stable word.
    pub reason: &'a str,
    /// The enrollment that it claims to be.
    pub enrollment: Option<EnrollmentId>,
    /// The record that the certificate was issued by.
    pub issuance: Option<IssuanceId>,
}

/// Keeps a refused `Authenticate`; false where this certificate is known already, whose claim then stays as it first was.
pub async fn insert(tx: &mut Tx, new: &New<'_>, now: Timestamp) -> Result<bool> {
    let (udid, apple_id) = match new.device {
        DeviceKey::Udid(udid) => (Some(udid.as_str()), None),
        DeviceKey::EnrollmentId(id) => (None, Some(id.as_str())),
    };
    let (der, fingerprint) = new.certificate;
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO quarantine (id, cert_sha256, certificate, udid, apple_enrollment_id, serial_number, product_name,
                os_version, reason, enrollment_id, issuance_id, state, first_at, last_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'waiting', $12, $12) ON CONFLICT (cert_sha256) DO NOTHING")
        .bind(new.id)
        .bind(fingerprint.0.to_vec())
        .bind(der)
        .bind(udid)
        .bind(apple_id)
        .bind(new.serial_number)
        .bind(new.product_name)
        .bind(new.os_version)
        .bind(new.reason)
        .bind(new.enrollment.map(|id| id.0))
        .bind(new.issuance.map(|id| id.0))
        .bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Counts one more `Authenticate` under a certificate that is known; false where it is not.
pub async fn seen_again(tx: &mut Tx, certificate: Fingerprint, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("UPDATE quarantine SET times = times + 1, last_at = $2 WHERE cert_sha256 = $1")
        .bind(certificate.0.to_vec()).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// How many wait for a decision.
pub async fn waiting(tx: &mut Tx) -> Result<i64> {
    Ok(run!(tx, c => sqlx::query_scalar("SELECT count(*) FROM quarantine WHERE state = 'waiting'").fetch_one(c).await)?)
}

/// Forgets those that wait and were not heard of since; how many there were.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query("DELETE FROM quarantine WHERE state = 'waiting' AND last_at < $1")
        .bind(before.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// The one with this key.
pub async fn get(tx: &mut Tx, id: Uuid) -> Result<Option<Row>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE id = $1")).bind(id).fetch_optional(c).await)?)
}

/// The one that came under this certificate.
pub async fn of_certificate(tx: &mut Tx, certificate: Fingerprint) -> Result<Option<Row>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE cert_sha256 = $1"))
        .bind(certificate.0.to_vec()).fetch_optional(c).await)?)
}

/// Those in this state (all where none is named), newest first, that are older than `before`.
pub async fn list(tx: &mut Tx, state: Option<&str>, before: Option<Uuid>, limit: i64) -> Result<Vec<Row>> {
    let before = before.unwrap_or(Uuid::max());
    let rows = match state {
        Some(state) => run!(tx, c => sqlx::query_as(select!("WHERE id < $1 AND state = $3 ORDER BY id DESC LIMIT $2"))
                .bind(before).bind(limit).bind(state).fetch_all(c).await)?,
        None => run!(tx, c => sqlx::query_as(select!("WHERE id < $1 ORDER BY id DESC LIMIT $2"))
            .bind(before).bind(limit).fetch_all(c).await)?,
    };
    Ok(rows)
}

/// The approvals that hold now for a device that names itself so.
pub async fn approvals(tx: &mut Tx, device: &DeviceKey, now: Timestamp) -> Result<Vec<Row>> {
    const BY_UDID: &str = select!("WHERE udid = $1 AND state = 'approved' AND approved_until > $2 ORDER BY id");
    const BY_ENROLLMENT_ID: &str =
        select!("WHERE apple_enrollment_id = $1 AND state = 'approved' AND approved_until > $2 ORDER BY id");
    let (sql, key) = match device {
        DeviceKey::Udid(udid) => (BY_UDID, udid.as_str()),
        DeviceKey::EnrollmentId(id) => (BY_ENROLLMENT_ID, id.as_str()),
    };
    Ok(run!(tx, c => sqlx::query_as(sql).bind(key).bind(now.0).fetch_all(c).await)?)
}

/// `waiting` or `approved` → `approved` until then; false where it was refused or used, or is not there.
pub async fn approve(tx: &mut Tx, id: Uuid, by: &str, until: Timestamp, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE quarantine SET state = 'approved', decided_by = $2, decided_at = $3, approved_until = $4
          WHERE id = $1 AND state IN ('waiting', 'approved')")
        .bind(id).bind(by).bind(now.0).bind(until.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// `waiting`, `approved` or `refused` → `refused`; false where it was used, or is not there.
pub async fn refuse(tx: &mut Tx, id: Uuid, by: &str, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE quarantine SET state = 'refused', decided_by = $2, decided_at = $3, approved_until = NULL
          WHERE id = $1 AND state IN ('waiting', 'approved', 'refused')")
        .bind(id).bind(by).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// `approved` → `used`, by the enrollment that came of it; false where somebody was first.
pub async fn mark_used(tx: &mut Tx, id: Uuid, enrollment: EnrollmentId) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE quarantine SET state = 'used', enrollment_id = $2 WHERE id = $1 AND state = 'approved'")
        .bind(id).bind(enrollment.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}
