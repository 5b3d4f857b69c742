//! Simulated Apple devices for Assay and for any other MDM server.
//!
//! A [`device::Device`] enrolls from a link, polls, answers commands from its hardware record and
//! refuses what a real device would refuse. It shares no code with the server: property lists are
//! written by hand ([`plist`]), messages are signed and read here ([`signature`], [`scep`]), and
//! the table of hardware ([`hardware`]) is its own, so that a mistake in the server is seen and
//! not repeated.

pub mod acme;
pub mod apns;
pub mod authority;
pub mod commands;
pub mod device;
pub mod error;
pub mod fleet;
pub mod foreign;
pub mod hardware;
pub mod http;
pub mod load;
pub mod plist;
pub mod profile;
pub mod scep;
pub mod signature;
pub mod wire;

pub use error::Error;
