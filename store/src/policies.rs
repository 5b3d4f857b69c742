//! Rows of `acme_policy`, `acme_policy_revision` and `policy_scope`.

use mdm_core::ids::{EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

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

/// One line of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `all`, `label` or `enrollment`.
    pub kind: String,
    /// The label, or the enrollment's id without hyphens; empty for `all`.
    pub value: String,
}

from_row!(Scope { kind, value });

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

/// Adds a revision and makes it the current one; its number, or nothing where there is no such policy.
pub async fn revise(tx: &mut Tx, id: PolicyId, new: &NewRevision<'_>, now: Timestamp) -> Result<Option<i64>> {
    let revision: Option<i64> = run!(tx, c => sqlx::query_scalar(
        "UPDATE acme_policy SET name = $2, revision = revision + 1, updated_at = $3
          WHERE id = $1 AND deleted_at IS NULL RETURNING revision")
        .bind(id.0).bind(new.name).bind(now.0).fetch_optional(c).await)?;
    if let Some(revision) = revision {
        insert_revision(tx, id, revision, new, now).await?;
    }
    Ok(revision)
}

/// The policy with this key, deleted or not.
pub async fn get(tx: &mut Tx, id: PolicyId) -> Result<Option<Policy>> {
    Ok(run!(tx, c => sqlx::query_as(select!("WHERE p.id = $1")).bind(id.0).fetch_optional(c).await)?)
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

/// Who the policy is for.
pub async fn scope(tx: &mut Tx, id: PolicyId) -> Result<Vec<Scope>> {
    Ok(run!(tx, c => sqlx::query_as("SELECT kind, value FROM policy_scope WHERE policy_id = $1 ORDER BY kind, value")
        .bind(id.0).fetch_all(c).await)?)
}

/// Replaces the scope.
pub async fn set_scope(tx: &mut Tx, id: PolicyId, scope: &[Scope]) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM policy_scope WHERE policy_id = $1").bind(id.0).execute(c).await.map(drop))?;
    for line in scope {
        run!(tx, c => sqlx::query(
            "INSERT INTO policy_scope (policy_id, kind, value) VALUES ($1, $2, $3)
             ON CONFLICT (policy_id, kind, value) DO NOTHING")
            .bind(id.0).bind(&line.kind).bind(&line.value).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The policies whose scope holds this enrollment, by itself or by the device that it is a user of.
pub async fn matching(tx: &mut Tx, enrollment: EnrollmentId, device: EnrollmentId) -> Result<Vec<PolicyId>> {
    let text = |id: EnrollmentId| id.0.simple().to_string();
    let ids: Vec<Uuid> = run!(tx, c => sqlx::query_scalar(
        "SELECT p.id FROM acme_policy p WHERE p.deleted_at IS NULL AND p.id IN (
             SELECT policy_id FROM policy_scope WHERE kind = 'all' AND value = ''
             UNION SELECT policy_id FROM policy_scope WHERE kind = 'enrollment' AND value IN ($1, $2)
             UNION SELECT s.policy_id FROM enrollment_label l JOIN policy_scope s ON s.kind = 'label' AND s.value = l.label
                    WHERE l.enrollment_id IN ($3, $4))
          ORDER BY p.id")
        .bind(text(enrollment)).bind(text(device)).bind(enrollment.0).bind(device.0).fetch_all(c).await)?;
    Ok(ids.into_iter().map(PolicyId).collect())
}

/// An enrollment that a line of a scope names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InScope {
    /// The enrollment.
    pub id: Uuid,
    /// `device` or `user`.
    pub channel: String,
}

from_row!(InScope { id, channel });

/// Every enrollment that takes commands.
pub async fn all_enrolled(tx: &mut Tx) -> Result<Vec<InScope>> {
    Ok(run!(tx, c => sqlx::query_as("SELECT id, channel FROM enrollment WHERE state = 'enrolled' ORDER BY id")
        .fetch_all(c).await)?)
}

/// The enrollments with this label that take commands, and the users of such devices.
pub async fn enrolled_by_label(tx: &mut Tx, label: &str) -> Result<Vec<InScope>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT e.id, e.channel FROM enrollment_label l JOIN enrollment e ON e.id = l.enrollment_id
          WHERE l.label = $1 AND e.state = 'enrolled'
         UNION
         SELECT e.id, e.channel FROM enrollment_label l JOIN enrollment e ON e.parent_id = l.enrollment_id
          WHERE l.label = $1 AND e.state = 'enrolled'
         ORDER BY id")
        .bind(label).fetch_all(c).await)?)
}

/// This enrollment and, where it is a device, its users, as far as they take commands.
pub async fn enrolled_by_id(tx: &mut Tx, id: EnrollmentId) -> Result<Vec<InScope>> {
    Ok(run!(tx, c => sqlx::query_as(
        "SELECT id, channel FROM enrollment WHERE (id = $1 OR parent_id = $1) AND state = 'enrolled' ORDER BY id")
        .bind(id.0).fetch_all(c).await)?)
}
