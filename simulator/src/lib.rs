//! Simulated Apple devices for Assay and for any other MDM server.
//!
//! A [`device::Device`] enrolls from a link, polls, answers commands from its hardware record and
//! refuses what a real device would refuse. It shares no code with the server: property lists are
//! written by hand ([`plist`]), messages are signed and read here ([`signature`], [`scep`]), and
//! the table of hardware ([`hardware`]) is its own, so that a mistake in the server is seen and
//! not repeated.

pub mod account;
pub mod acme;
pub mod acme_ca;
pub mod acme_client;
pub mod ade;
pub mod ade_service;
pub mod apns;
pub mod arrivals;
pub mod attestation;
pub mod authority;
pub mod browser;
pub mod commands;
pub mod companion;
pub mod device;
pub mod error;
pub mod escrow;
pub mod fleet;
pub mod foreign;
pub mod hardware;
pub mod http;
pub mod https;
pub mod identity;
pub mod installed;
pub mod load;
pub mod machine_info;
pub mod network_user;
pub mod oidc;
mod page;
pub mod plist;
pub mod profile;
pub mod record;
pub mod renewal;
pub mod scep;
pub mod signature;
pub mod silicon;
pub mod wire;

pub use error::Error;
