//! What decides about assignments, read for many of them at once: a policy, its authority and its rollout once for all, the rows of
//! the devices in a few statements. From there on every decision is a pure function.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ca::Authority;
use mdm_core::enrollment::{Channel, EnrollmentState};
use mdm_core::ids::{AssignmentId, EnrollmentId, PolicyId};
use mdm_core::profile::acme::AcmePayload;
use mdm_core::time::Timestamp;
use store::assignments::Assignment;
use store::commands::Waiting;
use store::enrollments::Enrollment;
use store::policies::Policy;
use store::rollouts::Rollout;
use store::{IdSet, Tx, commands, enrollments, policies, rollouts, scopes};
use uuid::Uuid;

use crate::CREATED_BY;
use crate::acme::AcmePolicy;
use crate::decide::{Certificate, Situation, State};
use crate::decision::{Decision, Form, Note, Outcome, Target, decision};
use crate::document::WhenUnassigned;
use crate::error::{Result, corrupt};
use crate::facts::Facts;
use crate::reason::ReasonCode;
use crate::ring;
use crate::target;

/// What `{random}` stands for before the delivery: its value is made then, and kept nowhere.
pub(crate) const NOT_YET: &str = "random";

/// One revision of a policy, with the authority that it names.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) policy: PolicyId,
    pub(crate) revision: i64,
    pub(crate) payload_uuid: Uuid,
    pub(crate) acme: AcmePolicy,
    pub(crate) authority: Authority,
    /// It cannot be had, which a person must mend: nothing is sent; what is on a device can be taken off.
    pub(crate) without_authority: bool,
    /// Something is known of who signs its certificates.
    pub(crate) provable: bool,
}

/// Everything that decides about one assignment.
pub(crate) struct Case {
    pub(crate) enrollment: Arc<Enrollment>,
    /// The revision that the enrollment is to have; the current one where the rollout holds it back.
    pub(crate) policy: Arc<InForce>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) situation: Situation,
    pub(crate) decision: Decision,
    pub(crate) payload: Option<AcmePayload>,
}

/// What was read for a batch of assignments.
pub(crate) struct Book {
    enrollments: HashMap<EnrollmentId, Arc<Enrollment>>,
    /// None where they cannot be read.
    facts: HashMap<EnrollmentId, Option<Arc<Facts>>>,
    wanted: HashSet<(EnrollmentId, PolicyId)>,
    waiting: HashMap<EnrollmentId, Vec<Waiting>>,
    policies: HashMap<PolicyId, Policy>,
    rollouts: HashMap<PolicyId, Rollout>,
    /// The revision that was handed out last for an assignment, where a rollout asks for it.
    handed_out: HashMap<Uuid, i64>,
    /// None where a revision cannot be read.
    in_force: HashMap<(PolicyId, i64), Option<Arc<InForce>>>,
}

impl Book {
    /// Reads what decides about these assignments, and gives them as they are now that nobody else can change them. The locks on
    /// their enrollments are held.
    pub(crate) async fn open(tx: &mut Tx, assignments: Vec<Assignment>) -> Result<(Self, Vec<Assignment>)> {
        let assignments = store::assignments::hold(tx, assignments).await?;
        let mut ids: Vec<_> = assignments.iter().map(|a| EnrollmentId(a.enrollment_id)).collect();
        ids.sort_unstable();
        ids.dedup();
        let set = IdSet::new(&ids);
        let mut rows = enrollments::many(tx, &set).await?;
        let known: HashSet<_> = rows.iter().map(|e| e.id).collect();
        let mut parents: Vec<_> = rows.iter().filter_map(|e| e.parent).filter(|id| !known.contains(id)).collect();
        if !parents.is_empty() {
            parents.sort_unstable();
            parents.dedup();
            rows.extend(enrollments::many(tx, &IdSet::new(&parents)).await?);
        }
        let enrollments: HashMap<_, _> = rows.into_iter().map(|e| (e.id, Arc::new(e))).collect();
        let everybody: Vec<_> = enrollments.keys().copied().collect();
        let stored = store::facts::of_many(tx, &IdSet::new(&everybody)).await?;
        let wanted = scopes::matching_many(tx, &set).await?;
        let mut waiting: HashMap<EnrollmentId, Vec<Waiting>> = HashMap::new();
        for row in commands::outstanding_by(tx, &set, CREATED_BY).await? {
            waiting.entry(EnrollmentId(row.enrollment_id)).or_default().push(row);
        }
        let mut ids: Vec<_> = assignments.iter().map(|a| PolicyId(a.policy_id)).collect();
        ids.sort_unstable();
        ids.dedup();
        let rollouts = rollouts::currents(tx, &ids).await?;
        let mut book = Self {
            facts: facts(&enrollments, stored),
            enrollments,
            wanted: wanted.iter().map(|m| (EnrollmentId(m.enrollment_id), PolicyId(m.policy_id))).collect(),
            waiting,
            policies: policies::many(tx, &ids).await?.into_iter().map(|p| (p.id(), p)).collect(),
            rollouts: rollouts.into_iter().map(|r| (r.policy, r)).collect(),
            handed_out: HashMap::new(),
            in_force: HashMap::new(),
        };
        book.read_handed_out(tx, &assignments).await?;
        book.read_revisions(tx, &assignments).await?;
        Ok((book, assignments))
    }

    /// Who was handed out the revision that a rollout delivers.
    async fn read_handed_out(&mut self, tx: &mut Tx, assignments: &[Assignment]) -> Result<()> {
        let rolling = |a: &&Assignment| {
            a.profile_sent && self.rollouts.get(&PolicyId(a.policy_id)).is_some_and(|r| r.revision == a.revision)
        };
        let ids: Vec<_> = assignments.iter().filter(rolling).map(|a| AssignmentId(a.id)).collect();
        if !ids.is_empty() {
            let rows = store::attempts::handed_out(tx, &ids).await?;
            self.handed_out = rows.into_iter().map(|(id, revision)| (id.0, revision)).collect();
        }
        Ok(())
    }

    async fn read_revisions(&mut self, tx: &mut Tx, assignments: &[Assignment]) -> Result<()> {
        for a in assignments {
            let id = PolicyId(a.policy_id);
            let Some(current) = self.policies.get(&id).map(|p| p.revision) else { continue };
            let revision = self.revision(a).unwrap_or(current);
            if !self.in_force.contains_key(&(id, revision)) {
                let read = match self.policies.get(&id) {
                    Some(policy) => in_force(tx, policy, revision).await?,
                    None => None,
                };
                self.in_force.insert((id, revision), read);
            }
        }
        Ok(())
    }

    /// The revision that an assignment is to have: none where the rollout holds it back.
    fn revision(&self, a: &Assignment) -> Option<i64> {
        let policy = self.policies.get(&PolicyId(a.policy_id))?;
        // What the device has of this revision a step does not take back, whatever is asked or refused for the moment.
        let has = a.profile_sent
            && (a.certificate_revision == Some(a.revision) || self.handed_out.get(&a.id) == Some(&a.revision));
        let begun = match State::from_text(&a.state) {
            Some(State::Installing) => has || self.command(a).is_none_or(|command| command.first_sent_at.is_some()),
            Some(State::Assigned | State::AwaitingFacts | State::Blocked) => has,
            Some(State::Installed | State::Verified | State::Failed) => true,
            _ => false,
        };
        let rollout = self.rollouts.get(&policy.id());
        ring::effective(rollout, policy.revision, a.ring, a.revision, begun)
    }

    /// The outstanding command that an assignment waits for.
    fn command(&self, a: &Assignment) -> Option<&Waiting> {
        let uuid = a.command_uuid.as_deref()?;
        self.waiting.get(&EnrollmentId(a.enrollment_id))?.iter().find(|w| w.command_uuid == uuid)
    }

    /// The outstanding command with this coalescing key.
    pub(crate) fn waiting(&self, enrollment: EnrollmentId, key: &str) -> Option<&str> {
        let waiting = self.waiting.get(&enrollment)?;
        waiting.iter().find(|w| w.coalescing_key.as_deref() == Some(key)).map(|w| w.command_uuid.as_str())
    }

    /// What decides about one of the assignments, with this value of `{random}`.
    pub(crate) fn case(&self, a: &Assignment, random: &str, now: Timestamp) -> Result<Case> {
        let (id, policy_id) = (EnrollmentId(a.enrollment_id), PolicyId(a.policy_id));
        let enrollment = self.enrollments.get(&id).ok_or_else(|| corrupt("assignment.enrollment_id"))?;
        let row = self.policies.get(&policy_id).ok_or_else(|| corrupt("assignment.policy_id"))?;
        let revision = self.revision(a);
        let policy = self
            .in_force
            .get(&(policy_id, revision.unwrap_or(row.revision)))
            .cloned()
            .flatten()
            .ok_or_else(|| corrupt("acme_policy_revision.body"))?;
        let facts = self.facts_of(enrollment).ok_or_else(|| corrupt("facts"))?;
        let values = target::values(enrollment, &facts, random);
        let target = Target { kind: enrollment.kind, channel: enrollment.channel, facts: &facts, values: &values, now };
        let (mut decision, mut payload) = decision(&policy.acme, &policy.authority, &target);
        if policy.without_authority {
            decision.outcome = Outcome::Closed;
            decision.reason = Some(Note::from(ReasonCode::ServerFault));
            decision.detail = Some("the certificate authority that the policy names is not there".to_owned());
            (decision.form, payload) = (None, None);
        }
        let document = policy.acme.document();
        let situation = Situation {
            wanted: row.deleted_at.is_none()
                && matches!(enrollment.state, EnrollmentState::Enrolled { .. })
                && document.channel.includes(enrollment.channel)
                && self.wanted.contains(&(id, policy_id)),
            state: State::from_text(&a.state).ok_or_else(|| corrupt("assignment.state"))?,
            state_revision: a.revision,
            revision,
            command_outstanding: self.command(a).is_some(),
            profile_sent: a.profile_sent,
            removes: document.removal.when_unassigned == WhenUnassigned::Remove,
            sent_form: a.decision.as_deref().and_then(form_of),
            reason: a.reason.as_deref().and_then(ReasonCode::from_text),
            attempts: a.attempts,
            retry_at: a.due_at.map(Timestamp),
            asked_at: facts.asked_at,
            certificate: certificate_of(a),
            proof_tries: a.proof_tries,
            provable: policy.provable,
        };
        Ok(Case { enrollment: Arc::clone(enrollment), policy, facts, situation, decision, payload })
    }

    /// What is believed of the device behind an enrollment. A user channel knows what its device channel knows; whether it was
    /// asked is its own affair.
    fn facts_of(&self, enrollment: &Enrollment) -> Option<Arc<Facts>> {
        let own = self.facts.get(&enrollment.id)?.as_ref()?;
        let Some(parent) = enrollment.parent.filter(|_| enrollment.channel == Channel::User) else {
            return Some(Arc::clone(own));
        };
        let device = self.facts.get(&parent)?.as_deref()?.clone();
        Some(Arc::new(target::of_user(device, own.as_ref().clone())))
    }
}

/// The certificate that was proved last.
fn certificate_of(a: &Assignment) -> Option<Certificate> {
    Some(Certificate {
        revision: a.certificate_revision?,
        form: a.certificate_form.as_deref().and_then(|form| serde_json::from_str(form).ok()),
        not_after: Timestamp(a.not_after?),
        renew_at: a.renew_at.map(Timestamp),
    })
}

/// The form in a stored decision.
fn form_of(decision: &str) -> Option<Form> {
    #[derive(serde::Deserialize)]
    struct Stored {
        form: Option<Form>,
    }
    serde_json::from_str::<Stored>(decision).ok()?.form
}

fn facts(
    enrollments: &HashMap<EnrollmentId, Arc<Enrollment>>,
    stored: Vec<store::facts::Document>,
) -> HashMap<EnrollmentId, Option<Arc<Facts>>> {
    let mut facts: HashMap<_, _> = stored
        .into_iter()
        .map(|row| (EnrollmentId(row.enrollment_id), serde_json::from_str(&row.body).ok().map(Arc::new)))
        .collect();
    for (id, enrollment) in enrollments {
        facts.entry(*id).or_insert_with(|| Some(Arc::new(target::from_authenticate(enrollment))));
    }
    facts
}

/// Reads one revision of a policy; none where it cannot be read, which a person must mend.
async fn in_force(tx: &mut Tx, policy: &Policy, revision: i64) -> Result<Option<Arc<InForce>>> {
    let wording = if policy.revision == revision {
        Some((policy.body.clone(), policy.payload_uuid))
    } else {
        policies::wording(tx, policy.id(), revision).await?.map(|w| (w.body, w.payload_uuid))
    };
    let Some((body, payload_uuid)) = wording else { return Ok(None) };
    let Ok(acme) = AcmePolicy::from_json(&body) else { return Ok(None) };
    let (authority, without_authority) = match crate::authority::of(tx, &acme).await {
        Err(e) if e.needs_human() => {
            tracing::error!(policy.name = %policy.name, error = %e, "the certificate authority of a policy cannot be had");
            (Authority::bare("", false, Vec::new()), true)
        }
        authority => (authority?, false),
    };
    let provable = crate::authority::provable(tx, &authority).await?;
    let policy = policy.id();
    Ok(Some(Arc::new(InForce { policy, revision, payload_uuid, acme, authority, without_authority, provable })))
}
