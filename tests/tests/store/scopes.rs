use mdm_core::enrollment::{Channel, EnrollmentKind, EnrollmentState, UserKey};
use mdm_core::ids::{AssignmentId, EnrollmentId, Label, PolicyId};
use store::assignments::{self, New};
use store::scopes::{self, Counts, Line, Match, Stretch};
use store::{IdSet, Tx};

use super::policies::policy;
use super::{at, authenticated, enrolled, key, tokens, twice, word};

fn line(effect: &str, kind: &str, value: &str) -> Line {
    Line { effect: effect.to_owned(), kind: kind.to_owned(), value: value.to_owned() }
}

fn named(effect: &str, id: EnrollmentId) -> Line {
    line(effect, "enrollment", &id.0.simple().to_string())
}

async fn user_of(tx: &mut Tx, device: EnrollmentId) -> EnrollmentId {
    let user = EnrollmentId(key(at(2)));
    let anna = UserKey::SharedIpad("anna".parse().unwrap());
    store::enrollments::insert_user(tx, user, device, EnrollmentKind::Device, &anna, at(2)).await.unwrap();
    let state = EnrollmentState::Enrolled { since: at(2) };
    store::enrollments::token_update(tx, user, state, &tokens(), at(2)).await.unwrap();
    user
}

async fn labelled(tx: &mut Tx, id: EnrollmentId) -> Label {
    let label: Label = word("scope").parse().unwrap();
    store::labels::put(tx, id, &label).await.unwrap();
    label
}

async fn assigned(tx: &mut Tx, policy: PolicyId, enrollment: EnrollmentId) {
    let new = New { id: AssignmentId(key(at(0))), policy, enrollment, ring: 0 };
    assert_eq!(assignments::insert_many(tx, &[new], at(0)).await.unwrap(), 1);
}

#[tokio::test]
async fn a_scope_takes_in_and_leaves_out_devices_and_their_users() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two, three) = (enrolled(&mut tx).await, enrolled(&mut tx).await, enrolled(&mut tx).await);
        let user = user_of(&mut tx, one).await;
        let (label, out) = (labelled(&mut tx, one).await, labelled(&mut tx, two).await);
        let policy = policy(&mut tx).await;
        let everybody = [one, two, three, user];
        let read = store::enrollments::many(&mut tx, &IdSet::new(&everybody)).await.unwrap();
        assert!(read.is_sorted_by_key(|e| e.id) && read.len() == 4);
        let set = IdSet::new(&everybody);
        let cases = [
            (vec![], vec![]),
            (vec![line("include", "all", "")], vec![one, two, three, user]),
            (vec![line("include", "label", label.as_str())], vec![one, user]),
            (vec![named("include", three)], vec![three]),
            (vec![named("include", user)], vec![user]),
            (vec![line("include", "label", label.as_str()), named("exclude", user)], vec![one]),
            (vec![line("exclude", "label", out.as_str()), line("include", "all", "")], vec![one, three, user]),
            (vec![named("exclude", one), line("include", "all", "")], vec![two, three]),
            (vec![named("exclude", one)], vec![]),
            (vec![line("include", "label", out.as_str()), named("exclude", two), named("include", three)], vec![three]),
        ];
        for (mut lines, mut holds) in cases {
            scopes::set(&mut tx, policy, &lines).await.unwrap();
            lines.sort();
            assert_eq!(scopes::get(&mut tx, policy).await.unwrap(), lines);
            holds.sort();
            for id in everybody {
                let matching = scopes::matching(&mut tx, id).await.unwrap();
                assert_eq!(matching.contains(&policy), holds.contains(&id), "{lines:?}");
            }
            let many = scopes::matching_many(&mut tx, &set).await.unwrap();
            let ours: Vec<_> = many.into_iter().filter(|m| m.policy_id == policy.0).collect();
            let wanted: Vec<_> = holds.iter().map(|id| Match { enrollment_id: id.0, policy_id: policy.0 }).collect();
            assert_eq!(ours, wanted, "{lines:?}");
            assert_eq!(scopes::held_by(&mut tx, &set, &lines).await.unwrap(), holds, "{lines:?}");
        }
        store::policies::delete(&mut tx, policy, at(3)).await.unwrap();
        assert!(!scopes::matching(&mut tx, three).await.unwrap().contains(&policy));
        let nobody = EnrollmentId(key(at(9)));
        assert_eq!(scopes::unknown(&mut tx, &[one, nobody]).await.unwrap(), [nobody]);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_scope_is_counted_by_channel() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let user = user_of(&mut tx, one).await;
        let not_yet = authenticated(&mut tx).await;
        let label = labelled(&mut tx, one).await;
        store::labels::put(&mut tx, not_yet, &label).await.unwrap();
        let policy = policy(&mut tx).await;
        scopes::set(&mut tx, policy, &[line("include", "label", label.as_str())]).await.unwrap();
        assigned(&mut tx, policy, user).await;
        assigned(&mut tx, policy, two).await;
        for (channels, targets, there) in
            [(vec![Channel::Device], 1, 0), (vec![Channel::User], 1, 1), (vec![Channel::Device, Channel::User], 2, 1)]
        {
            let counts = scopes::counts(&mut tx, policy, &channels).await.unwrap();
            assert_eq!(counts, Counts { targets, there, assignments: 2 });
        }
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_walk_goes_over_everybody_and_begins_anew_when_it_is_told_to() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        scopes::begin_walk(&mut tx, policy, at(5)).await.unwrap();
        assert_eq!(scopes::next_walk(&mut tx, at(4)).await.unwrap(), None);
        let walk = scopes::next_walk(&mut tx, at(5)).await.unwrap().unwrap();
        assert_eq!((walk.id, walk.rescope_after), (policy.0, None));
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let (one, two) = (one.min(two), one.max(two));
        let user = user_of(&mut tx, one).await;
        authenticated(&mut tx).await;
        let before = EnrollmentId(uuid::Uuid::from_u128(one.0.as_u128() - 1));
        let page = scopes::enrolled(&mut tx, Some(before), 500).await.unwrap();
        let ours: Vec<_> = page.iter().filter(|e| [one.0, two.0, user.0].contains(&e.id)).collect();
        assert_eq!(ours.len(), 3);
        assert!(page.is_sorted_by_key(|e| e.id) && page.iter().all(|e| e.id > before.0));
        assert_eq!((ours[2].parent_id, ours[2].channel.as_str()), (Some(one.0), "user"));
        assert_eq!(scopes::enrolled(&mut tx, Some(before), 1).await.unwrap().len(), 1);
        let of_one = scopes::enrolled_of(&mut tx, &IdSet::new(&[one])).await.unwrap();
        assert_eq!(of_one.iter().map(|e| e.id).collect::<Vec<_>>(), [one.0, user.0]);

        scopes::walked(&mut tx, policy, Some(one)).await.unwrap();
        let walk = scopes::next_walk(&mut tx, at(5)).await.unwrap().unwrap();
        assert_eq!((walk.id, walk.rescope_after), (policy.0, Some(one.0)));
        scopes::begin_walk(&mut tx, policy, at(5)).await.unwrap();
        assert_eq!(scopes::next_walk(&mut tx, at(5)).await.unwrap().unwrap().rescope_after, None);
        scopes::postpone(&mut tx, policy, at(7)).await.unwrap();
        assert_eq!(scopes::next_walk(&mut tx, at(6)).await.unwrap(), None);
        assert_eq!(scopes::next_walk(&mut tx, at(7)).await.unwrap().unwrap().id, policy.0);
        scopes::walked(&mut tx, policy, None).await.unwrap();
        assert_eq!(scopes::next_walk(&mut tx, at(9)).await.unwrap(), None);
        scopes::postpone(&mut tx, policy, at(7)).await.unwrap();
        assert_eq!(scopes::next_walk(&mut tx, at(9)).await.unwrap(), None, "one that is over stays so");
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_walk_makes_those_due_who_have_something_to_do() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let policy = policy(&mut tx).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            let id = enrolled(&mut tx).await;
            assigned(&mut tx, policy, id).await;
            ids.push(id);
        }
        ids.sort();
        let [done, old, leaving, removing] = ids[..] else { panic!() };
        for (id, state, revision) in
            [(done, "installed", 1), (old, "installed", 0), (leaving, "installed", 1), (removing, "removing", 1)]
        {
            let row = assignments::find(&mut tx, policy, id).await.unwrap().unwrap();
            let row = assignments::Assignment { state: state.to_owned(), revision, due_at: None, ..row };
            assignments::save(&mut tx, &row, at(1)).await.unwrap();
        }
        let wanted = IdSet::new(&[done, old, removing]);
        let some = async |tx: &mut Tx, state, reason| {
            let rows = assignments::some_of_policy(tx, policy, state, reason, None, 9).await.unwrap();
            rows.into_iter().map(|a| EnrollmentId(a.enrollment_id)).collect::<Vec<_>>()
        };
        assert_eq!(some(&mut tx, Some("removing"), None).await, [removing]);
        assert_eq!(some(&mut tx, None, None).await.len(), 4);
        assert!(some(&mut tx, Some("removing"), Some("policy_gone")).await.is_empty());
        let due = async |tx: &mut Tx, id| assignments::find(tx, policy, id).await.unwrap().unwrap().due_at;
        let stretch = Stretch { policy, after: Some(leaving), to: Some(removing) };
        assert_eq!(scopes::sweep(&mut tx, &stretch, &wanted, at(2)).await.unwrap(), 1);
        assert_eq!(due(&mut tx, removing).await, Some(at(2).0));
        let stretch = Stretch { policy, after: None, to: None };
        assert_eq!(scopes::sweep(&mut tx, &stretch, &wanted, at(3)).await.unwrap(), 3);
        assert_eq!(due(&mut tx, done).await, None);
        for id in [old, leaving, removing] {
            assert_eq!(due(&mut tx, id).await, Some(at(3).0));
        }
        assert_eq!(scopes::ring(&mut tx, policy, &IdSet::new(&[done, old]), 2, at(4)).await.unwrap(), 2);
        assert_eq!(scopes::ring(&mut tx, policy, &IdSet::new(&[done]), 2, at(5)).await.unwrap(), 0);
        let row = assignments::find(&mut tx, policy, done).await.unwrap().unwrap();
        assert_eq!((row.ring, row.due_at), (2, Some(at(4).0)));
        assert_eq!(scopes::due(&mut tx, &IdSet::new(&[done, leaving]), at(6)).await.unwrap(), 2);
        assert_eq!(due(&mut tx, leaving).await, Some(at(6).0));
        tx.commit().await.unwrap();
    })
    .await;
}
