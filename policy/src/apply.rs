//! Writing a bundle: each object is compared with what is stored, and only what differs is written.
//!
//! All of it is one transaction of the caller's. A dry run is the same with the transaction dropped, so that what it shows is what would
//! have been done, with every check.

use std::collections::BTreeSet;

use mdm_core::ids::Fingerprint;
use mdm_core::time::Timestamp;
use serde::Serialize;
use serde_json::{Value as Json, json};
use store::Tx;

use crate::acme::{AcmePolicy, FieldError, InvalidPolicy, PolicyDocument};
use crate::assign::ScopeChange;
use crate::bundle::{Bundle, json};
use crate::companion::Companion;
use crate::diff::{Difference, differences};
use crate::error::{Error, Result, corrupt};
use crate::label_rules::LabelRule;
use crate::lint::{Finding, lint};
use crate::scope::Scope;
use crate::{Context, label_rules};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppliedKind)]
pub enum Kind {
    /// A certificate authority.
    CertificateAuthority,
    /// The rule of a label.
    LabelRule,
    /// An ACME policy.
    AcmePolicy,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppliedAction)]
pub enum Done {
    /// It is new.
    Create,
    /// Some of its fields change.
    Change,
    /// It is as it is.
    Nothing,
}

/// What applying a bundle does to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AppliedChange)]
pub struct Change {
    /// What it is.
    pub object: Kind,
    /// Its name.
    pub name: String,
    /// What is done.
    pub done: Done,
    /// The fields that differ; of a new object, all that it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// How many enrollments come and go, where the scope of a policy is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeChange>,
    /// What the policy comes to on each kind of device, where it is written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// For events and revisions.
    pub actor: &'a str,
    /// They may send commands to devices, and with them any payload.
    pub sends_commands: bool,
}

/// Whether a policy has what goes beyond certificates, new or changed: a payload key by key, another signature than the server's, or
/// a profile that a person cannot remove. With these a policy installs whatever `InstallProfile` can.
pub fn needs_commands(before: Option<&PolicyDocument>, after: &PolicyDocument) -> bool {
    let raw = |document: &PolicyDocument| -> Vec<Companion> {
        document.companions.iter().filter(|companion| matches!(companion, Companion::Raw(_))).cloned().collect()
    };
    let known = before.map(raw).unwrap_or_default();
    raw(after).iter().any(|companion| !known.contains(companion))
        || after.signing_identity.as_ref() != before.and_then(|document| document.signing_identity.as_ref())
        || after.removal.disallowed != before.is_some_and(|document| document.removal.disallowed)
}

/// Writes what differs. The answer has one entry for each object of the bundle, in its order.
pub async fn apply(
    tx: &mut Tx,
    ctx: &Context,
    bundle: &Bundle,
    author: Author<'_>,
    now: Timestamp,
) -> Result<Vec<Change>> {
    // What is compared is what is written over: nobody else writes any of it until this is done.
    let named = bundle.policies.iter().filter_map(|(policy, _)| policy.document().certificate_authority.as_deref());
    let authorities: BTreeSet<_> = bundle.authorities.iter().map(|a| a.name.as_str()).chain(named).collect();
    for name in authorities {
        store::authorities::lock(tx, name).await?;
    }
    let policies: BTreeSet<_> = bundle.policies.iter().map(|(policy, _)| policy.name().as_str()).collect();
    for name in policies {
        store::policies::lock_name(tx, name).await?;
    }
    let actor = author.actor;
    let mut changes = Vec::new();
    for document in &bundle.authorities {
        changes.push(authority(tx, ctx, document, actor, now).await?);
    }
    for rule in &bundle.rules {
        changes.push(label_rule(tx, rule, actor, now).await?);
    }
    for (new, scope) in &bundle.policies {
        changes.push(policy(tx, ctx, new, scope.as_ref(), author, now).await?);
    }
    Ok(changes)
}

/// What stands for a list of changes: whoever has seen it and finds it again finds the same changes. Counts of devices are left out,
/// since they change by themselves.
pub fn plan(changes: &[Change]) -> String {
    let seen: Vec<Json> = changes.iter().map(|c| json!([c.object, c.name, c.done, c.differences])).collect();
    Fingerprint::of(Json::from(seen).to_string().as_bytes()).to_string()
}

fn change(object: Kind, name: &str, before: Option<&Json>, after: &Json) -> Change {
    let differences = differences(before.unwrap_or(&json!({})), after);
    let done = match before {
        None => Done::Create,
        Some(_) if differences.is_empty() => Done::Nothing,
        Some(_) => Done::Change,
    };
    Change { object, name: name.to_owned(), done, differences, scope: None, findings: Vec::new() }
}

async fn authority(tx: &mut Tx, ctx: &Context, document: &ca::Document, actor: &str, now: Timestamp) -> Result<Change> {
    let before = match store::authorities::by_name(tx, &document.name).await? {
        Some(row) => Some(json(&ca::stored(&row).map_err(|_| corrupt("certificate_authority.body"))?.0)),
        None => None,
    };
    let change = change(Kind::CertificateAuthority, &document.name, before.as_ref(), &json(document));
    match ca::put(tx, &ctx.commands.random, document, actor, now).await {
        Ok(ca::Put::Changed) => drop(crate::authority_changed(tx, &document.name, now).await?),
        Ok(ca::Put::Created | ca::Put::Same) => {}
        Err(ca::Error::Store(e)) => return Err(e.into()),
        Err(ca::Error::Invalid(wrong)) => {
            let at = |field: &str| format!("certificate_authorities.{}.{field}", document.name);
            let wrong = wrong.into_iter().map(|e| FieldError { field: at(&e.field), expected: e.expected });
            return Err(Error::Invalid(InvalidPolicy(wrong.collect())));
        }
        Err(_) => return Err(corrupt("certificate_authority.body")),
    }
    Ok(change)
}

async fn label_rule(tx: &mut Tx, rule: &LabelRule, actor: &str, now: Timestamp) -> Result<Change> {
    let before = label_rules::get(tx, &rule.label).await?.map(|rule| json(&rule));
    let change = change(Kind::LabelRule, rule.label.as_str(), before.as_ref(), &json(rule));
    match label_rules::put(tx, rule, actor, now).await {
        Ok(_) => Ok(change),
        Err(Error::Invalid(InvalidPolicy(wrong))) => {
            let at = |e: FieldError| FieldError { field: format!("label_rules.{}.{}", rule.label, e.field), ..e };
            Err(Error::Invalid(InvalidPolicy(wrong.into_iter().map(at).collect())))
        }
        Err(e) => Err(e),
    }
}

async fn policy(
    tx: &mut Tx,
    ctx: &Context,
    new: &AcmePolicy,
    scope: Option<&Scope>,
    author: Author<'_>,
    now: Timestamp,
) -> Result<Change> {
    let name = new.name().as_str();
    let at = |e: Error| match e {
        Error::Invalid(InvalidPolicy(wrong)) => {
            let at = |e: FieldError| FieldError { field: format!("acme_policies.{name}.{}", e.field), ..e };
            Error::Invalid(InvalidPolicy(wrong.into_iter().map(at).collect()))
        }
        Error::NobodyCould(why) => Error::NobodyCould(format!("{name}: {why}")),
        other => other,
    };
    let old = store::policies::by_name(tx, name).await?;
    let mut after = json(new.document());
    let (body, stored) = match &old {
        Some(row) => {
            let body = AcmePolicy::from_json(&row.body).map_err(|_| corrupt("acme_policy_revision.body"))?;
            (Some(body), crate::scope(tx, row.id()).await?)
        }
        None => (None, Scope::default()),
    };
    let body = body.as_ref().map(AcmePolicy::document);
    if !author.sends_commands && needs_commands(body, new.document()) {
        return Err(Error::NeedsCommands(name.to_owned()));
    }
    let before = body.map(json);
    let actor = author.actor;
    let written = before.as_ref() != Some(&after);
    let id = match &old {
        None => crate::create(tx, ctx, new, actor, now).await.map_err(at)?,
        Some(row) => {
            crate::revise(tx, ctx, row.id(), new, actor, now).await.map_err(at)?;
            row.id()
        }
    };
    let wanted = scope.filter(|scope| **scope != stored);
    // The scope is shown as a field of the policy, as the bundle has it.
    let with_scope = |value: &mut Json, scope: &Scope| {
        if let Some(fields) = value.as_object_mut() {
            fields.insert("scope".into(), json(scope));
        }
    };
    let mut before = before;
    if let Some(scope) = wanted {
        with_scope(&mut after, scope);
        if let Some(before) = &mut before {
            with_scope(before, &stored);
        }
    }
    let mut change = change(Kind::AcmePolicy, name, before.as_ref(), &after);
    if let Some(scope) = wanted {
        change.scope = Some(crate::set_scope(tx, id, scope, actor, now).await.map_err(at)?);
    }
    if written {
        change.findings = lint(new, &crate::authority_of(tx, new).await?);
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_stands_for_its_changes_and_not_for_the_devices_of_the_moment() {
        let one = change(Kind::AcmePolicy, "wifi", Some(&json!({"a": 1})), &json!({"a": 2}));
        let counted = Change { scope: Some(ScopeChange { targets: 5, assigned: 5, leaving: 0 }), ..one.clone() };
        assert_eq!(plan(std::slice::from_ref(&one)), plan(&[counted]));
        let other = change(Kind::AcmePolicy, "wifi", Some(&json!({"a": 1})), &json!({"a": 3}));
        assert_ne!(plan(std::slice::from_ref(&one)), plan(&[other]));
        assert_ne!(plan(std::slice::from_ref(&one)), plan(&[one.clone(), one]));
        assert_eq!(plan(&[]), plan(&[]));
    }

    #[test]
    fn what_is_equal_is_left_alone() {
        let same = change(Kind::LabelRule, "macs", Some(&json!({"a": 1})), &json!({"a": 1}));
        assert_eq!((same.done, same.differences.len()), (Done::Nothing, 0));
        let new = change(Kind::LabelRule, "macs", None, &json!({"a": 1, "b": 2}));
        assert_eq!((new.done, new.differences.len()), (Done::Create, 2));
    }
}
