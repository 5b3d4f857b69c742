//! The devices of a server of the portal, what happened to them, and the cursors into both.

use serde_json::{Value, json};

use super::{Fault, Known, Portal, State, lock};

/// A device.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) serial: String,
    pub(super) model: String,
    pub(super) family: String,
    pub(super) os: String,
    pub(super) asset_tag: String,
    pub(super) added: String,
    pub(super) status: &'static str,
    pub(super) profile_uuid: Option<String>,
}

impl Device {
    pub(super) fn json(&self) -> Value {
        let mut json = json!({
            "serial_number": self.serial,
            "model": self.model,
            "description": format!("{} 128GB", self.model),
            "color": "SILVER",
            "asset_tag": self.asset_tag,
            "os": self.os,
            "device_family": self.family,
            "profile_status": self.status,
            "device_assigned_date": self.added,
            "device_assigned_by": "admin@example.com",
        });
        if let (Some(uuid), Some(json)) = (&self.profile_uuid, json.as_object_mut()) {
            json.insert("profile_uuid".to_owned(), json!(uuid));
        }
        json
    }
}

/// Something that happened to a device.
#[derive(Clone)]
pub(super) struct Op {
    pub(super) serial: String,
    pub(super) kind: &'static str,
    pub(super) at: String,
    pub(super) device: Device,
}

/// A place in the list, and in what happened since.
#[derive(Clone)]
pub(super) struct Cursor {
    /// Serial numbers of the list that were not given yet; `None` once the list is done.
    left: Option<Vec<String>>,
    /// How much of what happened was given.
    ops: usize,
    pub(super) expired: bool,
}

impl Portal {
    /// A device is assigned to this server, such as `("C02XX1", "MacBook Pro", "Mac", "OSX")`.
    pub fn add_device(&self, serial: &str, model: &str, family: &str, os: &str) {
        let now = lock(&self.state).now();
        self.with(|known| {
            let device = Device {
                serial: serial.to_owned(),
                model: model.to_owned(),
                family: family.to_owned(),
                os: os.to_owned(),
                asset_tag: String::new(),
                added: now.clone(),
                status: "empty",
                profile_uuid: None,
            };
            known.devices.insert(serial.to_owned(), device.clone());
            known.ops.push(Op { serial: serial.to_owned(), kind: "added", at: now, device });
        });
    }

    /// A device is taken from this server.
    pub fn delete_device(&self, serial: &str) {
        let now = lock(&self.state).now();
        self.with(|known| {
            if let Some(device) = known.devices.remove(serial) {
                known.ops.push(Op { serial: serial.to_owned(), kind: "deleted", at: now, device });
            }
        });
    }

    /// A device gets an asset tag; `at` (RFC 3339) is when Apple says that it did.
    pub fn tag_device(&self, serial: &str, asset_tag: &str, at: &str) {
        self.with(|known| {
            if let Some(device) = known.devices.get_mut(serial) {
                asset_tag.clone_into(&mut device.asset_tag);
                let op = Op { serial: serial.to_owned(), kind: "modified", at: at.to_owned(), device: device.clone() };
                known.ops.push(op);
            }
        });
    }

    /// What happened last happens to be told once more.
    pub fn repeat_last_op(&self) {
        self.with(|known| known.ops.extend(known.ops.last().cloned()));
    }

    /// An operation that no client can read is told.
    pub fn tell_nonsense(&self) {
        self.with(|known| {
            let Some(mut op) = known.ops.last().cloned() else { return };
            op.serial = String::new();
            op.device.serial = String::new();
            known.ops.push(op);
        });
    }
}

/// `POST /server/devices`.
pub(super) fn fetch(state: &mut State, number: usize, body: &Value, fault: Option<&Fault>) -> (u16, Value) {
    let limit = limit(state, body);
    let Ok(known) = state.known(number) else { return (500, Value::Null) };
    let (mut left, ops) = match body.get("cursor").and_then(Value::as_str) {
        None => (known.devices.keys().cloned().collect(), known.ops.len()),
        Some(cursor) => match known.cursors.get(cursor) {
            None => return (400, json!("INVALID_CURSOR")),
            Some(cursor) if cursor.expired => return (400, json!("EXPIRED_CURSOR")),
            Some(Cursor { left: None, .. }) => return (400, json!("EXHAUSTED_CURSOR")),
            Some(Cursor { left: Some(left), ops, .. }) => (left.clone(), *ops),
        },
    };
    let rest = left.split_off(limit.min(left.len()));
    let devices: Vec<Value> = left.iter().filter_map(|serial| known.devices.get(serial)).map(Device::json).collect();
    let more = !rest.is_empty();
    let next = Cursor { left: more.then_some(rest), ops, expired: false };
    page(state, number, body, devices, next, more, fault)
}

/// `POST /devices/sync`.
pub(super) fn sync(state: &mut State, number: usize, body: &Value, fault: Option<&Fault>) -> (u16, Value) {
    let limit = limit(state, body);
    let Ok(known) = state.known(number) else { return (500, Value::Null) };
    let Some(cursor) = body.get("cursor").and_then(Value::as_str) else { return (400, json!("CURSOR_REQUIRED")) };
    let from = match known.cursors.get(cursor) {
        None | Some(Cursor { left: Some(_), .. }) => return (400, json!("INVALID_CURSOR")),
        Some(cursor) if cursor.expired => return (400, json!("EXPIRED_CURSOR")),
        Some(cursor) => cursor.ops,
    };
    let ops: Vec<Value> = known.ops.iter().skip(from).take(limit).map(operation).collect();
    let upto = from + ops.len();
    let more = upto < known.ops.len();
    page(state, number, body, ops, Cursor { left: None, ops: upto, expired: false }, more, fault)
}

fn operation(op: &Op) -> Value {
    let mut json = op.device.json();
    if let Some(json) = json.as_object_mut() {
        json.insert("op_type".to_owned(), json!(op.kind));
        json.insert("op_date".to_owned(), json!(op.at));
        if op.serial.is_empty() {
            json.remove("serial_number");
        }
    }
    json
}

fn limit(state: &State, body: &Value) -> usize {
    let asked = body.get("limit").and_then(Value::as_u64).unwrap_or(100);
    usize::try_from(asked).unwrap_or(100).clamp(1, 1000).min(state.page)
}

fn page(
    state: &mut State,
    number: usize,
    body: &Value,
    devices: Vec<Value>,
    next: Cursor,
    more: bool,
    fault: Option<&Fault>,
) -> (u16, Value) {
    let (now, word) = (state.now(), state.fresh("cursor"));
    let Ok(known) = state.known_mut(number) else { return (500, Value::Null) };
    if matches!(fault, Some(Fault::RepeatCursor)) {
        let same = body.get("cursor").cloned().unwrap_or(Value::Null);
        return (200, json!({ "cursor": same, "devices": devices, "fetched_until": now, "more_to_follow": true }));
    }
    known.cursors.insert(word.clone(), next);
    (200, json!({ "cursor": word, "devices": devices, "fetched_until": now, "more_to_follow": more }))
}

/// `PUT`, `POST` and `DELETE /profile/devices`.
pub(super) fn assign(known: &mut Known, body: &Value, now: &str, uuid: Option<&str>) -> (u16, Value) {
    use super::DeviceFault as F;
    let serials: Vec<&str> =
        body.get("devices").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if serials.is_empty() {
        return (400, json!("DEVICE_ID_REQUIRED"));
    }
    if uuid.is_some_and(|uuid| !known.profiles.contains_key(uuid)) {
        return (404, json!("NOT_FOUND"));
    }
    if serials.iter().any(|serial| known.device_faults.get(*serial) == Some(&F::Poison)) {
        return (400, json!("MALFORMED_REQUEST_BODY"));
    }
    let (mut verdicts, mut wait) = (serde_json::Map::new(), None);
    for serial in serials {
        let verdict = match (known.device_faults.get(serial), known.devices.get_mut(serial)) {
            (_, None) | (Some(F::NotAccessible), _) => "NOT_ACCESSIBLE",
            (Some(F::Throttled(seconds)), _) => {
                wait = Some(*seconds);
                "THROTTLED"
            }
            (Some(_), _) => "FAILED",
            (None, Some(device)) => {
                device.profile_uuid = uuid.map(str::to_owned);
                device.status = if uuid.is_some() { "assigned" } else { "removed" };
                let device = device.clone();
                known.ops.push(Op { serial: serial.to_owned(), kind: "modified", at: now.to_owned(), device });
                "SUCCESS"
            }
        };
        verdicts.insert(serial.to_owned(), json!(verdict));
    }
    let mut answer = json!({ "devices": verdicts });
    if let (Some(uuid), Some(answer)) = (uuid, answer.as_object_mut()) {
        answer.insert("profile_uuid".to_owned(), json!(uuid));
    }
    if let (Some(wait), Some(answer)) = (wait, answer.as_object_mut()) {
        answer.insert("retry_after_seconds".to_owned(), json!(wait));
    }
    (200, answer)
}
