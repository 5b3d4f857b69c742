//! Rollouts, from a policy with steps to the revision on the last device, on both databases. What devices do is written into
//! their assignments by [`World::is`]; the decision, the loop of assignments and the loop of rollouts are the server's own.

mod rollout_world;

use std::time::Duration;

use rollout::standing::Stages;
use rollout::{Error, pause, resume, roll_back};
use rollout_world::story;
use serde_json::json;
use store::rollouts::State;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_revision_goes_step_by_step_and_each_waits_for_time_and_proof() {
    story(|world| async move {
        let devices = world.devices(20).await;
        world.label(&devices[..4], "pilot").await;
        let id =
            world.policy(json!([{"label": "pilot", "wait_minutes": 60}, {"percent": 100, "wait_minutes": 30}])).await;
        world.assign(id).await;
        world.reconcile().await;
        world.look().await;
        let counts = world.stages(id).await;
        assert_eq!(counts, Stages { held: 16, waiting: 4, ..Stages::default() });
        for held in &devices[4..] {
            assert_eq!(world.state(id, *held).await, "held");
        }

        for device in &devices[..4] {
            world.is(id, *device, "verified", 1).await;
        }
        world.later(Duration::from_secs(3599)).await;
        assert_eq!(world.rollout(id).await.step, 0, "its time is not over");
        world.later(Duration::from_secs(1)).await;
        assert_eq!(world.rollout(id).await.step, 1);
        world.reconcile().await;
        assert_eq!(world.stages(id).await, Stages { verified: 4, waiting: 16, ..Stages::default() });

        for device in &devices[4..9] {
            world.is(id, *device, "verified", 1).await;
        }
        world.later(HOUR).await;
        let report = world.report(id).await;
        assert_eq!((report.state.as_str(), report.step), ("running", 2), "9 of 20 are too few");
        assert_eq!(report.waits_for.as_deref(), Some("certificates: 9 are verified, 10 must be before it goes on"));
        world.is(id, devices[9], "verified", 1).await;
        world.later(HOUR).await;
        assert_eq!(world.rollout(id).await.state, State::Done);

        // Who comes later gets it at once.
        let late = world.devices(1).await[0];
        world.reconcile().await;
        assert_eq!(world.state(id, late).await, "awaiting_facts");
        let told: Vec<_> = world.report(id).await.history.into_iter().map(|h| h.kind).collect();
        assert_eq!(told, ["rollout.done", "rollout.step", "rollout.begun"]);
    })
    .await;
}

#[tokio::test]
async fn a_ring_that_fails_pauses_by_itself_says_why_and_is_resumed() {
    story(|world| async move {
        let devices = world.devices(12).await;
        world.label(&devices[..10], "pilot").await;
        let id =
            world.policy(json!([{"label": "pilot", "wait_minutes": 0}, {"percent": 100, "wait_minutes": 0}])).await;
        world.assign(id).await;
        world.reconcile().await;
        for device in &devices[..6] {
            world.is(id, *device, "verified", 1).await;
        }
        world.is(id, devices[6], "failed", 1).await;
        world.is(id, devices[7], "installing", 1).await;
        world.look().await;
        let row = world.rollout(id).await;
        assert_eq!((row.state, row.step), (State::Paused, 0));
        assert_eq!(
            row.why.as_deref(),
            Some("1 of 10 admitted devices failed; at most 0 may. Most often: install_failed (1)")
        );
        let mut tx = world.store.read().await.unwrap();
        let warnings = rollout::warnings(&mut tx).await.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("1 rollouts are paused"), "{warnings:?}");
        drop(tx);

        // Nothing more begins: those of the ring that were not given it are held; what has begun goes on.
        world.touch(id, devices[8]).await;
        world.touch(id, devices[0]).await;
        world.reconcile().await;
        assert_eq!(world.state(id, devices[8]).await, "held");
        assert_eq!(world.state(id, devices[0]).await, "verified");
        assert_eq!(world.state(id, devices[6]).await, "failed", "it waits for its retry");
        world.later(HOUR * 48).await;
        assert_eq!(world.rollout(id).await.state, State::Paused, "it does not go on by itself");

        let policy = world.stored(id).await;
        let mut tx = world.store.begin().await.unwrap();
        let row = resume(&mut tx, &policy, Some("the CA is mended"), "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((row.state, row.forgiven, row.step_at), (State::Running, 1, world.now()));
        world.look().await;
        let row = world.rollout(id).await;
        assert_eq!(
            (row.state, row.step),
            (State::Running, 1),
            "what was forgiven pauses nothing, and 6 of 10 are verified"
        );
        world.reconcile().await;
        assert_eq!(world.state(id, devices[8]).await, "awaiting_facts");

        // A further failure does; and who has recovered need not be forgiven any more.
        world.is(id, devices[6], "verified", 1).await;
        world.is(id, devices[9], "failed", 1).await;
        world.is(id, devices[10], "failed", 1).await;
        world.look().await;
        assert_eq!(world.rollout(id).await.state, State::Paused);
        let history: Vec<_> = world.report(id).await.history.into_iter().map(|h| (h.kind, h.actor)).collect();
        let told: Vec<_> = history.iter().map(|(kind, actor)| (kind.as_str(), actor.as_str())).collect();
        assert_eq!(
            told,
            [
                ("rollout.paused", "server"),
                ("rollout.step", "server"),
                ("rollout.resumed", "token:ops"),
                ("rollout.paused", "server"),
                ("rollout.begun", "token:test"),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn a_rollback_makes_the_revision_from_before_current_again() {
    story(|world| async move {
        let devices = world.devices(4).await;
        world.label(&devices[..2], "pilot").await;
        let steps = json!([{"label": "pilot", "wait_minutes": 60}, {"percent": 100, "wait_minutes": 0}]);
        let id = world.policy(json!([{"percent": 100, "wait_minutes": 0}])).await;
        world.assign(id).await;
        world.reconcile().await;
        for device in &devices {
            world.is(id, *device, "verified", 1).await;
        }
        world.look().await;
        assert_eq!(world.rollout(id).await.state, State::Done);

        assert_eq!(world.revise(id, "second", steps.clone()).await, 2);
        world.reconcile().await;
        world.look().await;
        let row = world.rollout(id).await;
        assert_eq!((row.from_revision, row.step, row.state), (Some(1), 0, State::Running));
        assert_eq!(world.stages(id).await, Stages { held: 2, installing: 2, ..Stages::default() });
        for held in &devices[2..] {
            assert_eq!(world.state(id, *held).await, "verified", "who is not admitted keeps what it has");
        }
        world.is(id, devices[0], "verified", 2).await;
        world.is(id, devices[1], "failed", 2).await;
        world.look().await;
        assert_eq!(world.rollout(id).await.state, State::Paused);

        let policy = world.stored(id).await;
        let mut tx = world.store.begin().await.unwrap();
        let row = roll_back(&mut tx, &policy, Some("EAP fails"), "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((row.state, row.why.as_deref()), (State::RolledBack, Some("EAP fails")));
        assert_eq!(world.stored(id).await.revision, 1);
        world.reconcile().await;
        let left = world.assignment(id, devices[0]).await;
        assert_eq!((left.state.as_str(), left.revision), ("installing", 1), "who had left it goes back");
        let kept = world.assignment(id, devices[1]).await;
        assert_eq!((kept.state.as_str(), kept.revision), ("verified", 1), "who failed still has it");
        for stayed in &devices[2..] {
            assert_eq!(world.state(id, *stayed).await, "verified");
        }
        assert_eq!(world.report(id).await.state, "rolled_back");

        // What does not fit is refused, and the next revision has a new number and begins from the first.
        let policy = world.stored(id).await;
        let mut tx = world.store.begin().await.unwrap();
        for refused in [
            pause(&mut tx, &policy, None, "t", world.now()).await.unwrap_err(),
            resume(&mut tx, &policy, None, "t", world.now()).await.unwrap_err(),
            roll_back(&mut tx, &policy, None, "t", world.now()).await.unwrap_err(),
        ] {
            assert!(matches!(refused, Error::State { state: State::RolledBack, .. }), "{refused}");
        }
        drop(tx);
        assert_eq!(world.revise(id, "third", steps).await, 3);
        assert_eq!(world.rollout(id).await.from_revision, Some(1));
    })
    .await;
}

#[tokio::test]
async fn where_there_is_nothing_to_go_back_to_the_profile_is_taken_off_and_it_can_begin_again() {
    story(|world| async move {
        let devices = world.devices(2).await;
        world.label(&devices[..1], "pilot").await;
        let id =
            world.policy(json!([{"label": "pilot", "wait_minutes": 60}, {"percent": 100, "wait_minutes": 0}])).await;
        world.assign(id).await;
        world.reconcile().await;
        world.is(id, devices[0], "verified", 1).await;
        let policy = world.stored(id).await;
        let mut tx = world.store.begin().await.unwrap();
        roll_back(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.reconcile().await;
        assert_eq!(world.state(id, devices[0]).await, "removing");
        assert_eq!(world.state(id, devices[1]).await, "held");

        let mut tx = world.store.begin().await.unwrap();
        let row = resume(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((row.state, row.step), (State::Running, 0));
    })
    .await;
}

#[tokio::test]
async fn what_a_person_has_stopped_does_not_begin_again_by_an_edit_of_the_scope() {
    story(|world| async move {
        let device = world.devices(1).await[0];
        let id = world.policy(json!([{"percent": 100, "wait_minutes": 60}])).await;
        world.assign(id).await;
        let policy = world.stored(id).await;
        let mut tx = world.store.begin().await.unwrap();
        pause(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.assign(id).await;
        world.reconcile().await;
        assert_eq!(world.rollout(id).await.state, State::Paused);
        assert_eq!(world.state(id, device).await, "held");

        let mut tx = world.store.begin().await.unwrap();
        roll_back(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.assign(id).await;
        world.reconcile().await;
        assert_eq!(world.rollout(id).await.state, State::RolledBack);
        assert_eq!(world.state(id, device).await, "held");

        let mut tx = world.store.begin().await.unwrap();
        resume(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.reconcile().await;
        assert_eq!(world.state(id, device).await, "awaiting_facts", "by a person it does");
    })
    .await;
}

#[tokio::test]
async fn a_pause_holds_back_what_waits_in_the_queue_and_the_certificate_stays() {
    story(|world| async move {
        let device = world.devices(1).await[0];
        let id = world.policy(json!(null)).await;
        world.assign(id).await;
        world.reconcile().await;
        world.is(id, device, "verified", 1).await;
        assert_eq!(world.revise(id, "second", json!([{"percent": 100, "wait_minutes": 60}])).await, 2);
        world.reconcile().await;
        assert_eq!(world.state(id, device).await, "installing", "its command waits");
        let policy = world.stored(id).await;
        let mut tx = world.store.begin().await.unwrap();
        pause(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();

        assert!(!world.delivered(id, device).await, "it is not handed out any more");
        let a = world.assignment(id, device).await;
        assert_eq!((a.state.as_str(), a.revision), ("verified", 1), "it has what it had");
        let mut tx = world.store.begin().await.unwrap();
        resume(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.reconcile().await;
        assert!(world.delivered(id, device).await);
        assert_eq!(world.assignment(id, device).await.revision, 2);
        let mut tx = world.store.begin().await.unwrap();
        pause(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap();
        tx.commit().await.unwrap();
        world.touch(id, device).await;
        world.reconcile().await;
        let a = world.assignment(id, device).await;
        assert_eq!((a.state.as_str(), a.revision), ("installing", 2), "what was handed out goes on");
    })
    .await;
}

#[tokio::test]
async fn a_new_revision_takes_the_place_of_one_on_its_way_and_goes_back_to_what_was_rolled_out() {
    story(|world| async move {
        let devices = world.devices(3).await;
        let steps = json!([{"label": "pilot", "wait_minutes": 60}, {"percent": 100, "wait_minutes": 60}]);
        let id = world.policy(json!([{"percent": 100, "wait_minutes": 0}])).await;
        world.assign(id).await;
        world.reconcile().await;
        for device in &devices {
            world.is(id, *device, "verified", 1).await;
        }
        world.look().await;
        world.label(&devices[..1], "pilot").await;
        assert_eq!(world.revise(id, "second", steps.clone()).await, 2);
        world.reconcile().await;
        world.is(id, devices[0], "failed", 2).await;
        assert_eq!(world.revise(id, "third", steps).await, 3);
        world.reconcile().await;
        let row = world.rollout(id).await;
        assert_eq!((row.revision, row.from_revision, row.step), (3, Some(1), 0), "not what was only on its way");
        let mut tx = world.store.read().await.unwrap();
        let second = store::rollouts::get(&mut tx, id, 2).await.unwrap().unwrap();
        assert_eq!(second.state, State::Superseded);
        drop(tx);
        assert_eq!(world.stages(id).await, Stages { held: 2, installing: 1, ..Stages::default() });
    })
    .await;
}

#[tokio::test]
async fn rg_23_a_loop_that_stood_still_does_not_undo_what_an_operator_did() {
    story(|world| async move {
        world.devices(2).await;
        let id = world.policy(json!([{"percent": 50, "wait_minutes": 0}, {"percent": 100, "wait_minutes": 0}])).await;
        world.assign(id).await;
        world.reconcile().await;
        let mut tx = world.store.begin().await.unwrap();
        let lease = uuid::Uuid::from_u128(9);
        let now = world.now();
        let taken = store::rollouts::lease(&mut tx, now, now.plus(HOUR), lease, 10).await.unwrap();
        assert_eq!(taken.len(), 1);
        tx.commit().await.unwrap();
        let policy = world.stored(id).await;
        let mut tx = world.store.begin().await.unwrap();
        pause(&mut tx, &policy, None, "token:ops", now).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = world.store.begin().await.unwrap();
        let late = store::rollouts::Rollout { step: 1, ..taken[0].clone() };
        assert!(!store::rollouts::save(&mut tx, &late, State::Running, Some(lease), now).await.unwrap());
        drop(tx);
        assert_eq!(world.rollout(id).await.state, State::Paused);
    })
    .await;
}

#[tokio::test]
async fn nobody_is_admitted_by_steps_that_another_plan_has_given() {
    story(|world| async move {
        let devices = world.devices(6).await;
        let id = world.policy(json!(null)).await;
        world.assign(id).await;
        world.reconcile().await;
        for device in &devices {
            world.is(id, *device, "verified", 1).await;
        }
        // All rows have step 0 from the time without a plan; with the plan nobody has the label.
        let steps = json!([{"label": "pilot", "wait_minutes": 60}, {"percent": 100, "wait_minutes": 0}]);
        assert_eq!(world.revise(id, "second", steps).await, 2);
        world.reconcile().await;
        world.look().await;
        assert_eq!(world.stages(id).await, Stages { held: 6, ..Stages::default() });
        world.later(HOUR).await;
        world.reconcile().await;
        assert_eq!(world.stages(id).await, Stages { installing: 6, ..Stages::default() }, "an empty step only waits");
    })
    .await;
}

#[tokio::test]
async fn a_policy_on_nobody_does_not_begin_its_steps() {
    story(|world| async move {
        let id = world.policy(json!([{"percent": 10, "wait_minutes": 0}, {"percent": 100, "wait_minutes": 0}])).await;
        world.assign(id).await;
        world.reconcile().await;
        world.later(HOUR).await;
        let report = world.report(id).await;
        assert_eq!((report.step, report.state.as_str()), (1, "running"));
        assert_eq!(report.waits_for.as_deref(), Some("devices: the policy is on none yet"));
        assert_eq!(report.step_at, world.now());
        // Deleted meanwhile: nothing is moved on.
        world.delete(id).await;
        world.later(HOUR).await;
        assert_eq!(world.rollout(id).await.state, State::Superseded);
    })
    .await;
}

#[tokio::test]
async fn a_rollback_waits_for_who_writes_a_revision_at_this_moment_and_is_refused() {
    story(|world| async move {
        if world.store.dialect() == store::Dialect::Sqlite {
            return;
        }
        let steps = json!([{"percent": 100, "wait_minutes": 0}]);
        let devices = world.devices(1).await;
        let id = world.policy(steps.clone()).await;
        world.assign(id).await;
        world.reconcile().await;
        world.is(id, devices[0], "verified", 1).await;
        world.look().await;
        world.revise(id, "second", steps).await;
        assert_eq!(world.rollout(id).await.from_revision, Some(1));
        let policy = world.stored(id).await;

        // What a revision does first, and what it does last.
        let mut revision = world.store.begin().await.unwrap();
        store::scopes::begin_walk(&mut revision, id, world.now()).await.unwrap();
        let back = async {
            let mut tx = world.store.begin().await.unwrap();
            let refused = roll_back(&mut tx, &policy, None, "token:ops", world.now()).await.unwrap_err();
            tx.rollback().await.unwrap();
            refused
        };
        let written = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(store::rollouts::supersede(&mut revision, id, 3, world.now()).await.unwrap(), 1);
            revision.commit().await.unwrap();
        };
        let (refused, ()) = tokio::join!(back, written);
        assert!(matches!(refused, Error::Changed), "{refused}");
    })
    .await;
}
