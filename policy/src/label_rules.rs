//! Labels that follow from what is known of a device.
//!
//! A label with a rule is put on by its rule alone: never by hand. It is looked at when a device enrolls, when something is
//! learned of it, and for everybody when the rule changes. User channels carry none: a scope asks for those of their device.

mod document;

use std::collections::{HashMap, HashSet};

use mdm_core::enrollment::Channel;
use mdm_core::ids::{EnrollmentId, Label};
use mdm_core::time::Timestamp;
use store::enrollments::Enrollment;
use store::events::NewEvent;
use store::{IdSet, Tx, Wake, labels, scopes};

pub use document::{Family, LabelRule, OsRange, Seen, Version};

use crate::acme::{FieldError, InvalidPolicy};
use crate::assign::labels_changed;
use crate::error::{Error, Result, corrupt};
use crate::facts::Facts;
use crate::{Context, target, walk};

/// How many enrollments a rule is held against in one transaction: their devices wait for it.
const PAGE: usize = 500;

/// The most labels that have a rule: all rules are held against a device whenever it tells something of itself.
const MOST: i64 = 200;

/// What became of a rule that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The label had none.
    Created,
    /// It takes the place of another one.
    Revised,
    /// It was there already: nothing changes.
    Same,
}

/// Writes the rule of a label. From now on the label is where the rule says and nowhere else, also where it was put by hand
/// before; devices follow in the background.
pub async fn put(tx: &mut Tx, rule: &LabelRule, actor: &str, now: Timestamp) -> Result<Put> {
    let errors = rule.check();
    if !errors.is_empty() {
        return Err(Error::Invalid(InvalidPolicy(errors)));
    }
    let put = match get(tx, &rule.label).await? {
        Some(old) if old == *rule => return Ok(Put::Same),
        Some(_) => Put::Revised,
        None if store::label_rules::count(tx).await? >= MOST => {
            let expected =
                "one of the labels that have a rule already: there are 200, and no more are taken; delete one first";
            let error = FieldError { field: "label".to_owned(), expected: expected.to_owned() };
            return Err(Error::Invalid(InvalidPolicy(vec![error])));
        }
        None => Put::Created,
    };
    let body = serde_json::to_string(rule).map_err(|_| corrupt("label_rule.body"))?;
    store::label_rules::put(tx, &rule.label, &body, actor, now).await?;
    tx.wake(Wake::Reconcile);
    let (kind, what) = match put {
        Put::Created => ("label_rule.created", "Rule of a label written"),
        _ => ("label_rule.revised", "Rule of a label changed"),
    };
    record(tx, kind, what, &rule.label, actor, now).await?;
    Ok(put)
}

/// Deletes the rule of a label: the label stays where it is, and is put on and taken off by hand from now on. False where it has no
/// rule.
pub async fn delete(tx: &mut Tx, label: &Label, actor: &str, now: Timestamp) -> Result<bool> {
    let deleted = store::label_rules::delete(tx, label).await?;
    if deleted {
        record(tx, "label_rule.deleted", "Rule of a label deleted", label, actor, now).await?;
    }
    Ok(deleted)
}

async fn record(tx: &mut Tx, kind: &str, what: &str, label: &Label, actor: &str, now: Timestamp) -> Result<()> {
    let summary = format!("{what}: {label}");
    let data = serde_json::json!({ "label": label });
    let event = NewEvent { at: now, kind, enrollment: None, command: None, actor, summary: &summary, data: &data };
    store::events::record(tx, &event).await?;
    Ok(())
}

/// The rule of a label.
pub async fn get(tx: &mut Tx, label: &Label) -> Result<Option<LabelRule>> {
    store::label_rules::get(tx, label).await?.as_ref().map(stored).transpose()
}

/// Every rule, in the order of the labels.
pub async fn all(tx: &mut Tx) -> Result<Vec<LabelRule>> {
    store::label_rules::all(tx).await?.iter().map(stored).collect()
}

/// The rule that a row holds.
pub fn stored(row: &store::label_rules::Row) -> Result<LabelRule> {
    serde_json::from_str(&row.body).map_err(|_| corrupt("label_rule.body"))
}

/// Refuses to put a label on or take it off by hand where it has a rule.
pub async fn refuse_by_hand(tx: &mut Tx, label: &Label) -> Result<()> {
    match store::label_rules::get(tx, label).await? {
        Some(_) => Err(Error::RuledLabel(label.clone())),
        None => Ok(()),
    }
}

/// Something was learned of a device: the labels that follow from it are put on and taken off, and policies come and go with
/// them. Facts are those of the device.
pub async fn follow(tx: &mut Tx, ctx: &Context, enrollment: &Enrollment, facts: &Facts, now: Timestamp) -> Result<()> {
    if settle(tx, enrollment, facts, now).await? {
        labels_changed(tx, ctx, &[enrollment.id], now).await?;
    }
    Ok(())
}

/// [`follow`] without the policies; true where a label has changed.
pub(crate) async fn settle(tx: &mut Tx, enrollment: &Enrollment, facts: &Facts, now: Timestamp) -> Result<bool> {
    if enrollment.channel != Channel::Device {
        return Ok(false);
    }
    let rows = store::label_rules::all(tx).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let has: HashSet<String> = labels::of(tx, enrollment.id).await?.into_iter().collect();
    let seen = Seen::new(enrollment, facts);
    let mut changed = false;
    for rule in rows.iter().filter_map(readable) {
        let (is_on, should_be) = (has.contains(rule.label.as_str()), rule.holds(&seen));
        if should_be && !is_on {
            labels::put(tx, enrollment.id, &rule.label).await?;
            labelled(tx, &rule.label, &[enrollment.id], &[], now).await?;
        } else if is_on && !should_be {
            labels::remove(tx, enrollment.id, &rule.label).await?;
            labelled(tx, &rule.label, &[], &[enrollment.id], now).await?;
        } else {
            continue;
        }
        changed = true;
    }
    Ok(changed)
}

/// A rule that cannot be read is our fault: its label stays where it is, and nobody is held up.
fn readable(row: &store::label_rules::Row) -> Option<LabelRule> {
    match stored(row) {
        Ok(rule) => Some(rule),
        Err(e) => {
            tracing::error!(label = %row.label, error = %e, "a stored rule of a label cannot be read; it is passed over");
            None
        }
    }
}

/// Writes into the log of events whom a label was put on, and whom it was taken off.
async fn labelled(tx: &mut Tx, label: &Label, on: &[EnrollmentId], off: &[EnrollmentId], now: Timestamp) -> Result<()> {
    let put_on = format!("label {label} was put on by its rule");
    let taken_off = format!("label {label} was taken off by its rule");
    let data = serde_json::json!({ "label": label });
    let event = |kind, enrollment: &EnrollmentId, summary| NewEvent {
        at: now,
        kind,
        enrollment: Some(*enrollment),
        command: None,
        actor: "server",
        summary,
        data: &data,
    };
    let on = on.iter().map(|id| event("enrollment.labelled", id, put_on.as_str()));
    let off = off.iter().map(|id| event("enrollment.unlabelled", id, taken_off.as_str()));
    store::events::record_many(tx, &on.chain(off).collect::<Vec<_>>()).await?;
    Ok(())
}

/// Holds the rule that has waited longest against the next enrollments; how many were looked at, or nothing where no rule waits.
pub(crate) async fn step(tx: &mut Tx, ctx: &Context, now: Timestamp, limit: usize) -> Result<Option<usize>> {
    let Some(row) = store::label_rules::next_walk(tx, now).await? else { return Ok(None) };
    let Some(rule) = readable(&row) else {
        store::label_rules::walked(tx, &row.label, None).await?;
        return Ok(Some(0));
    };
    let limit = limit.min(PAGE);
    let page = scopes::enrolled(tx, row.apply_after.map(EnrollmentId), walk::page_size(limit)).await?;
    let devices: Vec<_> = page.iter().filter(|e| e.parent_id.is_none()).map(|e| EnrollmentId(e.id)).collect();
    let set = IdSet::new(&devices);
    // What a device is telling at this moment is waited for: the rule must not judge by what it said before.
    store::enrollments::lock_many(tx, &set).await?;
    let mut bodies: HashMap<_, _> =
        store::facts::of_many(tx, &set).await?.into_iter().map(|d| (EnrollmentId(d.enrollment_id), d.body)).collect();
    let has: HashSet<_> = labels::among(tx, &set, &rule.label).await?.into_iter().collect();
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for enrollment in store::enrollments::many(tx, &set).await? {
        let facts = target::read(bodies.remove(&enrollment.id).as_deref(), &enrollment);
        match (has.contains(&enrollment.id), rule.holds(&Seen::new(&enrollment, &facts))) {
            (false, true) => on.push(enrollment.id),
            (true, false) => off.push(enrollment.id),
            _ => {}
        }
    }
    labels::put_many(tx, &IdSet::new(&on), &rule.label).await?;
    labels::remove_many(tx, &IdSet::new(&off), &rule.label).await?;
    labelled(tx, &rule.label, &on, &off, now).await?;
    on.extend(off);
    if !on.is_empty() {
        labels_changed(tx, ctx, &on, now).await?;
    }
    store::label_rules::walked(tx, &row.label, walk::end_of(&page, limit)).await?;
    Ok(Some(page.len()))
}
