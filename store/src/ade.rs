//! Rows of `ade_server`, `ade_profile`, `ade_definition` and `ade_device`: what Apple's device service knows, and what an
//! operator wishes.

pub mod devices;
pub mod profiles;
pub mod servers;

pub use devices::Device;
pub use profiles::{Definition, Profile};
pub use servers::Server;

use crate::{Dialect, Result, Tx};

/// Takes the lock under which the calls of one serial number are answered: one at a time. On SQLite the write transaction is it.
pub async fn lock(tx: &mut Tx, serial_number: &str) -> Result<()> {
    const LOCK: &str = "SELECT 1 FROM ade_device WHERE serial_number = $1 ORDER BY server_id FOR UPDATE";
    if tx.dialect() == Dialect::Postgres {
        run!(tx, c => sqlx::query(LOCK).bind(serial_number).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The device with this serial number, where a server in use lists it (TH-50). Of several, the one to which it was assigned
/// last.
pub async fn device(tx: &mut Tx, serial_number: &str) -> Result<Option<Device>> {
    const DEVICE: &str = devices::select!(
        "JOIN ade_server s ON s.id = d.server_id AND s.deleted_at IS NULL
         WHERE d.serial_number = $1 AND d.deleted_at IS NULL AND d.unlisted_at IS NULL
         ORDER BY COALESCE(d.device_assigned_at, d.first_seen_at) DESC, d.server_id LIMIT 1"
    );
    Ok(run!(tx, c => sqlx::query_as(DEVICE).bind(serial_number).fetch_optional(c).await)?)
}
