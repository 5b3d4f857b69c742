//! Who a policy is for.

use std::collections::BTreeSet;

use mdm_core::ids::{EnrollmentId, Label};
use serde::{Deserialize, Serialize};
use store::Tx;
use store::scopes::{self, Line};
use uuid::Uuid;

use crate::acme::{FieldError, InvalidPolicy};
use crate::error::{Error, Result, corrupt};

/// The most lines of a scope.
const MOST: usize = 10_000;

/// Who a policy is for, as the API and a file carry it: an enrollment that is named, has one of the labels, or any where `all` is
/// true; and of these none that `exclude` names. Who names a device names its users too: the policy's channel chooses among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PolicyScope)]
pub struct Scope {
    /// Every enrollment, those to come too.
    #[serde(default)]
    pub all: bool,
    /// Every enrollment that has one of these labels, now or later.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub labels: BTreeSet<Label>,
    /// These enrollments.
    #[serde(default)]
    pub enrollment_ids: BTreeSet<Uuid>,
    /// Who is left out, although it is taken in above.
    #[serde(default, skip_serializing_if = "Excluded::is_empty")]
    pub exclude: Excluded,
}

/// Who is left out of a scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PolicyScopeExcluded)]
pub struct Excluded {
    /// Every enrollment that has one of these labels, now or later.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub labels: BTreeSet<Label>,
    /// These enrollments.
    #[serde(default)]
    pub enrollment_ids: BTreeSet<Uuid>,
}

impl Excluded {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.enrollment_ids.is_empty()
    }
}

const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";

impl Scope {
    /// Every enrollment.
    pub fn everybody() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whoever has this label.
    pub fn label(label: Label) -> Self {
        Self { labels: BTreeSet::from([label]), ..Self::default() }
    }

    /// These enrollments.
    pub fn enrollments(ids: impl IntoIterator<Item = EnrollmentId>) -> Self {
        Self { enrollment_ids: ids.into_iter().map(|id| id.0).collect(), ..Self::default() }
    }

    /// It takes nobody in.
    pub fn is_empty(&self) -> bool {
        !self.all && self.labels.is_empty() && self.enrollment_ids.is_empty()
    }

    /// Every field that is wrong.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, expected: String| errors.push(FieldError { field: field.to_owned(), expected });
        if self.is_empty() && !self.exclude.is_empty() {
            wrong("exclude", "left out where nobody is taken in".to_owned());
        }
        let lists = [
            ("labels", self.labels.len()),
            ("enrollment_ids", self.enrollment_ids.len()),
            ("exclude.labels", self.exclude.labels.len()),
            ("exclude.enrollment_ids", self.exclude.enrollment_ids.len()),
        ];
        if lists.iter().map(|(_, entries)| entries).sum::<usize>() > MOST
            && let Some((longest, _)) = lists.iter().max_by_key(|(_, entries)| *entries)
        {
            wrong(
                longest,
                "shorter: a scope names at most 10,000 labels and enrollments, those left out included; put a label on more".to_owned(),
            );
        }
        if let Some(label) = self.labels.intersection(&self.exclude.labels).next() {
            wrong("exclude.labels", format!("other labels than those taken in: {label} is both"));
        }
        if let Some(id) = self.enrollment_ids.intersection(&self.exclude.enrollment_ids).next() {
            wrong("exclude.enrollment_ids", format!("other enrollments than those taken in: {id} is both"));
        }
        errors
    }

    /// Its lines as rows.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let line =
            |effect: &str, kind: &str, value: String| Line { effect: effect.to_owned(), kind: kind.to_owned(), value };
        let all = self.all.then(|| line(INCLUDE, "all", String::new()));
        let sides = [
            (INCLUDE, &self.labels, &self.enrollment_ids),
            (EXCLUDE, &self.exclude.labels, &self.exclude.enrollment_ids),
        ];
        let named = sides.into_iter().flat_map(|(effect, labels, ids)| {
            let labels = labels.iter().map(move |label| line(effect, "label", label.to_string()));
            labels.chain(ids.iter().map(move |id| line(effect, "enrollment", id.simple().to_string())))
        });
        all.into_iter().chain(named).collect()
    }

    /// Reads stored lines.
    fn from_lines(lines: &[Line]) -> Result<Self> {
        let bad = || corrupt("policy_scope");
        let mut scope = Self::default();
        for line in lines {
            let (labels, ids) = match line.effect.as_str() {
                INCLUDE => (&mut scope.labels, &mut scope.enrollment_ids),
                EXCLUDE => (&mut scope.exclude.labels, &mut scope.exclude.enrollment_ids),
                _ => return Err(bad()),
            };
            match line.kind.as_str() {
                "all" if line.effect == INCLUDE => scope.all = true,
                "label" => drop(labels.insert(line.value.parse().map_err(|_| bad())?)),
                "enrollment" => drop(ids.insert(Uuid::try_parse(&line.value).map_err(|_| bad())?)),
                _ => return Err(bad()),
            }
        }
        Ok(scope)
    }

    /// The scope that is stored for a policy.
    pub(crate) async fn load(tx: &mut Tx, policy: mdm_core::ids::PolicyId) -> Result<Self> {
        Self::from_lines(&scopes::get(tx, policy).await?)
    }

    /// Refuses a scope that contradicts itself or names an enrollment that there is not.
    pub(crate) async fn refuse_wrong(&self, tx: &mut Tx) -> Result<()> {
        let mut errors = self.check();
        let sides =
            [("enrollment_ids", &self.enrollment_ids), ("exclude.enrollment_ids", &self.exclude.enrollment_ids)];
        for (field, ids) in sides {
            let ids: Vec<_> = ids.iter().copied().map(EnrollmentId).collect();
            if let Some(id) = scopes::unknown(tx, &ids).await?.first() {
                errors.push(FieldError {
                    field: field.to_owned(),
                    expected: format!("ids of enrollments: there is no enrollment {id}"),
                });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(InvalidPolicy(errors))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_back_from_its_rows_and_from_json() {
        let (one, two) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let scope = Scope {
            all: true,
            labels: BTreeSet::from(["macs".parse().unwrap()]),
            enrollment_ids: BTreeSet::from([one]),
            exclude: Excluded {
                labels: BTreeSet::from(["lab".parse().unwrap()]),
                enrollment_ids: BTreeSet::from([two]),
            },
        };
        assert_eq!(Scope::from_lines(&scope.lines()).unwrap(), scope);
        let json = serde_json::to_string(&scope).unwrap();
        assert_eq!(serde_json::from_str::<Scope>(&json).unwrap(), scope);
        assert_eq!(
            serde_json::to_string(&Scope::everybody()).unwrap(),
            r#"{"all":true,"labels":[],"enrollment_ids":[]}"#
        );
        assert!(serde_json::from_str::<Scope>(r#"{"labels":["../x"]}"#).is_err());
        assert!(serde_json::from_str::<Scope>(r#"{"lables":["x"]}"#).is_err());
        assert!(Scope::default().is_empty() && Scope::default().lines().is_empty());
        assert_eq!(scope.check(), []);
    }

    #[test]
    fn a_scope_has_so_many_lines() {
        let ids = |n: u128| (1..=n).map(Uuid::from_u128).collect::<BTreeSet<_>>();
        let scope = |taken: u128, left: u128| Scope {
            labels: BTreeSet::from(["macs".parse().unwrap()]),
            enrollment_ids: ids(taken),
            exclude: Excluded {
                enrollment_ids: (1..=left).map(|n| Uuid::from_u128(n + 1_000_000)).collect(),
                ..Excluded::default()
            },
            ..Scope::default()
        };
        assert_eq!(scope(9_000, 999).check(), []);
        for (scope, field) in [(scope(9_000, 1_000), "enrollment_ids"), (scope(1, 20_000), "exclude.enrollment_ids")] {
            let wrong = scope.check();
            assert_eq!(wrong.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), [field]);
            assert!(wrong[0].expected.contains("10,000"), "{}", wrong[0]);
        }
    }

    #[test]
    fn a_scope_that_contradicts_itself_is_refused_by_its_field() {
        let label: BTreeSet<Label> = BTreeSet::from(["macs".parse().unwrap()]);
        let excluded = |labels: &BTreeSet<Label>, ids: &[u128]| Excluded {
            labels: labels.clone(),
            enrollment_ids: ids.iter().copied().map(Uuid::from_u128).collect(),
        };
        let fields = |scope: Scope| scope.check().into_iter().map(|e| e.field).collect::<Vec<_>>();
        let nobody = Scope { exclude: excluded(&label, &[]), ..Scope::default() };
        assert_eq!(fields(nobody), ["exclude"]);
        let both = Scope {
            labels: label.clone(),
            enrollment_ids: BTreeSet::from([Uuid::from_u128(1)]),
            exclude: excluded(&label, &[1, 2]),
            ..Scope::default()
        };
        assert_eq!(fields(both), ["exclude.labels", "exclude.enrollment_ids"]);
        let rows =
            [("exclude", "all", ""), ("include", "group", "x"), ("perhaps", "all", ""), ("include", "label", "a b")];
        for (effect, kind, value) in rows {
            let line = Line { effect: effect.into(), kind: kind.into(), value: value.into() };
            assert!(Scope::from_lines(&[line]).is_err(), "{effect} {kind} {value}");
        }
    }
}
