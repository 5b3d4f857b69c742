//! The ACME policy engine: which certificate profile each device can honour, and getting it there.
//!
//! Pure: [`acme`] (the policy), [`template`], [`facts`], [`gate`] (Apple's table), [`decision`] (the gate explained for
//! one device), [`decide`] (what to do next). With the database: `assign` (policies and scopes as rows), `react` (what
//! a report means), `render` (the profile, at its delivery), [`reconcile`] (what is due), `explain` (what would be).

pub mod acme;
mod advance;
mod assign;
mod authority;
pub mod decide;
pub mod decision;
mod error;
mod explain;
pub mod facts;
pub mod gate;
mod react;
pub mod reason;
pub mod reconcile;
mod render;
pub mod require;
pub mod ring;
mod scope;
pub mod target;
pub mod template;

use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::enrollment::Channel;
use mdm_core::ids::PolicyId;

pub use authority::of as authority_of;
pub use acme::{AcmePolicy, FieldError, InvalidPolicy, PolicyDocument};
pub use assign::{ScopeChange, create, delete, enrolled, labels_changed, revise, scope, set_scope, unenrolled};
pub use decision::Decision;
pub use error::{Error, Result};
pub use explain::{DryRun, DryRunCount, dry_run, explain};
pub use react::{concerns, react};
pub use render::{Rendered, render, render_facts};
pub use scope::ScopeItem;
pub use target::facts_of;

/// Who the commands of the policy engine are from, in `command.created_by`.
pub const CREATED_BY: &str = "policy";

/// What the policy engine needs besides the database.
#[derive(Debug, Clone)]
pub struct Context {
    /// The queue's.
    pub commands: commands::Context,
    /// Attestation.
    pub attestation: attestation::Context,
    /// Signs the profiles.
    pub signer: ProfileSigner,
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
}
