//! The queue: commands are enqueued, handed out one at a time, and ended by reports.
//!
//! Every function takes the caller's transaction, so that a report, what follows from it and the next command are one
//! commit (RG-14). The order within an enrollment is the order of commit (RG-02); one command is in progress at most
//! (RG-03); ended states never change (RG-04).

mod cancel;
mod choose;
mod enqueue;
mod error;
mod next;
mod report;
mod stall;

use std::time::Duration;

use mdm_core::crypto::seal::Sealer;
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::random::Random;

pub use cancel::{Cancelled, cancel, cancel_many, clear, expire};
pub use enqueue::{Enqueued, Lane, New, Rendering, TargetOutcome, enqueue};
pub use error::Error;
pub use next::{Content, Picked, next, next_but, next_of, refuse, rendered};
pub use report::{Done, Outcome, report, result, unreadable};

/// What the queue needs besides the database.
#[derive(Debug, Clone)]
pub struct Context {
    /// Seals bodies and results at rest: they can hold PINs and passwords.
    pub sealer: Sealer,
    /// Randomness for sealing.
    pub random: Random,
    /// When a command that gets no report stops blocking the queue.
    pub stall: Stall,
}

/// After how many deliveries without a report, spread over how long, a command is called stalled (RG-07).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// Deliveries without any report.
    pub deliveries: i64,
    /// Least time between the first of them and now.
    pub after: Duration,
}

impl Default for Stall {
    fn default() -> Self {
        Self { deliveries: 5, after: Duration::from_secs(3600) }
    }
}

fn body_context(uuid: &CommandUuid) -> String {
    format!("command.body_sealed:{uuid}")
}

fn rendered_context(id: EnrollmentId, uuid: &CommandUuid) -> String {
    format!("command_target.rendered_sealed:{id}:{uuid}")
}

fn result_context(id: EnrollmentId, uuid: &CommandUuid) -> String {
    format!("command_target.result_sealed:{id}:{uuid}")
}
