//! Commands.

pub(crate) mod cancel;
pub(crate) mod enqueue;
pub(crate) mod enqueue_plist;
pub(crate) mod list;
pub(crate) mod show;

mod allowed;
mod destructive;
mod options;
mod spec;

pub(crate) use allowed::Rules;
pub(crate) use destructive::{is_destructive, permitted};
pub(crate) use options::{enqueue, refused, rendering};

/// A path parameter as a `CommandUUID`.
fn command_uuid(text: &str) -> Result<mdm_core::ids::CommandUuid, crate::problem::Problem> {
    text.parse()
        .map_err(|e: mdm_core::ids::InvalidId| crate::problem::Problem::field("uuid", format!("must be {}", e.why)))
}
