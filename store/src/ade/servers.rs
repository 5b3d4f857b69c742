//! Rows of `ade_server`.

use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Dialect, Result, Tx};

/// A server of Apple Business Manager or Apple School Manager.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Its key.
    pub id: Uuid,
    /// What the operator calls it.
    pub name: String,
    /// The certificate that the portal encrypts the token to, DER.
    pub certificate: Vec<u8>,
    /// Its key, PKCS#8, sealed.
    pub key_sealed: Vec<u8>,
    /// `consumer_key` of the token.
    pub consumer_key: Option<String>,
    /// The token as JSON, sealed.
    pub token_sealed: Option<Vec<u8>>,
    /// When the token ends (ms).
    pub token_expires_at: Option<i64>,
    /// When it was stored (ms).
    pub token_at: Option<i64>,
    /// Apple's answer to `/account`, JSON.
    pub account: Option<String>,
    /// The profile of devices for which nobody wished another.
    pub default_profile_id: Option<Uuid>,
    /// Apple's cursor.
    pub cursor: Option<String>,
    /// `fetch` or `sync`.
    pub phase: String,
    /// When the full list was begun that is being read, or was read last (ms).
    pub list_began_at: Option<i64>,
    /// When the list was last read to its end (ms).
    pub synced_at: Option<i64>,
    /// The word for how it is; the table's CHECK lists them.
    pub health: String,
    /// The same in a sentence.
    pub health_text: Option<String>,
    /// Since when the word holds (ms).
    pub health_at: Option<i64>,
    /// Visits in a row that failed.
    pub failures: i64,
    /// When the next visit is due (ms).
    pub due_at: i64,
    /// When it was made (ms).
    pub created_at: i64,
}

from_row!(Server {
    id,
    name,
    certificate,
    key_sealed,
    consumer_key,
    token_sealed,
    token_expires_at,
    token_at,
    account,
    default_profile_id,
    cursor,
    phase,
    list_began_at,
    synced_at,
    health,
    health_text,
    health_at,
    failures,
    due_at,
    created_at,
});

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("health", &self.health).finish_non_exhaustive()
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, certificate, key_sealed, consumer_key, token_sealed, token_expires_at, token_at, account, \
             default_profile_id, cursor, phase, list_began_at, synced_at, health, health_text, health_at, failures, due_at, created_at \
             FROM ade_server ",
            $rest
        )
    };
}

/// Stores a server that has no token yet.
pub async fn insert(tx: &mut Tx, server: &Server) -> Result<()> {
    run!(tx, c => sqlx::query(
        "INSERT INTO ade_server (id, name, certificate, key_sealed, default_profile_id, due_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(server.id).bind(&server.name).bind(&server.certificate).bind(&server.key_sealed)
        .bind(server.default_profile_id).bind(server.due_at).bind(server.created_at)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The server with this key, if it is in use.
pub async fn get(tx: &mut Tx, id: Uuid) -> Result<Option<Server>> {
    const GET: &str = select!("WHERE id = $1 AND deleted_at IS NULL");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(id).fetch_optional(c).await)?)
}

/// All servers in use, by name.
pub async fn list(tx: &mut Tx) -> Result<Vec<Server>> {
    const LIST: &str = select!("WHERE deleted_at IS NULL ORDER BY name");
    Ok(run!(tx, c => sqlx::query_as(LIST).fetch_all(c).await)?)
}

/// The server in use whose token has this `consumer_key`.
pub async fn by_consumer_key(tx: &mut Tx, consumer_key: &str) -> Result<Option<Server>> {
    const FIND: &str = select!("WHERE consumer_key = $1 AND deleted_at IS NULL ORDER BY id LIMIT 1");
    Ok(run!(tx, c => sqlx::query_as(FIND).bind(consumer_key).fetch_optional(c).await)?)
}

/// A token that takes the place of the former one.
#[derive(Clone, Copy)]
pub struct NewToken<'a> {
    /// `consumer_key`.
    pub consumer_key: &'a str,
    /// The token as JSON, sealed.
    pub token_sealed: &'a [u8],
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether it belongs to the same server of the portal: if not, the list is read from its beginning.
    pub same_server: bool,
}

impl std::fmt::Debug for NewToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Stores a token; the next visit is due at once, whatever went wrong before.
pub async fn put_token(tx: &mut Tx, id: Uuid, token: &NewToken<'_>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE ade_server SET consumer_key = $2, token_sealed = $3, token_expires_at = $4, token_at = $5, failures = 0,
            due_at = $5, health = 'ok', health_text = NULL, health_at = $5, account = NULL WHERE id = $1")
        .bind(id).bind(token.consumer_key).bind(token.token_sealed).bind(token.expires_at.0).bind(now.0)
        .execute(c).await.map(drop))?;
    if !token.same_server {
        run!(tx, c => sqlx::query(
            "UPDATE ade_server SET cursor = NULL, phase = 'fetch', synced_at = NULL, lease = NULL, leased_until = 0 WHERE id = $1")
            .bind(id).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Says which profile devices get for which nobody wished another; the next visit is due at once.
pub async fn set_default_profile(tx: &mut Tx, id: Uuid, profile: Option<Uuid>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_server SET default_profile_id = $2, due_at = $3 WHERE id = $1")
        .bind(id).bind(profile).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Wishes a visit at `at`.
pub async fn due(tx: &mut Tx, id: Uuid, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_server SET due_at = $2 WHERE id = $1 AND due_at > $2")
        .bind(id).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Wishes a visit of every server at `at`.
pub async fn all_due(tx: &mut Tx, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_server SET due_at = $1 WHERE due_at > $1 AND deleted_at IS NULL")
        .bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Takes a server out of use, and forgets its key and its token.
pub async fn delete(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ade_server SET deleted_at = $2, key_sealed = NULL, token_sealed = NULL, lease = NULL, leased_until = 0
         WHERE id = $1 AND deleted_at IS NULL")
        .bind(id).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

const TAKE_SQLITE: &str = "UPDATE ade_server SET lease = $1, leased_until = $2, due_at = $2 WHERE id IN
    (SELECT id FROM ade_server WHERE due_at <= $3 AND leased_until <= $3 AND deleted_at IS NULL AND token_sealed IS NOT NULL
     ORDER BY due_at LIMIT $4)";
const TAKE_POSTGRES: &str = "UPDATE ade_server SET lease = $1, leased_until = $2, due_at = $2 WHERE id IN
    (SELECT id FROM ade_server WHERE due_at <= $3 AND leased_until <= $3 AND deleted_at IS NULL AND token_sealed IS NOT NULL
     ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED)";

/// Takes servers whose visit is due, longest due first; nobody else does before `until`. What is wished meanwhile is not
/// lost: [`settle`] leaves a `due_at` that is no longer `until` as it is.
pub async fn lease(tx: &mut Tx, lease: Uuid, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<Server>> {
    const TAKEN: &str = select!("WHERE lease = $1 ORDER BY name");
    let take = match tx.dialect() {
        Dialect::Sqlite => TAKE_SQLITE,
        Dialect::Postgres => TAKE_POSTGRES,
    };
    let taken = run!(tx, c => sqlx::query(take).bind(lease).bind(until.0).bind(now.0).bind(limit)
        .execute(c).await.map(|done| done.rows_affected()))?;
    if taken == 0 {
        return Ok(Vec::new());
    }
    Ok(run!(tx, c => sqlx::query_as(TAKEN).bind(lease).fetch_all(c).await)?)
}

/// Whether the visit of any server is due that nobody holds: the cheap question before [`lease`].
pub async fn any_due(tx: &mut Tx, now: Timestamp) -> Result<bool> {
    let row: Option<(i64,)> = run!(tx, c => sqlx::query_as(
        "SELECT due_at FROM ade_server WHERE due_at <= $1 AND leased_until <= $1 AND deleted_at IS NULL
           AND token_sealed IS NOT NULL LIMIT 1")
        .bind(now.0).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// Keeps a server until `until`, in the transaction that writes what the visit found. False if it is no longer held: then
/// nothing may be written (RG-23).
pub async fn hold(tx: &mut Tx, id: Uuid, lease: Uuid, until: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ade_server SET leased_until = $3 WHERE id = $1 AND lease = $2 AND deleted_at IS NULL")
        .bind(id).bind(lease).bind(until.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Stores Apple's cursor; the rows that came with it are written in the same transaction (TH-69).
pub async fn put_cursor(
    tx: &mut Tx,
    id: Uuid,
    cursor: Option<&str>,
    phase: &str,
    synced_at: Option<Timestamp>,
) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE ade_server SET cursor = $2, phase = $3, synced_at = COALESCE($4, synced_at) WHERE id = $1")
        .bind(id).bind(cursor).bind(phase).bind(synced_at.map(|t| t.0)).execute(c).await.map(drop))?;
    Ok(())
}

/// The full list is read from its beginning, since `at`.
pub async fn begin_list(tx: &mut Tx, id: Uuid, at: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_server SET cursor = NULL, phase = 'fetch', list_began_at = $2 WHERE id = $1")
        .bind(id).bind(at.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Stores Apple's answer to `/account`.
pub async fn put_account(tx: &mut Tx, id: Uuid, account: &str) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_server SET account = $2 WHERE id = $1")
        .bind(id).bind(account).execute(c).await.map(drop))?;
    Ok(())
}

/// What became of a visit.
#[derive(Debug, Clone, Copy)]
pub struct Settled<'a> {
    /// The word for how the server is.
    pub health: &'a str,
    /// The same in a sentence.
    pub health_text: Option<&'a str>,
    /// Visits in a row that failed.
    pub failures: i64,
    /// `until` of the [`lease`].
    pub taken_until: Timestamp,
    /// When the next visit is due, where nobody wished one meanwhile.
    pub due_at: Timestamp,
    /// The present.
    pub now: Timestamp,
}

/// Writes what became of a visit, and gives the server back. False, and nothing is written, if it is no longer held.
pub async fn settle(tx: &mut Tx, id: Uuid, lease: Uuid, settled: &Settled<'_>) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ade_server SET health_at = CASE WHEN health = $3 THEN COALESCE(health_at, $7) ELSE $7 END,
            health = $3, health_text = $4, failures = $5, due_at = CASE WHEN due_at = $8 THEN $6 ELSE due_at END,
            lease = NULL, leased_until = 0 WHERE id = $1 AND lease = $2")
        .bind(id).bind(lease).bind(settled.health).bind(settled.health_text).bind(settled.failures)
        .bind(settled.due_at.0).bind(settled.now.0).bind(settled.taken_until.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}
