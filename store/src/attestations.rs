//! Rows of `attestation_nonce` and `attestation`: what devices were asked, and what Apple said of them.

use mdm_core::ids::{CommandUuid, EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// A nonce that a device was sent (`DeviceAttestationNonce`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce {
    /// The 32 bytes.
    pub nonce: Vec<u8>,
    /// Whom it was sent to.
    pub enrollment_id: Uuid,
    /// The command that it went out with last.
    pub command_uuid: String,
    /// When it was first sent (ms): an attestation that carries it is no older.
    pub sent_at: i64,
}

from_row!(Nonce { nonce, enrollment_id, command_uuid, sent_at });

/// A verdict on an attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Our key; sorts by time.
    pub id: Uuid,
    /// Whose.
    pub enrollment_id: Uuid,
    /// `device_information` or `acme`.
    pub source: String,
    /// `accepted`, `absent`, or the stable word of the refusal.
    pub verdict: String,
    /// `matches`, `not_attested`, `mismatch` or `unknown`.
    pub identity: String,
    /// When the nonce that it carries was sent (ms); `None`: unknown.
    pub fresh_as_of: Option<i64>,
    /// JSON: the attested values, without serial number and UDID.
    pub body: String,
    /// SHA-256 over the certificates, one after the other.
    pub chain_sha256: Vec<u8>,
    /// The certificates, DER, one after the other, while they are kept.
    pub chain: Option<Vec<u8>>,
    /// When it came (ms).
    pub received_at: i64,
}

from_row!(Row { id, enrollment_id, source, verdict, identity, fresh_as_of, body, chain_sha256, chain, received_at });

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, enrollment_id, source, verdict, identity, fresh_as_of, body, chain_sha256, chain, received_at \
             FROM attestation ",
            $rest
        )
    };
}

/// A verdict to be kept.
#[derive(Debug)]
pub struct New<'a> {
    /// Our key.
    pub id: Uuid,
    /// Whose.
    pub enrollment: EnrollmentId,
    /// `device_information` or `acme`.
    pub source: &'a str,
    /// `accepted`, `absent`, or the stable word of the refusal.
    pub verdict: &'a str,
    /// `matches`, `not_attested`, `mismatch` or `unknown`.
    pub identity: &'a str,
    /// When the nonce that it carries was sent.
    pub fresh_as_of: Option<Timestamp>,
    /// JSON: the attested values, without serial number and UDID.
    pub body: &'a str,
    /// SHA-256 over the certificates.
    pub chain_sha256: Fingerprint,
    /// The certificates; none where they are not to be kept.
    pub chain: Option<&'a [u8]>,
}

/// Notes a nonce that goes out with this command.
pub async fn send(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    nonce: &[u8],
    command: &CommandUuid,
    now: Timestamp,
) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO attestation_nonce (nonce, enrollment_id, command_uuid, sent_at) VALUES ($1, $2, $3, $4)")
        .bind(nonce).bind(enrollment.0).bind(command.as_str()).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Notes that a nonce goes out once more, with this command. When it was first sent stays.
pub async fn send_again(tx: &mut Tx, nonce: &[u8], command: &CommandUuid) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE attestation_nonce SET command_uuid = $2 WHERE nonce = $1")
        .bind(nonce).bind(command.as_str()).execute(c).await.map(drop))?;
    Ok(())
}

/// The newest nonce that this enrollment was sent.
pub async fn last_nonce(tx: &mut Tx, enrollment: EnrollmentId) -> Result<Option<Nonce>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT nonce, enrollment_id, command_uuid, sent_at FROM attestation_nonce
          WHERE enrollment_id = $1 ORDER BY sent_at DESC, nonce LIMIT 1")
        .bind(enrollment.0).fetch_optional(c).await)?)
}

/// A nonce of ours, whomever it was sent to.
pub async fn nonce(tx: &mut Tx, nonce: &[u8]) -> Result<Option<Nonce>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT nonce, enrollment_id, command_uuid, sent_at FROM attestation_nonce WHERE nonce = $1")
        .bind(nonce).fetch_optional(c).await)?)
}

/// Every nonce that this enrollment was sent, the newest first, so many at most.
pub async fn nonces(tx: &mut Tx, enrollment: EnrollmentId, limit: i64) -> Result<Vec<Nonce>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT nonce, enrollment_id, command_uuid, sent_at FROM attestation_nonce
          WHERE enrollment_id = $1 ORDER BY sent_at DESC, nonce LIMIT $2")
        .bind(enrollment.0).bind(limit).fetch_all(c).await)?)
}

/// Keeps a verdict.
pub async fn insert(tx: &mut Tx, new: &New<'_>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO attestation (id, enrollment_id, source, verdict, identity, fresh_as_of, body, chain_sha256, chain, received_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
        .bind(new.id)
        .bind(new.enrollment.0)
        .bind(new.source)
        .bind(new.verdict)
        .bind(new.identity)
        .bind(new.fresh_as_of.map(|at| at.0))
        .bind(new.body)
        .bind(new.chain_sha256.0.to_vec())
        .bind(new.chain)
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The newest verdict on what this source said of an enrollment.
pub async fn latest(tx: &mut Tx, enrollment: EnrollmentId, source: &str) -> Result<Option<Row>> {
    Ok(
        run!(tx, c => sqlx::query_as(select!("WHERE enrollment_id = $1 AND source = $2 ORDER BY received_at DESC, id DESC LIMIT 1"))
        .bind(enrollment.0).bind(source).fetch_optional(c).await)?,
    )
}

/// When an accepted attestation last came that carries the nonce sent at that time.
pub async fn answered_at(tx: &mut Tx, enrollment: EnrollmentId, sent_at: Timestamp) -> Result<Option<Timestamp>> {
    let at: Option<i64> = run!(tx, c => sqlx::query_scalar(
        "SELECT max(received_at) FROM attestation
          WHERE enrollment_id = $1 AND source = 'device_information' AND verdict = 'accepted' AND fresh_as_of = $2")
        .bind(enrollment.0).bind(sent_at.0).fetch_one(c).await)?;
    Ok(at.map(Timestamp))
}

/// The verdicts on an enrollment, newest first, older than `before`.
pub async fn list(tx: &mut Tx, enrollment: EnrollmentId, before: Option<Uuid>, limit: i64) -> Result<Vec<Row>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE enrollment_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"))
        .bind(enrollment.0).bind(before.unwrap_or(Uuid::max())).bind(limit).fetch_all(c).await)?)
}

/// Forgets the certificates of attestations that came before, so many at most; the verdicts stay. How many there were.
pub async fn forget_chains(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE attestation SET chain = NULL WHERE id IN
           (SELECT id FROM attestation WHERE chain IS NOT NULL AND received_at < $1 ORDER BY received_at LIMIT $2)")
        .bind(before.0).bind(limit).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Forgets verdicts that came before, so many at most. How many there were.
pub async fn forget_verdicts(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "DELETE FROM attestation WHERE id IN (SELECT id FROM attestation WHERE received_at < $1 ORDER BY received_at LIMIT $2)")
        .bind(before.0).bind(limit).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Forgets nonces that were sent before, so many at most. How many there were.
pub async fn forget_nonces(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "DELETE FROM attestation_nonce WHERE nonce IN
           (SELECT nonce FROM attestation_nonce WHERE sent_at < $1 ORDER BY sent_at LIMIT $2)")
        .bind(before.0).bind(limit).execute(c).await.map(|done| done.rows_affected()))?)
}
