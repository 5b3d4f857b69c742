//! The ACME policy engine: which certificate profile each device can honour, and getting it there.
//!
//! Pure: [`acme`] (the policy), [`template`], [`facts`], [`gate`] (Apple's table), [`decision`] (the gate explained for
//! one device), [`decide`] (what to do next). With the database: `assign` (policies and scopes as rows), `react` (what
//! a report means), `render` (the profile, at its delivery), [`reconcile`] (what is due), `explain` (what would be).

pub mod acme;
mod advance;
pub mod alarm;
pub mod apply;
mod assign;
mod authority;
mod bundle;
mod case;
pub mod companion;
#[cfg(test)]
mod conflicts;
pub mod decide;
pub mod decision;
mod diff;
pub mod document;
mod error;
mod explain;
pub mod facts;
pub mod gate;
pub mod label_rules;
pub mod lint;
pub mod proof;
mod prove;
mod react;
pub mod reason;
pub mod reconcile;
mod render;
pub mod renew;
pub mod require;
pub mod retention;
pub mod ring;
mod scope;
mod signers;
pub mod table;
pub mod target;
pub mod template;
pub mod trace;
mod unique_keys;
mod users;
mod walk;
mod writes;

use mdm_core::enrollment::Channel;
use mdm_core::ids::PolicyId;
use mdm_core::time::Timestamp;

pub use acme::{AcmePolicy, FieldError, InvalidPolicy, PolicyDocument};
pub use assign::{ScopeChange, create, delete, enrolled, labels_changed, lock, revise, scope, set_scope, unenrolled};
pub use authority::{
    Known, changed as authority_changed, has_one_time_identifier, known as device_names, of as authority_of,
    provable as authority_provable, users as authority_users,
};
pub use bundle::Bundle;
pub use decision::Decision;
pub use diff::{Difference, differences};
pub use error::{Error, Result};
pub use explain::{DryRun, DryRunCount, dry_run, explain};
pub use react::{concerns, react};
pub use render::{PERMISSION, Rendered, render, render_facts};
pub use scope::{Excluded, Scope};
pub use signers::Signers;
pub use target::facts_of;
pub use unique_keys::UniqueKeys;

/// Who the commands of the policy engine are from, in `command.created_by`.
pub const CREATED_BY: &str = "policy";

/// What the policy engine needs besides the database.
#[derive(Debug, Clone)]
pub struct Context {
    /// The queue's.
    pub commands: commands::Context,
    /// Attestation.
    pub attestation: attestation::Context,
    /// Sign the profiles.
    pub signers: Signers,
    /// What every `PayloadIdentifier` begins with: a reverse DNS name. Profiles are replaced and removed by it, so it
    /// must never change.
    pub identifier: String,
    /// `PayloadOrganization` of policies that name none.
    pub organization: Option<String>,
}

impl Context {
    /// `PayloadIdentifier` of the profile of a policy, the same for all its revisions.
    pub fn payload_identifier(&self, policy: PolicyId, channel: Channel) -> String {
        let suffix = if channel == Channel::User { ".user" } else { "" };
        format!("{}.acme.{}{suffix}", self.identifier, policy.0.simple())
    }

    /// Signs a profile (XML) as its policy wishes.
    pub fn sign(&self, policy: &AcmePolicy, profile: &[u8], now: Timestamp) -> Result<Vec<u8>> {
        self.signers.sign(policy.document().signing_identity.as_deref(), profile, now)
    }
}
