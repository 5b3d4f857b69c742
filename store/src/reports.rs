//! Counts over the certificates, decisions and attempts of a policy, for reports. Read only.

use mdm_core::ids::PolicyId;
use mdm_core::time::Timestamp;

use crate::{Dialect, Result, Tx};

/// How many on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970-01-01, in UTC.
    pub day: i64,
    /// How many.
    pub count: i64,
}

from_row!(Day { day, count });

/// On which days the verified certificates of a policy end, the first first.
pub async fn ends(tx: &mut Tx, policy: PolicyId) -> Result<Vec<Day>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT not_after / 86400000 AS day, COUNT(*) AS count FROM acme_certificate
          WHERE policy_id = $1 AND state = 'verified' GROUP BY not_after / 86400000 ORDER BY 1")
        .bind(policy.0).fetch_all(c).await)?)
}

/// On which days the certificates of a policy are to be renewed, the first first.
pub async fn renewals_due(tx: &mut Tx, policy: PolicyId) -> Result<Vec<Day>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT renew_at / 86400000 AS day, COUNT(*) AS count FROM assignment
          WHERE policy_id = $1 AND renew_at IS NOT NULL GROUP BY renew_at / 86400000 ORDER BY 1")
        .bind(policy.0).fetch_all(c).await)?)
}

/// How many verified certificates have one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// `KeyType` and `KeySize`, as stored.
    pub key_type: String,
    /// `HardwareBound` was asked for.
    pub hardware_bound: bool,
    /// `Attest` was asked for.
    pub attested: bool,
    /// How many.
    pub count: i64,
}

from_row!(Form { key_type, hardware_bound, attested, count });

/// The verified certificates of a policy, counted by their form.
pub async fn forms(tx: &mut Tx, policy: PolicyId) -> Result<Vec<Form>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT key_type, hardware_bound, attested, COUNT(*) AS count FROM acme_certificate
          WHERE policy_id = $1 AND state = 'verified'
          GROUP BY key_type, hardware_bound, attested ORDER BY key_type, hardware_bound, attested")
        .bind(policy.0).fetch_all(c).await)?)
}

/// How many decisions carry one note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// The code of the note.
    pub code: String,
    /// How many.
    pub count: i64,
}

from_row!(Noted { code, count });

/// The notes of the decisions by which the profile of a policy was sent: why its form is weaker than asked.
pub async fn notes(tx: &mut Tx, policy: PolicyId) -> Result<Vec<Noted>> {
    const SQLITE: &str = "SELECT n.value ->> 'code' AS code, COUNT(*) AS count
           FROM assignment a, json_each(a.decision, '$.notes') n
          WHERE a.policy_id = $1 AND a.state IN ('installing', 'installed', 'verified', 'failed')
          GROUP BY n.value ->> 'code' ORDER BY 1";
    const POSTGRES: &str = "SELECT n.value ->> 'code' AS code, COUNT(*) AS count
           FROM assignment a, jsonb_array_elements(a.decision::jsonb -> 'notes') n
          WHERE a.policy_id = $1 AND a.state IN ('installing', 'installed', 'verified', 'failed')
          GROUP BY n.value ->> 'code' ORDER BY 1";
    let sql = match tx.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    Ok(run!(tx, c => sqlx::query_as(sql).bind(policy.0).fetch_all(c).await)?)
}

/// How many attempts are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub state: String,
    /// How many.
    pub count: i64,
}

from_row!(Count { state, count });

/// The renewals of certificates of a policy that were decided since then, counted by the state of their attempt.
pub async fn renewals(tx: &mut Tx, policy: PolicyId, since: Timestamp) -> Result<Vec<Count>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT state, COUNT(*) AS count FROM attempt
          WHERE policy_id = $1 AND purpose = 'renewal' AND queued_at >= $2 GROUP BY state ORDER BY state")
        .bind(policy.0).bind(since.0).fetch_all(c).await)?)
}
