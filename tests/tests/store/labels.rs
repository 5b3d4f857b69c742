use mdm_core::enrollment::{EnrollmentState, UnenrolledWhy};
use mdm_core::ids::Label;
use store::{IdSet, labels};

use super::{at, enrolled, twice, word};

#[tokio::test]
async fn a_label_holds_live_enrollments_once() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let label: Label = word("lab").parse().unwrap();
        let extra: Label = word("extra").parse().unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        assert!(labels::put(&mut tx, one, &label).await.unwrap());
        assert!(!labels::put(&mut tx, one, &label).await.unwrap());
        assert!(labels::put(&mut tx, one, &extra).await.unwrap());
        assert!(labels::put(&mut tx, two, &label).await.unwrap());
        let mut both = vec![one, two];
        both.sort();
        assert_eq!(labels::enrollments(&mut tx, &label).await.unwrap(), both);
        assert_eq!(labels::of(&mut tx, one).await.unwrap(), [extra.as_str(), label.as_str()]);

        let over = EnrollmentState::Unenrolled { at: at(1), why: UnenrolledWhy::Removed };
        store::enrollments::set_state(&mut tx, two, over).await.unwrap();
        assert_eq!(labels::enrollments(&mut tx, &label).await.unwrap(), [one]);
        assert!(labels::remove(&mut tx, one, &label).await.unwrap());
        assert!(!labels::remove(&mut tx, one, &label).await.unwrap());
        assert!(labels::enrollments(&mut tx, &label).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_label_goes_on_and_off_many_at_once() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let label: Label = word("many").parse().unwrap();
        let extra: Label = word("extra").parse().unwrap();
        let (one, two, three) = (enrolled(&mut tx).await, enrolled(&mut tx).await, enrolled(&mut tx).await);
        let all = IdSet::new(&[one, two, three]);
        labels::put(&mut tx, one, &label).await.unwrap();
        labels::put(&mut tx, one, &extra).await.unwrap();
        assert_eq!(labels::put_many(&mut tx, &IdSet::new(&[one, two]), &label).await.unwrap(), 1);
        let mut among = labels::among(&mut tx, &all, &label).await.unwrap();
        among.sort();
        let mut both = vec![one, two];
        both.sort();
        assert_eq!(among, both);
        assert_eq!(labels::count(&mut tx, &label).await.unwrap(), 2);
        let mut rows = labels::of_many(&mut tx, &all).await.unwrap();
        rows.sort_by(|a, b| (a.enrollment_id, &a.label).cmp(&(b.enrollment_id, &b.label)));
        let line = |id: mdm_core::ids::EnrollmentId, label: &Label| (id.0, label.to_string());
        let mut wanted = vec![line(one, &label), line(one, &extra), line(two, &label)];
        wanted.sort();
        assert_eq!(rows.into_iter().map(|r| (r.enrollment_id, r.label)).collect::<Vec<_>>(), wanted);
        assert_eq!(labels::remove_many(&mut tx, &IdSet::new(&[two, three]), &label).await.unwrap(), 1);
        assert_eq!(labels::among(&mut tx, &all, &label).await.unwrap(), [one]);
        assert_eq!(labels::put_many(&mut tx, &IdSet::new(&[]), &label).await.unwrap(), 0);
        tx.commit().await.unwrap();
    })
    .await;
}
