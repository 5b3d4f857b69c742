//! Cryptography: the only folder that calls OpenSSL.
//!
//! Who does what: `ring` checks signatures (eight times faster than OpenSSL's whole-message calls), OpenSSL holds private
//! keys, reads PKCS#12 and opens CMS envelopes, and the `cms` and `x509-cert` crates read the structures around both.

pub mod attestation;
pub mod cms_sign;
pub mod cms_verify;
pub mod csr;
pub mod digest_access;
pub mod enveloped;
pub(crate) mod factory_key;
pub mod issue;
pub mod key;
pub mod machine_info;
pub mod pkcs12;
pub mod seal;
pub mod trust;
