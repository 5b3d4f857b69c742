//! Rows of `acme_policy` and `acme_policy_revision`. Who a policy is for: [`crate::scopes`].

use mdm_core::ids::PolicyId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::{IdSet, over_ids};
use crate::{Dialect, Result, Tx};

/// A policy with its current revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Our key.
    pub id: Uuid,
    /// Its name, unique among the policies that are not deleted.
    pub name: String,
    /// The number of the current revision, from 1.
    pub revision: i64,
    /// The current revision as JSON, as the API carries it.
    pub body: String,
    /// `PayloadUUID` of the profile of the current revision.
    pub payload_uuid: Uuid,
    /// When the policy was made (ms).
    pub created_at: i64,
    /// When it last changed (ms).
    pub updated_at: i64,
    /// When it was deleted (ms).
    pub deleted_at: Option<i64>,
}

from_row!(Policy { id, name, revision, body, payload_uuid, created_at, updated_at, deleted_at });

impl Policy {
    /// Our key.
    pub fn id(&self) -> PolicyId {
        PolicyId(self.id)
    }
}

/// A revision to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewRevision<'a> {
    /// The policy's name.
    pub name: &'a str,
    /// The policy as JSON.
    pub body: &'a str,
    /// `PayloadUUID` of its profile.
    pub payload_uuid: Uuid,
    /// Who wrote it.
    pub created_by: &'a str,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.name, p.revision, r.body, r.payload_uuid, p.created_at, p.updated_at, p.deleted_at
               FROM acme_policy p JOIN acme_policy_revision r ON r.policy_id = p.id AND r.revision = p.revision ",
            $rest
        )
    };
}

/// Makes a policy with its first revision. [`crate::Error::Duplicate`] where the name is taken.
pub async fn insert(tx: &mut Tx, id: PolicyId, new: &NewRevision<'_>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO acme_policy (id, name, revision, created_at, updated_at) VALUES ($1, $2, 1, $3, $3)")
        .bind(id.0).bind(new.name).bind(now.0).execute(c).await.map(drop))?;
    insert_revision(tx, id, 1, new, now).await
}

async fn insert_revision(
    tx: &mut Tx,
    id: PolicyId,
    revision: i64,
    new: &NewRevision<'_>,
    now: Timestamp,
) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO acme_policy_revision (policy_id, revision, body, payload_uuid, created_by, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(id.0).bind(revision).bind(new.body).bind(new.payload_uuid).bind(new.created_by).bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Adds a revision and makes it the current one; its number, or nothing where there is no such policy. A number is never used
/// again, also after the policy went back to an older revision.
pub async fn revise(tx: &mut Tx, id: PolicyId, new: &NewRevision<'_>, now: Timestamp) -> Result<Option<i64>> {
    let revision: Option<i64> = run!(tx, c => sqlx::query_scalar(
        "UPDATE acme_policy SET name = $2, updated_at = $3,
                revision = (SELECT MAX(r.revision) + 1 FROM acme_policy_revision r WHERE r.policy_id = $1)
          WHERE id = $1 AND deleted_at IS NULL RETURNING revision")
        .bind(id.0).bind(new.name).bind(now.0).fetch_optional(c).await)?;
    if let Some(revision) = revision {
        insert_revision(tx, id, revision, new, now).await?;
    }
    Ok(revision)
}

/// Takes the lock of a policy: whoever writes it or its scope does so one after the other. What was read before is to be read again. On
/// SQLite the write transaction is that lock.
pub async fn lock(tx: &mut Tx, id: PolicyId) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM acme_policy WHERE id = $1 FOR NO KEY UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(id.0).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// [`lock`] of the policy of this name, where there is one.
pub async fn lock_name(tx: &mut Tx, name: &str) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM acme_policy WHERE name = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(name).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The policy with this key, deleted or not.
pub async fn get(tx: &mut Tx, id: PolicyId) -> Result<Option<Policy>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE p.id = $1")).bind(id.0).fetch_optional(c).await)?)
}

/// The policies with these keys, deleted or not, in no order.
pub async fn many(tx: &mut Tx, ids: &[PolicyId]) -> Result<Vec<Policy>> {
    let sql = over_ids!(tx, select!("WHERE p.id IN ("), ")");
    let ids = IdSet::of(ids.iter().map(|id| id.0));
    Ok(run!(tx, c => sqlx::query_as(sql).bind(ids.as_json()).fetch_all(c).await)?)
}

/// What a revision says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    /// The policy as JSON.
    pub body: String,
    /// `PayloadUUID` of its profile.
    pub payload_uuid: Uuid,
}

from_row!(Wording { body, payload_uuid });

/// What one revision of a policy says, the current one or an older one.
pub async fn wording(tx: &mut Tx, id: PolicyId, revision: i64) -> Result<Option<Wording>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT body, payload_uuid FROM acme_policy_revision WHERE policy_id = $1 AND revision = $2")
        .bind(id.0).bind(revision).fetch_optional(c).await)?)
}

/// One revision of a policy, with who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its number, from 1.
    pub revision: i64,
    /// The policy as JSON.
    pub body: String,
    /// Who wrote it.
    pub created_by: String,
    /// When (ms).
    pub created_at: i64,
}

from_row!(Revision { revision, body, created_by, created_at });

/// The revisions of a policy before `before`, the newest first.
pub async fn revisions(tx: &mut Tx, id: PolicyId, before: Option<i64>, limit: i64) -> Result<Vec<Revision>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT revision, body, created_by, created_at FROM acme_policy_revision
          WHERE policy_id = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3")
        .bind(id.0).bind(before.unwrap_or(i64::MAX)).bind(limit).fetch_all(c).await)?)
}

/// The policy of this name that is not deleted.
pub async fn by_name(tx: &mut Tx, name: &str) -> Result<Option<Policy>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE p.name = $1 AND p.deleted_at IS NULL"))
        .bind(name).fetch_optional(c).await)?)
}

/// The policies that are not deleted, in the order of their names, from the one after `after`.
pub async fn list(tx: &mut Tx, after: &str, limit: i64) -> Result<Vec<Policy>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE p.name > $1 AND p.deleted_at IS NULL ORDER BY p.name LIMIT $2"))
        .bind(after).bind(limit).fetch_all(c).await)?)
}

/// Deletes a policy: its name is free again, its revisions and assignments stay. False where there is no such policy.
pub async fn delete(tx: &mut Tx, id: PolicyId, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE acme_policy SET deleted_at = $2, updated_at = $2 WHERE id = $1 AND deleted_at IS NULL")
        .bind(id.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}
