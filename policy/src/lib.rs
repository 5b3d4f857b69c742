//! The ACME policy engine: which certificate profile each device can honour, and getting it there.

pub mod acme;
pub mod facts;
pub mod gate;
pub mod reason;
pub mod template;
