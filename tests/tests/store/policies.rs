use mdm_core::ids::PolicyId;
use store::policies::{self, NewRevision};
use store::{Error, Tx, rollouts};

use super::{at, key, twice, word};

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
        let all = policies::revisions(&mut tx, id, None, 10).await.unwrap();
        let told: Vec<_> = all.iter().map(|r| (r.revision, r.body.as_str(), r.created_at)).collect();
        assert_eq!(told, [(2, "{\"a\":2}", at(1).0), (1, "{\"a\":1}", at(0).0)]);
        assert_eq!(policies::revisions(&mut tx, id, Some(2), 10).await.unwrap(), all[1..]);
        assert_eq!(policies::revisions(&mut tx, id, None, 1).await.unwrap(), all[..1]);
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
async fn the_number_of_a_revision_is_never_used_again() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, name) = (PolicyId(key(at(0))), word("back"));
        policies::insert(&mut tx, id, &revision(&name, "{}"), at(0)).await.unwrap();
        assert_eq!(policies::revise(&mut tx, id, &revision(&name, "{\"a\":2}"), at(1)).await.unwrap(), Some(2));
        assert!(rollouts::point_back(&mut tx, id, 1, at(2)).await.unwrap());
        assert_eq!(policies::get(&mut tx, id).await.unwrap().unwrap().body, "{}");
        assert_eq!(policies::revise(&mut tx, id, &revision(&name, "{\"a\":3}"), at(3)).await.unwrap(), Some(3));
        assert_eq!(policies::get(&mut tx, id).await.unwrap().unwrap().body, "{\"a\":3}");
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn many_policies_are_read_at_once_and_an_older_revision_still_says_what_it_said() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (policy(&mut tx).await, policy(&mut tx).await);
        let gone = PolicyId(key(at(0)));
        let mut read: Vec<_> =
            policies::many(&mut tx, &[two, gone, one]).await.unwrap().iter().map(policies::Policy::id).collect();
        read.sort();
        assert_eq!(read, [one.min(two), one.max(two)]);
        let before = policies::get(&mut tx, one).await.unwrap().unwrap();
        policies::revise(&mut tx, one, &revision(&before.name, "{\"a\":2}"), at(1)).await.unwrap();
        let wording = policies::wording(&mut tx, one, 1).await.unwrap().unwrap();
        assert_eq!((wording.body, wording.payload_uuid), (before.body, before.payload_uuid));
        assert_eq!(policies::wording(&mut tx, one, 2).await.unwrap().unwrap().body, "{\"a\":2}");
        assert!(policies::wording(&mut tx, one, 3).await.unwrap().is_none());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_writes_a_policy_waits_for_who_writes_it() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, name) = (PolicyId(key(at(0))), word("wifi"));
        policies::insert(&mut tx, id, &revision(&name, "{}"), at(0)).await.unwrap();
        tx.commit().await.unwrap();
        let through = std::cell::Cell::new(false);
        let mut first = store.begin().await.unwrap();
        policies::lock(&mut first, id).await.unwrap();
        let end = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            policies::revise(&mut first, id, &revision(&name, "{\"a\":1}"), at(1)).await.unwrap();
            through.set(true);
            first.commit().await.unwrap();
        };
        let second = async {
            let mut second = store.begin().await.unwrap();
            policies::lock_name(&mut second, &name).await.unwrap();
            assert!(through.get(), "one after the other");
            let found = policies::get(&mut second, id).await.unwrap().unwrap();
            assert_eq!(found.revision, 2, "and it reads what the first has written");
            policies::lock_name(&mut second, "nobody").await.unwrap();
        };
        tokio::join!(end, second);
    })
    .await;
}
