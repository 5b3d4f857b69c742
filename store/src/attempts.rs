//! Rows of `attempt`, the ledger: one try to get one certificate onto one enrollment. The id of a row is the trace id
//! of everything that follows from it.

use mdm_core::ids::{AssignmentId, AttemptId, AuthorityId, CommandUuid, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::id_set::{IdSet, over_ids};
use crate::{Dialect, Error, Result, Tx};

/// One try. Times are milliseconds since 1970.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The trace id.
    pub id: Uuid,
    /// The assignment, which may be gone.
    pub assignment_id: Uuid,
    /// The policy.
    pub policy_id: Uuid,
    /// Its revision.
    pub revision: i64,
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The certificate authority; none where the policy gives a bare `DirectoryURL`.
    pub authority_id: Option<Uuid>,
    /// `install` or `renewal`.
    pub purpose: String,
    /// `queued`, `delivered`, `acknowledged`, `proved`, `failed` or `void`.
    pub state: String,
    /// The `InstallProfile`.
    pub command_uuid: Option<String>,
    /// What `ClientIdentifier` is, from the delivery on: `one_time`, or `device` where it is the device's own serial
    /// number or UDID.
    pub mode: Option<String>,
    /// SHA-256 of `ClientIdentifier`.
    pub client_identifier_sha256: Option<Vec<u8>>,
    /// `ClientIdentifier`, where it names the device and is no secret.
    pub client_identifier: Option<String>,
    /// JSON: what the certificate must show.
    pub expectation: Option<String>,
    /// When the permission ends.
    pub expires_at: Option<i64>,
    /// When it was decided and the command put on the queue.
    pub queued_at: i64,
    /// When the push was sent that brought the device, as known at the delivery.
    pub pushed_at: Option<i64>,
    /// When the profile was rendered and handed out.
    pub delivered_at: Option<i64>,
    /// When the device acknowledged it.
    pub acknowledged_at: Option<i64>,
    /// When the authority was told that it may issue.
    pub authorized_at: Option<i64>,
    /// SHA-256 of the SubjectPublicKeyInfo that was allowed.
    pub authorized_key_sha256: Option<Vec<u8>>,
    /// When the authority said that it issued.
    pub issued_at: Option<i64>,
    /// SHA-256 of the certificate.
    pub certificate_sha256: Option<Vec<u8>>,
    /// When the certificate was seen on the device.
    pub proved_at: Option<i64>,
    /// When it ended, whichever way.
    pub ended_at: Option<i64>,
    /// Why it failed or is void.
    pub why: Option<String>,
}

from_row!(Attempt {
    id,
    assignment_id,
    policy_id,
    revision,
    enrollment_id,
    authority_id,
    purpose,
    state,
    command_uuid,
    mode,
    client_identifier_sha256,
    client_identifier,
    expectation,
    expires_at,
    queued_at,
    pushed_at,
    delivered_at,
    acknowledged_at,
    authorized_at,
    authorized_key_sha256,
    issued_at,
    certificate_sha256,
    proved_at,
    ended_at,
    why,
});

// The expectation names the device; the hash of a one-time identifier is nobody's business either.
impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("purpose", &self.purpose)
            .field("state", &self.state)
            .field("revision", &self.revision)
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

impl Attempt {
    /// The trace id.
    pub fn id(&self) -> AttemptId {
        AttemptId(self.id)
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, assignment_id, policy_id, revision, enrollment_id, authority_id, purpose, state, command_uuid, mode,
                    client_identifier_sha256, client_identifier, expectation, expires_at, queued_at, pushed_at,
                    delivered_at, acknowledged_at, authorized_at, authorized_key_sha256, issued_at, certificate_sha256, proved_at,
                    ended_at, why FROM attempt ",
            $rest
        )
    };
}

/// An attempt to be noted, in the transaction that puts its command on the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    /// The trace id.
    pub id: AttemptId,
    /// The assignment.
    pub assignment: AssignmentId,
    /// The policy.
    pub policy: PolicyId,
    /// Its revision.
    pub revision: i64,
    /// The enrollment.
    pub enrollment: EnrollmentId,
    /// The certificate authority, where the policy names one.
    pub authority: Option<AuthorityId>,
    /// `install` or `renewal`.
    pub purpose: &'static str,
    /// The `InstallProfile`.
    pub command: CommandUuid,
}

/// Notes attempts, in one statement.
pub async fn insert_many(tx: &mut Tx, new: &[NewAttempt], now: Timestamp) -> Result<()> {
    const INTO: &str =
        "INSERT INTO attempt (id, assignment_id, policy_id, revision, enrollment_id, authority_id, purpose,
                                             state, command_uuid, queued_at) ";
    const SQLITE: &str = "SELECT unhex(value ->> 'id'), unhex(value ->> 'assignment'), unhex(value ->> 'policy'),
                 value ->> 'revision', unhex(value ->> 'enrollment'), unhex(value ->> 'authority'), value ->> 'purpose',
                 'queued', value ->> 'command', $2 FROM json_each($1)";
    const POSTGRES: &str =
        "SELECT id, assignment, policy, revision, enrollment, authority, purpose, 'queued', command, $2
          FROM jsonb_to_recordset($1::text::jsonb) AS x (id uuid, assignment uuid, policy uuid, revision bigint,
               enrollment uuid, authority uuid, purpose text, command text)";
    let rows: Vec<_> = new
        .iter()
        .map(|n| {
            json!({
                "id": n.id.0.simple().to_string(),
                "assignment": n.assignment.0.simple().to_string(),
                "policy": n.policy.0.simple().to_string(),
                "revision": n.revision,
                "enrollment": n.enrollment.0.simple().to_string(),
                "authority": n.authority.map(|id| id.0.simple().to_string()),
                "purpose": n.purpose,
                "command": n.command,
            })
        })
        .collect();
    let rows = serde_json::to_string(&rows).map_err(|_| Error::Corrupt("attempt"))?;
    let sql = match tx.dialect() {
        Dialect::Sqlite => format!("{INTO}{SQLITE}"),
        Dialect::Postgres => format!("{INTO}{POSTGRES}"),
    };
    let sql = sqlx::AssertSqlSafe(sql);
    run!(tx, c => sqlx::query(sql).bind(&rows).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// The attempt with this id.
pub async fn get(tx: &mut Tx, id: AttemptId) -> Result<Option<Attempt>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE id = $1")).bind(id.0).fetch_optional(c).await)?)
}

/// Which of these assignments have a profile that was handed out to their device, with the revision of the last one.
pub async fn handed_out(tx: &mut Tx, assignments: &[AssignmentId]) -> Result<Vec<(AssignmentId, i64)>> {
    let sql = over_ids!(
        tx,
        "SELECT a.assignment_id, a.revision FROM attempt a WHERE a.delivered_at IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM attempt b
                             WHERE b.assignment_id = a.assignment_id AND b.delivered_at IS NOT NULL AND b.id > a.id)
            AND a.assignment_id IN (",
        ")"
    );
    let ids = IdSet::of(assignments.iter().map(|id| id.0));
    let rows: Vec<(Uuid, i64)> = run!(tx, c => sqlx::query_as(sql).bind(ids.as_json()).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, revision)| (AssignmentId(id), revision)).collect())
}

/// The attempts of one enrollment, newest first, those older than the one with the id `before`.
pub async fn of_enrollment(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    before: Option<AttemptId>,
    limit: i64,
) -> Result<Vec<Attempt>> {
    let before = before.map_or(Uuid::max(), |id| id.0);
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE enrollment_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"))
        .bind(enrollment.0).bind(before).bind(limit).fetch_all(c).await)?)
}

/// What a delivery fixes.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The revision that was rendered: a newer one than was decided for, where the policy was revised in between.
    pub revision: i64,
    /// The certificate authority, where the policy names one.
    pub authority: Option<AuthorityId>,
    /// `one_time` or `device`.
    pub mode: &'static str,
    /// SHA-256 of `ClientIdentifier`.
    pub client_identifier_sha256: Fingerprint,
    /// `ClientIdentifier`, of mode `device` only.
    pub client_identifier: Option<String>,
    /// JSON: what the certificate must show.
    pub expectation: String,
    /// When the permission ends.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivered")
            .field("mode", &self.mode)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The profile is handed out now; false where the attempt is not queued (any more).
pub async fn delivered(tx: &mut Tx, id: AttemptId, what: &Delivered, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE attempt SET state = 'delivered', mode = $2, client_identifier_sha256 = $3, client_identifier = $4,
                expectation = $5, expires_at = $6, delivered_at = $7, revision = $8, authority_id = $9,
                pushed_at = (SELECT i.last_sent_at FROM push_intent i WHERE i.enrollment_id = attempt.enrollment_id)
          WHERE id = $1 AND state = 'queued'")
        .bind(id.0).bind(what.mode).bind(what.client_identifier_sha256.0.as_slice()).bind(&what.client_identifier)
        .bind(&what.expectation).bind(what.expires_at.0).bind(now.0).bind(what.revision).bind(what.authority.map(|id| id.0))
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The device says that the profile is installed.
pub async fn acknowledged(tx: &mut Tx, id: AttemptId, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE attempt SET state = 'acknowledged', acknowledged_at = $2 WHERE id = $1 AND state IN ('queued', 'delivered')")
        .bind(id.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// It failed: the device refused the profile, its command ended, or the certificate never came.
pub async fn failed(tx: &mut Tx, id: AttemptId, why: &str, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE attempt SET state = 'failed', why = $2, ended_at = $3
          WHERE id = $1 AND state IN ('queued', 'delivered', 'acknowledged')")
        .bind(id.0).bind(why).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Makes the open attempts of these assignments void; how many there were.
pub async fn void_open(tx: &mut Tx, assignments: &[AssignmentId], why: &str, now: Timestamp) -> Result<u64> {
    let sql = over_ids!(
        tx,
        "UPDATE attempt SET state = 'void', why = $2, ended_at = $3
          WHERE state IN ('queued', 'delivered', 'acknowledged') AND assignment_id IN (",
        ")"
    );
    let ids = IdSet::of(assignments.iter().map(|id| id.0));
    Ok(run!(tx, c => sqlx::query(sql).bind(ids.as_json()).bind(why).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// Makes the open attempts of an enrollment void, because it is over or begins anew; how many there were.
pub async fn void_of_enrollment(tx: &mut Tx, enrollment: EnrollmentId, why: &str, now: Timestamp) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE attempt SET state = 'void', why = $2, ended_at = $3
          WHERE enrollment_id = $1 AND state IN ('queued', 'delivered', 'acknowledged')")
        .bind(enrollment.0).bind(why).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// The certificate was seen on the device.
pub async fn proved(tx: &mut Tx, id: AttemptId, certificate: Fingerprint, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE attempt SET state = 'proved', certificate_sha256 = $2, proved_at = $3, ended_at = $3
          WHERE id = $1 AND state IN ('queued', 'delivered', 'acknowledged')")
        .bind(id.0).bind(certificate.0.as_slice()).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// So many open attempts one `ClientIdentifier` may have: those of one device, a few profiles on its channels.
pub const MOST_OPEN: usize = 16;

/// The attempts that are delivered with this `ClientIdentifier`, whose permission has not ended at `now`, newest first. Where there
/// are more than [`MOST_OPEN`], one more than that and not all.
pub async fn open_by_client_identifier(tx: &mut Tx, sha256: &[u8], now: Timestamp) -> Result<Vec<Attempt>> {
    Ok(run!(tx, c => sqlx::query_as(select!(
        "WHERE client_identifier_sha256 = $1 AND state IN ('delivered', 'acknowledged') AND expires_at > $2 ORDER BY id DESC LIMIT $3"))
        .bind(sha256).bind(now.0).bind(i64::try_from(MOST_OPEN + 1).unwrap_or(i64::MAX)).fetch_all(c).await)?)
}

/// Uses the permission up for this key. False where it was used for another key, or the attempt is not open; the same
/// key again is true.
pub async fn authorize(tx: &mut Tx, id: AttemptId, key_sha256: &[u8], now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE attempt SET authorized_at = COALESCE(authorized_at, $3), authorized_key_sha256 = $2
          WHERE id = $1 AND state IN ('delivered', 'acknowledged') AND expires_at > $3
            AND (authorized_at IS NULL OR authorized_key_sha256 = $2)")
        .bind(id.0).bind(key_sha256).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// The authority said that it issued this certificate; false where it said so of another one before.
pub async fn issued(tx: &mut Tx, id: AttemptId, certificate_sha256: &[u8], now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE attempt SET issued_at = COALESCE(issued_at, $3), certificate_sha256 = $2
          WHERE id = $1 AND (certificate_sha256 IS NULL OR certificate_sha256 = $2)")
        .bind(id.0).bind(certificate_sha256).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}
