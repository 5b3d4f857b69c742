//! The server as a library: configuration, wiring, listeners, loops and the subcommands of the binary `assay`.

pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod health;
pub mod keys;
pub mod listen;
pub mod pilot;
pub mod seal;
pub mod serve;
pub mod simulate;
mod tasks;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod trust;

/// Chooses the one TLS provider of this process. Call it once, before anything speaks TLS.
pub fn install_crypto() {
    // An error means that one was chosen before: in tests several servers share a process.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
