//! The renewal of MDM identities: planned, queued, delivered, seen, and tried again.
//!
//! A device's identity is renewed by installing its enrollment profile again, with the same identifiers and a permission for
//! one new certificate. Nothing renews it otherwise: Apple's devices do not renew an identity by themselves.
//!
//! - [`plan`]: what to do about one renewal, a pure function.
//! - `drive`: the loop that finds what is to be renewed and acts; one stuck device never holds up another (RG-19).
//! - `render`: the profile, made when its command is handed out, because the permission in it lives an hour.
//! - `react`: what a report, or a message with the new identity, means. The old identity stays good until the new one has
//!   spoken, because a device that fails to update its profile goes back to the old one.
//! - `watch`: figures and warnings for operators (TH-11).

mod drive;
mod error;
pub mod plan;
mod react;
mod render;
mod want;
mod watch;

use std::time::Duration;

use store::Tx;
use store::events::NewEvent;
use store::renewals::Renewal;

use mdm_core::time::Timestamp;

pub use drive::run_once;
pub use error::Error;
pub use react::{concerns, identity_seen, react, speaks};
pub use render::{Picked, Rendered, render};
pub use store::renewals::{Reason, State};
pub use want::{rescue, want};
pub use watch::{report, warnings};

/// Who the commands of the renewal are from, in `command.created_by`.
pub const CREATED_BY: &str = "renewal";

/// What operators can set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// For how long after its end an identity that is pinned and not revoked may still ask for a new one, and for nothing else.
    /// Zero: not at all (TH-09).
    pub expired_grace: Duration,
}

/// What the renewal needs besides the database.
#[derive(Debug, Clone)]
pub struct Context {
    /// Makes the enrollment profiles.
    pub enroll: enroll::Shared,
    /// The queue's.
    pub commands: commands::Context,
    /// What operators can set.
    pub settings: Settings,
}

/// Writes what happened to a renewal into the log of events.
async fn event(tx: &mut Tx, row: &Renewal, kind: &str, summary: &str, now: Timestamp) -> Result<(), store::Error> {
    let data = serde_json::json!({
        "reason": row.reason.as_str(),
        "attempts": row.attempts,
        "last_error": row.last_error,
        "certificate_sha256": row.identity.to_string(),
        "ends": row.deadline.to_rfc3339(),
    });
    let event = NewEvent {
        at: now,
        kind,
        enrollment: Some(row.enrollment),
        command: row.command.as_ref(),
        actor: "server",
        summary,
        data: &data,
    };
    store::events::record(tx, &event).await
}
