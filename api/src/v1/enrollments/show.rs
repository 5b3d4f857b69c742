//! `GET /api/v1/enrollments/{id}`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use mdm_core::ids::{EnrollmentId, PolicyId};
use mdm_core::time::Timestamp;
use policy::facts::{AttestedFacts, Fact, FactName};
use serde::Serialize;
use store::Tx;
use store::identities::Filter;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Enrollment;
use crate::Shared;
use crate::extract::Path;
use crate::problem::{Problem, ProblemBody};
use crate::v1::account_tokens::AccountToken;
use crate::v1::acme_policies::Assignment;
use crate::v1::identities::Identity;
use crate::when::When;

/// How many identities are shown; `/api/v1/identities` has all.
const MOST_IDENTITIES: i64 = 100;

/// An enrollment with everything known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrollmentDetail {
    /// The enrollment itself.
    enrollment: Enrollment,
    /// Its labels.
    labels: Vec<String>,
    /// What the device says of itself, each with where it said so and when.
    #[schema(value_type = Object, example = json!({ "product_name": { "value": "iPhone17,1", "source": "device_information", "at": "2026-11-22T05:00:00Z" } }))]
    facts: BTreeMap<FactName, Fact>,
    /// What Apple has attested of the device: the newest verdict, and the values of the newest attestation that was believed. Only
    /// these can meet what a policy requires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attested: Option<AttestedFacts>,
    /// When the device last answered DeviceInformation.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts_asked_at: Option<When>,
    /// The ACME policies assigned to it, each with its state and decision.
    acme_policies: Vec<Assignment>,
    /// The identity certificates of the device, the newest first: who issued each, whether it is hardware-bound and attested, why
    /// it is this one, and where its renewal stands.
    identities: Vec<Identity>,
    /// The newest bearer token of an account-driven enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_token: Option<AccountToken>,
    /// Which secrets of the device are kept, sealed. They are never shown.
    escrow: Escrow,
    /// The push that is due or under way, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<Push>,
}

/// Which secrets of a device are kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Escrow {
    /// `UnlockToken`, for `ClearPasscode`.
    unlock_token: bool,
    /// `BootstrapToken`; only the device itself gets it back.
    bootstrap_token: bool,
    /// How many secrets of former enrollments of this device are in the archive.
    archived: usize,
}

async fn escrow(tx: &mut Tx, id: EnrollmentId) -> Result<Escrow, Problem> {
    Ok(Escrow {
        unlock_token: store::enrollments::unlock_token(tx, id).await?.is_some(),
        bootstrap_token: store::enrollments::bootstrap_token(tx, id).await?.0.is_some(),
        archived: store::enrollments::archived_escrow(tx, id).await?.len(),
    })
}

async fn identities(tx: &mut Tx, device: EnrollmentId, now: Timestamp) -> Result<Vec<Identity>, Problem> {
    let filter = Filter { enrollment: Some(device), ..Filter::default() };
    let mut rows = store::identities::list(tx, &filter, None, now, MOST_IDENTITIES).await?;
    rows.sort_by_key(|row| std::cmp::Reverse((row.pinned_at, row.not_after)));
    Ok(rows.into_iter().map(|row| Identity::new(row, now)).collect())
}

async fn account_token(tx: &mut Tx, device: EnrollmentId) -> Result<Option<AccountToken>, Problem> {
    let filter = store::account_tokens::Filter { enrollment: Some(device), account: None };
    Ok(store::account_tokens::list(tx, &filter, None, 1).await?.pop().map(AccountToken::from))
}

/// The wish to wake a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Push {
    /// Since when it is wished for.
    since: When,
    /// When the next push is due.
    due_at: When,
    /// Pushes that APNs accepted and the device did not answer.
    attempts: i64,
    /// Failures in a row.
    failures: i64,
    /// When a push was last sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_sent_at: Option<When>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_outcome: Option<String>,
}

impl From<store::push::Intent> for Push {
    fn from(intent: store::push::Intent) -> Self {
        Self {
            since: When::ms(intent.created_at),
            due_at: When::ms(intent.due_at),
            attempts: intent.attempt,
            failures: intent.failures,
            last_sent_at: intent.last_sent_at.map(When::ms),
            last_outcome: intent.last_outcome,
        }
    }
}

async fn assignments(tx: &mut Tx, id: EnrollmentId) -> Result<Vec<Assignment>, Problem> {
    let mut shown = Vec::new();
    for row in store::assignments::of_enrollment(tx, id).await? {
        let policy = store::policies::get(tx, PolicyId(row.policy_id)).await?;
        shown.push(Assignment::new(row, policy.map(|p| p.name).unwrap_or_default()));
    }
    Ok(shown)
}

/// One enrollment with its labels, facts, policies and pending push.
#[utoipa::path(
    get, path = "/api/v1/enrollments/{id}", tag = "enrollments",
    params(("id" = Uuid, Path, description = "The enrollment")),
    responses(
        (status = 200, description = "The enrollment", body = EnrollmentDetail),
        (status = 404, description = "No such enrollment", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_enrollment(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Json<EnrollmentDetail>, Problem> {
    let mut tx = shared.store.read().await?;
    let row = super::find(&mut tx, id).await?;
    let labels = store::labels::of(&mut tx, EnrollmentId(id)).await?;
    let facts = policy::facts_of(&mut tx, &row).await?;
    let acme_policies = assignments(&mut tx, EnrollmentId(id)).await?;
    let device = row.parent.unwrap_or(row.id);
    let identities = identities(&mut tx, device, shared.clock.now()).await?;
    let account_token = account_token(&mut tx, device).await?;
    let escrow = escrow(&mut tx, EnrollmentId(id)).await?;
    let push = store::push::intent(&mut tx, EnrollmentId(id)).await?.map(Push::from);
    let enrollment =
        super::shown(&mut tx, vec![row]).await?.pop().ok_or_else(|| Problem::not_found("enrollment", id))?;
    let facts_asked_at = facts.asked_at.map(When);
    Ok(Json(EnrollmentDetail {
        enrollment,
        labels,
        facts: facts.known,
        attested: facts.attested,
        facts_asked_at,
        acme_policies,
        identities,
        account_token,
        escrow,
        push,
    }))
}
