//! Rows of `enrollment`: one MDM relationship on one channel.

use mdm_core::enrollment::{Channel, DeviceKey, Door, EnrollmentKind, EnrollmentState, UnenrolledWhy, UserKey};
use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::id_set::over_ids;
use crate::{Dialect, Error, IdSet, Result, Tx};

mod escrow;
mod glance;

pub use escrow::{Archived, archive_escrow, archived_escrow, bootstrap_token, set_bootstrap_token, unlock_token};
pub use glance::{GLANCE_DEVICE, GLANCE_SHARED, GLANCE_USER, Glance, glance};

/// An enrollment without its secrets and raw messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Our key.
    pub id: EnrollmentId,
    /// How it came about.
    pub kind: EnrollmentKind,
    /// Device or user channel.
    pub channel: Channel,
    /// The device channel that a user channel belongs to.
    pub parent: Option<EnrollmentId>,
    /// `UDID` or `EnrollmentID`; on a user channel absent (it is the parent's).
    pub device_key: Option<DeviceKey>,
    /// Who the user is; on a device channel absent.
    pub user_key: Option<UserKey>,
    /// `UserShortName` as last sent.
    pub user_short_name: Option<String>,
    /// `UserLongName` as last sent.
    pub user_long_name: Option<String>,
    /// Its state.
    pub state: EnrollmentState,
    /// When an operator asked that the device be told to unenroll.
    pub unenroll_requested_at: Option<Timestamp>,
    /// Raised at every new enrollment of the same device.
    pub generation: i64,
    /// Push topic.
    pub topic: Option<String>,
    /// When the stored `TokenUpdate` was received.
    pub token_at: Option<Timestamp>,
    /// `signingTime` of the stored `TokenUpdate`, where it was signed.
    pub token_signed_at: Option<Timestamp>,
    /// When APNs said that the token is dead.
    pub push_dead_at: Option<Timestamp>,
    /// The device waits in Setup Assistant for `DeviceConfigured`.
    pub awaiting_configuration: bool,
    /// By which door it came in; a user channel has that of its device.
    pub door: Door,
    /// `AssignedManagedAppleID` of its enrollment profile.
    pub managed_apple_account: Option<String>,
    /// `ServerURL` of its enrollment profile.
    pub server_url: Option<String>,
    /// JSON: SHA-256 of each anchor in its enrollment profile.
    pub anchors: Option<String>,
    /// While the device waits in Setup Assistant: when the server looks next whether to let it go on.
    pub set_up_until: Option<Timestamp>,
    /// When it was first let go on: `DeviceConfigured` or `UserConfigured` was queued.
    pub set_up_done_at: Option<Timestamp>,
    /// `SerialNumber` from `Authenticate`.
    pub serial_number: Option<String>,
    /// `ProductName` from `Authenticate`.
    pub product_name: Option<String>,
    /// `Model` from `Authenticate`.
    pub model: Option<String>,
    /// `ModelName` from `Authenticate`.
    pub model_name: Option<String>,
    /// `DeviceName` from `Authenticate`.
    pub device_name: Option<String>,
    /// `OSVersion` from `Authenticate`.
    pub os_version: Option<String>,
    /// `BuildVersion` from `Authenticate`.
    pub build_version: Option<String>,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When the first `TokenUpdate` of this generation came.
    pub enrolled_at: Option<Timestamp>,
    /// When the device was last heard of (written in batches).
    pub last_seen_at: Option<Timestamp>,
}

pub(crate) struct Row {
    id: Uuid,
    kind: String,
    channel: String,
    parent_id: Option<Uuid>,
    udid: Option<String>,
    apple_enrollment_id: Option<String>,
    user_id: Option<String>,
    shared_ipad_user: Option<String>,
    user_short_name: Option<String>,
    user_long_name: Option<String>,
    state: String,
    state_at: i64,
    unenrolled_why: Option<String>,
    unenroll_requested_at: Option<i64>,
    generation: i64,
    topic: Option<String>,
    token_at: Option<i64>,
    token_signed_at: Option<i64>,
    push_dead_at: Option<i64>,
    awaiting_configuration: bool,
    door: String,
    managed_apple_account: Option<String>,
    server_url: Option<String>,
    anchors: Option<String>,
    set_up_until: Option<i64>,
    set_up_done_at: Option<i64>,
    serial_number: Option<String>,
    product_name: Option<String>,
    model: Option<String>,
    model_name: Option<String>,
    device_name: Option<String>,
    os_version: Option<String>,
    build_version: Option<String>,
    created_at: i64,
    enrolled_at: Option<i64>,
    last_seen_at: Option<i64>,
}

from_row!(Row {
    id,
    kind,
    channel,
    parent_id,
    udid,
    apple_enrollment_id,
    user_id,
    shared_ipad_user,
    user_short_name,
    user_long_name,
    state,
    state_at,
    unenrolled_why,
    unenroll_requested_at,
    generation,
    topic,
    token_at,
    token_signed_at,
    push_dead_at,
    awaiting_configuration,
    door,
    managed_apple_account,
    server_url,
    anchors,
    set_up_until,
    set_up_done_at,
    serial_number,
    product_name,
    model,
    model_name,
    device_name,
    os_version,
    build_version,
    created_at,
    enrolled_at,
    last_seen_at,
});

/// The columns of [`Row`] of the table alias `e`.
macro_rules! columns {
    () => {
        "e.id, e.kind, e.channel, e.parent_id, e.udid, e.apple_enrollment_id, e.user_id, e.shared_ipad_user, \
         e.user_short_name, e.user_long_name, e.state, e.state_at, e.unenrolled_why, e.unenroll_requested_at, \
         e.generation, e.topic, e.token_at, e.token_signed_at, e.push_dead_at, e.awaiting_configuration, \
         e.door, e.managed_apple_account, e.server_url, e.anchors, e.set_up_until, e.set_up_done_at, \
         e.serial_number, e.product_name, e.model, e.model_name, e.device_name, e.os_version, e.build_version, \
         e.created_at, e.enrolled_at, e.last_seen_at"
    };
}
pub(crate) use columns;

impl TryFrom<Row> for Enrollment {
    type Error = Error;

    fn try_from(r: Row) -> Result<Self> {
        const BAD: Error = Error::Corrupt("enrollment");
        let device_key = match (r.udid, r.apple_enrollment_id) {
            (Some(udid), _) => Some(DeviceKey::Udid(udid.parse().map_err(|_| BAD)?)),
            (None, Some(id)) => Some(DeviceKey::EnrollmentId(id.parse().map_err(|_| BAD)?)),
            (None, None) => None,
        };
        let user_key = match (r.user_id, r.shared_ipad_user) {
            (Some(id), _) => Some(UserKey::UserId(id.parse().map_err(|_| BAD)?)),
            (None, Some(name)) => Some(UserKey::SharedIpad(name.parse().map_err(|_| BAD)?)),
            (None, None) => None,
        };
        Ok(Self {
            id: EnrollmentId(r.id),
            kind: EnrollmentKind::from_text(&r.kind).ok_or(BAD)?,
            channel: Channel::from_text(&r.channel).ok_or(BAD)?,
            parent: r.parent_id.map(EnrollmentId),
            device_key,
            user_key,
            user_short_name: r.user_short_name,
            user_long_name: r.user_long_name,
            state: state_of(&r.state, r.state_at, r.unenrolled_why.as_deref()).ok_or(BAD)?,
            unenroll_requested_at: r.unenroll_requested_at.map(Timestamp),
            generation: r.generation,
            topic: r.topic,
            token_at: r.token_at.map(Timestamp),
            token_signed_at: r.token_signed_at.map(Timestamp),
            push_dead_at: r.push_dead_at.map(Timestamp),
            awaiting_configuration: r.awaiting_configuration,
            door: Door::from_text(&r.door).ok_or(BAD)?,
            managed_apple_account: r.managed_apple_account,
            server_url: r.server_url,
            anchors: r.anchors,
            set_up_until: r.set_up_until.map(Timestamp),
            set_up_done_at: r.set_up_done_at.map(Timestamp),
            serial_number: r.serial_number,
            product_name: r.product_name,
            model: r.model,
            model_name: r.model_name,
            device_name: r.device_name,
            os_version: r.os_version,
            build_version: r.build_version,
            created_at: Timestamp(r.created_at),
            enrolled_at: r.enrolled_at.map(Timestamp),
            last_seen_at: r.last_seen_at.map(Timestamp),
        })
    }
}

fn state_of(state: &str, at: i64, why: Option<&str>) -> Option<EnrollmentState> {
    let at = Timestamp(at);
    match state {
        "authenticated" => Some(EnrollmentState::Authenticated { at }),
        "enrolled" => Some(EnrollmentState::Enrolled { since: at }),
        "unenrolled" => Some(EnrollmentState::Unenrolled { at, why: UnenrolledWhy::from_text(why?)? }),
        _ => None,
    }
}

fn state_columns(state: EnrollmentState) -> (&'static str, i64, Option<&'static str>) {
    match state {
        EnrollmentState::Authenticated { at } => ("authenticated", at.0, None),
        EnrollmentState::Enrolled { since } => ("enrolled", since.0, None),
        EnrollmentState::Unenrolled { at, why } => ("unenrolled", at.0, Some(why.as_str())),
    }
}

fn typed(row: Option<Row>) -> Result<Option<Enrollment>> {
    row.map(Enrollment::try_from).transpose()
}

fn device_columns(key: &DeviceKey) -> (Option<&str>, Option<&str>) {
    match key {
        DeviceKey::Udid(udid) => (Some(udid.as_str()), None),
        DeviceKey::EnrollmentId(id) => (None, Some(id.as_str())),
    }
}

fn user_columns(key: &UserKey) -> (Option<&str>, Option<&str>) {
    match key {
        UserKey::UserId(id) => (Some(id.as_str()), None),
        UserKey::SharedIpad(name) => (None, Some(name.as_str())),
    }
}

/// Takes the lock under which everything about one enrollment happens in turn. On SQLite the write transaction is that lock.
///
/// It keeps nobody from writing rows that refer to the enrollment: those checks would wait here, and deadlock with it.
pub async fn lock(tx: &mut Tx, id: EnrollmentId) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM enrollment WHERE id = $1 FOR NO KEY UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(id.0).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// [`lock`] for many, in the order of their keys so that two of them cannot deadlock.
pub async fn lock_many(tx: &mut Tx, ids: &IdSet) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM enrollment WHERE id IN (
        SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)) ORDER BY id FOR NO KEY UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(ids.as_json()).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The enrollment with this key.
pub async fn get(tx: &mut Tx, id: EnrollmentId) -> Result<Option<Enrollment>> {
    const GET: &str = concat!("SELECT ", columns!(), " FROM enrollment e WHERE e.id = $1");
    typed(run!(tx, c => sqlx::query_as::<_, Row>(GET).bind(id.0).fetch_optional(c).await)?)
}

/// The enrollments with these keys, in the order of the keys.
pub async fn many(tx: &mut Tx, ids: &IdSet) -> Result<Vec<Enrollment>> {
    let sql = over_ids!(tx, concat!("SELECT ", columns!(), " FROM enrollment e WHERE e.id IN ("), ") ORDER BY e.id");
    let rows: Vec<Row> = run!(tx, c => sqlx::query_as(sql).bind(ids.as_json()).fetch_all(c).await)?;
    rows.into_iter().map(Enrollment::try_from).collect()
}

/// The device-channel enrollment of this device that has not ended.
pub async fn live_device(tx: &mut Tx, key: &DeviceKey) -> Result<Option<Enrollment>> {
    const BY_UDID: &str =
        concat!("SELECT ", columns!(), " FROM enrollment e WHERE e.udid = $1 AND e.state <> 'unenrolled'");
    const BY_ENROLLMENT_ID: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM enrollment e WHERE e.apple_enrollment_id = $1 AND e.state <> 'unenrolled'"
    );
    let (sql, value) = match key {
        DeviceKey::Udid(udid) => (BY_UDID, udid.as_str()),
        DeviceKey::EnrollmentId(id) => (BY_ENROLLMENT_ID, id.as_str()),
    };
    typed(run!(tx, c => sqlx::query_as::<_, Row>(sql).bind(value).fetch_optional(c).await)?)
}

/// The newest device-channel enrollment of this device, ended or not.
pub async fn newest_device(tx: &mut Tx, key: &DeviceKey) -> Result<Option<Enrollment>> {
    const BY_UDID: &str =
        concat!("SELECT ", columns!(), " FROM enrollment e WHERE e.udid = $1 ORDER BY e.id DESC LIMIT 1");
    const BY_ENROLLMENT_ID: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM enrollment e WHERE e.apple_enrollment_id = $1 ORDER BY e.id DESC LIMIT 1"
    );
    let (sql, value) = match key {
        DeviceKey::Udid(udid) => (BY_UDID, udid.as_str()),
        DeviceKey::EnrollmentId(id) => (BY_ENROLLMENT_ID, id.as_str()),
    };
    typed(run!(tx, c => sqlx::query_as::<_, Row>(sql).bind(value).fetch_optional(c).await)?)
}

/// The newest device-channel enrollment with this serial number that has not ended.
pub async fn live_serial(tx: &mut Tx, serial: &str) -> Result<Option<Enrollment>> {
    const BY_SERIAL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM enrollment e WHERE e.serial_number IN ($1, $2, $3) AND e.channel = 'device' AND e.state <> 'unenrolled' \
         ORDER BY e.id DESC LIMIT 1"
    );
    // As sent, and in either case: not by a function of the column, which would pass its index by.
    let (upper, lower) = (serial.to_ascii_uppercase(), serial.to_ascii_lowercase());
    typed(run!(tx, c => sqlx::query_as::<_, Row>(BY_SERIAL).bind(serial).bind(upper).bind(lower)
        .fetch_optional(c).await)?)
}

/// The live user-channel enrollment of this user on this device.
pub async fn live_user(tx: &mut Tx, parent: EnrollmentId, key: &UserKey) -> Result<Option<Enrollment>> {
    const BY_ID: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM enrollment e WHERE e.parent_id = $1 AND e.user_id = $2 AND e.state <> 'unenrolled'"
    );
    const BY_NAME: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM enrollment e WHERE e.parent_id = $1 AND e.shared_ipad_user = $2 AND e.state <> 'unenrolled'"
    );
    let (sql, value) = match key {
        UserKey::UserId(id) => (BY_ID, id.as_str()),
        UserKey::SharedIpad(name) => (BY_NAME, name.as_str()),
    };
    typed(run!(tx, c => sqlx::query_as::<_, Row>(sql).bind(parent.0).bind(value).fetch_optional(c).await)?)
}

/// The user channels of a device, ended ones too.
pub async fn users_of(tx: &mut Tx, parent: EnrollmentId) -> Result<Vec<Enrollment>> {
    const USERS: &str = concat!("SELECT ", columns!(), " FROM enrollment e WHERE e.parent_id = $1 ORDER BY e.id");
    let rows: Vec<Row> = run!(tx, c => sqlx::query_as(USERS).bind(parent.0).fetch_all(c).await)?;
    rows.into_iter().map(Enrollment::try_from).collect()
}

/// A new row of a device channel, in state `authenticated`.
#[derive(Debug)]
pub struct NewDevice<'a> {
    /// Our key.
    pub id: EnrollmentId,
    /// How it came about.
    pub kind: EnrollmentKind,
    /// `UDID` or `EnrollmentID`.
    pub key: &'a DeviceKey,
}

/// Makes the row of a device channel in state `authenticated`; its facts follow by [`authenticated`].
pub async fn insert_device(tx: &mut Tx, new: &NewDevice<'_>, now: Timestamp) -> Result<()> {
    const INSERT: &str = "INSERT INTO enrollment (id, kind, channel, udid, apple_enrollment_id, state, state_at, created_at) \
                          VALUES ($1, $2, 'device', $3, $4, 'authenticated', $5, $5)";
    let (udid, apple_id) = device_columns(new.key);
    run!(tx, c => sqlx::query(INSERT).bind(new.id.0).bind(new.kind.as_str()).bind(udid).bind(apple_id).bind(now.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// What the enrollment profile of a device says, written when its enrollment begins.
#[derive(Debug)]
pub struct Entered<'a> {
    /// By which door it came in.
    pub door: Door,
    /// `AssignedManagedAppleID`.
    pub managed_apple_account: Option<&'a str>,
    /// `ServerURL`.
    pub server_url: Option<&'a str>,
    /// JSON: SHA-256 of each anchor.
    pub anchors: Option<&'a str>,
}

/// Writes by which door a device came in, and what its profile says.
pub async fn entered(tx: &mut Tx, id: EnrollmentId, entered: &Entered<'_>) -> Result<()> {
    const UPDATE: &str =
        "UPDATE enrollment SET door = $2, managed_apple_account = $3, server_url = $4, anchors = $5 WHERE id = $1";
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).bind(entered.door.as_str()).bind(entered.managed_apple_account)
        .bind(entered.server_url).bind(entered.anchors).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Makes the row of a user channel in state `authenticated`; `TokenUpdate` enrolls it. Its door is that of its device.
pub async fn insert_user(
    tx: &mut Tx,
    id: EnrollmentId,
    parent: EnrollmentId,
    kind: EnrollmentKind,
    key: &UserKey,
    now: Timestamp,
) -> Result<()> {
    const INSERT: &str = "INSERT INTO enrollment (id, kind, channel, parent_id, user_id, shared_ipad_user, state, state_at, \
                          created_at, door, managed_apple_account) SELECT $1, $2, 'user', d.id, $4, $5, 'authenticated', \
                          $6, $6, d.door, d.managed_apple_account FROM enrollment d WHERE d.id = $3";
    let (user_id, short_name) = user_columns(key);
    run!(tx, c => sqlx::query(INSERT).bind(id.0).bind(kind.as_str()).bind(parent.0).bind(user_id).bind(short_name).bind(now.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// What `Authenticate` says of a device, as columns.
#[derive(Debug, Default)]
pub struct Claims<'a> {
    /// `Topic`.
    pub topic: &'a str,
    /// `SerialNumber`.
    pub serial_number: Option<&'a str>,
    /// `ProductName`.
    pub product_name: Option<&'a str>,
    /// `Model`.
    pub model: Option<&'a str>,
    /// `ModelName`.
    pub model_name: Option<&'a str>,
    /// `DeviceName`.
    pub device_name: Option<&'a str>,
    /// `OSVersion`.
    pub os_version: Option<&'a str>,
    /// `BuildVersion`.
    pub build_version: Option<&'a str>,
    /// The message as received.
    pub raw: &'a [u8],
}

/// Begins an enrollment (anew): facts from `Authenticate`, no push token, no escrow, the next generation when it is a repeat.
pub async fn authenticated(
    tx: &mut Tx,
    id: EnrollmentId,
    again: bool,
    claims: &Claims<'_>,
    now: Timestamp,
) -> Result<()> {
    const UPDATE: &str = "UPDATE enrollment SET state = 'authenticated', state_at = $2, unenrolled_why = NULL, \
        unenroll_requested_at = NULL, generation = generation + $3, topic = $4, push_token = NULL, push_magic = NULL, \
        token_at = NULL, token_signed_at = NULL, push_dead_at = NULL, unlock_token_sealed = NULL, \
        bootstrap_token_sealed = NULL, bootstrap_signed_at = NULL, token_update_sealed = NULL, enrolled_at = NULL, \
        awaiting_configuration = FALSE, set_up_until = NULL, set_up_done_at = NULL, serial_number = $5, product_name = $6, model = $7, model_name = $8, device_name = $9, os_version = $10, \
        build_version = $11, authenticate_raw = $12, last_seen_at = $2 WHERE id = $1";
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).bind(now.0).bind(i64::from(again)).bind(claims.topic)
        .bind(claims.serial_number).bind(claims.product_name).bind(claims.model).bind(claims.model_name)
        .bind(claims.device_name).bind(claims.os_version).bind(claims.build_version).bind(claims.raw)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Writes what a repeated or renewed `Authenticate` says; the enrollment, its tokens and its escrow stay as they are.
pub async fn claimed(tx: &mut Tx, id: EnrollmentId, claims: &Claims<'_>, now: Timestamp) -> Result<()> {
    const UPDATE: &str = "UPDATE enrollment SET product_name = COALESCE($2, product_name), model = COALESCE($3, model), \
        model_name = COALESCE($4, model_name), device_name = COALESCE($5, device_name), \
        os_version = COALESCE($6, os_version), build_version = COALESCE($7, build_version), authenticate_raw = $8, \
        last_seen_at = $9 WHERE id = $1";
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).bind(claims.product_name).bind(claims.model).bind(claims.model_name)
        .bind(claims.device_name).bind(claims.os_version).bind(claims.build_version).bind(claims.raw).bind(now.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Ends an enrollment: its state, and what could wake it. Its escrow stays, sealed.
pub async fn end(tx: &mut Tx, id: EnrollmentId, state: EnrollmentState) -> Result<()> {
    const UPDATE: &str =
        "UPDATE enrollment SET push_token = NULL, push_magic = NULL, set_up_until = NULL WHERE id = $1";
    set_state(tx, id, state).await?;
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Writes the state. The transition itself is `EnrollmentState::on`.
pub async fn set_state(tx: &mut Tx, id: EnrollmentId, state: EnrollmentState) -> Result<()> {
    const UPDATE: &str = "UPDATE enrollment SET state = $2, state_at = $3, unenrolled_why = $4 WHERE id = $1";
    let (text, at, why) = state_columns(state);
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).bind(text).bind(at).bind(why).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// What `TokenUpdate` brings, as columns; `*_sealed` are sealed by the caller.
#[derive(Debug)]
pub struct Tokens<'a> {
    /// `Topic`.
    pub topic: &'a str,
    /// `Token`.
    pub push_token: &'a [u8],
    /// `PushMagic`.
    pub push_magic: &'a str,
    /// `signingTime` of the message, where it was signed.
    pub signed_at: Option<Timestamp>,
    /// `AwaitingConfiguration`; absent means no.
    pub awaiting_configuration: bool,
    /// `UnlockToken`, sealed; absent keeps the stored one.
    pub unlock_token_sealed: Option<&'a [u8]>,
    /// The message as received, sealed.
    pub raw_sealed: &'a [u8],
    /// `UserShortName`.
    pub user_short_name: Option<&'a str>,
    /// `UserLongName`.
    pub user_long_name: Option<&'a str>,
}

/// Stores what `TokenUpdate` brought, and the state it leads to. The token lives again if APNs had called it dead.
pub async fn token_update(
    tx: &mut Tx,
    id: EnrollmentId,
    state: EnrollmentState,
    tokens: &Tokens<'_>,
    now: Timestamp,
) -> Result<()> {
    const UPDATE: &str = "UPDATE enrollment SET state = $2, state_at = $3, unenrolled_why = $4, topic = $5, push_token = $6, \
        push_magic = $7, token_at = $8, token_signed_at = $9, push_dead_at = NULL, awaiting_configuration = $10, \
        unlock_token_sealed = COALESCE($11, unlock_token_sealed), token_update_sealed = $12, \
        user_short_name = COALESCE($13, user_short_name), user_long_name = COALESCE($14, user_long_name), \
        enrolled_at = COALESCE(enrolled_at, $8), last_seen_at = $8 WHERE id = $1";
    let (text, at, why) = state_columns(state);
    run!(tx, c => sqlx::query(UPDATE).bind(id.0).bind(text).bind(at).bind(why).bind(tokens.topic).bind(tokens.push_token)
        .bind(tokens.push_magic).bind(now.0).bind(tokens.signed_at.map(|t| t.0)).bind(tokens.awaiting_configuration)
        .bind(tokens.unlock_token_sealed).bind(tokens.raw_sealed).bind(tokens.user_short_name).bind(tokens.user_long_name)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Writes gathered last-seen times, one statement each, in the caller's transaction; never moves one back.
pub async fn touch(tx: &mut Tx, seen: &[(EnrollmentId, Timestamp)]) -> Result<()> {
    const TOUCH: &str =
        "UPDATE enrollment SET last_seen_at = $2 WHERE id = $1 AND (last_seen_at IS NULL OR last_seen_at < $2)";
    for (id, at) in seen {
        run!(tx, c => sqlx::query(TOUCH).bind(id.0).bind(at.0).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// Notes that an operator asked for the device to be told to unenroll, or takes that back.
pub async fn request_unenroll(tx: &mut Tx, id: EnrollmentId, at: Option<Timestamp>) -> Result<bool> {
    const UPDATE: &str = "UPDATE enrollment SET unenroll_requested_at = $2 WHERE id = $1";
    let rows = run!(tx, c => sqlx::query(UPDATE).bind(id.0).bind(at.map(|t| t.0)).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}
