//! The operator's side of the binary: subcommands that speak with a running server over its REST API.

pub mod apply;
pub mod client;
pub mod explain;
pub mod export;
pub mod file;
pub mod report;
