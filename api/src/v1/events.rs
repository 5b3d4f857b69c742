//! The log of what happened.

pub(crate) mod list;
