//! The list of devices: read in full once, then by what changed. The cursor and the rows that came with it are written in
//! one transaction (TH-69), a device leaves only when Apple says so, and of two operations the newer one wins.

use http::Method;
use mdm_core::time::Timestamp;
use serde_json::{Value, json};
use store::Tx;
use store::events::NewEvent;

use crate::Error;
use crate::service::{Fault, Service};
use crate::visit::Visit;
use crate::wire::{Device, Page};

/// Devices in one answer; Apple gives 1000 at most.
const LIMIT: u32 = 1000;
/// Answers in one visit; the next visit goes on from there.
const MOST_PAGES: usize = 500;

const FETCH: &str = "fetch";
const SYNC: &str = "sync";

/// Reads what there is to read.
pub(crate) async fn read(visit: &Visit, service: &mut Service<'_>) -> Result<(), Error> {
    let mut cursor = visit.server.cursor.clone();
    let mut phase = if visit.server.phase == SYNC && cursor.is_some() { SYNC } else { FETCH };
    let mut started_anew = false;
    if cursor.is_none() {
        begin(visit).await?;
    }
    for _ in 0..MOST_PAGES {
        let path = if phase == FETCH { "/server/devices" } else { "/devices/sync" };
        let mut body = json!({ "limit": LIMIT });
        if let (Some(cursor), Some(body)) = (&cursor, body.as_object_mut()) {
            body.insert("cursor".to_owned(), Value::String(cursor.clone()));
        }
        match service.call::<Page>(Method::POST, path, Some(&body)).await {
            Ok(page) => {
                let repeated = page.cursor.is_some() && page.cursor == cursor;
                let more = page.more_to_follow;
                let next = page.cursor.clone().or_else(|| cursor.clone());
                let next_phase = if phase == FETCH && more { FETCH } else { SYNC };
                store(visit, phase, page, next.as_deref(), next_phase).await?;
                if !more {
                    return Ok(());
                }
                if repeated {
                    let why = "it gives the same cursor again and says that more follows".to_owned();
                    return Err(Fault::Unreachable { why, retry_after: None }.into());
                }
                (cursor, phase) = (next, next_phase);
            }
            // The list was read to its end before: from here on there are only changes.
            Err(fault) if phase == FETCH && cursor.is_some() && fault.says("EXHAUSTED_CURSOR") => {
                phase = SYNC;
                let mut tx = visit.begin().await?;
                store::ade::servers::put_cursor(&mut tx, visit.server.id, cursor.as_deref(), phase, None).await?;
                tx.commit().await?;
            }
            Err(fault) if fault.says("_CURSOR") || fault.says("CURSOR_REQUIRED") => {
                if started_anew {
                    return Err(fault.into());
                }
                tracing::warn!(ade.server = %visit.server.name, error = %fault, "the cursor is no longer good: the list is read anew");
                (cursor, phase, started_anew) = (None, FETCH, true);
                begin(visit).await?;
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(())
}

/// The full list is read from its beginning.
async fn begin(visit: &Visit) -> Result<(), Error> {
    let mut tx = visit.begin().await?;
    store::ade::servers::begin_list(&mut tx, visit.server.id, visit.context.clock.now()).await?;
    Ok(tx.commit().await?)
}

/// One answer: its devices, and the cursor that stands for them.
async fn store(visit: &Visit, phase: &str, page: Page, cursor: Option<&str>, next_phase: &str) -> Result<(), Error> {
    let now = visit.context.clock.now();
    let read_to_its_end = (!page.more_to_follow).then_some(now);
    let mut tx = visit.begin().await?;
    for value in page.devices {
        let device = serde_json::from_value::<Device>(value).ok();
        match device.filter(|device| fits(&device.serial_number)) {
            Some(device) => take_in(&mut tx, visit, phase, device, now).await?,
            None => {
                tracing::warn!(ade.server = %visit.server.name, "Apple lists a device that cannot be read; it is left out");
            }
        }
    }
    if phase == FETCH && read_to_its_end.is_some() {
        end(&mut tx, visit, now).await?;
    }
    store::ade::servers::put_cursor(&mut tx, visit.server.id, cursor, next_phase, read_to_its_end).await?;
    Ok(tx.commit().await?)
}

/// The full list has come to its end: a device that it did not have may have left while nobody listened.
async fn end(tx: &mut Tx, visit: &Visit, now: Timestamp) -> Result<(), Error> {
    let server = store::ade::servers::get(tx, visit.server.id).await?;
    let Some(began) = server.and_then(|server| server.list_began_at) else { return Ok(()) };
    let unlisted = store::ade::devices::unlist(tx, visit.server.id, Timestamp(began), now).await?;
    if unlisted > 0 {
        tracing::warn!(ade.server = %visit.server.name, devices = unlisted, "Apple no longer lists devices that it listed before: they cannot enroll");
        let name = &visit.server.name;
        let event = NewEvent {
            at: now,
            kind: "ade.unlisted",
            enrollment: None,
            command: None,
            actor: "server",
            summary: &format!("ADE server {name}: Apple's full list no longer has {unlisted} device(s)"),
            data: &json!({ "ade_server": visit.server.id, "devices": unlisted }),
        };
        store::events::record(tx, &event).await?;
    }
    Ok(())
}

async fn take_in(tx: &mut Tx, visit: &Visit, phase: &str, device: Device, now: Timestamp) -> Result<(), Error> {
    let server = visit.server.id;
    if phase == SYNC && device.op_type.as_deref() == Some("deleted") {
        let op_date = device.op_date().unwrap_or(now);
        store::ade::devices::gone(tx, server, &device.serial_number, op_date, now).await?;
        return Ok(());
    }
    let mut seen = device.seen();
    if phase == FETCH {
        // The full list tells the present: no earlier operation is newer than it.
        seen.op_date = None;
    }
    store::ade::devices::upsert(tx, server, &seen, now).await?;
    Ok(())
}

/// Serial numbers are letters and digits; what is not cannot be one of Apple's.
fn fits(serial: &str) -> bool {
    (1..=64).contains(&serial.len()) && serial.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
