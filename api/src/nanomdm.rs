//! NanoMDM's own API, so that tools written for it work unchanged: the same paths, bodies and status codes, at `/v1/…`
//! and at `/api/v1/nanomdm/…`, with the Basic user `nanomdm` and an API token as its password.
//!
//! What differs, on purpose: the same CommandUUID with the same body is a success that adds missing ids; an unknown or
//! checked-out id fails alone and not the whole batch; a body that is no command is 400; a push is written down and
//! sent until it is through, so `push_result` (an APNs id) is never there and `push_error` names what is known now.

pub(crate) mod enqueue;
pub(crate) mod push;
pub(crate) mod pushcert;
pub(crate) mod query;
pub(crate) mod queue;
pub(crate) mod version;

mod ids;
mod reply;

pub(crate) use reply::unauthorized;
