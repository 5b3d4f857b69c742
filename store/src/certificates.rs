//! Rows of `acme_certificate`: what the certificates of policies are, and where each was seen.
//!
//! `reported` (its authority said that it issued it) → `verified` (a CertificateList of the device showed it) → `replaced` (a newer
//! one of the same policy was verified) or `gone` (the device does not show it any more).

use mdm_core::certificate::Certificate;
use mdm_core::ids::{AttemptId, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

mod alarms;
mod listing;
mod retention;

pub use alarms::{Alarmed, ENDS, Ends, UNSAID, WORRY_SHARE, alarmed, ends, unsaid};
pub use listing::{Filter, Listed, list, listed};
pub use retention::{prune_attempts, prune_certificates};

/// Where a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its authority said that it issued it; no device has shown it yet.
    Reported,
    /// The device has shown it.
    Verified,
    /// A newer one of the same policy on the same enrollment was shown.
    Replaced,
    /// It was shown once, and is not any more.
    Gone,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Reported, Self::Verified, Self::Replaced, Self::Gone];

    /// The word in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Verified => "verified",
            Self::Replaced => "replaced",
            Self::Gone => "gone",
        }
    }

    /// Reads the word that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A certificate of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// SHA-256 of the certificate.
    pub sha256: Vec<u8>,
    /// The enrollment that holds its key.
    pub enrollment_id: Uuid,
    /// The policy.
    pub policy_id: Uuid,
    /// The attempt that it came by: the trace id.
    pub attempt_id: Uuid,
    /// DER.
    pub certificate: Vec<u8>,
    /// Hexadecimal.
    pub serial_number: String,
    /// RFC 4514.
    pub issuer: String,
    /// RFC 4514.
    pub subject: String,
    /// Such as `ECSECPrimeRandom 256`.
    pub key_type: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub key_sha256: Vec<u8>,
    /// `HardwareBound` was asked for.
    pub hardware_bound: bool,
    /// `Attest` was asked for.
    pub attested: bool,
    /// From when it is valid (ms).
    pub not_before: i64,
    /// Until when it is valid (ms).
    pub not_after: i64,
    /// One of [`State`].
    pub state: String,
    /// When its authority reported it (ms).
    pub reported_at: Option<i64>,
    /// When the device showed it first (ms).
    pub verified_at: Option<i64>,
    /// When the device showed it last (ms).
    pub seen_at: Option<i64>,
    /// When a newer one took its place (ms).
    pub replaced_at: Option<i64>,
}

from_row!(AcmeCertificate {
    sha256,
    enrollment_id,
    policy_id,
    attempt_id,
    certificate,
    serial_number,
    issuer,
    subject,
    key_type,
    key_sha256,
    hardware_bound,
    attested,
    not_before,
    not_after,
    state,
    reported_at,
    verified_at,
    seen_at,
    replaced_at,
});

macro_rules! select {
    ($rest:expr) => {
        concat!(
            "SELECT c.sha256, c.enrollment_id, c.policy_id, c.attempt_id, c.certificate, c.serial_number, c.issuer, c.subject, \
                    c.key_type, c.key_sha256, c.hardware_bound, c.attested, c.not_before, c.not_after, c.state, c.reported_at, \
                    c.verified_at, c.seen_at, c.replaced_at FROM acme_certificate c ",
            $rest
        )
    };
}

/// A certificate to be written down.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// The enrollment that holds its key.
    pub enrollment: EnrollmentId,
    /// The policy.
    pub policy: PolicyId,
    /// The attempt that it came by.
    pub attempt: AttemptId,
    /// The certificate.
    pub certificate: &'a Certificate,
    /// `HardwareBound` was asked for.
    pub hardware_bound: bool,
    /// `Attest` was asked for.
    pub attested: bool,
}

/// Writes a certificate that its authority reported; false, and nothing changes, where it is known already.
pub async fn report(tx: &mut Tx, new: &New<'_>, now: Timestamp) -> Result<bool> {
    insert(tx, new, State::Reported, now).await
}

/// Writes a certificate that its device showed; false, and nothing changes, where it is known as one of another attempt.
pub async fn verify(tx: &mut Tx, new: &New<'_>, now: Timestamp) -> Result<bool> {
    if insert(tx, new, State::Verified, now).await? {
        return Ok(true);
    }
    let rows = run!(tx, c => sqlx::query(
        "UPDATE acme_certificate SET state = 'verified', verified_at = COALESCE(verified_at, $2), seen_at = $2, replaced_at = NULL
          WHERE sha256 = $1 AND attempt_id = $3 AND enrollment_id = $4")
        .bind(new.certificate.fingerprint().0.to_vec()).bind(now.0).bind(new.attempt.0).bind(new.enrollment.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

async fn insert(tx: &mut Tx, new: &New<'_>, state: State, now: Timestamp) -> Result<bool> {
    let certificate = new.certificate;
    let key = certificate.subject_key();
    let shown = (state == State::Verified).then_some(now.0);
    let reported = (state == State::Reported).then_some(now.0);
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO acme_certificate (sha256, enrollment_id, policy_id, attempt_id, certificate, serial_number, issuer, subject,
                key_type, key_sha256, hardware_bound, attested, not_before, not_after, state, reported_at, verified_at, seen_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $17) ON CONFLICT (sha256) DO NOTHING")
        .bind(certificate.fingerprint().0.to_vec()).bind(new.enrollment.0).bind(new.policy.0).bind(new.attempt.0)
        .bind(certificate.der()).bind(certificate.serial_hex()).bind(certificate.issuer()).bind(certificate.subject())
        .bind(key.words()).bind(key.spki_sha256.to_vec()).bind(new.hardware_bound).bind(new.attested)
        .bind(certificate.not_before().0).bind(certificate.not_after().0).bind(state.as_str()).bind(reported).bind(shown)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The certificate with this fingerprint.
pub async fn get(tx: &mut Tx, sha256: Fingerprint) -> Result<Option<AcmeCertificate>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE c.sha256 = $1")).bind(sha256.0.to_vec()).fetch_optional(c).await)?)
}

/// The certificates of an attempt, the soonest end first.
pub async fn of_attempt(tx: &mut Tx, attempt: AttemptId) -> Result<Vec<AcmeCertificate>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE c.attempt_id = $1 ORDER BY c.not_after, c.sha256"))
        .bind(attempt.0).fetch_all(c).await)?)
}

/// The certificates of an enrollment that its device was seen with, or should be: reported and verified ones.
pub async fn of_enrollment(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Vec<AcmeCertificate>> {
    const LIVE: &str =
        select!("WHERE c.enrollment_id = $1 AND c.state IN ('reported', 'verified') ORDER BY c.not_after, c.sha256");
    Ok(run!(tx, c => sqlx::query_as(LIVE).bind(enrollment.0).fetch_all(c).await)?)
}

/// A newer certificate of this policy on this enrollment was shown: the others are replaced. How many there were.
pub async fn replace(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    policy: PolicyId,
    by: Fingerprint,
    now: Timestamp,
) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE acme_certificate SET state = 'replaced', replaced_at = $4
          WHERE enrollment_id = $1 AND policy_id = $2 AND sha256 <> $3 AND state IN ('reported', 'verified')")
        .bind(enrollment.0).bind(policy.0).bind(by.0.to_vec()).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// The device showed this certificate again.
pub async fn seen(tx: &mut Tx, sha256: Fingerprint, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE acme_certificate SET seen_at = $2 WHERE sha256 = $1")
        .bind(sha256.0.to_vec()).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// The device does not show this certificate any more; false where it was no verified one.
pub async fn gone(tx: &mut Tx, sha256: Fingerprint) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query("UPDATE acme_certificate SET state = 'gone' WHERE sha256 = $1 AND state = 'verified'")
        .bind(sha256.0.to_vec()).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The profile of a policy was taken off an enrollment, or the enrollment is over: its certificates are with nobody any more. All
/// policies where none is given. How many there were.
pub async fn forsake(tx: &mut Tx, enrollment: EnrollmentId, policy: Option<PolicyId>) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE acme_certificate SET state = 'gone'
          WHERE enrollment_id = $1 AND ($2 = 0 OR policy_id = $3) AND state IN ('reported', 'verified')")
        .bind(enrollment.0).bind(i64::from(policy.is_some())).bind(policy.map_or(Uuid::nil(), |id| id.0))
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// How many certificates are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub state: String,
    /// How many.
    pub count: i64,
}

from_row!(Count { state, count });

/// The statement of [`counts`], for a look at its plan: an index has all of it.
pub const COUNTS: &str = "SELECT state, COUNT(*) AS count FROM acme_certificate GROUP BY state ORDER BY state";

/// The certificates, counted by state.
pub async fn counts(tx: &mut Tx) -> Result<Vec<Count>> {
    Ok(run!(tx, c => sqlx::query_as(COUNTS).fetch_all(c).await)?)
}
