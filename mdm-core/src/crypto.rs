//! Cryptography: the only folder that calls OpenSSL.
//!
//! Who does what: `ring` checks signatures (eight times faster than OpenSSL's whole-message calls), OpenSSL holds private
//! keys, reads PKCS#12 and opens CMS envelopes, and the `cms` and `x509-cert` crates read the structures around both.

pub mod key;
pub mod seal;
pub mod trust;
