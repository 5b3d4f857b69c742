//! Rows of `issuance`: for whom, by which flow and until when one identity certificate may be issued, and which one was.
//!
//! `open` → `issued` (the challenge was consumed) → `used` (an `Authenticate` came with the certificate); `void` and `revoked`
//! are ends. Each step is one `UPDATE … WHERE state = …`, so that it happens once however many try (TH-28).

use mdm_core::certificate::Certificate;
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{EnrollmentId, Fingerprint, IssuanceId, Label, LinkId, Udid};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Error, Result, Tx};

mod waiting;
mod words;

pub use waiting::{
    open_by_client_identifier, opened_for_serial, void_client_identifier, void_of_account_token, void_of_link,
    void_of_serial, void_renewals,
};
pub use words::{Flow, Purpose, Source, State};

/// What else a record says; [`Default`] is a certificate of our SCEP server for nobody in particular.
#[derive(Debug, Clone, Copy, Default)]
pub struct Details<'a> {
    /// ACME: SHA-256 of `ClientIdentifier`, and when the record ends. Such a record has no challenge, so that SCEP cannot
    /// fulfil it (TH-48).
    pub acme: Option<([u8; 32], Timestamp)>,
    /// Why this identity: JSON.
    pub identity_reason: Option<&'a str>,
    /// The bearer token that the profile was fetched with.
    pub account_token: Option<Uuid>,
    /// `AssignedManagedAppleID`.
    pub managed_apple_account: Option<&'a str>,
    /// JSON: SHA-256 of each anchor in the profile.
    pub anchors: Option<&'a str>,
}

/// A record to be opened.
#[derive(Debug, Clone)]
pub struct NewIssuance<'a> {
    /// Its key.
    pub id: IssuanceId,
    /// How it came about.
    pub flow: Flow,
    /// What the certificate is for.
    pub purpose: Purpose,
    /// Which kind of enrollment it leads to.
    pub kind: EnrollmentKind,
    /// The link that was opened.
    pub link: Option<LinkId>,
    /// The enrollment that it renews or that it may replace.
    pub enrollment: Option<EnrollmentId>,
    /// Only this serial number may use it.
    pub expected_serial: Option<&'a str>,
    /// Only this UDID may use it.
    pub expected_udid: Option<&'a Udid>,
    /// Put on the enrollment that comes of it.
    pub label: Option<&'a Label>,
    /// Common name of the certificate.
    pub common_name: &'a str,
    /// SHA-256 of the one-time challenge and its end; absent for [`Flow::Import`] and for ACME.
    pub challenge: Option<([u8; 32], Timestamp)>,
    /// The imported certificate; absent otherwise.
    pub imported: Option<Fingerprint>,
    /// What else.
    pub details: Details<'a>,
    /// Now.
    pub created_at: Timestamp,
}

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// Its key.
    pub id: IssuanceId,
    /// How it came about.
    pub flow: Flow,
    /// What the certificate is for.
    pub purpose: Purpose,
    /// Which kind of enrollment it leads to.
    pub kind: EnrollmentKind,
    /// The link that was opened.
    pub link: Option<LinkId>,
    /// The enrollment that it renews, may replace, or was used for.
    pub enrollment: Option<EnrollmentId>,
    /// Only this serial number may use it.
    pub expected_serial: Option<String>,
    /// Only this UDID may use it.
    pub expected_udid: Option<String>,
    /// Put on the enrollment that comes of it.
    pub label: Option<String>,
    /// Common name of the certificate.
    pub common_name: String,
    /// Where it stands.
    pub state: State,
    /// When its challenge ends.
    pub challenge_expires_at: Option<Timestamp>,
    /// SHA-256 of the `SubjectPublicKeyInfo` that it was issued for.
    pub csr_key_sha256: Option<Vec<u8>>,
    /// SHA-256 of the certificate.
    pub fingerprint: Option<Fingerprint>,
    /// The certificate, DER; absent for [`Flow::Import`].
    pub certificate: Option<Vec<u8>>,
    /// Serial number of the certificate, hexadecimal.
    pub cert_serial: Option<String>,
    /// When the certificate ends.
    pub cert_not_after: Option<Timestamp>,
    /// Who issues the certificate.
    pub source: Source,
    /// Why this identity: JSON.
    pub identity_reason: Option<String>,
    /// The bearer token that the profile was fetched with.
    pub account_token: Option<Uuid>,
    /// `AssignedManagedAppleID`.
    pub managed_apple_account: Option<String>,
    /// JSON: SHA-256 of each anchor in the profile.
    pub anchors: Option<String>,
    /// SCEP's `transactionID`, or `acme`.
    pub transaction_id: Option<String>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When the certificate was issued (ACME: first seen).
    pub issued_at: Option<Timestamp>,
    /// When a device enrolled with it.
    pub used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

pub(crate) struct Row {
    id: Uuid,
    flow: String,
    purpose: String,
    kind: String,
    link_id: Option<Uuid>,
    enrollment_id: Option<Uuid>,
    expected_serial: Option<String>,
    expected_udid: Option<String>,
    label: Option<String>,
    common_name: String,
    state: String,
    challenge_expires_at: Option<i64>,
    csr_key_sha256: Option<Vec<u8>>,
    cert_sha256: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    cert_serial: Option<String>,
    cert_not_after: Option<i64>,
    source: String,
    identity_reason: Option<String>,
    account_token_id: Option<Uuid>,
    managed_apple_account: Option<String>,
    anchors: Option<String>,
    transaction_id: Option<String>,
    created_at: i64,
    issued_at: Option<i64>,
    used_at: Option<i64>,
    revoked_at: Option<i64>,
}

from_row!(Row {
    id,
    flow,
    purpose,
    kind,
    link_id,
    enrollment_id,
    expected_serial,
    expected_udid,
    label,
    common_name,
    state,
    challenge_expires_at,
    csr_key_sha256,
    cert_sha256,
    certificate,
    cert_serial,
    cert_not_after,
    source,
    identity_reason,
    account_token_id,
    managed_apple_account,
    anchors,
    transaction_id,
    created_at,
    issued_at,
    used_at,
    revoked_at,
});

/// `SELECT`, the columns of [`Row`], `FROM issuance`, and the rest of the query.
macro_rules! select_issuance {
    ($rest:literal) => {
        concat!(
            "SELECT id, flow, purpose, kind, link_id, enrollment_id, expected_serial, expected_udid, label, common_name, \
             state, challenge_expires_at, csr_key_sha256, cert_sha256, certificate, cert_serial, cert_not_after, source, \
             identity_reason, account_token_id, managed_apple_account, anchors, transaction_id, \
             created_at, issued_at, used_at, revoked_at FROM issuance ",
            $rest
        )
    };
}
pub(crate) use select_issuance;

impl TryFrom<Row> for Issuance {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let fingerprint = match row.cert_sha256 {
            Some(bytes) => Some(Fingerprint(bytes.try_into().map_err(|_| Error::Corrupt("issuance.cert_sha256"))?)),
            None => None,
        };
        Ok(Self {
            id: IssuanceId(row.id),
            flow: Flow::from_text(&row.flow).ok_or(Error::Corrupt("issuance.flow"))?,
            purpose: Purpose::from_text(&row.purpose).ok_or(Error::Corrupt("issuance.purpose"))?,
            kind: EnrollmentKind::from_text(&row.kind).ok_or(Error::Corrupt("issuance.kind"))?,
            link: row.link_id.map(LinkId),
            enrollment: row.enrollment_id.map(EnrollmentId),
            expected_serial: row.expected_serial,
            expected_udid: row.expected_udid,
            label: row.label,
            common_name: row.common_name,
            state: State::from_text(&row.state).ok_or(Error::Corrupt("issuance.state"))?,
            challenge_expires_at: row.challenge_expires_at.map(Timestamp),
            csr_key_sha256: row.csr_key_sha256,
            fingerprint,
            certificate: row.certificate,
            cert_serial: row.cert_serial,
            cert_not_after: row.cert_not_after.map(Timestamp),
            source: Source::from_text(&row.source).ok_or(Error::Corrupt("issuance.source"))?,
            identity_reason: row.identity_reason,
            account_token: row.account_token_id,
            managed_apple_account: row.managed_apple_account,
            anchors: row.anchors,
            transaction_id: row.transaction_id,
            created_at: Timestamp(row.created_at),
            issued_at: row.issued_at.map(Timestamp),
            used_at: row.used_at.map(Timestamp),
            revoked_at: row.revoked_at.map(Timestamp),
        })
    }
}

/// Opens a record. An imported one is `issued` from the start.
pub async fn insert(tx: &mut Tx, new: &NewIssuance<'_>) -> Result<()> {
    let details = &new.details;
    let (state, source) = match (&new.imported, &details.acme) {
        (Some(_), _) => (State::Issued, Source::Import),
        (None, Some(_)) => (State::Open, Source::Acme),
        (None, None) => (State::Open, Source::Scep),
    };
    let expires_at = new.challenge.map(|(_, at)| at).or_else(|| details.acme.map(|(_, at)| at));
    run!(tx, c => sqlx::query(
        "INSERT INTO issuance (id, flow, purpose, kind, link_id, enrollment_id, expected_serial, expected_udid, label,
                common_name, state, challenge_sha256, challenge_expires_at, cert_sha256, created_at, source,
                client_identifier_sha256, identity_reason, account_token_id, managed_apple_account, anchors)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)")
        .bind(new.id.0)
        .bind(new.flow.as_str())
        .bind(new.purpose.as_str())
        .bind(new.kind.as_str())
        .bind(new.link.map(|id| id.0))
        .bind(new.enrollment.map(|id| id.0))
        .bind(new.expected_serial)
        .bind(new.expected_udid.map(Udid::as_str))
        .bind(new.label.map(Label::as_str))
        .bind(new.common_name)
        .bind(state.as_str())
        .bind(new.challenge.map(|(sha256, _)| sha256.to_vec()))
        .bind(expires_at.map(|at| at.0))
        .bind(new.imported.map(|fingerprint| fingerprint.0.to_vec()))
        .bind(new.created_at.0)
        .bind(source.as_str())
        .bind(details.acme.map(|(sha256, _)| sha256.to_vec()))
        .bind(details.identity_reason)
        .bind(details.account_token)
        .bind(details.managed_apple_account)
        .bind(details.anchors)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The record with this key.
pub async fn get(tx: &mut Tx, id: IssuanceId) -> Result<Option<Issuance>> {
    const GET: &str = select_issuance!("WHERE id = $1");
    let row: Option<Row> = run!(tx, c => sqlx::query_as(GET).bind(id.0).fetch_optional(c).await)?;
    row.map(Issuance::try_from).transpose()
}

/// The record whose challenge has this SHA-256.
pub async fn by_challenge(tx: &mut Tx, sha256: &[u8; 32]) -> Result<Option<Issuance>> {
    const GET: &str = select_issuance!("WHERE challenge_sha256 = $1");
    let row: Option<Row> = run!(tx, c => sqlx::query_as(GET).bind(sha256.to_vec()).fetch_optional(c).await)?;
    row.map(Issuance::try_from).transpose()
}

/// The record that this certificate was issued or imported by.
pub async fn by_certificate(tx: &mut Tx, fingerprint: Fingerprint) -> Result<Option<Issuance>> {
    const GET: &str = select_issuance!("WHERE cert_sha256 = $1");
    let row: Option<Row> = run!(tx, c => sqlx::query_as(GET).bind(fingerprint.0.to_vec()).fetch_optional(c).await)?;
    row.map(Issuance::try_from).transpose()
}

/// `open` → `issued` for the key with this SHA-256, if the challenge has not ended; false where somebody was first (TH-28).
pub async fn consume(
    tx: &mut Tx,
    id: IssuanceId,
    csr_key_sha256: &[u8; 32],
    transaction_id: &str,
    now: Timestamp,
) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE issuance SET state = 'issued', issued_at = $2, csr_key_sha256 = $3, transaction_id = $4
          WHERE id = $1 AND state = 'open' AND challenge_expires_at > $2")
        .bind(id.0)
        .bind(now.0)
        .bind(csr_key_sha256.to_vec())
        .bind(transaction_id)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Keeps the certificate that was issued, before anybody is given it (RG-25).
pub async fn set_certificate(tx: &mut Tx, id: IssuanceId, certificate: &Certificate) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE issuance SET cert_sha256 = $2, certificate = $3, cert_serial = $4, cert_not_after = $5 WHERE id = $1")
        .bind(id.0)
        .bind(certificate.fingerprint().0.to_vec())
        .bind(certificate.der().to_vec())
        .bind(certificate.serial_hex())
        .bind(certificate.not_after().0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// `issued` → `used` by this enrollment; false where it was not `issued`.
pub async fn mark_used(tx: &mut Tx, id: IssuanceId, enrollment: EnrollmentId, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE issuance SET state = 'used', enrollment_id = $2, used_at = $3 WHERE id = $1 AND state = 'issued'")
        .bind(id.0).bind(enrollment.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// `issued` or `used` → `revoked`; false where it was neither.
pub async fn revoke(tx: &mut Tx, id: IssuanceId, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE issuance SET state = 'revoked', revoked_at = $2 WHERE id = $1 AND state IN ('issued', 'used')")
        .bind(id.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}
