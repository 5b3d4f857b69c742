use mdm_core::ids::{AssignmentId, PolicyId};
use store::Tx;
use store::assignments::{self, Assignment, New};
use store::events::{self, NewEvent};
use store::policies::{self, NewRevision};
use store::rollouts::{self, Rollout, State};

use super::policies::policy;
use super::{at, enrolled, key, twice};

fn rollout(policy: PolicyId, revision: i64) -> Rollout {
    Rollout {
        policy,
        revision,
        from_revision: None,
        plan: "{}".to_owned(),
        step: 0,
        state: State::Running,
        why: None,
        forgiven: 0,
        step_at: at(1),
        due_at: Some(at(10)),
        created_by: "token:test".to_owned(),
        created_at: at(1),
        updated_at: at(1),
    }
}

async fn revise(tx: &mut Tx, policy: PolicyId) -> i64 {
    let name = policies::get(tx, policy).await.unwrap().unwrap().name;
    let new = NewRevision { name: &name, body: "{}", payload_uuid: key(at(0)), created_by: "test" };
    policies::revise(tx, policy, &new, at(2)).await.unwrap().unwrap()
}

/// Assignments of a policy, one for each state that is given, with its ring.
async fn assigned(tx: &mut Tx, policy: PolicyId, states: &[(&str, i64)]) -> Vec<Assignment> {
    let mut all = Vec::new();
    for (state, ring) in states {
        let enrollment = enrolled(tx).await;
        let new = New { id: AssignmentId(key(at(0))), policy, enrollment, ring: *ring };
        assert_eq!(assignments::insert_many(tx, &[new], at(1)).await.unwrap(), 1);
        let mut row = assignments::find(tx, policy, enrollment).await.unwrap().unwrap();
        (*state).clone_into(&mut row.state);
        row.due_at = None;
        assignments::save(tx, &row, at(1)).await.unwrap();
        all.push(row);
    }
    all
}

#[tokio::test]
async fn a_rollout_belongs_to_a_revision_and_is_moved_by_one_at_a_time() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        assert!(rollouts::latest(&mut tx, policy).await.unwrap().is_none());
        let first = rollout(policy, 1);
        assert!(rollouts::insert(&mut tx, &first).await.unwrap());
        assert!(!rollouts::insert(&mut tx, &Rollout { step: 4, ..first.clone() }).await.unwrap(), "it has one");
        assert_eq!(rollouts::current(&mut tx, policy).await.unwrap().as_ref(), Some(&first));

        let (one, two) = (key(at(0)), key(at(0)));
        let taken = |batch: Vec<Rollout>| batch.iter().any(|r| r.policy == policy);
        assert!(!taken(rollouts::lease(&mut tx, at(9), at(20), one, 1000).await.unwrap()), "it is not due");
        assert!(taken(rollouts::lease(&mut tx, at(10), at(20), one, 1000).await.unwrap()));
        assert!(!taken(rollouts::lease(&mut tx, at(19), at(30), two, 1000).await.unwrap()), "it is taken");
        assert!(taken(rollouts::lease(&mut tx, at(21), at(30), two, 1000).await.unwrap()));
        let next = Rollout { step: 1, step_at: at(22), due_at: Some(at(27)), updated_at: at(22), ..first };
        assert!(
            !rollouts::save(&mut tx, &next, State::Running, Some(one), at(22)).await.unwrap(),
            "whoever stood still has lost it"
        );
        assert!(rollouts::save(&mut tx, &next, State::Running, Some(two), at(22)).await.unwrap());
        assert_eq!(rollouts::get(&mut tx, policy, 1).await.unwrap().as_ref(), Some(&next));

        let why = Some("too many failed".to_owned());
        let paused = Rollout { state: State::Paused, why, due_at: None, updated_at: at(23), ..next };
        assert!(rollouts::save(&mut tx, &paused, State::Running, None, at(23)).await.unwrap());
        assert!(!rollouts::save(&mut tx, &paused, State::Running, None, at(24)).await.unwrap(), "it is paused by now");
        assert!(
            !taken(rollouts::lease(&mut tx, at(99), at(120), one, 1000).await.unwrap()),
            "nobody moves a paused one"
        );
        let counts = rollouts::counts(&mut tx).await.unwrap();
        assert!(counts.iter().any(|count| count.state == "paused" && count.count > 0));

        let revision = revise(&mut tx, policy).await;
        assert!(rollouts::current(&mut tx, policy).await.unwrap().is_none(), "that of another revision is not current");
        let second = Rollout { from_revision: Some(1), ..rollout(policy, revision) };
        assert!(rollouts::insert(&mut tx, &second).await.unwrap());
        assert_eq!(rollouts::supersede(&mut tx, policy, revision, at(30)).await.unwrap(), 1);
        assert_eq!(rollouts::get(&mut tx, policy, 1).await.unwrap().unwrap().state, State::Superseded);
        assert_eq!(
            rollouts::currents(&mut tx, &[policy, PolicyId(key(at(0)))]).await.unwrap(),
            std::slice::from_ref(&second)
        );
        assert!(rollouts::point_back(&mut tx, policy, 1, at(31)).await.unwrap());
        assert_eq!(policies::get(&mut tx, policy).await.unwrap().unwrap().revision, 1);
        assert_eq!(rollouts::latest(&mut tx, policy).await.unwrap(), Some(second), "the newest is what people look at");
        assert!(!rollouts::point_back(&mut tx, PolicyId(key(at(0))), 1, at(31)).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_step_admits_who_does_not_have_the_revision() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        let none = assigned(&mut tx, policy, &[("assigned", 0), ("held", 1)]).await;
        assert!(!rollouts::in_use(&mut tx, policy).await.unwrap(), "nobody has anything");
        for row in none {
            assignments::delete_many(&mut tx, &[AssignmentId(row.id)]).await.unwrap();
        }
        let rows = assigned(&mut tx, policy, &[("held", 0), ("verified", 0), ("blocked", 1), ("verified", 2)]).await;
        assert!(rollouts::in_use(&mut tx, policy).await.unwrap());
        let mut has = rows[1].clone();
        has.revision = 2;
        assignments::save(&mut tx, &has, at(1)).await.unwrap();
        assert_eq!(rollouts::admit(&mut tx, policy, 2, 1, at(5)).await.unwrap(), 2);
        let mut due = Vec::new();
        for row in &rows {
            due.push(assignments::get(&mut tx, AssignmentId(row.id)).await.unwrap().unwrap().due_at.is_some());
        }
        assert_eq!(due, [true, false, true, false], "one has it, one is not admitted");
        let mut failed = rows[3].clone();
        failed.state = "failed".to_owned();
        failed.revision = 2;
        failed.attempts = 8;
        assignments::save(&mut tx, &failed, at(1)).await.unwrap();
        assert_eq!(rollouts::retry_failed(&mut tx, policy, 1, at(5)).await.unwrap(), 0, "of another revision");
        assert_eq!(rollouts::retry_failed(&mut tx, policy, 2, at(5)).await.unwrap(), 1);
        let again = assignments::get(&mut tx, AssignmentId(failed.id)).await.unwrap().unwrap();
        assert_eq!((again.attempts, again.due_at), (1, Some(at(5).0)));
        failed.renew_at = Some(at(9).0);
        assignments::save(&mut tx, &failed, at(1)).await.unwrap();
        assert_eq!(
            rollouts::retry_failed(&mut tx, policy, 2, at(6)).await.unwrap(),
            0,
            "a renewal has a back-off of its own"
        );
        assert_eq!(rollouts::unsort(&mut tx, policy, i64::MAX).await.unwrap(), 4);
        assert_eq!(rollouts::unsort(&mut tx, policy, i64::MAX).await.unwrap(), 0);
        assert_eq!(rollouts::admit(&mut tx, policy, 2, 9, at(6)).await.unwrap(), 0, "no step admits them");
        assert!(!rollouts::rescoping(&mut tx, policy).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_tally_tells_apart_what_a_report_does() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        let states =
            [("verified", 0), ("verified", 0), ("failed", 0), ("installing", 1), ("blocked", 1), ("blocked", 1)];
        let rows = assigned(&mut tx, policy, &states).await;
        for (row, reason, attempts, sent) in [
            (&rows[2], Some("install_failed"), 1, true),
            (&rows[3], None, 2, true),
            (&rows[4], Some("user_enrollment"), 0, true),
            (&rows[5], Some("user_enrollment"), 0, false),
        ] {
            let mut row = row.clone();
            row.reason = reason.map(str::to_owned);
            row.attempts = attempts;
            row.profile_sent = sent;
            row.silicon = Some("supported".to_owned());
            assignments::save(&mut tx, &row, at(1)).await.unwrap();
        }
        let tally: Vec<_> = rollouts::tally(&mut tx, policy).await.unwrap();
        let told: Vec<_> = tally.iter().map(|t| (t.ring, t.state.as_str(), t.failing, t.count)).collect();
        assert_eq!(told.len(), 5, "{tally:?}");
        for line in [
            (0, "verified", 0, 2),
            (0, "failed", 1, 1),
            (1, "installing", 1, 1), // tried again
            (1, "blocked", 1, 1),    // what it had is refused now
            (1, "blocked", 0, 1),
        ] {
            assert!(told.contains(&line), "{line:?} in {told:?}");
        }
        assert!(
            tally
                .iter()
                .any(|t| t.reason.as_deref() == Some("install_failed") && t.silicon.as_deref() == Some("supported"))
        );
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_history_holds_what_happened_to_rollouts_and_nothing_else() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let data = serde_json::json!({ "policy_id": key(at(0)) });
        for (seconds, kind) in [(1, "rollout.begun"), (2, "policy.revised"), (3, "rollout.paused")] {
            let event = NewEvent {
                at: at(seconds),
                kind,
                enrollment: None,
                command: None,
                actor: "test",
                summary: kind,
                data: &data,
            };
            events::record(&mut tx, &event).await.unwrap();
        }
        let told = rollouts::history(&mut tx, 2).await.unwrap();
        let told: Vec<_> = told.iter().map(|h| (h.at, h.kind.as_str(), h.actor.as_str(), h.data.clone())).collect();
        let line = |seconds, kind| (at(seconds).0, kind, "test", data.to_string());
        assert_eq!(told, [line(3, "rollout.paused"), line(1, "rollout.begun")], "the last first");
        tx.commit().await.unwrap();
    })
    .await;
}
