//! Certificate authorities that policies name, and what each is known to refuse.
//!
//! A generic authority speaks RFC 8555 with `device-attest-01`; step-ca has rules of its own. What an authority would refuse is known
//! before anything is sent: the linter, the dry run and the gate all ask [`Authority::refuses`]. [`document`] is what people write,
//! `records` and [`webhooks`] are its rows. docs/certificate-authorities.md says how to set one up.

mod authority;
pub mod document;
mod error;
pub mod identifier;
mod records;
pub mod webhooks;

pub use authority::{Adapter, Asking, Authority, CommonNameRule, IdentifierRule, Refusal};
pub use document::{Document, FieldError, Kind};
pub use error::{Error, Result};
pub use records::{Put, delete, put, stored};
