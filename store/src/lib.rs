//! The rows: all SQL, for SQLite and PostgreSQL, from one text.
//!
//! Functions are grouped by table and take a [`Tx`]; they hold no decisions. One message is one transaction:
//! the caller begins it, calls functions of several tables, and commits. Nothing is announced before the commit
//! ([`Wake`]).

#[macro_use]
mod tx;
mod durable;
mod error;
mod id_set;
mod migrate;
mod open;

pub mod account_tokens;
pub mod ade;
pub mod anchors;
pub mod assignments;
pub mod attempts;
pub mod attestations;
pub mod authorities;
pub mod certificates;
pub mod commands;
pub mod doors;
pub mod enrollments;
pub mod events;
pub mod facts;
pub mod identities;
pub mod invitations;
pub mod issuance;
pub mod keys;
pub mod label_rules;
pub mod labels;
pub mod links;
pub mod listing;
pub mod network_users;
pub mod policies;
pub mod push;
pub mod quarantine;
pub mod renewals;
pub mod reports;
pub mod rollouts;
pub mod scopes;
pub mod sealed;
pub mod sentinel;
pub mod set_up;
pub mod sign_ins;
pub mod tokens;
pub mod traces;

pub use error::{Busy, Error, Result, retry};
pub use id_set::IdSet;
pub use open::{Settings, Store};
pub use tx::{Dialect, Tx, Wake};
