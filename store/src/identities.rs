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

/// Which identities a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only this state.
    pub state: Option<Standing>,
    /// Only those that end before this.
    pub ends_before: Option<Timestamp>,
    /// Only those that are near their end and not renewed yet (TH-11): see [`stuck`].
    pub stuck: bool,
    /// Only those of this enrollment.
    pub enrollment: Option<EnrollmentId>,
}

/// How an identity stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Messages that it signs are accepted.
    Live,
    /// It has ended, and was neither retired nor revoked.
    Expired,
    /// A newer one took its place.
    Retired,
    /// It was revoked.
    Revoked,
}

impl Standing {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Expired => "expired",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// Reads the word that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Live, Self::Expired, Self::Retired, Self::Revoked].into_iter().find(|s| s.as_str() == text)
    }
}

/// An identity in a list, with where its renewal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// SHA-256 of the certificate.
    pub cert_sha256: Vec<u8>,
    /// Whom it stands for.
    pub enrollment_id: Uuid,
    /// By which record it was issued.
    pub issuance_id: Option<Uuid>,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// From when it is valid (ms).
    pub not_before: i64,
    /// Until when it is valid (ms).
    pub not_after: i64,
    /// When it was pinned (ms).
    pub pinned_at: i64,
    /// When a newer identity took its place (ms).
    pub retired_at: Option<i64>,
    /// When an operator revoked it (ms).
    pub revoked_at: Option<i64>,
    /// `scep`, `acme` or `import`; none for one that an external CA's names admitted.
    pub source: Option<String>,
    /// JSON: why this identity, as the gate said.
    pub identity_reason: Option<String>,
    /// State of the renewal of this identity.
    pub renewal_state: Option<String>,
    /// Why it is renewed.
    pub renewal_reason: Option<String>,
    /// Failures of the renewal.
    pub renewal_attempts: Option<i64>,
    /// What the last failure was.
    pub renewal_last_error: Option<String>,
    /// When the renewal is looked at next (ms).
    pub renewal_due_at: Option<i64>,
}

from_row!(Listed {
    cert_sha256,
    enrollment_id,
    issuance_id,
    certificate,
    not_before,
    not_after,
    pinned_at,
    retired_at,
    revoked_at,
    source,
    identity_reason,
    renewal_state,
    renewal_reason,
    renewal_attempts,
    renewal_last_error,
    renewal_due_at,
});

/// From how long before its end an identity that is not renewed is one to worry about: 30 days, or the last sixth of its life
/// where that is shorter.
const WORRY: i64 = 30 * 86_400_000;

// The oldest live identity counts: a newer one retires it with its first word, and until then the device may go back to it.
macro_rules! is_stuck {
    ($now:literal, $worry:literal) => {
        concat!(
            "i.retired_at IS NULL AND i.revoked_at IS NULL AND i.not_after < ",
            $now,
            " + ",
            $worry,
            " AND i.not_after - ",
            $now,
            " < (i.not_after - i.not_before) / 6 AND EXISTS (SELECT 1 FROM enrollment e WHERE e.id = i.enrollment_id \
               AND e.state = 'enrolled') AND NOT EXISTS (SELECT 1 FROM identity n WHERE n.enrollment_id = i.enrollment_id \
               AND n.pinned_at < i.pinned_at AND n.retired_at IS NULL AND n.revoked_at IS NULL)"
        )
    };
}

/// A page of identities, by end and fingerprint, the soonest end first; `after` is the last of the page before.
pub async fn list(
    tx: &mut Tx,
    filter: &Filter,
    after: Option<(Timestamp, Fingerprint)>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Listed>> {
    const LIST: &str = concat!(
        "SELECT i.cert_sha256, i.enrollment_id, i.issuance_id, i.certificate, i.not_before, i.not_after, i.pinned_at, \
                i.retired_at, i.revoked_at, s.source, s.identity_reason, r.state AS renewal_state, \
                r.reason AS renewal_reason, r.attempts AS renewal_attempts, r.last_error AS renewal_last_error, \
                r.due_at AS renewal_due_at \
           FROM identity i LEFT JOIN issuance s ON s.id = i.issuance_id \
           LEFT JOIN renewal r ON r.enrollment_id = i.enrollment_id AND r.cert_sha256 = i.cert_sha256 \
          WHERE (i.not_after > $1 OR (i.not_after = $1 AND i.cert_sha256 > $2)) AND i.not_after < $3 \
            AND ($4 = '' OR $4 = CASE WHEN i.revoked_at IS NOT NULL THEN 'revoked' \
                 WHEN i.retired_at IS NOT NULL THEN 'retired' WHEN i.not_after < $5 THEN 'expired' ELSE 'live' END) \
            AND ($6 = 0 OR (",
        is_stuck!("$5", "$7"),
        ")) AND ($8 = 0 OR i.enrollment_id = $9) ORDER BY i.not_after, i.cert_sha256 LIMIT $10"
    );
    let (end, fingerprint) = after.map_or((i64::MIN, Vec::new()), |(end, fingerprint)| (end.0, fingerprint.0.to_vec()));
    let ends_before = filter.ends_before.map_or(i64::MAX, |at| at.0);
    let state = filter.state.map_or("", Standing::as_str);
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(end).bind(fingerprint).bind(ends_before).bind(state).bind(now.0)
        .bind(i64::from(filter.stuck)).bind(WORRY).bind(i64::from(filter.enrollment.is_some()))
        .bind(filter.enrollment.map_or(Uuid::nil(), |id| id.0)).bind(limit).fetch_all(c).await)?)
}

/// How many identities of enrolled devices are near their end – 30 days, or the last sixth of their life where that is
/// shorter – and have no successor (TH-11).
pub async fn stuck(tx: &mut Tx, now: Timestamp) -> Result<i64> {
    const STUCK: &str = concat!("SELECT COUNT(*) FROM identity i WHERE ", is_stuck!("$1", "$2"));
    Ok(run!(tx, c => sqlx::query_scalar(STUCK).bind(now.0).bind(WORRY).fetch_one(c).await)?)
}

/// A certificate of the built-in CA that is revoked and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedSerial {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Since when (ms).
    pub revoked_at: i64,
}

from_row!(RevokedSerial { serial, revoked_at });

/// What a list of revoked certificates of the built-in CA holds: those whose record or whose pin was revoked.
pub async fn revoked_serials(tx: &mut Tx, now: Timestamp) -> Result<Vec<RevokedSerial>> {
    const REVOKED: &str = "SELECT s.cert_serial AS serial, COALESCE(i.revoked_at, s.revoked_at) AS revoked_at FROM issuance s \
        LEFT JOIN identity i ON i.cert_sha256 = s.cert_sha256 \
        WHERE s.source = 'scep' AND s.cert_serial IS NOT NULL AND s.cert_not_after > $1 \
          AND (s.state = 'revoked' OR i.revoked_at IS NOT NULL) ORDER BY s.cert_serial";
    let rows: Vec<RevokedSerial> = run!(tx, c => sqlx::query_as(REVOKED).bind(now.0).fetch_all(c).await)?;
    Ok(rows)
}
