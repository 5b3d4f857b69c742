use mdm_core::ids::Label;
use store::label_rules::{self, Row};

use super::{at, enrolled, twice, word};

#[tokio::test]
async fn a_rule_is_written_over_and_walks_anew() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let label: Label = word("rule").parse().unwrap();
        let other: Label = word("rule").parse().unwrap();
        assert_eq!(label_rules::get(&mut tx, &label).await.unwrap(), None);
        label_rules::put(&mut tx, &label, "{\"a\":1}", "alice", at(1)).await.unwrap();
        label_rules::put(&mut tx, &other, "{}", "alice", at(2)).await.unwrap();
        let first = Row {
            label: label.to_string(),
            body: "{\"a\":1}".to_owned(),
            revision: 1,
            apply_at: Some(at(1).0),
            apply_after: None,
            updated_by: "alice".to_owned(),
            updated_at: at(1).0,
        };
        assert_eq!(label_rules::get(&mut tx, &label).await.unwrap().as_ref(), Some(&first));
        assert!(label_rules::count(&mut tx).await.unwrap() >= 2);
        let all: Vec<_> = label_rules::all(&mut tx).await.unwrap().into_iter().map(|r| r.label).collect();
        assert!(all.contains(&label.to_string()) && all.contains(&other.to_string()) && all.is_sorted());

        assert_eq!(label_rules::next_walk(&mut tx, at(0)).await.unwrap(), None, "not yet");
        assert_eq!(label_rules::next_walk(&mut tx, at(3)).await.unwrap().as_ref(), Some(&first), "the longest");
        let enrollment = enrolled(&mut tx).await;
        label_rules::walked(&mut tx, &first.label, Some(enrollment)).await.unwrap();
        let next = label_rules::next_walk(&mut tx, at(3)).await.unwrap().unwrap();
        assert_eq!((next.label.as_str(), next.apply_after), (label.as_str(), Some(enrollment.0)));

        label_rules::put(&mut tx, &label, "{\"a\":2}", "bob", at(4)).await.unwrap();
        let second = label_rules::get(&mut tx, &label).await.unwrap().unwrap();
        assert_eq!((second.revision, second.apply_at, second.apply_after), (2, Some(at(4).0), None));
        assert_eq!((second.body.as_str(), second.updated_by.as_str()), ("{\"a\":2}", "bob"));
        for label in [&label, &other] {
            label_rules::postpone(&mut tx, label.as_str(), at(6)).await.unwrap();
        }
        assert_eq!(label_rules::next_walk(&mut tx, at(5)).await.unwrap(), None);
        for label in [&label, &other] {
            label_rules::walked(&mut tx, label.as_str(), None).await.unwrap();
        }
        assert_eq!(label_rules::next_walk(&mut tx, at(9)).await.unwrap(), None);
        assert!(label_rules::delete(&mut tx, &label).await.unwrap());
        assert!(!label_rules::delete(&mut tx, &label).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}
