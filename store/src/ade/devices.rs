//! Rows of `ade_device`.

use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Result, Tx};

/// A device that Apple says belongs to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The server.
    pub server_id: Uuid,
    /// Its serial number.
    pub serial_number: String,
    /// Apple's word for the model, such as `iPhone 17`.
    pub model: Option<String>,
    /// Apple's description.
    pub description: Option<String>,
    /// Its colour.
    pub color: Option<String>,
    /// The organization's own number for it.
    pub asset_tag: Option<String>,
    /// `iOS`, `iPadOS`, `OSX`, `tvOS` or `visionOS`.
    pub os: Option<String>,
    /// `iPad`, `iPhone`, `iPod`, `Mac`, `AppleTV` or `Vision`.
    pub device_family: Option<String>,
    /// `empty`, `assigned`, `pushed` or `removed`, as Apple last said.
    pub profile_status: Option<String>,
    /// The profile that Apple last said it has.
    pub profile_uuid: Option<String>,
    /// Who put it on this server.
    pub device_assigned_by: Option<String>,
    /// When (ms).
    pub device_assigned_at: Option<i64>,
    /// `op_date` of the newest operation that was taken in (ms).
    pub op_date: Option<i64>,
    /// When Apple said that it left this server (ms).
    pub deleted_at: Option<i64>,
    /// When a full list did not have it (ms): it counts for nothing until Apple lists it again.
    pub unlisted_at: Option<i64>,
    /// The profile that an operator wishes; `None`: the server's default.
    pub profile_id: Option<Uuid>,
    /// `none`, `due`, `assigned`, `throttled`, `not_accessible` or `failed`.
    pub assign_state: String,
    /// The `profile_uuid` that was assigned from here.
    pub assigned_uuid: Option<String>,
    /// When (ms).
    pub assigned_at: Option<i64>,
    /// Attempts in a row that did not succeed.
    pub assign_attempts: i64,
    /// When the loop looks again (ms).
    pub assign_due_at: Option<i64>,
    /// Put on the enrollment that comes of it.
    pub label: Option<String>,
    /// When an operator vouched for this serial number (ms).
    pub approved_at: Option<i64>,
    /// When it was first listed (ms).
    pub first_seen_at: i64,
    /// When anything of this last changed (ms).
    pub updated_at: i64,
}

from_row!(Device {
    server_id,
    serial_number,
    model,
    description,
    color,
    asset_tag,
    os,
    device_family,
    profile_status,
    profile_uuid,
    device_assigned_by,
    device_assigned_at,
    op_date,
    deleted_at,
    unlisted_at,
    profile_id,
    assign_state,
    assigned_uuid,
    assigned_at,
    assign_attempts,
    assign_due_at,
    label,
    approved_at,
    first_seen_at,
    updated_at,
});

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT d.server_id, d.serial_number, d.model, d.description, d.color, d.asset_tag, d.os, d.device_family, \
             d.profile_status, d.profile_uuid, d.device_assigned_by, d.device_assigned_at, d.op_date, d.deleted_at, \
             d.unlisted_at, d.profile_id, d.assign_state, d.assigned_uuid, d.assigned_at, d.assign_attempts, d.assign_due_at, d.label, \
             d.approved_at, d.first_seen_at, d.updated_at FROM ade_device d ",
            $rest
        )
    };
}
pub(super) use select;

/// A device as Apple lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its serial number.
    pub serial_number: String,
    /// `model`.
    pub model: Option<String>,
    /// `description`.
    pub description: Option<String>,
    /// `color`.
    pub color: Option<String>,
    /// `asset_tag`.
    pub asset_tag: Option<String>,
    /// `os`.
    pub os: Option<String>,
    /// `device_family`.
    pub device_family: Option<String>,
    /// `profile_status`.
    pub profile_status: Option<String>,
    /// `profile_uuid`.
    pub profile_uuid: Option<String>,
    /// `device_assigned_by`.
    pub device_assigned_by: Option<String>,
    /// `device_assigned_date`.
    pub device_assigned_at: Option<Timestamp>,
    /// `op_date`; `None` in the full list, which tells the present.
    pub op_date: Option<Timestamp>,
}

/// Writes a device as Apple lists it. False, and nothing is written, where a newer operation was taken in before.
///
/// What an operator wished stays. Where Apple names another profile than the one assigned from here, and says so of a time
/// after the assignment, the assignment is forgotten, so that it is made again.
pub async fn upsert(tx: &mut Tx, server: Uuid, seen: &Seen, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "INSERT INTO ade_device (server_id, serial_number, model, description, color, asset_tag, os, device_family,
            profile_status, profile_uuid, device_assigned_by, device_assigned_at, op_date, listed_at, first_seen_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $14)
         ON CONFLICT (server_id, serial_number) DO UPDATE SET
            model = excluded.model, description = excluded.description, color = excluded.color,
            asset_tag = excluded.asset_tag, os = excluded.os, device_family = excluded.device_family,
            profile_status = excluded.profile_status, profile_uuid = excluded.profile_uuid,
            device_assigned_by = excluded.device_assigned_by, device_assigned_at = excluded.device_assigned_at,
            assigned_uuid = CASE WHEN (excluded.profile_uuid IS NULL OR excluded.profile_uuid <> ade_device.assigned_uuid)
                AND (excluded.op_date IS NULL OR ade_device.assigned_at IS NULL OR excluded.op_date > ade_device.assigned_at)
                THEN NULL ELSE ade_device.assigned_uuid END,
            op_date = COALESCE(excluded.op_date, ade_device.op_date), deleted_at = NULL, unlisted_at = NULL,
            listed_at = excluded.listed_at, updated_at = excluded.updated_at
         WHERE excluded.op_date IS NULL OR ade_device.op_date IS NULL OR excluded.op_date >= ade_device.op_date")
        .bind(server).bind(&seen.serial_number).bind(&seen.model).bind(&seen.description).bind(&seen.color)
        .bind(&seen.asset_tag).bind(&seen.os).bind(&seen.device_family).bind(&seen.profile_status)
        .bind(&seen.profile_uuid).bind(&seen.device_assigned_by).bind(seen.device_assigned_at.map(|t| t.0))
        .bind(seen.op_date.map(|t| t.0)).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Apple said at `op_date` that a device left the server. An operator's word for it ends with that: a serial number that
/// comes back is approved anew. False where a newer operation was taken in before, or the device was never listed.
pub async fn gone(tx: &mut Tx, server: Uuid, serial: &str, op_date: Timestamp, now: Timestamp) -> Result<bool> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ade_device SET deleted_at = $4, op_date = $3, approved_at = NULL, assigned_uuid = NULL, assigned_at = NULL,
            assign_state = 'none', assign_attempts = 0, assign_due_at = NULL, updated_at = $4
         WHERE server_id = $1 AND serial_number = $2 AND (op_date IS NULL OR op_date <= $3)")
        .bind(server).bind(serial).bind(op_date.0).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// A full list that was begun at `began` has come to its end: what it did not have is no longer Apple's word. The row stays,
/// because only an operation of Apple's deletes (TH-69), but it counts for nothing, and approval ends. Gives how many.
pub async fn unlist(tx: &mut Tx, server: Uuid, began: Timestamp, now: Timestamp) -> Result<u64> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ade_device SET unlisted_at = $3, approved_at = NULL, assigned_uuid = NULL, assigned_at = NULL,
            assign_state = 'none', assign_attempts = 0, assign_due_at = NULL, updated_at = $3
         WHERE server_id = $1 AND listed_at < $2 AND deleted_at IS NULL AND unlisted_at IS NULL")
        .bind(server).bind(began.0).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows)
}

/// The server's token is now for another server of the portal: until that lists them, its devices belong to nobody.
pub async fn forget_all(tx: &mut Tx, server: Uuid, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE ade_device SET deleted_at = $2, op_date = NULL, approved_at = NULL, assigned_uuid = NULL, assigned_at = NULL,
            assign_state = 'none', assign_attempts = 0, assign_due_at = NULL, updated_at = $2
         WHERE server_id = $1 AND deleted_at IS NULL")
        .bind(server).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// One device of one server, also one that left it.
pub async fn get(tx: &mut Tx, server: Uuid, serial: &str) -> Result<Option<Device>> {
    const GET: &str = select!("WHERE d.server_id = $1 AND d.serial_number = $2");
    Ok(run!(tx, c => sqlx::query_as(GET).bind(server).bind(serial).fetch_optional(c).await)?)
}

/// Which devices to list. Everything that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this server.
    pub server: Option<Uuid>,
    /// Only with this `assign_state`.
    pub assign_state: Option<String>,
    /// Only with this `profile_status`.
    pub profile_status: Option<String>,
    /// Only approved ones, or only those that are not.
    pub approved: Option<bool>,
}

/// Devices of servers in use, by serial number and server, those after `after`.
pub async fn list(tx: &mut Tx, filter: &Filter, after: Option<(&str, Uuid)>, limit: i64) -> Result<Vec<Device>> {
    // An empty text or a nil id asks for all, so that one text serves every filter.
    const LIST: &str = select!(
        "JOIN ade_server s ON s.id = d.server_id AND s.deleted_at IS NULL
         WHERE d.deleted_at IS NULL AND (d.serial_number > $1 OR (d.serial_number = $1 AND d.server_id > $2))
           AND ($3 = $4 OR d.server_id = $3) AND ($5 = '' OR d.assign_state = $5) AND ($6 = '' OR d.profile_status = $6)
           AND ($7 < 0 OR ($7 = 1 AND d.approved_at IS NOT NULL) OR ($7 = 0 AND d.approved_at IS NULL))
         ORDER BY d.serial_number, d.server_id LIMIT $8"
    );
    let (serial, server) = after.unwrap_or(("", Uuid::nil()));
    let rows = run!(tx, c => sqlx::query_as(LIST)
        .bind(serial).bind(server).bind(filter.server.unwrap_or(Uuid::nil())).bind(Uuid::nil())
        .bind(filter.assign_state.as_deref().unwrap_or("")).bind(filter.profile_status.as_deref().unwrap_or(""))
        .bind(filter.approved.map_or(-1_i64, i64::from)).bind(limit).fetch_all(c).await)?;
    Ok(rows)
}

/// How many devices of a server are in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// `assign_state`.
    pub assign_state: String,
    /// How many.
    pub devices: i64,
}

from_row!(Count { assign_state, devices });

/// How many devices of a server are in which state.
pub async fn counts(tx: &mut Tx, server: Uuid) -> Result<Vec<Count>> {
    let rows = run!(tx, c => sqlx::query_as(
        "SELECT assign_state, COUNT(*) AS devices FROM ade_device WHERE server_id = $1 AND deleted_at IS NULL AND unlisted_at IS NULL
         GROUP BY assign_state ORDER BY assign_state")
        .bind(server).fetch_all(c).await)?;
    Ok(rows)
}

/// Wishes a profile for one device (`None`: the server's default); the loop looks at it at once, but not before a throttle
/// of Apple's is over.
pub async fn wish(tx: &mut Tx, server: Uuid, serial: &str, profile: Option<Uuid>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE ade_device SET profile_id = $3, updated_at = $4,
            assign_due_at = CASE WHEN assign_state = 'throttled' AND assign_due_at > $4 THEN assign_due_at ELSE $4 END
         WHERE server_id = $1 AND serial_number = $2")
        .bind(server).bind(serial).bind(profile).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// An operator vouches for a serial number at `at`, or takes that back.
pub async fn approve(tx: &mut Tx, server: Uuid, serial: &str, at: Option<Timestamp>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query(
        "UPDATE ade_device SET approved_at = $3, updated_at = $4 WHERE server_id = $1 AND serial_number = $2")
        .bind(server).bind(serial).bind(at.map(|t| t.0)).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Says which label the enrollment of a device gets.
pub async fn label(tx: &mut Tx, server: Uuid, serial: &str, label: Option<&str>, now: Timestamp) -> Result<()> {
    run!(tx, c => sqlx::query("UPDATE ade_device SET label = $3, updated_at = $4 WHERE server_id = $1 AND serial_number = $2")
        .bind(server).bind(serial).bind(label).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Makes due every device of a server whose profile is `profile` and that has not been given what Apple calls `uuid`;
/// gives how many. Where the server has no default, `default` is `None`.
pub async fn mark(
    tx: &mut Tx,
    server: Uuid,
    default: Option<Uuid>,
    profile: Uuid,
    uuid: &str,
    now: Timestamp,
) -> Result<u64> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ade_device SET assign_due_at = $5, assign_state = 'due' WHERE server_id = $1 AND deleted_at IS NULL AND unlisted_at IS NULL
           AND assign_due_at IS NULL AND COALESCE(profile_id, $2) = $3 AND (assigned_uuid IS NULL OR assigned_uuid <> $4)")
        .bind(server).bind(default).bind(profile).bind(uuid).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows)
}

/// Makes due every device of a server that has a profile from here and is to have none; gives how many.
pub async fn mark_bare(tx: &mut Tx, server: Uuid, now: Timestamp) -> Result<u64> {
    let rows = run!(tx, c => sqlx::query(
        "UPDATE ade_device SET assign_due_at = $2, assign_state = 'due' WHERE server_id = $1 AND deleted_at IS NULL AND unlisted_at IS NULL
           AND assign_due_at IS NULL AND profile_id IS NULL AND assigned_uuid IS NOT NULL
           AND EXISTS (SELECT 1 FROM ade_server s WHERE s.id = $1 AND s.default_profile_id IS NULL)")
        .bind(server).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows)
}

/// The profiles that devices of a server are to have, its default aside.
pub async fn wished(tx: &mut Tx, server: Uuid) -> Result<Vec<Uuid>> {
    let rows: Vec<(Uuid,)> = run!(tx, c => sqlx::query_as(
        "SELECT DISTINCT profile_id FROM ade_device WHERE server_id = $1 AND deleted_at IS NULL AND unlisted_at IS NULL AND profile_id IS NOT NULL")
        .bind(server).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Devices of a server that the loop is to look at, longest due first.
pub async fn due(tx: &mut Tx, server: Uuid, now: Timestamp, limit: i64) -> Result<Vec<Device>> {
    const DUE: &str = select!(
        "WHERE d.server_id = $1 AND d.assign_due_at <= $2 AND d.deleted_at IS NULL AND d.unlisted_at IS NULL ORDER BY d.assign_due_at LIMIT $3"
    );
    Ok(run!(tx, c => sqlx::query_as(DUE).bind(server).bind(now.0).bind(limit).fetch_all(c).await)?)
}

/// When the loop is next to look at a device of this server (ms).
pub async fn next_due(tx: &mut Tx, server: Uuid) -> Result<Option<i64>> {
    let (at,): (Option<i64>,) = run!(tx, c => sqlx::query_as(
        "SELECT MIN(assign_due_at) FROM ade_device WHERE server_id = $1 AND assign_due_at IS NOT NULL AND deleted_at IS NULL AND unlisted_at IS NULL")
        .bind(server).fetch_one(c).await)?;
    Ok(at)
}

/// What became of giving one device its profile.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// `none`, `assigned`, `throttled`, `not_accessible` or `failed`.
    pub state: &'a str,
    /// The `profile_uuid`, where it was assigned; `None` leaves what stands, except with `none`.
    pub uuid: Option<&'a str>,
    /// Attempts in a row that did not succeed.
    pub attempts: i64,
    /// When to look again.
    pub due_at: Option<Timestamp>,
    /// The wish that was acted on: a newer one keeps the device due.
    pub profile: Option<Uuid>,
}

/// Writes what became of it. A wish that changed meanwhile leaves the device due.
pub async fn outcome(tx: &mut Tx, server: Uuid, serial: &str, outcome: &Outcome<'_>, now: Timestamp) -> Result<()> {
    let assigned_at = outcome.uuid.map(|_| now.0);
    let bare = i64::from(outcome.state == "none");
    run!(tx, c => sqlx::query(
        "UPDATE ade_device SET assign_state = $3,
            assigned_uuid = CASE WHEN $8 = 1 THEN NULL ELSE COALESCE($4, assigned_uuid) END,
            assigned_at = CASE WHEN $8 = 1 THEN NULL ELSE COALESCE($5, assigned_at) END,
            assign_attempts = $6,
            assign_due_at = CASE WHEN COALESCE(profile_id, server_id) = COALESCE($9, server_id) THEN $7 ELSE $10 END,
            updated_at = $10
         WHERE server_id = $1 AND serial_number = $2 AND deleted_at IS NULL AND unlisted_at IS NULL")
        .bind(server).bind(serial).bind(outcome.state).bind(outcome.uuid).bind(assigned_at).bind(outcome.attempts)
        .bind(outcome.due_at.map(|t| t.0)).bind(bare).bind(outcome.profile).bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}
