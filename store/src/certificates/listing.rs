//! The list of certificates that operators read.

use mdm_core::ids::{EnrollmentId, Fingerprint, PolicyId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use super::State;
use crate::{Result, Tx};

/// Which certificates to list. Everything that is set must hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this enrollment.
    pub enrollment: Option<EnrollmentId>,
    /// Only of this policy.
    pub policy: Option<PolicyId>,
    /// Only those that end before, or have ended.
    pub ends_before: Option<Timestamp>,
}

/// A certificate in a list, with where its assignment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// SHA-256 of the certificate.
    pub sha256: Vec<u8>,
    /// The enrollment that holds its key.
    pub enrollment_id: Uuid,
    /// The policy.
    pub policy_id: Uuid,
    /// The policy's name.
    pub policy_name: String,
    /// The attempt that it came by: the trace id.
    pub attempt_id: Uuid,
    /// The revision of the policy that it came by.
    pub revision: i64,
    /// Hexadecimal.
    pub serial_number: String,
    /// RFC 4514.
    pub issuer: String,
    /// RFC 4514.
    pub subject: String,
    /// Such as `ECSECPrimeRandom 256`.
    pub key_type: String,
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
    /// When it is renewed (ms), where it is the one in use.
    pub renew_at: Option<i64>,
    /// State of the assignment, where there is one still.
    pub assignment_state: Option<String>,
}

from_row!(Listed {
    sha256,
    enrollment_id,
    policy_id,
    policy_name,
    attempt_id,
    revision,
    serial_number,
    issuer,
    subject,
    key_type,
    hardware_bound,
    attested,
    not_before,
    not_after,
    state,
    reported_at,
    verified_at,
    seen_at,
    replaced_at,
    renew_at,
    assignment_state,
});

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT c.sha256, c.enrollment_id, c.policy_id, p.name AS policy_name, c.attempt_id, t.revision, c.serial_number, \
                    c.issuer, c.subject, c.key_type, c.hardware_bound, c.attested, c.not_before, c.not_after, c.state, \
                    c.reported_at, c.verified_at, c.seen_at, c.replaced_at, a.state AS assignment_state, \
                    CASE WHEN a.certificate_sha256 = c.sha256 THEN a.renew_at END AS renew_at \
               FROM acme_certificate c JOIN acme_policy p ON p.id = c.policy_id JOIN attempt t ON t.id = c.attempt_id \
               LEFT JOIN assignment a ON a.policy_id = c.policy_id AND a.enrollment_id = c.enrollment_id ",
            $rest
        )
    };
}

/// A page of certificates, by end and fingerprint, the soonest end first; `after` is the last of the page before.
pub async fn list(
    tx: &mut Tx,
    filter: &Filter,
    after: Option<(Timestamp, Fingerprint)>,
    limit: i64,
) -> Result<Vec<Listed>> {
    const LIST: &str = select!(
        "WHERE (c.not_after > $1 OR (c.not_after = $1 AND c.sha256 > $2)) AND c.not_after < $3 AND ($4 = '' OR c.state = $4) \
           AND ($5 = 0 OR c.enrollment_id = $6) AND ($7 = 0 OR c.policy_id = $8) ORDER BY c.not_after, c.sha256 LIMIT $9"
    );
    let (end, fingerprint) = after.map_or((i64::MIN, Vec::new()), |(end, print)| (end.0, print.0.to_vec()));
    let ends_before = filter.ends_before.map_or(i64::MAX, |at| at.0);
    let state = filter.state.map_or("", State::as_str);
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(end).bind(fingerprint).bind(ends_before).bind(state)
        .bind(i64::from(filter.enrollment.is_some())).bind(filter.enrollment.map_or(Uuid::nil(), |id| id.0))
        .bind(i64::from(filter.policy.is_some())).bind(filter.policy.map_or(Uuid::nil(), |id| id.0)).bind(limit)
        .fetch_all(c).await)?)
}

/// One certificate as the list has it.
pub async fn listed(tx: &mut Tx, sha256: Fingerprint) -> Result<Option<Listed>> {
    const ONE: &str = select!("WHERE c.sha256 = $1");
    Ok(run!(tx, c => sqlx::query_as(ONE).bind(sha256.0.to_vec()).fetch_optional(c).await)?)
}
