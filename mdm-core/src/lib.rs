//! The words: Apple's and ACME's terms as types.
//!
//! No I/O, no clock, no SQL, no HTTP. Everything here is a value, a codec or a pure decision over values,
//! so that every crate above shares one vocabulary and one parsed form of each message.

pub mod certificate;
pub mod checkin;
pub mod command;
pub mod crypto;
pub mod enrollment;
#[cfg(test)]
mod golden;
pub mod hardware;
pub mod ids;
pub mod plist;
pub mod profile;
pub mod random;
pub mod rate;
pub mod report;
pub mod secret;
pub mod time;
