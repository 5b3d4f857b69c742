//! Rows of `ade_profile` and `ade_definition`.

use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// A profile definition as an operator writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its key.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Rises with each change.
    pub revision: i64,
    /// JSON: Apple's keys, as far as they are the operator's.
    pub body: String,
    /// Who made it.
    pub created_by: String,
    /// When (ms).
    pub created_at: i64,
    /// When it was last changed (ms).
    pub updated_at: i64,
}

from_row!(Profile { id, name, revision, body, created_by, created_at, updated_at });

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT id, name, revision, body, created_by, created_at, updated_at FROM ade_profile ", $rest)
    };
}

/// Stores a new profile.
pub async fn insert(tx: &mut Tx, profile: &Profile) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO ade_profile (id, name, revision, body, created_by, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(profile.id).bind(&profile.name).bind(profile.revision).bind(&profile.body).bind(&profile.created_by)
        .bind(profile.created_at).bind(profile.updated_at)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Gives a profile another body, as its next revision.
pub async fn revise(tx: &mut Tx, id: Uuid, body: &str, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_profile SET body = $2, revision = revision + 1, updated_at = $3 WHERE id = $1")
        .bind(id).bind(body).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// The profile with this key, deleted or not.
pub async fn get(tx: &mut Tx, id: Uuid) -> Result<Option<Profile>> {
    const GET: &str = select!("WHERE id = $1");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id).fetch_optional(c).await)?)
}

/// The profile with this name.
pub async fn by_name(tx: &mut Tx, name: &str) -> Result<Option<Profile>> {
    const FIND: &str = select!("WHERE name = $1 AND deleted_at IS NULL");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(name).fetch_optional(c).await)?)
}

/// Profiles by name, those after `after`.
pub async fn list(tx: &mut Tx, after: &str, limit: i64) -> Result<Vec<Profile>> {
    const LIST: &str = select!("WHERE name > $1 AND deleted_at IS NULL ORDER BY name LIMIT $2");
    Ok(run!(tx, c => sqlx::query_as(LIST).bind(after).bind(limit).fetch_all(c).await)?)
}

/// Takes a profile out of use.
pub async fn delete(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_profile SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL")
        .bind(id).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// How many servers have it as their default, and how many devices it is wished for.
pub async fn uses(tx: &mut Tx, id: Uuid) -> Result<i64> {
    let (count,): (i64,) = run!(tx, c => sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM ade_server WHERE default_profile_id = $1 AND deleted_at IS NULL)
              + (SELECT COUNT(*) FROM ade_device d JOIN ade_server s ON s.id = d.server_id AND s.deleted_at IS NULL
                 WHERE d.profile_id = $1 AND d.deleted_at IS NULL)")
        .bind(id).fetch_one(c).await)?;
    Ok(count)
}

/// A profile as it was defined at Apple: there it can never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The server.
    pub server_id: Uuid,
    /// The profile.
    pub profile_id: Uuid,
    /// SHA-256 of what was sent.
    pub sha256: Vec<u8>,
    /// JSON: SHA-256 of each certificate in `anchor_certs`, hexadecimal.
    pub anchors: String,
    /// Apple's `profile_uuid`.
    pub profile_uuid: String,
    /// When (ms).
    pub defined_at: i64,
}

from_row!(Definition { server_id, profile_id, sha256, anchors, profile_uuid, defined_at });

/// Stores what Apple called a definition.
pub async fn define(tx: &mut Tx, definition: &Definition) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO ade_definition (server_id, profile_id, sha256, anchors, profile_uuid, defined_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (server_id, profile_id, sha256) DO UPDATE SET profile_uuid = excluded.profile_uuid,
            defined_at = excluded.defined_at")
        .bind(definition.server_id).bind(definition.profile_id).bind(&definition.sha256).bind(&definition.anchors)
        .bind(&definition.profile_uuid).bind(definition.defined_at)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// What this very content was called by Apple on this server.
pub async fn defined(tx: &mut Tx, server: Uuid, profile: Uuid, sha256: &[u8]) -> Result<Option<Definition>> {
    let row = run!(tx, c => sqlx::query_as(
        "SELECT server_id, profile_id, sha256, anchors, profile_uuid, defined_at FROM ade_definition
         WHERE server_id = $1 AND profile_id = $2 AND sha256 = $3")
        .bind(server).bind(profile).bind(sha256).fetch_optional(c).await)?;
    Ok(row)
}

/// Forgets what was defined on a server: its token is now for another one.
pub async fn undefine(tx: &mut Tx, server: Uuid) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM ade_definition WHERE server_id = $1").bind(server).execute(c).await.map(drop))?;
    Ok(())
}

/// Forgets one definition, because Apple does not know it.
pub async fn unknown(tx: &mut Tx, server: Uuid, profile_uuid: &str) -> Result<()> {
    run!(tx, c => sqlx::query("DELETE FROM ade_definition WHERE server_id = $1 AND profile_uuid = $2")
        .bind(server).bind(profile_uuid).execute(c).await.map(drop))?;
    Ok(())
}

/// A definition that devices have, with the anchors in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The server's name.
    pub server: String,
    /// The profile's name.
    pub profile: String,
    /// JSON: SHA-256 of each certificate in `anchor_certs`, hexadecimal.
    pub anchors: String,
    /// How many devices have it.
    pub devices: i64,
}

from_row!(Carried { server, profile, anchors, devices });

/// The definitions that devices have.
pub async fn carried(tx: &mut Tx) -> Result<Vec<Carried>> {
    let rows = run!(tx, c => sqlx::query_as(
        "SELECT s.name AS server, p.name AS profile, f.anchors AS anchors, COUNT(*) AS devices
         FROM ade_definition f
         JOIN ade_server s ON s.id = f.server_id AND s.deleted_at IS NULL
         JOIN ade_profile p ON p.id = f.profile_id
         JOIN ade_device d ON d.server_id = f.server_id AND d.assigned_uuid = f.profile_uuid AND d.deleted_at IS NULL
         GROUP BY s.name, p.name, f.anchors ORDER BY s.name, p.name, f.anchors")
        .fetch_all(c).await)?;
    Ok(rows)
}
