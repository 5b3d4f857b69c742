//! ACME policies.

pub(crate) mod assign;
pub(crate) mod assignments;
pub(crate) mod delete;
pub(crate) mod dry_run;
pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod report;
pub(crate) mod revisions;
pub(crate) mod rollout;
pub(crate) mod show;
pub(crate) mod unassign;

use mdm_core::ids::PolicyName;
use policy::{AcmePolicy, PolicyDocument};
use serde::Serialize;
use store::Tx;
use store::assignments::Assignment as AssignmentRow;
use store::policies::Policy as Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::Problem;
use crate::when::When;

/// An ACME policy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcmePolicyView {
    /// Its name.
    name: String,
    /// The number of its revision, from 1; raised by each change.
    revision: i64,
    /// The policy.
    policy: serde_json::Value,
    /// When it was made.
    created_at: When,
    /// When it last changed.
    updated_at: When,
}

impl From<Row> for AcmePolicyView {
    fn from(row: Row) -> Self {
        Self {
            policy: serde_json::from_str(&row.body).unwrap_or_default(),
            name: row.name,
            revision: row.revision,
            created_at: When::ms(row.created_at),
            updated_at: When::ms(row.updated_at),
        }
    }
}

/// One policy on one enrollment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Assignment {
    /// Its key.
    pub(crate) id: Uuid,
    /// The policy's name.
    policy: String,
    /// The enrollment.
    enrollment_id: Uuid,
    /// The revision that the state speaks of.
    revision: i64,
    /// `assigned`, `held`, `awaiting_facts`, `blocked`, `installing`, `installed`, `verified`, `failed` or `removing`.
    state: String,
    /// The code of the reason, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The decision, explained.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<policy::Decision>)]
    decision: Option<serde_json::Value>,
    /// The command that is under way, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_uuid: Option<String>,
    /// The attempt that is under way or was the last: `GET /api/v1/acme-traces/{id}` tells its story.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Uuid>,
    /// SHA-256 of the certificate that was seen on the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    /// When that certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<When>,
    /// When it is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_at: Option<When>,
    /// How often it failed in a row.
    attempts: i64,
    /// When the server will look at it again by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<When>,
    /// When it was assigned.
    created_at: When,
    /// When it last changed.
    updated_at: When,
}

impl Assignment {
    pub(crate) fn new(row: AssignmentRow, policy: String) -> Self {
        Self {
            id: row.id,
            policy,
            enrollment_id: row.enrollment_id,
            revision: row.revision,
            state: row.state,
            reason: row.reason,
            decision: row.decision.and_then(|text| serde_json::from_str(&text).ok()),
            command_uuid: row.command_uuid,
            trace_id: row.attempt_id,
            certificate_sha256: row.certificate_sha256.map(hex::encode),
            not_after: row.not_after.map(When::ms),
            renew_at: row.renew_at.map(When::ms),
            attempts: row.attempts,
            due_at: row.due_at.map(When::ms),
            created_at: When::ms(row.created_at),
            updated_at: When::ms(row.updated_at),
        }
    }
}

/// The policy of this name, or 404.
pub(crate) async fn find(tx: &mut Tx, name: &str) -> Result<Row, Problem> {
    store::policies::by_name(tx, name).await?.ok_or_else(|| Problem::not_found("ACME policy", name))
}

/// The policy that a row holds.
pub(crate) fn parsed(row: &Row) -> Result<AcmePolicy, Problem> {
    Ok(AcmePolicy::from_json(&row.body)?)
}

/// A policy from a request; its name is that of the path, and may be left out of the body.
fn from_request(name: &str, mut body: serde_json::Value, at: &str) -> Result<AcmePolicy, Problem> {
    let name: PolicyName = name.parse().map_err(|e: mdm_core::ids::InvalidId| Problem::field("name", e.why))?;
    let Some(document) = body.as_object_mut() else {
        return Err(Problem::field(if at.is_empty() { "body" } else { at }, "must be an object: the policy"));
    };
    match document.get("name") {
        None => drop(document.insert("name".to_owned(), name.as_str().into())),
        Some(inside) if inside == name.as_str() => {}
        Some(_) => return Err(Problem::field(format!("{at}name"), "must be the name in the path, or absent")),
    }
    AcmePolicy::from_value(body).map_err(|invalid| Problem::from(invalid).under(at))
}

/// For the description only: the body is read by [`AcmePolicy::from_value`], which names every wrong field at once.
pub(crate) type PolicyBody = PolicyDocument;
