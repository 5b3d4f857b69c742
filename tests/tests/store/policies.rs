use mdm_core::enrollment::{EnrollmentKind, EnrollmentState, UserKey};
use mdm_core::ids::{EnrollmentId, Label, PolicyId};
use store::policies::{self, NewRevision, Scope};
use store::{Error, Tx};

use super::{at, authenticated, enrolled, key, tokens, twice, word};

fn revision<'a>(name: &'a str, body: &'a str) -> NewRevision<'a> {
    NewRevision { name, body, payload_uuid: key(at(0)), created_by: "test" }
}

pub(crate) async fn policy(tx: &mut Tx) -> PolicyId {
    let id = PolicyId(key(at(0)));
    policies::insert(tx, id, &revision(&word("policy"), "{}"), at(0)).await.unwrap();
    id
}

#[tokio::test]
async fn each_edit_is_a_revision() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, name) = (PolicyId(key(at(0))), word("wifi"));
        policies::insert(&mut tx, id, &revision(&name, "{\"a\":1}"), at(0)).await.unwrap();
        let second = revision(&name, "{\"a\":2}");
        assert_eq!(policies::revise(&mut tx, id, &second, at(1)).await.unwrap(), Some(2));
        let found = policies::get(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((found.id(), found.revision, found.body.as_str()), (id, 2, "{\"a\":2}"));
        assert_eq!((found.payload_uuid, found.updated_at), (second.payload_uuid, at(1).0));
        assert_eq!(policies::by_name(&mut tx, &name).await.unwrap(), Some(found));
        tx.commit().await.unwrap();

        let mut tx = store.begin().await.unwrap();
        let taken = policies::insert(&mut tx, PolicyId(key(at(2))), &revision(&name, "{}"), at(2)).await.unwrap_err();
        assert!(matches!(taken, Error::Duplicate(_)), "{taken}");
        drop(tx);

        let mut tx = store.begin().await.unwrap();
        assert!(policies::delete(&mut tx, id, at(3)).await.unwrap());
        assert!(!policies::delete(&mut tx, id, at(4)).await.unwrap());
        assert!(policies::by_name(&mut tx, &name).await.unwrap().is_none());
        assert_eq!(policies::revise(&mut tx, id, &second, at(5)).await.unwrap(), None);
        assert_eq!(policies::get(&mut tx, id).await.unwrap().unwrap().deleted_at, Some(at(3).0));
        let again = PolicyId(key(at(6)));
        policies::insert(&mut tx, again, &revision(&name, "{}"), at(6)).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn policies_are_listed_by_name() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let prefix = word("list");
        let names: Vec<_> = ["a", "b", "c"].map(|end| format!("{prefix}-{end}")).into();
        for name in names.iter().rev() {
            policies::insert(&mut tx, PolicyId(key(at(0))), &revision(name, "{}"), at(0)).await.unwrap();
        }
        let listed = policies::list(&mut tx, &prefix, 3).await.unwrap();
        assert_eq!(listed.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>(), names);
        assert_eq!(policies::list(&mut tx, &names[1], 1).await.unwrap()[0].name, names[2]);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_scope_holds_devices_and_their_users() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (labelled, named, neither) = (enrolled(&mut tx).await, enrolled(&mut tx).await, enrolled(&mut tx).await);
        let user = EnrollmentId(key(at(2)));
        let anna = UserKey::SharedIpad("anna".parse().unwrap());
        store::enrollments::insert_user(&mut tx, user, labelled, EnrollmentKind::Device, &anna, at(2)).await.unwrap();
        let state = EnrollmentState::Enrolled { since: at(2) };
        store::enrollments::token_update(&mut tx, user, state, &tokens(), at(2)).await.unwrap();
        let label: Label = word("scope").parse().unwrap();
        store::labels::put(&mut tx, labelled, &label).await.unwrap();

        let policy = policy(&mut tx).await;
        let line = |kind: &str, value: &str| Scope { kind: kind.to_owned(), value: value.to_owned() };
        let lines = [line("enrollment", &named.0.simple().to_string()), line("label", label.as_str())];
        policies::set_scope(&mut tx, policy, &[line("all", "")]).await.unwrap();
        assert!(policies::matching(&mut tx, neither, neither).await.unwrap().contains(&policy));
        policies::set_scope(&mut tx, policy, &lines).await.unwrap();
        assert_eq!(policies::scope(&mut tx, policy).await.unwrap(), lines);
        for (enrollment, device, holds) in
            [(labelled, labelled, true), (user, labelled, true), (named, named, true), (neither, neither, false)]
        {
            let matching = policies::matching(&mut tx, enrollment, device).await.unwrap();
            assert_eq!(matching.contains(&policy), holds);
        }

        let ids = |rows: Vec<policies::InScope>| rows.into_iter().map(|row| EnrollmentId(row.id)).collect::<Vec<_>>();
        let by_label = ids(policies::enrolled_by_label(&mut tx, label.as_str()).await.unwrap());
        assert!(by_label.len() == 2 && by_label.contains(&labelled) && by_label.contains(&user));
        assert_eq!(ids(policies::enrolled_by_id(&mut tx, named).await.unwrap()), [named]);
        assert_eq!(policies::enrolled_by_id(&mut tx, labelled).await.unwrap().len(), 2);
        let not_yet = authenticated(&mut tx).await;
        let all = ids(policies::all_enrolled(&mut tx).await.unwrap());
        assert!(all.contains(&user) && all.contains(&neither) && !all.contains(&not_yet));
        tx.commit().await.unwrap();
    })
    .await;
}
