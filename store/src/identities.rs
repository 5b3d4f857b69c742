//! Rows of `identity`: the certificates that are pinned to an enrollment.
//!
//! A certificate belongs to one enrollment only: its fingerprint is the primary key (TH-06).

use mdm_core::certificate::Certificate;
use mdm_core::ids::{EnrollmentId, Fingerprint, IssuanceId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Error, Result, Tx};

/// A pinned identity certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// Whom it stands for.
    pub enrollment: EnrollmentId,
    /// By which record it was issued.
    pub issuance: Option<IssuanceId>,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// When it was pinned.
    pub pinned_at: Timestamp,
    /// When a newer identity took its place; it is not accepted any more.
    pub retired_at: Option<Timestamp>,
    /// When an operator revoked it.
    pub revoked_at: Option<Timestamp>,
}

impl Identity {
    /// Whether messages that it signs are accepted, its validity in time aside.
    pub fn is_live(&self) -> bool {
        self.retired_at.is_none() && self.revoked_at.is_none()
    }
}

struct Row {
    cert_sha256: Vec<u8>,
    enrollment_id: Uuid,
    issuance_id: Option<Uuid>,
    certificate: Vec<u8>,
    not_before: i64,
    not_after: i64,
    pinned_at: i64,
    retired_at: Option<i64>,
    revoked_at: Option<i64>,
}

from_row!(Row {
    cert_sha256,
    enrollment_id,
    issuance_id,
    certificate,
    not_before,
    not_after,
    pinned_at,
    retired_at,
    revoked_at,
});

impl TryFrom<Row> for Identity {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            fingerprint: Fingerprint(row.cert_sha256.try_into().map_err(|_| Error::Corrupt("identity.cert_sha256"))?),
            enrollment: EnrollmentId(row.enrollment_id),
            issuance: row.issuance_id.map(IssuanceId),
            certificate: row.certificate,
            not_before: Timestamp(row.not_before),
            not_after: Timestamp(row.not_after),
            pinned_at: Timestamp(row.pinned_at),
            retired_at: row.retired_at.map(Timestamp),
            revoked_at: row.revoked_at.map(Timestamp),
        })
    }
}

/// Pins a certificate to an enrollment; false where it is pinned already, to whomever (TH-06).
pub async fn bind(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    issuance: Option<IssuanceId>,
    certificate: &Certificate,
    now: Timestamp,
) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO identity (cert_sha256, enrollment_id, issuance_id, certificate, not_before, not_after, pinned_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (cert_sha256) DO NOTHING")
        .bind(certificate.fingerprint().0.to_vec())
        .bind(enrollment.0)
        .bind(issuance.map(|id| id.0))
        .bind(certificate.der().to_vec())
        .bind(certificate.not_before().0)
        .bind(certificate.not_after().0)
        .bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The identity with this certificate, retired and revoked ones too.
pub async fn find_by_fingerprint(tx: &mut Tx, fingerprint: Fingerprint) -> Result<Option<Identity>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(
        "SELECT cert_sha256, enrollment_id, issuance_id, certificate, not_before, not_after, pinned_at, retired_at, revoked_at
           FROM identity WHERE cert_sha256 = $1")
        .bind(fingerprint.0.to_vec()).fetch_optional(c).await)?;
    row.map(Identity::try_from).transpose()
}

/// All identities that an enrollment ever had, newest first.
pub async fn of(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Vec<Identity>> {
    let rows: Vec<Row> = run!(tx, c => sqlx::query_as(
        "SELECT cert_sha256, enrollment_id, issuance_id, certificate, not_before, not_after, pinned_at, retired_at, revoked_at
           FROM identity WHERE enrollment_id = $1 ORDER BY pinned_at DESC, cert_sha256")
        .bind(enrollment.0).fetch_all(c).await)?;
    rows.into_iter().map(Identity::try_from).collect()
}

/// Retires the identities of an enrollment other than `keep`; the number of those that were live.
pub async fn retire_others(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    keep: Option<Fingerprint>,
    now: Timestamp,
) -> Result<u64> {
    let keep = keep.map(|fingerprint| fingerprint.0.to_vec()).unwrap_or_default();
    Ok(run!(tx, c => sqlx::query(
        "UPDATE identity SET retired_at = $3 WHERE enrollment_id = $1 AND cert_sha256 <> $2 AND retired_at IS NULL")
        .bind(enrollment.0).bind(&keep).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Retires the identities of an enrollment that were pinned before `keep`; the number of those that were live. A newer one
/// stays: an old message, sent again, must not put out the identity that took its place (TH-17).
pub async fn retire_earlier(tx: &mut Tx, keep: &Identity, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE identity SET retired_at = $4 WHERE enrollment_id = $1 AND cert_sha256 <> $2 AND pinned_at <= $3 AND retired_at IS NULL")
        .bind(keep.enrollment.0).bind(keep.fingerprint.0.to_vec()).bind(keep.pinned_at.0).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// Revokes an identity from this moment; false where there is none or it is revoked already.
pub async fn revoke(tx: &mut Tx, fingerprint: Fingerprint, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("UPDATE identity SET revoked_at = $2 WHERE cert_sha256 = $1 AND revoked_at IS NULL")
        .bind(fingerprint.0.to_vec()).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Live identities that end before `before`, the soonest first.
pub async fn expiring(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<Vec<Identity>> {
    let rows: Vec<Row> = run!(tx, c => sqlx::query_as(
        "SELECT cert_sha256, enrollment_id, issuance_id, certificate, not_before, not_after, pinned_at, retired_at, revoked_at
           FROM identity WHERE not_after < $1 AND retired_at IS NULL AND revoked_at IS NULL ORDER BY not_after LIMIT $2")
        .bind(before.0).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(Identity::try_from).collect()
}
