//! All that is known of a policy and of its rollout, in figures: what the API shows, and what `assay report` draws.

use std::collections::BTreeMap;
use std::time::Duration;

use mdm_core::ids::{Label, PolicyId};
use mdm_core::time::Timestamp;
use policy::reason::ReasonCode;
use policy::ring::{Plan, UNSORTED};
use serde::{Deserialize, Serialize};
use store::policies::Policy;
use store::rollouts::{self, Rollout, State, Tally};
use store::{Tx, reports};

use crate::plan::{Known, Next, Waiting, borne, next};
use crate::standing::{Stage, Stages, Standing, stage};
use crate::{Error, Result};

/// How far back renewals are counted.
const RENEWALS_OF: Duration = Duration::from_hours(30 * 24);
/// How many of the last events are looked through for those of one rollout.
const HISTORY: i64 = 500;
/// What stands for a chip of which nothing was decided yet.
const NOT_DECIDED: &str = "not_decided";

/// How many devices have one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReasonCount {
    /// The stable code.
    pub code: String,
    /// What it means.
    pub sentence: String,
    /// What an operator can do.
    pub remedy: String,
    /// How many.
    pub count: i64,
}

/// The devices of one class of silicon, by stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SiliconStages {
    /// Apple's row for the chip, or `not_decided`.
    pub silicon: String,
    /// By stage.
    pub stages: Stages,
}

/// Something that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Happened {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `rollout.begun`, `rollout.step`, `rollout.paused`, `rollout.resumed`, `rollout.rolled_back` or `rollout.done`.
    pub kind: String,
    /// In a sentence.
    pub summary: String,
    /// Who: `server`, or `token:<name>`.
    pub actor: String,
}

/// One step of a rollout, live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepReport {
    /// Its number, from 1.
    pub number: i64,
    /// `over`, `under_way` or `to_come`.
    pub standing: String,
    /// The share of all devices that it admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// The label whose devices it admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub label: Option<Label>,
    /// Minutes to the next step at the earliest.
    pub wait_minutes: u32,
    /// Its devices by stage.
    pub stages: Stages,
    /// The same for each class of silicon.
    pub silicon: Vec<SiliconStages>,
    /// Why devices are refused or failing, the most frequent first.
    pub reasons: Vec<ReasonCount>,
}

/// A rollout, live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RolloutReport {
    /// The policy's name.
    pub policy: String,
    /// The revision that is delivered.
    pub revision: i64,
    /// The revision that those have who are not admitted, and that a rollback goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_revision: Option<i64>,
    /// `running`, `paused`, `done`, `rolled_back` or `superseded`.
    pub state: String,
    /// Why it is paused or rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What a running one waits for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The step that is under way, from 1.
    pub step: i64,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub step_at: Timestamp,
    /// When the next one begins at the earliest, or the rollout ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_step_at: Option<Timestamp>,
    /// How many failures are borne now.
    pub failures_borne: i64,
    /// How many of them were forgiven by resuming.
    pub failures_forgiven: i64,
    /// The share of the admitted devices that must be verified before the next step, in percent.
    pub verified_percent: u8,
    /// All devices by stage.
    pub stages: Stages,
    /// The same for each class of silicon.
    pub silicon: Vec<SiliconStages>,
    /// Why devices are refused or failing, the most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// The steps, in order.
    pub steps: Vec<StepReport>,
    /// Devices of which it is not known yet which step admits them.
    pub unsorted: i64,
    /// What happened to it, the last first.
    pub history: Vec<Happened>,
    /// Who began it.
    pub started_by: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// How many assignments are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StateCount {
    /// The state of the assignment.
    pub state: String,
    /// Apple's row for the chip, or `not_decided`.
    pub silicon: String,
    /// How many.
    pub count: i64,
}

/// How many certificates have one form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FormCount {
    /// The type of the key.
    pub key_type: String,
    /// `HardwareBound` was asked for. Where the key is, only an attestation that the authority checked can say.
    pub hardware_bound: bool,
    /// `Attest` was asked for. That an attestation was given is the authority's to check.
    pub attested: bool,
    /// How many.
    pub count: i64,
}

/// How many on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DayCount {
    /// The day, such as `2026-11-22`, in UTC.
    pub day: String,
    /// How many.
    pub count: i64,
}

/// How a policy fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyReport {
    /// The policy's name.
    pub policy: String,
    /// Its current revision.
    pub revision: i64,
    /// When these figures were taken.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The certificate authority: its name, or its directory's address.
    pub authority: String,
    /// How many assignments there are.
    pub total: i64,
    /// They by state and silicon.
    pub states: Vec<StateCount>,
    /// Why assignments are blocked or failing, the most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// Why the form in which the profile was sent is weaker than asked, the most frequent first.
    pub weaker: Vec<ReasonCount>,
    /// The verified certificates by form.
    pub forms: Vec<FormCount>,
    /// The days on which verified certificates end.
    pub ends: Vec<DayCount>,
    /// The days on which certificates are to be renewed.
    pub renewals_due: Vec<DayCount>,
    /// The renewals of the last 30 days, by the state of their attempt: `queued`, `delivered`, `acknowledged`, `proved`, `failed` or
    /// `void`.
    pub renewals: BTreeMap<String, i64>,
    /// The newest rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutReport>,
}

/// The newest rollout of a policy, live.
pub async fn rollout_report(tx: &mut Tx, policy: &Policy, now: Timestamp) -> Result<RolloutReport> {
    let tallies = rollouts::tally(tx, policy.id()).await?;
    let found = newest(tx, policy, &tallies, now).await?;
    found.ok_or_else(|| Error::NoRollout(policy.name.clone()))
}

/// How a policy fares.
pub async fn policy_report(tx: &mut Tx, policy: &Policy, now: Timestamp) -> Result<PolicyReport> {
    let id = policy.id();
    let tallies = rollouts::tally(tx, id).await?;
    let document: policy::PolicyDocument =
        serde_json::from_str(&policy.body).map_err(|_| store::Error::Corrupt("acme_policy_revision.body"))?;
    let mut states: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for t in &tallies {
        *states.entry((&t.state, silicon_of(t))).or_default() += t.count;
    }
    let why = |t: &&Tally| t.failing > 0 || t.state == "blocked";
    let forms = reports::forms(tx, id).await?.into_iter().map(|f| FormCount {
        key_type: f.key_type,
        hardware_bound: f.hardware_bound,
        attested: f.attested,
        count: f.count,
    });
    let renewals = reports::renewals(tx, id, now.minus(RENEWALS_OF)).await?;
    Ok(PolicyReport {
        policy: policy.name.clone(),
        revision: policy.revision,
        at: now,
        authority: document.certificate_authority.or(document.directory_url).unwrap_or_default(),
        total: tallies.iter().map(|t| t.count).sum(),
        states: states
            .into_iter()
            .map(|((state, silicon), count)| StateCount { state: state.into(), silicon: silicon.into(), count })
            .collect(),
        reasons: reasons(tallies.iter().filter(why)),
        weaker: explained(reports::notes(tx, id).await?.iter().map(|n| (n.code.as_str(), n.count))),
        forms: forms.collect(),
        ends: reports::ends(tx, id).await?.into_iter().map(day).collect(),
        renewals_due: reports::renewals_due(tx, id).await?.into_iter().map(day).collect(),
        renewals: renewals.into_iter().map(|c| (c.state, c.count)).collect(),
        rollout: newest(tx, policy, &tallies, now).await?,
    })
}

async fn newest(tx: &mut Tx, policy: &Policy, tallies: &[Tally], now: Timestamp) -> Result<Option<RolloutReport>> {
    let Some(r) = rollouts::latest(tx, policy.id()).await? else { return Ok(None) };
    let plan = Plan::from_json(&r.plan)?;
    let standing = Standing::of(&r, tallies);
    let rescoping = rollouts::rescoping(tx, r.policy).await?;
    let acme =
        policy::AcmePolicy::from_json(&policy.body).map_err(|_| store::Error::Corrupt("acme_policy_revision.body"))?;
    let authority = policy::authority_of(tx, &acme).await?;
    let provable = policy::authority_provable(tx, &authority).await?;
    let known = Known { rollout: &r, plan: &plan, standing: &standing, rescoping, provable };
    let all = counted(&r, tallies.iter());
    let running = r.state == State::Running;
    let at = usize::try_from(r.step).unwrap_or(usize::MAX);
    let step_over = plan.steps.get(at).filter(|_| running).map(|step| r.step_at.plus(step.wait()));
    let rings = i64::try_from(plan.steps.len()).unwrap_or(i64::MAX);
    Ok(Some(RolloutReport {
        policy: policy.name.clone(),
        revision: r.revision,
        from_revision: r.from_revision,
        state: r.state.as_str().to_owned(),
        why: r.why.clone(),
        waits_for: running.then(|| waits_for(&next(&known, now))).flatten(),
        step: r.step + 1,
        step_at: r.step_at,
        next_step_at: step_over,
        failures_borne: borne(&r, &plan, &standing),
        failures_forgiven: r.forgiven.min(standing.stages.failing),
        verified_percent: plan.verified_percent,
        stages: all.stages,
        silicon: all.silicon,
        reasons: all.reasons,
        steps: (0..rings).zip(&plan.steps).map(|(n, step)| step_report(&r, n, step, tallies)).collect(),
        unsorted: tallies.iter().filter(|t| t.ring == UNSORTED && t.state != "removing").map(|t| t.count).sum(),
        history: history(tx, &r).await?,
        started_by: r.created_by.clone(),
        started_at: r.created_at,
        updated_at: r.updated_at,
    }))
}

/// What happened to one rollout, as far as the last events of all hold it.
async fn history(tx: &mut Tx, r: &Rollout) -> Result<Vec<Happened>> {
    #[derive(Deserialize)]
    struct Whose {
        policy_id: PolicyId,
        revision: i64,
    }
    let ours = |h: &rollouts::Happened| {
        serde_json::from_str::<Whose>(&h.data).is_ok_and(|w| w.policy_id == r.policy && w.revision == r.revision)
    };
    let told = rollouts::history(tx, HISTORY).await?.into_iter().filter(ours);
    // Whose rollout it is everybody knows here.
    let bare = |summary: &str| summary.rsplit_once(" (policy ").map_or(summary, |(bare, _)| bare).to_owned();
    Ok(told
        .map(|h| Happened { at: Timestamp(h.at), kind: h.kind, summary: bare(&h.summary), actor: h.actor })
        .collect())
}

/// Some assignments of a rollout, counted in every way.
struct Counted {
    stages: Stages,
    silicon: Vec<SiliconStages>,
    reasons: Vec<ReasonCount>,
}

fn counted<'a>(r: &Rollout, tallies: impl Iterator<Item = &'a Tally>) -> Counted {
    let mut stages = Stages::default();
    let mut silicon: BTreeMap<&str, Stages> = BTreeMap::new();
    let mut told = Vec::new();
    for t in tallies {
        let Some(stage) = stage(r, t) else { continue };
        stages.add(stage, t.count);
        silicon.entry(silicon_of(t)).or_default().add(stage, t.count);
        if matches!(stage, Stage::Refused | Stage::Failing) {
            told.push(t);
        }
    }
    let silicon = silicon.into_iter().map(|(s, stages)| SiliconStages { silicon: s.to_owned(), stages }).collect();
    Counted { stages, silicon, reasons: reasons(told.into_iter()) }
}

fn step_report(r: &Rollout, n: i64, step: &policy::ring::Step, tallies: &[Tally]) -> StepReport {
    let Counted { stages, silicon, reasons } = counted(r, tallies.iter().filter(|t| t.ring == n));
    let standing = match r.state {
        State::Done => "over",
        State::Running | State::Paused if n < r.step => "over",
        State::Running | State::Paused if n == r.step => "under_way",
        State::Running | State::Paused | State::RolledBack | State::Superseded => "to_come",
    };
    StepReport {
        number: n + 1,
        standing: standing.to_owned(),
        percent: step.percent,
        label: step.label.clone(),
        wait_minutes: step.wait_minutes,
        stages,
        silicon,
        reasons,
    }
}

fn waits_for(next: &Next) -> Option<String> {
    match next {
        Next::Idle => Some("devices: the policy is on none yet".to_owned()),
        Next::Wait(Waiting::Time(_)) => Some("the time of its step".to_owned()),
        Next::Wait(Waiting::Scope) => Some("the scope, which is being turned into assignments".to_owned()),
        Next::Wait(Waiting::Verified { are, must }) => {
            Some(format!("certificates: {are} are verified, {must} must be before it goes on"))
        }
        Next::Pause { .. } | Next::Advance | Next::Finish => None,
    }
}

fn silicon_of(t: &Tally) -> &str {
    t.silicon.as_deref().unwrap_or(NOT_DECIDED)
}

/// Counts reasons, the most frequent first.
fn reasons<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Vec<ReasonCount> {
    explained(tallies.filter_map(|t| Some((t.reason.as_deref()?, t.count))))
}

/// Codes with what they mean, the most frequent first.
fn explained<'a>(counts: impl Iterator<Item = (&'a str, i64)>) -> Vec<ReasonCount> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for (code, count) in counts {
        *sums.entry(code).or_default() += count;
    }
    let explain = |(code, count): (&str, i64)| {
        let reason = ReasonCode::from_text(code).map(ReasonCode::reason);
        let text = |text: Option<&'static str>| text.unwrap_or_default().to_owned();
        let (sentence, remedy) = (text(reason.map(|r| r.sentence)), text(reason.map(|r| r.remedy)));
        ReasonCount { code: code.to_owned(), sentence, remedy, count }
    };
    let mut reasons: Vec<ReasonCount> = sums.into_iter().map(explain).collect();
    reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.code.cmp(&b.code)));
    reasons
}

fn day(day: reports::Day) -> DayCount {
    let text = Timestamp::from_unix_seconds(day.day.saturating_mul(86_400)).to_rfc3339();
    DayCount { day: text.chars().take(10).collect(), count: day.count }
}
