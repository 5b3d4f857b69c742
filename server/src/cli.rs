//! The operator's side of the binary: subcommands that speak with a running server over its REST API.

pub mod client;
