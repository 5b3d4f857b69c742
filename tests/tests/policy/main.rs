//! ACME policies, from a scope to a proved certificate on a device and its renewal, on both databases.

mod attested;
mod authorities;
mod authority;
mod certificates;
mod companions;
mod delivery;
mod device;
mod ending;
mod failures;
mod forms;
mod identity;
mod ledger;
mod standing;
mod traces;
mod world;
