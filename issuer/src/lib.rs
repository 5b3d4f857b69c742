//! Who signs device identities, for whom, and what a signed identity allows.
//!
//! - [`authority`]: the built-in CA, the SCEP registration authority and the profile signer, sealed in the database.
//! - [`issuance`]: the records. A certificate is issued only against an [`issuance::Authorized`], which only the atomic
//!   consumption of a one-time challenge gives (TH-27, TH-28); what it says comes from the record (TH-29).
//! - [`scep`]: SCEP (RFC 8894) over HTTP, the way in which a device asks.
//! - [`crl`]: the list of revoked certificates, for whoever checks them elsewhere.
//! - [`admission`]: whether an `Authenticate` may be believed, decided from the record that its certificate was issued by (TH-02).

pub mod admission;
pub mod authority;
pub mod crl;
mod error;
pub mod issuance;
pub mod scep;
pub mod server;
mod vault;

pub use authority::Authority;
pub use error::Error;
