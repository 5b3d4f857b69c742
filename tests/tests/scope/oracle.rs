//! Scopes by chance, against a reading of their rule in a few lines.

use std::collections::{BTreeMap, BTreeSet};

use mdm_core::ids::{EnrollmentId, Label};
use mdm_tests::on_both;
use policy::{Excluded, Scope};
use serde_json::json;

use crate::world::{World, label, mac};

/// Numbers that look as if by chance, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn some<T: Clone + Ord>(&mut self, of: &[T], one_in: usize) -> BTreeSet<T> {
        of.iter().filter(|_| self.roll(one_in) == 0).cloned().collect()
    }
}

#[tokio::test]
async fn a_scope_means_what_it_says() {
    on_both(|store| async move {
        let w = World::new(store);
        let mut dice = Dice(0x2545_F491_4F6C_DD1D);
        let labels: Vec<Label> = ["a", "b", "c"].map(label).into();
        // Each enrollment with those by whom it may be named, and the labels of all of them.
        let mut named_by: BTreeMap<EnrollmentId, BTreeSet<EnrollmentId>> = BTreeMap::new();
        let mut labelled: BTreeMap<EnrollmentId, BTreeSet<Label>> = BTreeMap::new();
        for n in 0..8 {
            let device = w.enroll(mac(n, "14.5")).await;
            let has = dice.some(&labels, 3);
            for label in &has {
                w.label(device, label.as_str(), true).await;
            }
            labelled.insert(device, has.clone());
            named_by.insert(device, BTreeSet::from([device]));
            if n % 2 == 0 {
                let user = w.enroll_user(device).await;
                let own = dice.some(&labels, 4);
                for label in &own {
                    w.label(user, label.as_str(), true).await;
                }
                labelled.insert(user, has.union(&own).cloned().collect());
                named_by.insert(user, BTreeSet::from([device, user]));
            }
        }
        let everybody: Vec<_> = named_by.keys().map(|id| id.0).collect();
        let policy = w.policy(json!({"channel": "both"})).await;
        let mut before = 0;
        for _ in 0..40 {
            let mut scope = Scope {
                all: dice.roll(4) == 0,
                labels: dice.some(&labels, 3),
                enrollment_ids: dice.some(&everybody, 6),
                exclude: Excluded { labels: dice.some(&labels, 4), enrollment_ids: dice.some(&everybody, 6) },
            };
            scope.exclude.labels.retain(|l| !scope.labels.contains(l));
            scope.exclude.enrollment_ids.retain(|id| !scope.enrollment_ids.contains(id));
            if scope.is_empty() {
                scope.exclude = Excluded::default();
            }
            let touches = |ids: &BTreeSet<uuid::Uuid>, names: &BTreeSet<Label>, id: &EnrollmentId| {
                named_by[id].iter().any(|by| ids.contains(&by.0)) || !labelled[id].is_disjoint(names)
            };
            let wanted: BTreeSet<_> = named_by
                .keys()
                .filter(|id| scope.all || touches(&scope.enrollment_ids, &scope.labels, id))
                .filter(|id| !touches(&scope.exclude.enrollment_ids, &scope.exclude.labels, id))
                .copied()
                .collect();
            let change = w.scope(policy, &scope).await;
            let figures = (change.targets, before + change.assigned - change.leaving);
            assert_eq!(figures, (wanted.len() as u64, wanted.len() as u64), "{scope:?}");
            let run = w.dry_run(json!({"channel": "both"}), &scope).await;
            assert_eq!(run.total, wanted.len() as u64, "{scope:?}");
            w.reconcile().await;
            assert_eq!(w.assigned(policy).await, wanted, "{scope:?}");
            before = wanted.len() as u64;
        }
    })
    .await;
}
