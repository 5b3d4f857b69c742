//! Rows of `renewal`: where each enrollment stands with the next identity certificate. At most one row for an enrollment.
//!
//! `due` → `queued` (a command waits or is with the device) → `issued` (the device took the profile; its new identity was not
//! seen yet) → `done`. Every failure leads back to `due`. `due_at` is when the loop looks; no row that is not done is without
//! one, unless its identity has ended and nothing can be done from here.

use mdm_core::ids::{CommandUuid, EnrollmentId, Fingerprint, IssuanceId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::identities::Identity;
use crate::issuance::Issuance;
use crate::{Error, Result, Tx};

/// Where a renewal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for its time, the first or the next one.
    Due,
    /// Its command waits, or is with the device.
    Queued,
    /// The device has taken the profile; no message came with the new identity yet.
    Issued,
    /// The new identity was seen, or there is nothing to renew any more.
    Done,
}

impl State {
    /// The word in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Queued => "queued",
            Self::Issued => "issued",
            Self::Done => "done",
        }
    }

    /// Reads the word that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Due, Self::Queued, Self::Issued, Self::Done].into_iter().find(|state| state.as_str() == text)
    }
}

/// Why an identity is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It ends in a while.
    Expiry,
    /// It has ended, and the grace setting still lets it ask.
    Expired,
    /// The same, and the new one comes from an ACME server in place of SCEP.
    ToAcme,
    /// The profile's anchors have changed.
    Anchors,
    /// An operator asked for it.
    Operator,
}

impl Reason {
    /// The word in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Expired => "expired",
            Self::ToAcme => "to_acme",
            Self::Anchors => "anchors",
            Self::Operator => "operator",
        }
    }

    /// Reads the word that [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Expiry, Self::Expired, Self::ToAcme, Self::Anchors, Self::Operator]
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
}

/// The renewal of one enrollment's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Whose.
    pub enrollment: EnrollmentId,
    /// Where it stands.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// The identity that is to be renewed.
    pub identity: Fingerprint,
    /// Its end.
    pub deadline: Timestamp,
    /// The command that the state waits for.
    pub command: Option<CommandUuid>,
    /// The record that the last profile was made with.
    pub issuance: Option<IssuanceId>,
    /// Failures since it was begun.
    pub attempts: i64,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// When the loop looks; `None`: nothing to do.
    pub due_at: Option<Timestamp>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

struct Row {
    enrollment_id: Uuid,
    state: String,
    reason: String,
    cert_sha256: Vec<u8>,
    deadline: i64,
    command_uuid: Option<String>,
    issuance_id: Option<Uuid>,
    attempts: i64,
    last_error: Option<String>,
    due_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

from_row!(Row {
    enrollment_id,
    state,
    reason,
    cert_sha256,
    deadline,
    command_uuid,
    issuance_id,
    attempts,
    last_error,
    due_at,
    created_at,
    updated_at,
});

impl TryFrom<Row> for Renewal {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let command = row.command_uuid.map(|uuid| uuid.parse()).transpose();
        Ok(Self {
            enrollment: EnrollmentId(row.enrollment_id),
            state: State::from_text(&row.state).ok_or(Error::Corrupt("renewal.state"))?,
            reason: Reason::from_text(&row.reason).ok_or(Error::Corrupt("renewal.reason"))?,
            identity: Fingerprint(row.cert_sha256.try_into().map_err(|_| Error::Corrupt("renewal.cert_sha256"))?),
            deadline: Timestamp(row.deadline),
            command: command.map_err(|_| Error::Corrupt("renewal.command_uuid"))?,
            issuance: row.issuance_id.map(IssuanceId),
            attempts: row.attempts,
            last_error: row.last_error,
            due_at: row.due_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

/// The renewal of this enrollment.
pub async fn get(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Option<Renewal>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(
        "SELECT enrollment_id, state, reason, cert_sha256, deadline, command_uuid, issuance_id, attempts, last_error, due_at,
                created_at, updated_at FROM renewal WHERE enrollment_id = $1")
        .bind(enrollment.0).fetch_optional(c).await)?;
    row.map(Renewal::try_from).transpose()
}

/// Writes a renewal, a new one or what has changed of it; a lease on it ends.
pub async fn save(tx: &mut Tx, r: &Renewal, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO renewal (enrollment_id, state, reason, cert_sha256, deadline, command_uuid, issuance_id, attempts,
                last_error, due_at, leased_until, lease, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, NULL, $11, $12)
         ON CONFLICT (enrollment_id) DO UPDATE SET state = excluded.state, reason = excluded.reason,
                cert_sha256 = excluded.cert_sha256, deadline = excluded.deadline, command_uuid = excluded.command_uuid,
                issuance_id = excluded.issuance_id, attempts = excluded.attempts, last_error = excluded.last_error,
                due_at = excluded.due_at, leased_until = 0, lease = NULL, created_at = excluded.created_at,
                updated_at = excluded.updated_at")
        .bind(r.enrollment.0).bind(r.state.as_str()).bind(r.reason.as_str()).bind(r.identity.0.to_vec())
        .bind(r.deadline.0).bind(r.command.as_ref().map(|uuid| uuid.as_str().to_owned()))
        .bind(r.issuance.map(|id| id.0)).bind(r.attempts).bind(&r.last_error).bind(r.due_at.map(|at| at.0))
        .bind(r.created_at.0).bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Writes a renewal that begins now, in the place of one of another identity; false, and nothing is written, where this
/// identity's is there already: another server was first, and may have moved it on.
pub async fn begin(tx: &mut Tx, r: &Renewal, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO renewal (enrollment_id, state, reason, cert_sha256, deadline, command_uuid, issuance_id, attempts,
                last_error, due_at, leased_until, lease, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, NULL, NULL, 0, NULL, $6, 0, NULL, $7, $7)
         ON CONFLICT (enrollment_id) DO UPDATE SET state = excluded.state, reason = excluded.reason,
                cert_sha256 = excluded.cert_sha256, deadline = excluded.deadline, command_uuid = NULL, issuance_id = NULL,
                attempts = 0, last_error = NULL, due_at = excluded.due_at, leased_until = 0, lease = NULL,
                created_at = excluded.created_at, updated_at = excluded.updated_at
          WHERE renewal.cert_sha256 <> excluded.cert_sha256")
        .bind(r.enrollment.0).bind(r.state.as_str()).bind(r.reason.as_str()).bind(r.identity.0.to_vec())
        .bind(r.deadline.0).bind(r.due_at.map(|at| at.0)).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Takes up to `limit` renewals that are due, until `until`: nobody else is given them before.
pub async fn lease(
    tx: &mut Tx,
    now: Timestamp,
    until: Timestamp,
    lease: Uuid,
    limit: i64,
) -> Result<Vec<EnrollmentId>> {
    let sql = format!(
        "UPDATE renewal SET leased_until = $1, lease = $2 WHERE enrollment_id IN (
             SELECT enrollment_id FROM renewal WHERE due_at IS NOT NULL AND due_at <= $3 AND leased_until <= $3
              ORDER BY due_at LIMIT $4{})
         RETURNING enrollment_id",
        tx.dialect().skip_locked()
    );
    let sql = sqlx::AssertSqlSafe(sql);
    let ids: Vec<Uuid> =
        run!(tx, c => sqlx::query_scalar(sql).bind(until.0).bind(lease).bind(now.0).bind(limit).fetch_all(c).await)?;
    Ok(ids.into_iter().map(EnrollmentId).collect())
}

/// Whether this lease still holds a renewal: a loop that stood still for too long must not act on it (RG-23).
pub async fn holds(tx: &mut Tx, enrollment: EnrollmentId, lease: Uuid) -> Result<bool> {
    let held: Option<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT enrollment_id FROM renewal WHERE enrollment_id = $1 AND lease = $2")
        .bind(enrollment.0).bind(lease).fetch_optional(c).await)?;
    Ok(held.is_some())
}

/// The loop looks at this renewal at `at`, and not before; a lease on it ends.
pub async fn put_off(tx: &mut Tx, enrollment: EnrollmentId, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE renewal SET due_at = $2, leased_until = 0, lease = NULL WHERE enrollment_id = $1")
        .bind(enrollment.0).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// An identity that is to be renewed and has no row here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unplanned {
    /// Whose.
    pub enrollment: EnrollmentId,
    /// The identity.
    pub identity: Fingerprint,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}

struct UnplannedRow {
    enrollment_id: Uuid,
    cert_sha256: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

from_row!(UnplannedRow { enrollment_id, cert_sha256, not_before, not_after });

/// SQL of [`unplanned`], public so that a test can read its query plan.
pub const UNPLANNED: &str = "SELECT i.enrollment_id, i.cert_sha256, i.not_before, i.not_after FROM identity i \
    JOIN enrollment e ON e.id = i.enrollment_id \
    WHERE i.retired_at IS NULL AND i.revoked_at IS NULL AND i.not_after < $2 \
      AND i.not_before + (i.not_after - i.not_before) / 3 * 2 <= $1 AND e.state = 'enrolled' \
      AND e.unenroll_requested_at IS NULL \
      AND NOT EXISTS (SELECT 1 FROM renewal r WHERE r.enrollment_id = i.enrollment_id AND r.cert_sha256 = i.cert_sha256) \
      AND NOT EXISTS (SELECT 1 FROM identity n WHERE n.enrollment_id = i.enrollment_id AND n.pinned_at < i.pinned_at \
                         AND n.retired_at IS NULL AND n.revoked_at IS NULL) \
    ORDER BY i.not_after LIMIT $3";

/// Live identities of enrolled devices, the oldest of each, that have spent two thirds of their life, end before `before` and have no renewal yet,
/// the soonest end first.
pub async fn unplanned(tx: &mut Tx, now: Timestamp, before: Timestamp, limit: i64) -> Result<Vec<Unplanned>> {
    let rows: Vec<UnplannedRow> =
        run!(tx, c => sqlx::query_as(UNPLANNED).bind(now.0).bind(before.0).bind(limit).fetch_all(c).await)?;
    rows.into_iter()
        .map(|row| {
            Ok(Unplanned {
                enrollment: EnrollmentId(row.enrollment_id),
                identity: Fingerprint(row.cert_sha256.try_into().map_err(|_| Error::Corrupt("identity.cert_sha256"))?),
                not_before: Timestamp(row.not_before),
                not_after: Timestamp(row.not_after),
            })
        })
        .collect()
}

/// The enrollment begins anew or is over: its renewal ends, and no certificate that was to renew it can be used any more, not
/// even one that was issued already. Whoever holds its key belongs to the former enrollment (TH-10).
pub async fn abandon(tx: &mut Tx, enrollment: EnrollmentId, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE renewal SET state = 'done', command_uuid = NULL, due_at = NULL, leased_until = 0, lease = NULL,
                updated_at = $2 WHERE enrollment_id = $1 AND state <> 'done'")
        .bind(enrollment.0).bind(now.0).execute(c).await.map(drop))?;
    run!(tx, c => sqlx::query(
        "UPDATE issuance SET state = CASE WHEN state = 'open' THEN 'void' ELSE 'revoked' END,
                revoked_at = CASE WHEN state = 'open' THEN NULL ELSE $2 END
          WHERE enrollment_id = $1 AND purpose = 'renewal' AND state IN ('open', 'issued')")
        .bind(enrollment.0).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// An identity was revoked: whatever its holder asked for is good for nothing any more, neither an open permission nor a
/// certificate that was issued and not used yet. A renewal of another identity of the enrollment begins again. Nothing happens
/// for an identity that a newer one took the place of. The lock on the enrollment is held.
pub async fn revoked(tx: &mut Tx, identity: &Identity, now: Timestamp) -> Result<()> {
    if identity.retired_at.is_some() {
        return Ok(());
    }
    let row = get(tx, identity.enrollment).await?;
    abandon(tx, identity.enrollment, now).await?;
    if let Some(row) = row.filter(|row| row.identity != identity.fingerprint && row.state != State::Done) {
        save(tx, &Renewal { state: State::Due, command: None, issuance: None, due_at: Some(now), ..row }, now).await?;
    }
    Ok(())
}

/// An identity has proved itself: certificates that were to renew the enrollment by records older than `than` can't be used any
/// more, so that one that was given up does not put out the one that took its place.
pub async fn close_older(tx: &mut Tx, enrollment: EnrollmentId, than: IssuanceId, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE issuance SET state = CASE WHEN state = 'open' THEN 'void' ELSE 'revoked' END,
                revoked_at = CASE WHEN state = 'open' THEN NULL ELSE $3 END
          WHERE enrollment_id = $1 AND id < $2 AND purpose = 'renewal' AND state IN ('open', 'issued')")
        .bind(enrollment.0).bind(than.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// The record by which this key got a certificate that renews the enrollment and was not used yet: the same request came again.
pub async fn issued_for_key(tx: &mut Tx, enrollment: EnrollmentId, key_sha256: &[u8; 32]) -> Result<Option<Issuance>> {
    let id: Option<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT id FROM issuance WHERE enrollment_id = $1 AND csr_key_sha256 = $2 AND flow = 'renewal' AND state = 'issued'
          ORDER BY created_at DESC LIMIT 1")
        .bind(enrollment.0).bind(key_sha256.to_vec()).fetch_optional(c).await)?;
    match id {
        Some(id) => crate::issuance::get(tx, IssuanceId(id)).await,
        None => Ok(None),
    }
}

/// How many renewals are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub state: String,
    /// How many.
    pub count: i64,
}

from_row!(Count { state, count });

/// The renewals, counted by state.
pub async fn counts(tx: &mut Tx) -> Result<Vec<Count>> {
    Ok(run!(tx, c => sqlx::query_as("SELECT state, COUNT(*) AS count FROM renewal GROUP BY state ORDER BY state")
        .fetch_all(c).await)?)
}
