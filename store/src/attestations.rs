//! Rows of `attestation_nonce` and `attestation`.
