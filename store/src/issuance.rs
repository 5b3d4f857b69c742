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

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The word in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads the word that [`Self::as_str`] gives.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// How the permission came about. Each flow has its own way to be authorized; none is "no check" (TH-33).
    Flow {
        /// An enrollment link was opened.
        Link = "link",
        /// A device of Automated Device Enrollment asked for its profile.
        Ade = "ade",
        /// A person signed in for account-driven User Enrollment (`mdm-byod`).
        Byod = "byod",
        /// A person signed in for account-driven device enrollment (`mdm-adde`).
        Adde = "adde",
        /// The server renews the identity of an enrollment.
        Renewal = "renewal",
        /// The certificate was issued elsewhere and is known by its SHA-256: nothing is issued here.
        Import = "import",
    }
}

words! {
    /// What the certificate is for; decides what an `Authenticate` with it means (TH-10).
    Purpose {
        /// A new enrollment.
        Enrollment = "enrollment",
        /// A new certificate for an enrollment that goes on.
        Renewal = "renewal",
    }
}

words! {
    /// Where the record stands.
    State {
        /// The challenge waits.
        Open = "open",
        /// The certificate was issued (or imported); no `Authenticate` came with it yet.
        Issued = "issued",
        /// An `Authenticate` came with it.
        Used = "used",
        /// Given up before a certificate was issued.
        Void = "void",
        /// The certificate must not be accepted.
        Revoked = "revoked",
    }
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
    /// SHA-256 of the one-time challenge and its end; absent for [`Flow::Import`].
    pub challenge: Option<([u8; 32], Timestamp)>,
    /// The imported certificate; absent otherwise.
    pub imported: Option<Fingerprint>,
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
    /// When it was opened.
    pub created_at: Timestamp,
}

struct Row {
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
    created_at: i64,
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
    created_at,
});

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
            created_at: Timestamp(row.created_at),
        })
    }
}

/// Opens a record. An imported one is `issued` from the start.
pub async fn insert(tx: &mut Tx, new: &NewIssuance<'_>) -> Result<()> {
    let state = if new.imported.is_some() { State::Issued } else { State::Open };
    run!(tx, c => sqlx::query(
        "INSERT INTO issuance (id, flow, purpose, kind, link_id, enrollment_id, expected_serial, expected_udid, label,
                common_name, state, challenge_sha256, challenge_expires_at, cert_sha256, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)")
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
        .bind(new.challenge.map(|(_, expires_at)| expires_at.0))
        .bind(new.imported.map(|fingerprint| fingerprint.0.to_vec()))
        .bind(new.created_at.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The record with this key.
pub async fn get(tx: &mut Tx, id: IssuanceId) -> Result<Option<Issuance>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(
        "SELECT id, flow, purpose, kind, link_id, enrollment_id, expected_serial, expected_udid, label, common_name, state,
                challenge_expires_at, csr_key_sha256, cert_sha256, certificate, created_at FROM issuance WHERE id = $1")
        .bind(id.0).fetch_optional(c).await)?;
    row.map(Issuance::try_from).transpose()
}

/// The record whose challenge has this SHA-256.
pub async fn by_challenge(tx: &mut Tx, sha256: &[u8; 32]) -> Result<Option<Issuance>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(
        "SELECT id, flow, purpose, kind, link_id, enrollment_id, expected_serial, expected_udid, label, common_name, state,
                challenge_expires_at, csr_key_sha256, cert_sha256, certificate, created_at
           FROM issuance WHERE challenge_sha256 = $1")
        .bind(sha256.to_vec()).fetch_optional(c).await)?;
    row.map(Issuance::try_from).transpose()
}

/// The record that this certificate was issued or imported by.
pub async fn by_certificate(tx: &mut Tx, fingerprint: Fingerprint) -> Result<Option<Issuance>> {
    let row: Option<Row> = run!(tx, c => sqlx::query_as(
        "SELECT id, flow, purpose, kind, link_id, enrollment_id, expected_serial, expected_udid, label, common_name, state,
                challenge_expires_at, csr_key_sha256, cert_sha256, certificate, created_at
           FROM issuance WHERE cert_sha256 = $1")
        .bind(fingerprint.0.to_vec()).fetch_optional(c).await)?;
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

/// `open` → `void` for all records of a link, when the link is revoked; how many there were.
pub async fn void_of_link(tx: &mut Tx, link: LinkId) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query("UPDATE issuance SET state = 'void' WHERE link_id = $1 AND state = 'open'")
        .bind(link.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// `open` → `void` for the renewals of an enrollment, so that only the newest one holds; how many there were.
pub async fn void_renewals(tx: &mut Tx, enrollment: EnrollmentId) -> Result<u64> {
    Ok(run!(tx, c => sqlx::query(
        "UPDATE issuance SET state = 'void' WHERE enrollment_id = $1 AND state = 'open' AND purpose = 'renewal'")
        .bind(enrollment.0).execute(c).await.map(|done| done.rows_affected()))?)
}
