//! `/api/v1`: one file for each verb on each noun. A handler decodes, calls one function, encodes.

pub(crate) mod account_tokens;
pub(crate) mod acme_certificates;
pub(crate) mod acme_policies;
pub(crate) mod acme_traces;
pub(crate) mod ade_devices;
pub(crate) mod ade_profiles;
pub(crate) mod ade_servers;
pub(crate) mod api_tokens;
pub(crate) mod bundle;
pub(crate) mod certificate_authorities;
pub(crate) mod commands;
pub(crate) mod enrollment_doors;
pub(crate) mod enrollment_links;
pub(crate) mod enrollments;
pub(crate) mod events;
pub(crate) mod identities;
pub(crate) mod invitations;
pub(crate) mod issuance;
pub(crate) mod label_rules;
pub(crate) mod network_users;
pub(crate) mod openapi;
pub(crate) mod push_certs;
pub(crate) mod quarantine;
pub(crate) mod server;
pub(crate) mod trust;
