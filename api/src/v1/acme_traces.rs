//! Traces: each attempt to get a certificate onto a device, from the policy to the end of the certificate.

pub(crate) mod list;
pub(crate) mod show;
